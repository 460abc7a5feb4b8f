//! `bench`: what tracing costs. In: nginx and a Go server, with and without the agent in alternation, in one run. Out: the
//! ratios, what the agent itself needs, and whether each keeps its bound. It compares on one machine in one quarter of an hour:
//! figures of different runs or machines are not comparable.

mod measure;
mod probes;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use spanwise_tests::apps::{App, Kind, Setup};
use spanwise_tests::cleanup;
use spanwise_tests::sink::Sink;

use crate::run::{self, Options};
use crate::setup;
use measure::{Closed, Open, Own};

/// One figure against its bound.
#[derive(Serialize)]
struct Figure {
    server: String,
    what: &'static str,
    value: f64,
    bound: f64,
    /// Whether larger is better.
    at_least: bool,
}

impl Figure {
    fn good(&self) -> bool {
        if self.at_least { self.value >= self.bound } else { self.value <= self.bound }
    }
}

/// The `bench` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let seconds = options.number("--seconds", 10)?.max(1);
    let rounds = options.number("--rounds", 3)?.max(1);
    let json = options.value("--json")?;
    let only = options.value("--only")?;
    options.finish()?;
    run::need_root("`cargo xtask bench`")?;
    if only.as_deref() == Some("probes") {
        // What a hit costs is the kernel's and the BPF program's, whatever the agent was built with.
        run::build_agent("quick")?;
        return probes::main(rounds);
    }
    setup::main(&[])?;
    let binary = run::build_agent("release")?;
    let sink = Sink::start()?;

    let mut figures = Vec::new();
    for kind in [Kind::Nginx, Kind::Go("direct")] {
        let folder = tempfile::Builder::new().prefix("spanwise-bench-").tempdir()?;
        cleanup::add_folder(folder.path());
        let app = Setup::new(kind, folder.path()).start()?;
        if only.as_ref().is_some_and(|only| !app.name.contains(only.as_str())) {
            continue;
        }
        println!("\n{}: {rounds} rounds of {seconds} s with and without the agent, 16 connections", app.name);
        server(&app, folder.path(), &sink, seconds, rounds, &mut figures)?;
    }
    let size = fs::metadata(&binary).with_context(|| format!("no {}", binary.display()))?.len();
    figures.push(figure("agent", "binary, MB", megabytes(size), 68.0));

    println!("\n{:<10} {:<44} {:>10} {:>12}", "server", "what", "value", "bound");
    for figure in &figures {
        let sign = if figure.at_least { ">=" } else { "<=" };
        let verdict = if figure.good() { "" } else { "  MISSED" };
        println!(
            "{:<10} {:<44} {:>10.3} {:>2} {:>9.3}{verdict}",
            figure.server, figure.what, figure.value, sign, figure.bound
        );
    }
    if let Some(path) = json {
        fs::write(&path, serde_json::to_string_pretty(&figures)?)
            .with_context(|| format!("cannot write {path}"))?;
    }
    let missed = figures.iter().filter(|figure| !figure.good()).count();
    println!("\n{} figures, {missed} beyond their bound", figures.len());
    Ok(())
}

fn figure(server: &str, what: &'static str, value: f64, bound: f64) -> Figure {
    Figure { server: server.to_owned(), what, value, bound, at_least: false }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn server(
    app: &App,
    dir: &Path,
    sink: &Sink,
    seconds: u64,
    rounds: u64,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let name = app.name.clone();
    let rate = measure::maximum(app)? / 2.0;
    println!("  open loop at half the maximum: {rate:.0} requests/s");
    let (mut off, mut on, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let without = measure::open(app, rate, seconds)?;
        let agent = measure::agent(app, dir, sink)?;
        let with = measure::open(app, rate, seconds)?;
        let mine = measure::finish(agent, sink, with.answers)?;
        println!("  {round}: without {without}; with {with}; {mine}");
        off.push(without);
        on.push(with);
        own.push(mine);
    }
    let ratio = |of: fn(&Open) -> f64| median(on.iter().map(of)) / median(off.iter().map(of)).max(1e-9);
    figures.push(figure(&name, "open loop: server CPU a request, ratio", ratio(|run| run.cpu_us), 1.10));
    figures.push(figure(&name, "open loop: p99, ratio", ratio(|run| run.p99_us), 1.15));
    println!("  open loop: p50 ratio {:.3}", ratio(|run| run.p50_us));
    agent_figures(&name, &own, figures);

    println!("  closed loop with wrk");
    let (mut off, mut on, mut lost) = (Vec::new(), Vec::new(), 0.0_f64);
    for round in 1..=rounds {
        let without = measure::closed(app, dir, seconds)?;
        let agent = measure::agent(app, dir, sink)?;
        let with = measure::closed(app, dir, seconds)?;
        let mine = measure::finish(agent, sink, with.requests)?;
        println!("  {round}: without {without}; with {with}; {mine}");
        lost = lost.max(mine.lost);
        off.push(without);
        on.push(with);
    }
    let rate = |runs: &[Closed]| median(runs.iter().map(|run| run.per_second));
    figures.push(Figure {
        server: name.clone(),
        what: "closed loop: throughput, ratio",
        value: rate(&on) / rate(&off).max(1e-9),
        bound: 0.75,
        at_least: true,
    });
    figures.push(figure(&name, "closed loop: spans lost, worst round", lost, 0.0));

    let bpf = measure::bpf(app, dir, sink, seconds)?;
    figures.push(figure(&name, "BPF ns a message", bpf.traced, 350.0));
    figures.push(figure(&name, "BPF ns a message of an untraced process", bpf.untraced, 150.0));
    Ok(())
}

fn agent_figures(name: &str, own: &[Own], figures: &mut Vec<Figure>) {
    let middle = |of: fn(&Own) -> f64| median(own.iter().map(of));
    let worst = |of: fn(&Own) -> f64| own.iter().map(of).fold(0.0, f64::max);
    figures.push(figure(name, "agent CPU us a span", middle(|run| run.cpu_us_per_span), 5.0));
    figures.push(figure(name, "agent RSS peak, MB, worst round", worst(|run| run.peak_mb), 40.0));
    figures.push(figure(name, "maps, MB", middle(|run| run.maps_mb), 32.0));
    figures.push(figure(name, "attach, ms", middle(|run| run.attach_ms), 300.0));
    figures.push(figure(
        name,
        "attach to first span at the backend, ms",
        middle(|run| run.first_span_ms),
        1_000.0,
    ));
    figures.push(figure(name, "open loop: spans lost, worst round", worst(|run| run.lost), 0.0));
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!(median(std::iter::empty()).abs() < 1e-9);
    }

    #[test]
    fn bounds_go_both_ways() {
        assert!(figure("x", "y", 1.0, 1.1).good());
        assert!(!figure("x", "y", 1.2, 1.1).good());
        let least = Figure { server: "x".into(), what: "y", value: 0.8, bound: 0.75, at_least: true };
        assert!(least.good());
    }
}
