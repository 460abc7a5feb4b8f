//! The single measurements. In: a running server, a rate, a time. Out: CPU, latency, throughput; what the agent itself took.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spanwise_tests::agent::{Agent, Options};
use spanwise_tests::apps::App;
use spanwise_tests::bpf::{self, Owned};
use spanwise_tests::load::{Connection, Plan, Until, wrk};
use spanwise_tests::sink::Sink;
use spanwise_tests::stats::Stats;

const CONNECTIONS: usize = 16;
const PATH: &str = "/";

/// A run at a constant rate.
pub(super) struct Open {
    pub(super) cpu_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) answers: u64,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} us CPU, p50 {:.0} us, p99 {:.0} us", self.cpu_us, self.p50_us, self.p99_us)
    }
}

/// A run as fast as it goes.
pub(super) struct Closed {
    pub(super) per_second: f64,
    pub(super) requests: u64,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s", self.per_second)
    }
}

/// What the agent took.
pub(super) struct Own {
    pub(super) cpu_us_per_span: f64,
    pub(super) peak_mb: f64,
    pub(super) maps_mb: f64,
    pub(super) attach_ms: f64,
    pub(super) first_span_ms: f64,
    pub(super) lost: f64,
    rss_mb: f64,
    spans: u64,
    /// What was dropped on the way, in words: also what is told in another way, such as the ciphertext of what was read in plaintext.
    drops: String,
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "agent {} spans, {:.0} lost, {:.2} us a span, RSS {:.0} (peak {:.0}) MB, dropped: {}",
            self.spans, self.lost, self.cpu_us_per_span, self.rss_mb, self.peak_mb, self.drops
        )
    }
}

/// An agent under measurement.
pub(super) struct Running {
    agent: Agent,
    /// Spans at the sink when it began.
    before: u64,
    first_span: Duration,
    maps: u64,
    /// Requests that were made beside the load.
    more: u64,
    /// CPU time of the agent that does not count.
    cpu_before: u64,
}

impl Running {
    /// The agent's process.
    pub(super) fn pid(&self) -> u32 {
        self.agent.proc.pid()
    }

