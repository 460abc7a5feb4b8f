//! Again and again. In: an agent that is killed 50 times under load, one that comes and goes, 10,000 short-lived processes, a
//! minute of everything at once. Out: no failed request, and nothing that grows.

use std::time::Duration;

use anyhow::Result;

use crate::rounds::{self, End};
use crate::runner::{Case, Context};

pub(super) const CASES: &[Case] = &[
    Case { name: "rounds/kill9", seconds: 300, run: |context| again(context, 50, End::Killed) },
    // `cargo xtask harm --rounds 1000` makes more of them.
    Case { name: "rounds/attach", seconds: 300, run: |context| again(context, 40, End::Asked) },
    Case { name: "rounds/processes", seconds: 300, run: processes },
    // `cargo xtask soak` takes an hour.
    Case { name: "rounds/soak", seconds: 180, run: soak },
];

fn again(context: &Context, count: u64, end: End) -> Result<()> {
    let shown = rounds::rounds(&context.dir, count, end)?;
    println!("    {shown}");
    Ok(())
}

fn processes(context: &Context) -> Result<()> {
    let (course, report) = rounds::processes(&context.dir, 10_000)?;
    let (first, last) = course.ends();
    println!(
        "    10000 processes: the agent's memory {first} -> {last} KiB, {} spans",
        report.spans.all.len()
    );
    course.flat("the agent", 5)
}

fn soak(context: &Context) -> Result<()> {
    println!("    {}", crate::soak::soak(&context.dir, Duration::from_secs(60))?);
    Ok(())
}
