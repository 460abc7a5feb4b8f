//! What tracing costs where bytes are encrypted or multiplexed. In: a server. Out: ratios without, with, and with probes where other
//! tracers put them (at the first instruction of a function and at its return), how often each probe is hit, and what a hit costs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use spanwise_tests::agent::Options;
use spanwise_tests::bpf::{self, Owned};
use spanwise_tests::paths;
use spanwise_tests::proc::capture;
use spanwise_tests::sink::Sink;

use super::generator::{Generator, Run, ratio};
use super::measure::{self, Own};
use super::probes;
use super::subject::{Spoken, Subject};
use super::{Figure, figure, least, median, plain};

/// Probes that have this in their environment go where other tracers put theirs.
const NAIVE: (&str, &str) = ("SPANWISE_PLACEMENT", "naive");
/// Programs whose runs are hits of probes on user code begin so.
const PROBES: [&str; 3] = ["tls_", "go_", "up_"];

/// Where the probes are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placed {
    Nowhere,
    ByUs,
    Naively,
}

/// A probe on user code and what it took.
#[derive(Serialize)]
pub(super) struct Site {
    server: String,
    place: String,
    instruction: String,
    class: String,
    program: String,
    /// Of its program, over all its sites.
    hits_a_request: f64,
    /// Of its program.
    bpf_ns_a_hit: f64,
    /// Whole trap, where the table of instructions was measured too: nanoseconds, and the part of what `cmp` takes.
    trap_ns: Option<f64>,
    of_entry: Option<f64>,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>, digits| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        write!(
            f,
            "{:<18} {:<58} {:<26} {:<8} {:<13} {:>8.3} {:>8.0} {:>8} {:>8}",
            self.server,
            self.place,
            self.instruction,
            self.class,
            self.program,
            self.hits_a_request,
            self.bpf_ns_a_hit,
            number(self.trap_ns, 0),
            number(self.of_entry, 3)
        )
    }
}

/// The line above sites.
pub(super) fn header() -> String {
    format!(
        "{:<18} {:<58} {:<26} {:<8} {:<13} {:>8} {:>8} {:>8} {:>8}",
        "server", "site", "instruction", "class", "program", "hits/req", "BPF, ns", "trap, ns", "of cmp's"
    )
}

/// What is measured, for how long.
pub(super) struct Size {
    pub(super) seconds: u64,
    pub(super) rounds: u64,
}

/// Measures one server.
pub(super) fn main(
    subject: &Subject,
    dir: &Path,
    sink: &Sink,
    size: &Size,
    traps: &[probes::Row],
    figures: &mut Vec<Figure>,
) -> Result<Vec<Site>> {
    let app = subject.start(dir)?;
    let [connections, streams] = subject.spoken.shape();
    let generator = Generator::new(&app, subject, dir)?;
    let maximum = maximum(&generator)?;
    println!(
        "\n{}: {} rounds of {} s a load, {connections} connections of {streams} requests at once, at most {maximum:.0}/s",
        subject.name, size.rounds, size.seconds
    );
    let requests = count(maximum, size.seconds);
    let ways: &[Placed] = if subject.probed {
        &[Placed::Nowhere, Placed::ByUs, Placed::Naively]
    } else {
        &[Placed::Nowhere, Placed::ByUs]
    };
    let mut rounds: Vec<Vec<Round>> = ways.iter().map(|_| Vec::new()).collect();
    for number in 1..=size.rounds {
        for (way, all) in ways.iter().zip(&mut rounds) {
            // Some ten times slower is no reason to measure for ten times as long.
            let requests = if *way == Placed::Naively { requests / 4 } else { requests };
            let round = round(&generator, *way, [requests, maximum as u64], dir, sink, &app)?;
            println!("  {number}: {}{round}", name(*way));
            all.push(round);
        }
    }
    let Some((without, with)) = rounds.split_first() else { return Ok(Vec::new()) };
    let mut sites = Vec::new();
    for (way, all) in ways.iter().skip(1).zip(with) {
        let title =
            if *way == Placed::Naively { format!("{} naive", subject.name) } else { subject.name.into() };
        compare(&title, subject.spoken == Spoken::Http1, without, all, figures);
        let turn = hits(&generator, *way, (requests / 4).max(200), dir, sink, &app)?;
        figures.push(bounded(
            &title,
            "probe hits a request",
            turn.hits,
            subject.spoken == Spoken::Http1,
            0.0,
        ));
        figures.push(plain(&title, "BPF ns a hit of a probe", turn.ns_a_hit));
        figures.push(plain(&title, "BPF ns a request, all programs", turn.ns_a_request));
        sites.extend(turn.sites(&title, traps));
    }
    Ok(sites)
}