    /// From now on its CPU time counts: not what it took to look at programs.
    pub(super) fn starts_to_count(&mut self) {
        self.cpu_before = self.agent.proc.cpu_us();
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Requests a second that our own client gets at most.
pub(super) fn maximum(app: &App) -> Result<f64> {
    let plan = Plan::new(app.target(), CONNECTIONS, Until::Time(Duration::from_secs(2)), PATH);
    plan.run()?.all_good()?;
    Ok(plan.run()?.all_good()?.per_second())
}

pub(super) fn open(app: &App, rate: f64, seconds: u64) -> Result<Open> {
    let mut plan = Plan::new(app.target(), CONNECTIONS, Until::Time(Duration::from_secs(seconds)), PATH);
    plan.rate = Some(rate);
    let before = app.proc.cpu_us();
    let outcome = plan.run()?.all_good()?;
    let cpu = app.proc.cpu_us() - before;
    ensure!(
        outcome.per_second() > rate * 0.9,
        "the rate was not kept: {:.0} of {rate:.0}/s",
        outcome.per_second()
    );
    Ok(Open {
        cpu_us: float(cpu) / float(outcome.good.max(1)),
        p50_us: f64::from(outcome.percentile_us(0.50)),
        p99_us: f64::from(outcome.percentile_us(0.99)),
        answers: outcome.good,
    })
}

pub(super) fn closed(app: &App, dir: &Path, seconds: u64) -> Result<Closed> {
    let report = wrk::run(&format!("http://{}{PATH}", app.address()), CONNECTIONS, seconds, dir)?;
    ensure!(report.errors == 0, "wrk had errors: {report:?}");
    Ok(Closed { per_second: report.per_second, requests: report.requests })
}

/// Attaches an agent that exports to the sink, and makes one request to time its first span.
pub(super) fn agent(app: &App, dir: &Path, sink: &Sink) -> Result<Running> {
    let begin = Instant::now();
    let Running { agent, before, .. } = attach(app, dir, sink, Options::default())?;
    Connection::open(&app.target())?.request("GET", PATH, b"")?;
    while sink.spans() == before {
        // A batch may wait for its time; that is part of what is measured.
        ensure!(
            begin.elapsed() < Duration::from_secs(15),
            "no span came within 15 s:\n{}",
            agent.proc.tail()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let first_span = begin.elapsed();
    let maps = Owned::by(agent.proc.pid())?.map_bytes()?;
    Ok(Running { agent, before, first_span, maps, more: 1, cpu_before: 0 })
}

/// Attaches an agent that exports to the sink.
pub(super) fn attach(app: &App, dir: &Path, sink: &Sink, options: Options) -> Result<Running> {
    let endpoint = sink.endpoint();
    let otlp = ["--exporter", "otlp", "--endpoint", &endpoint, "--protocol", "http/protobuf"];
    let before = sink.spans();
    let agent = Agent::attach(dir, &app.pids(), &options.without_file().arg(&otlp))?;
    Ok(Running { agent, before, first_span: Duration::ZERO, maps: 0, more: 0, cpu_before: 0 })
}

/// Ends the agent after a load of this many requests.
pub(super) fn finish(running: Running, sink: &Sink, requests: u64) -> Result<Own> {
    std::thread::sleep(Duration::from_millis(600));
    let cpu = running.agent.proc.cpu_us().saturating_sub(running.cpu_before);
    let (rss, peak) = running.agent.proc.memory_kib();
    let attach = running.agent.ready_after;
    let report = running.agent.stop()?;
    report.stats.check_balance()?;
    let spans = sink.spans() - running.before;
    Ok(Own {
        cpu_us_per_span: float(cpu) / float(spans.max(1)),
        rss_mb: float(rss) * 1_024.0 / 1e6,
        peak_mb: float(peak) * 1_024.0 / 1e6,
        maps_mb: float(running.maps) / 1e6,
        attach_ms: attach.as_secs_f64() * 1e3,
        first_span_ms: running.first_span.as_secs_f64() * 1e3,
        lost: float((requests + running.more).saturating_sub(spans)),
        spans,
        drops: drops(&report.stats),
    })
}

fn drops(stats: &Stats) -> String {
    let reasons = stats.drops_by_reason();
    if reasons.is_empty() {
        return "nothing".to_owned();
    }
    let words: Vec<String> = reasons
        .iter()
        .map(|dropped| format!("{} {} ({})", dropped.count, dropped.reason, dropped.stage))
        .collect();
    words.join(", ")
}

/// What the hooks cost a message, in nanoseconds of BPF run time.
pub(super) struct Bpf {
    /// A message of a process that is not traced.
    pub(super) untraced: f64,
    /// A message of the server.
    pub(super) traced: f64,
}

/// BPF time a message, in runs of its own, because measuring costs time too. A request is four messages, two at each end. First
/// with an agent that traces something else, which gives what an untraced message costs; then with the server traced, where the
/// client's two messages are untraced still.
pub(super) fn bpf(app: &App, dir: &Path, sink: &Sink, seconds: u64) -> Result<Bpf> {
    let other = Other(Command::new("sleep").arg("1000").spawn().context("cannot start sleep")?);
    let idle = Options::default().without_file().arg(&["--exporter", "none"]);
    let agent_beside = Agent::attach(dir, &[other.0.id()], &idle)?;
    let (beside, _) = cost(agent_beside.proc.pid(), app, dir, seconds)?;
    agent_beside.stop()?;
    drop(other);
    let untraced = beside / 4.0;
    println!("  BPF, a message of an untraced process: {untraced:.0} ns");

    let running = agent(app, dir, sink)?;
    let (both, requests) = cost(running.agent.proc.pid(), app, dir, seconds)?;
    finish(running, sink, requests)?;
    let traced = (both - 2.0 * untraced) / 2.0;
    println!("  BPF, a message of the server: {traced:.0} ns");
    Ok(Bpf { untraced, traced })
}

/// A process that makes no request; ended when it goes out of scope.
struct Other(std::process::Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// BPF run time of an agent's programs for each request of a closed loop, and how many requests there were.
fn cost(pid: u32, app: &App, dir: &Path, seconds: u64) -> Result<(f64, u64)> {
    let owned = Owned::by(pid)?;
    let measuring = bpf::measure()?;
    let before = owned.costs()?;
    let load = closed(app, dir, seconds)?;
    let after = owned.costs()?;
    drop(measuring);
    let mut total = 0;
    for (name, (runs, time)) in &after {
        let (runs_before, time_before) = before.get(name).copied().unwrap_or_default();
        let (runs, time) = (runs - runs_before, time - time_before);
        if let Some(each) = time.checked_div(runs) {
            println!("    {name}: {runs} runs of {each} ns");
        }
        total += time;
    }
    Ok((float(total) / float(load.requests.max(1)), load.requests))
}
