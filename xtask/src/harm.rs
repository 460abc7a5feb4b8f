//! `harm`: is anything harmed by tracing? In: web servers, PostgreSQL, Redis, an untraced program, rounds of attaching. Out: what
//! failed, whether answers differ, and ratios of throughput and latency with the ratio of two runs without the agent beside
//! them, which is the noise. A failure ends it with an error; ratios are for people.

mod untraced;

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use spanwise_tests::cleanup;
use spanwise_tests::harm::{self, Subject};
use spanwise_tests::rounds::{self, End};

use crate::run::{self, Options};
use crate::setup;

/// What is printed and written for one application.
#[derive(Serialize)]
struct Row {
    application: String,
    requests: u64,
    failed: u64,
    same_answers: bool,
    spans: u64,
    /// Median latency with the agent, by without; and after by before.
    p50: (f64, f64),
    /// The same of the 99th percentile.
    p99: (f64, f64),
    /// The same of answers a second.
    throughput: (f64, f64),
    error: Option<String>,
}

/// The `harm` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let seconds = options.number("--seconds", 10)?.max(1);
    let only = options.value("--only")?;
    let json = options.value("--json")?;
    let count = options.number("--rounds", 0)?;
    options.finish()?;
    run::need_root("`cargo xtask harm`")?;
    setup::main(&[])?;
    run::build_agent("release")?;
    run::build_exerciser()?;
    let chosen = |name: &str| only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    if count > 0 {
        return attach_rounds(count);
    }
    let mut failures = Vec::new();
    let mut rows = Vec::new();
    for name in harm::NAMES.iter().filter(|name| chosen(name)) {
        println!("{name}: {seconds} s without, with and without the agent");
        let row = application(name, seconds)?;
        failures.extend(row.error.iter().map(|error| format!("{name}: {error}")));
        rows.push(row);
    }
    let taxes = if chosen("untraced") { untraced::measure(seconds)? } else { Vec::new() };
    if rows.is_empty() && taxes.is_empty() {
        bail!("nothing is called so: choose from {}, untraced", harm::NAMES.join(", "));
    }
    print(&rows);
    untraced::print(&taxes);
    if let Some(path) = json {
        let all = serde_json::json!({"applications": rows, "untraced": taxes});
        fs::write(&path, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("cannot write {path}"))?;
    }
    if failures.is_empty() { Ok(()) } else { bail!("harm was done: {}", failures.join("; ")) }
}

fn application(name: &str, seconds: u64) -> Result<Row> {
    let folder = tempfile::Builder::new().prefix("spanwise-harm-").tempdir()?;
    cleanup::add_folder(folder.path());
    let subject = Subject::start(name, folder.path())?;
    let comparison = harm::compare(&subject, folder.path(), seconds)?;
    let phases = [&comparison.before, &comparison.with, &comparison.after];
    Ok(Row {
        application: name.to_owned(),
        requests: comparison.with.load.requests,
        failed: phases.iter().map(|phase| phase.load.failed).sum(),
        same_answers: phases.iter().all(|phase| phase.digest == comparison.before.digest),
        spans: comparison.spans,
        p50: comparison.ratios(|load| f64::from(load.p50_us)),
        p99: comparison.ratios(|load| f64::from(load.p99_us)),
        throughput: comparison.ratios(|load| load.per_second),
        error: comparison.check(subject.is_web()).err().map(|error| format!("{error:#}")),
    })
}

fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\n{:<10} {:>9} {:>6} {:>7} {:>9} {:>15} {:>15} {:>15}",
        "", "requests", "failed", "answers", "spans", "p50 (A-A)", "p99 (A-A)", "rate (A-A)"
    );
    let pair = |(ratio, noise): (f64, f64)| format!("{ratio:.2} ({noise:.2})");
    for row in rows {
        println!(
            "{:<10} {:>9} {:>6} {:>7} {:>9} {:>15} {:>15} {:>15}",
            row.application,
            row.requests,
            row.failed,
            if row.same_answers { "same" } else { "DIFFER" },
            row.spans,
            pair(row.p50),
            pair(row.p99),
            pair(row.throughput)
        );
    }
}

/// Attaching and detaching so many times.
fn attach_rounds(count: u64) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("spanwise-harm-").tempdir()?;
    cleanup::add_folder(folder.path());
    println!("{count} rounds of attaching to a loaded nginx and leaving again");
    println!("{}", rounds::rounds(folder.path(), count, End::Asked)?);
    let processes = 10 * count.max(100);
    let (course, _) = rounds::processes(folder.path(), processes)?;
    let (first, last) = course.ends();
    println!("{processes} short-lived processes: the agent's memory {first} -> {last} KiB");
    course.flat("the agent", 5)
}
