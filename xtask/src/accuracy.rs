//! `accuracy`: are the parents right? In: programs of several kinds, in clear and with TLS, at 1, 8 and 64 requests at once (Go at
//! 256 too), with a number in every path or method. Out: right, wrong, abstained; the agent's own estimate of its precision against the truth; a table, and JSON.

mod scene;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use spanwise_tests::agent::{Agent, Options as Agents};
use spanwise_tests::cleanup;
use spanwise_tests::judge::{self, Verdict};

use crate::run::{self, Options};
use crate::setup;
use scene::{Measured, Scene};

#[derive(Serialize)]
struct Row {
    program: String,
    at_once: usize,
    /// Requests before those that count.
    warm: u64,
    /// Client spans of the program among those.
    learning: Verdict,
    /// Client spans of the program, once warm.
    calls: Verdict,
    /// Server spans of what it calls, from the first request on.
    joined: Verdict,
}

/// The `accuracy` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let requests = options.number("--requests", 1_000)?;
    let only = options.value("--only")?;
    let json = options.value("--json")?;
    let warm = options
        .value("--warm")?
        .map(|text| text.parse::<u64>())
        .transpose()
        .context("--warm needs a number")?;
    let record = options.value("--record")?;
    options.finish()?;
    run::need_root("`cargo xtask accuracy`")?;
    setup::main(&[])?;
    run::build_agent("quick")?;

    println!(
        "\n{requests} requests each (at most 300 one at a time), once warm; what is called answers after 0 to 10 ms\n"
    );
    println!(
        "{:<24} {:>7} {:>8} {:>9} {:>9} {:>9} {:>8} {:>10} {:>7}  how (claimed)",
        "program", "at once", "warm-up", "right %", "wrong %", "abst. %", "missing", "estimated", "true"
    );
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for (kind, calls) in scene::all() {
        if only.as_deref().is_some_and(|word| !kind.name().contains(word)) {
            continue;
        }
        for at_once in kind.at_once().iter().copied() {
            // One at a time takes long, and there is little to get wrong.
            let requests = if at_once == 1 { requests.min(300) } else { requests };
            let warm = warm.unwrap_or_else(|| kind.warm(at_once));
            match measure(kind, calls, at_once, [warm, requests], record.as_deref()) {
                Ok(found) => {
                    found.iter().for_each(print);
                    rows.extend(found);
                }
                // The others are worth knowing all the same.
                Err(error) => {
                    println!("{} at {at_once}: {error:#}", kind.name());
                    failed.push(format!("{} at {at_once}", kind.name()));
                }
            }
            cleanup::now();
            if let Some(path) = &json {
                std::fs::write(path, serde_json::to_string_pretty(&rows)?)
                    .with_context(|| format!("cannot write {path}"))?;
            }
        }
    }
    ensure!(
        !(rows.is_empty() && failed.is_empty()),
        "no program has `{}` in its name",
        only.unwrap_or_default()
    );
    ensure!(failed.is_empty(), "could not be measured: {}", failed.join(", "));
    Ok(())
}

fn measure(
    kind: Measured,
    calls: u64,
    at_once: usize,
    [warm, requests]: [u64; 2],
    record: Option<&str>,
) -> Result<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("spanwise-accuracy-").tempdir()?;
    cleanup::add_folder(folder.path());
    let dir = folder.path();
    let total = warm + requests;
    let mut scene = Scene::set(kind, dir, at_once, total)?;
    let mut agents = Agents::default();
    if let Some(folder) = record {
        agents = agents.arg(&["--record", &format!("{folder}/{}-{at_once}.rec", kind.name())]);
    }
    let agent = Agent::attach(dir, &scene.pids(), &agents)?;
    scene.load.run()?;
    std::thread::sleep(Duration::from_millis(800));
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let judged = scene.services.windows(2).map(|pair| {
        let [service, next] = pair else { return None };
        let program =
            if scene.services.len() > 2 { format!("{} {service}", kind.name()) } else { kind.name() };
        Some(Row {
            program,
            at_once,
            warm,
            learning: judge::calls(&report.spans, service, 1, warm, calls),
            calls: judge::calls(&report.spans, service, warm + 1, total, calls),
            joined: judge::served(&report.spans, next, 1, total, calls),
        })
    });
    Ok(judged.flatten().collect())
}

fn print(row: &Row) {
    let calls = &row.calls;
    #[expect(clippy::cast_precision_loss, reason = "numbers of spans are far below 2^52")]
    let percent = |count: u64| 100.0 * count as f64 / calls.expected.max(1) as f64;
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let how: Vec<String> =
        calls.sources.iter().map(|(name, (claimed, _))| format!("{name} {claimed}")).collect();
    println!(
        "{:<24} {:>7} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>8} {:>10} {:>7}  {}",
        row.program,
        row.at_once,
        row.warm,
        percent(calls.right),
        percent(calls.wrong),
        percent(calls.abstained),
        calls.missing,
        number(calls.estimated),
        number(calls.precision()),
        how.join(", ")
    );
    if row.learning.wrong > 0 {
        println!("    while it learns: {}", row.learning.line());
    }
    if row.joined.right != row.joined.expected {
        println!("    joined by connection: {}", row.joined.line());
    }
}