fn name(way: Placed) -> &'static str {
    match way {
        Placed::Nowhere => "without: ",
        Placed::ByUs => "with: ",
        Placed::Naively => "naive: ",
    }
}

/// Requests a second that the generator gets at most: a first load tells how long a second has to be.
fn maximum(generator: &Generator<'_>) -> Result<f64> {
    let first = generator.run(1_000, None)?.per_second;
    Ok(generator.run(count(first, 1), None)?.per_second)
}

/// Requests in so many seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "rates are positive and far below 2^52"
)]
fn count(rate: f64, seconds: u64) -> u64 {
    ((rate * seconds as f64) as u64).max(400)
}

/// An open loop at half the maximum, and a closed one.
struct Round {
    open: Run,
    closed: Run,
    own: Option<Own>,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open {}; closed {}", self.open, self.closed)?;
        self.own.as_ref().map_or(Ok(()), |own| write!(f, "; {own}"))
    }
}

fn round(
    generator: &Generator<'_>,
    way: Placed,
    [requests, maximum]: [u64; 2],
    dir: &Path,
    sink: &Sink,
    app: &spanwise_tests::apps::App,
) -> Result<Round> {
    let agent = match way {
        Placed::Nowhere => None,
        way => Some(attach(way, dir, sink, app)?),
    };
    let half = ratio(maximum, 2);
    let open = generator.run((requests / 2).max(200), Some(half))?;
    let closed = generator.run(requests, None)?;
    let own = agent.map(|agent| measure::finish(agent, sink, open.requests + closed.requests)).transpose()?;
    Ok(Round { open, closed, own })
}

/// Attaches and waits until the probes are there.
fn attach(way: Placed, dir: &Path, sink: &Sink, app: &spanwise_tests::apps::App) -> Result<measure::Running> {
    let mut options = Options::default();
    if way == Placed::Naively {
        options = options.env(NAIVE.0, NAIVE.1);
    }
    let mut running = measure::attach(app, dir, sink, options)?;
    // Files are looked at on a thread of their own, some of them a second after the start.
    let (begin, mut last) = (Instant::now(), usize::MAX);
    while begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(400));
        let now = Owned::by(running.pid())?.probes();
        if now == last && now > 0 {
            break;
        }
        last = now;
    }
    running.starts_to_count();
    Ok(running)
}

fn compare(title: &str, has_bounds: bool, without: &[Round], with: &[Round], figures: &mut Vec<Figure>) {
    let quotient =
        |of: fn(&Round) -> f64| median(with.iter().map(of)) / median(without.iter().map(of)).max(1e-9);
    let cpu = quotient(|round| round.open.cpu_us);
    let throughput = quotient(|round| round.closed.per_second);
    let rate = quotient(|round| round.open.per_second);
    figures.push(bounded(title, "open loop: server CPU a request, ratio", cpu, has_bounds, 1.12));
    figures.push(plain(title, "open loop: rate kept, ratio", rate));
    figures.push(plain(title, "open loop: p99, ratio", quotient(|round| round.open.p99_us)));
    figures.push(if has_bounds {
        least(title, "closed loop: throughput, ratio", throughput, 0.75)
    } else {
        plain(title, "closed loop: throughput, ratio", throughput)
    });
    figures.push(plain(
        title,
        "closed loop: server CPU a request, ratio",
        quotient(|round| round.closed.cpu_us),
    ));
    figures.push(plain(title, "closed loop: p99, ratio", quotient(|round| round.closed.p99_us)));
    let own = || with.iter().filter_map(|round| round.own.as_ref());
    figures.push(plain(title, "agent CPU us a span", median(own().map(|own| own.cpu_us_per_span))));
    figures.push(figure(
        title,
        "spans lost, worst round",
        own().map(|own| own.lost).fold(0.0, f64::max),
        0.0,
    ));
}

fn bounded(title: &str, what: &'static str, value: f64, has_bound: bool, bound: f64) -> Figure {
    if has_bound { figure(title, what, value, bound) } else { plain(title, what, value) }
}

/// What the programs did in a turn in which the kernel measured them, which costs something by itself.
struct Turn {
    hits: f64,
    ns_a_hit: f64,
    ns_a_request: f64,
    /// Programs that were hit: hits a request, nanoseconds a hit.
    programs: BTreeMap<String, (f64, f64)>,
    /// What `ps --probes` lists.
    listed: Value,
}

