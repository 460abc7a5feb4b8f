//! `bench`: what tracing costs. In: servers in clear and with TLS, HTTP/1, HTTP/2 and gRPC, with and without the agent in
//! alternation. Out: the ratios, what the agent itself needs, what probes on user code take, and whether each keeps its bound. It
//! compares on one machine within minutes: figures of different runs or machines are not comparable.

mod generator;
mod layers;
mod measure;
mod probes;
mod subject;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use spanwise_tests::apps::{App, Kind, Setup};
use spanwise_tests::bpf;
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
    /// None where a figure is only told.
    bound: Option<f64>,
    /// Whether larger is better.
    at_least: bool,
}

impl Figure {
    fn good(&self) -> bool {
        let Some(bound) = self.bound else { return true };
        if self.at_least { self.value >= bound } else { self.value <= bound }
    }
}

/// All that was measured.
#[derive(Default, Serialize)]
struct Measured {
    figures: Vec<Figure>,
    /// Probes on user code that were hit.
    sites: Vec<layers::Site>,
    /// What a probe costs by the instruction under it.
    instructions: Vec<probes::Row>,
}

impl Measured {
    /// Written after each server, so that what was measured is there if something goes wrong later.
    fn write(&self, path: Option<&str>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        fs::write(path, serde_json::to_string_pretty(self)?).with_context(|| format!("cannot write {path}"))
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
    // Whoever is named is meant alone: `nginx` is not `nginx-https` too.
    let plain_servers = [Kind::Nginx, Kind::Go("direct")];
    let mut names: Vec<String> = vec!["probes".into()];
    names.extend(plain_servers.map(Kind::name));
    names.extend(subject::ALL.iter().map(|subject| subject.name.to_owned()));
    let named = only.as_ref().is_some_and(|only| names.contains(only));
    let chosen = |name: &str| {
        only.as_ref().is_none_or(|only| if named { name == only } else { name.contains(only.as_str()) })
    };
    ensure!(
        names.iter().any(|name| chosen(name)),
        "nothing to measure has `{}` in its name: there are {}",
        only.as_deref().unwrap_or_default(),
        names.join(", ")
    );
    setup::main(&[])?;
    let binary = run::build_agent("release")?;
    let sink = Sink::start()?;

    if bpf::is_measured()? {
        println!(
            "the kernel measures every BPF program already, which makes each run some 40 ns slower: set kernel.bpf_stats_enabled to 0"
        );
    }
    let mut all = Measured::default();
    let mut failed = Vec::new();
    let begin = Instant::now();
    if chosen("probes") {
        match probes::main(rounds) {
            Ok(rows) => all.instructions = rows,
            Err(error) => failed.push(format!("probes: {error:#}")),
        }
        match probes::growth() {
            Ok([ours, naive]) => {
                all.figures.push(figure("go-growth", "hits a call while stacks grow", ours, 1.0));
                all.figures.push(plain("go-growth naive", "hits a call while stacks grow", naive));
            }
            Err(error) => failed.push(format!("probes: {error:#}")),
        }
        all.write(json.as_deref())?;
    }
    for kind in plain_servers.into_iter().filter(|kind| chosen(&kind.name())) {
        if let Err(error) = in_folder(|dir| {
            let app = Setup::new(kind, dir).start()?;
            println!(
                "\n{}: {rounds} rounds of {seconds} s with and without the agent, 16 connections",
                app.name
            );
            server(&app, dir, &sink, seconds, rounds, &mut all.figures)
        }) {
            failed.push(format!("{}: {error:#}", kind.name()));
        }
        all.write(json.as_deref())?;
    }
    let size = layers::Size { seconds, rounds };
    for subject in subject::ALL.iter().filter(|subject| chosen(subject.name)) {
        let Measured { figures, sites, instructions } = &mut all;
        if let Err(error) = in_folder(|dir| {
            sites.extend(layers::main(subject, dir, &sink, &size, instructions, figures)?);
            Ok(())
        }) {
            failed.push(format!("{}: {error:#}", subject.name));
        }
        all.write(json.as_deref())?;
    }
    if only.is_none() {
        let size = fs::metadata(&binary).with_context(|| format!("no {}", binary.display()))?.len();
        all.figures.push(figure("agent", "binary, MB", megabytes(size), 68.0));
        all.write(json.as_deref())?;
    }
    print(&all);
    println!("{:.0} s", begin.elapsed().as_secs_f64());
    ensure!(failed.is_empty(), "could not be measured: {}", failed.join("; "));
    Ok(())
}

/// Does something with a folder, and takes away what it left.
fn in_folder(work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("spanwise-bench-").tempdir()?;
    cleanup::add_folder(folder.path());
    work(folder.path())
}

fn print(all: &Measured) {
    if !all.sites.is_empty() {
        println!("\n{}", layers::header());
        for site in &all.sites {
            println!("{site}");
        }
    }
    println!("\n{:<18} {:<44} {:>10} {:>12}", "server", "what", "value", "bound");
    for figure in &all.figures {
        let sign = if figure.at_least { ">=" } else { "<=" };
        let bound = figure.bound.map_or_else(String::new, |bound| format!("{sign} {bound:>9.3}"));
        let verdict = if figure.good() { "" } else { "  MISSED" };
        println!("{:<18} {:<44} {:>10.3} {bound:>12}{verdict}", figure.server, figure.what, figure.value);
    }
    let missed = all.figures.iter().filter(|figure| !figure.good()).count();
    println!("\n{} figures, {missed} beyond their bound", all.figures.len());
}

fn figure(server: &str, what: &'static str, value: f64, bound: f64) -> Figure {
    Figure { server: server.to_owned(), what, value, bound: Some(bound), at_least: false }
}

fn least(server: &str, what: &'static str, value: f64, bound: f64) -> Figure {
    Figure { at_least: true, ..figure(server, what, value, bound) }
}

/// One without a bound.
fn plain(server: &str, what: &'static str, value: f64) -> Figure {
    Figure { bound: None, ..figure(server, what, value, 0.0) }
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
    figures.push(least(&name, "closed loop: throughput, ratio", rate(&on) / rate(&off).max(1e-9), 0.75));
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
        assert!(least("x", "y", 0.8, 0.75).good());
        assert!(!least("x", "y", 0.7, 0.75).good());
        assert!(plain("x", "y", 1e9).good());
    }
}
