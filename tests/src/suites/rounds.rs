//! Again and again. In: an agent that is killed 50 times under load, one that comes and goes 40 times (1,000 at full size), 4,000
//! short-lived processes (10,000), half a minute of everything at once (a minute). Out: no failed request, and nothing that grows.

use std::time::Duration;

use anyhow::Result;

use crate::rounds::{self, End};
use crate::runner::{Case, Context, full};

pub(super) const CASES: &[Case] = &[
    Case { name: "rounds/kill9", seconds: 300, run: |context| again(context, 50, End::Killed) },
    // A round takes a third of a second, so at full size it is minutes.
    Case { name: "rounds/attach", seconds: 1_200, run: attach },
    Case { name: "rounds/processes", seconds: 300, run: processes },
    // `cargo xtask soak` takes an hour.
    Case { name: "rounds/soak", seconds: 180, run: soak },
];

fn again(context: &Context, count: u64, end: End) -> Result<()> {
    let shown = rounds::rounds(&context.dir, count, end)?;
    println!("    {shown}");
    Ok(())
}

fn attach(context: &Context) -> Result<()> {
    again(context, if full() { 1_000 } else { 40 }, End::Asked)
}

fn processes(context: &Context) -> Result<()> {
    let count = if full() { 10_000 } else { 4_000 };
    let (course, report) = rounds::processes(&context.dir, count)?;
    let (first, last) = course.ends();
    println!(
        "    {count} processes: the agent's memory {first} -> {last} KiB, {} spans",
        report.spans.all.len()
    );
    course.flat("the agent", 5)
}

fn soak(context: &Context) -> Result<()> {
    println!("    {}", crate::soak::soak(&context.dir, Duration::from_secs(if full() { 60 } else { 30 }))?);
    Ok(())
}