fn hits(
    generator: &Generator<'_>,
    way: Placed,
    requests: u64,
    dir: &Path,
    sink: &Sink,
    app: &spanwise_tests::apps::App,
) -> Result<Turn> {
    let agent = attach(way, dir, sink, app)?;
    let owned = Owned::by(agent.pid())?;
    let measuring = bpf::measure()?;
    let before = owned.costs()?;
    generator.run(requests, None)?;
    let after = owned.costs()?;
    drop(measuring);
    let process = app.pids().into_iter().max().context("the server is gone")?;
    let mut command = Command::new(paths::agent()?);
    command.args(["ps", "--json", "--probes", &process.to_string()]);
    if way == Placed::Naively {
        command.env(NAIVE.0, NAIVE.1);
    }
    let listed =
        serde_json::from_str(&capture(&mut command)?).context("`ps --probes` said something else")?;
    measure::finish(agent, sink, requests)?;
    let (mut runs, mut time, mut all, mut programs) = (0, 0, 0, BTreeMap::new());
    for (name, (count, ns)) in after {
        let (count_before, ns_before) = before.get(&name).copied().unwrap_or_default();
        let (count, ns) = (count - count_before, ns - ns_before);
        all += ns;
        if count > 0 {
            println!(
                "    {}{name}: {:.3} runs a request of {:.0} ns",
                self::name(way),
                ratio(count, requests),
                ratio(ns, count)
            );
        }
        if count > 0 && PROBES.iter().any(|start| name.starts_with(start)) {
            runs += count;
            time += ns;
            programs.insert(name, (ratio(count, requests), ratio(ns, count)));
        }
    }
    ensure!(all > 0, "the kernel measured no program");
    let ns_a_hit = if runs == 0 { 0.0 } else { ratio(time, runs) };
    Ok(Turn { hits: ratio(runs, requests), ns_a_hit, ns_a_request: ratio(all, requests), programs, listed })
}

impl Turn {
    /// The sites of the programs that were hit.
    fn sites(&self, server: &str, traps: &[probes::Row]) -> Vec<Site> {
        let files = self.listed.get("files").and_then(Value::as_array).into_iter().flatten();
        let instruments = files.filter_map(|file| file.get("instruments")?.as_array()).flatten();
        let sites = instruments.filter_map(|instrument| instrument.get("sites")?.as_array()).flatten();
        let text = |site: &Value, key: &str| site.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let entry = traps.first().map(|row| row.trap);
        let described = sites.filter_map(|site| {
            let program = text(site, "program");
            let (hits_a_request, bpf_ns_a_hit) = *self.programs.get(&program)?;
            let from = site.get("from_start").and_then(Value::as_u64).unwrap_or(0);
            let (instruction, class) = (text(site, "instruction"), text(site, "class"));
            let trap_ns = probes::trap_of(traps, &instruction, &class);
            Some(Site {
                server: server.to_owned(),
                place: format!("{}+{from:#x}", text(site, "function")),
                instruction,
                class,
                program,
                hits_a_request,
                bpf_ns_a_hit,
                trap_ns,
                of_entry: trap_ns.zip(entry).map(|(trap, entry)| trap / entry),
            })
        });
        described.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_those_of_the_programs_that_were_hit() {
        let listed = serde_json::json!({ "files": [{ "instruments": [{ "sites": [
            { "program": "tls_enter", "function": "SSL_read", "from_start": 18, "instruction": "push rbx", "class": "push" },
            { "program": "tls_new", "function": "SSL_new", "from_start": 0, "instruction": "push rbx", "class": "push" },
        ] }] }] });
        let programs = BTreeMap::from([("tls_enter".to_owned(), (2.0, 150.0))]);
        let turn = Turn { hits: 2.0, ns_a_hit: 150.0, ns_a_request: 900.0, programs, listed };
        let row = |instruction: &str, class: &str, trap| probes::Row {
            instruction: instruction.into(),
            class: class.into(),
            hits_per_call: 1.0,
            program: 50.0,
            trap,
        };
        let traps = [row("cmp rsi, rdi", "stepped", 10_000.0), row("push rbx", "push", 600.0)];
        let sites = turn.sites("x", &traps);
        assert_eq!(sites.len(), 1);
        assert_eq!((sites[0].place.as_str(), sites[0].trap_ns), ("SSL_read+0x12", Some(600.0)));
        assert!((sites[0].of_entry.unwrap() - 0.06).abs() < 1e-9);
        assert!(turn.sites("x", &[])[0].of_entry.is_none());
    }

    #[test]
    fn loads_are_never_empty() {
        assert_eq!((count(1_000.0, 3), count(3.0, 1)), (3_000, 400));
    }
}
