//! Coming and going again and again. In: how many rounds. Out: figures that show whether anything grows: the target's memory and
//! descriptors, what is in the kernel, the agent's own memory.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, Options, Report};
use crate::apps::{App, Kind, Setup};
use crate::bpf::Owned;
use crate::load::{Background, Plan, Until};
use crate::memory::Course;
use crate::paths;
use crate::proc::Proc;
use crate::spans::Kind as Span;
use crate::traces::{KernelLog, Snapshot};

/// What may be left to be freed by the kernel after a round; the rest must be gone.
const FREED: Duration = Duration::from_secs(30);

/// Requests that warm up an agent whose memory is looked at.
const WARM: u64 = 30_000;

/// Processes that come before memory is looked at.
const FIRST: u64 = 6_000;

/// How one round ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The agent is asked to.
    Asked,
    /// The agent is killed.
    Killed,
}

/// What the rounds showed.
#[derive(Debug)]
pub struct Shown {
    /// Rounds.
    pub rounds: u64,
    /// Requests of the load meanwhile, none of which failed.
    pub requests: u64,
    /// The target's memory in KiB, first and last.
    pub memory: (u64, u64),
    /// The target's descriptors, before and after.
    pub descriptors: (usize, usize),
    /// Kernel memory in KiB (slab that cannot be given back, per-CPU, vmalloc), before and after, of the whole machine.
    pub kernel: (u64, u64),
    /// Mean time of one round.
    pub each: Duration,
    /// Whether the kernel's log could be read. (It is clean if so.)
    pub log: bool,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds of {} ms, {} requests, 0 failed; the target's memory {} -> {} KiB, descriptors {} -> {}; kernel memory of \
             the machine {} -> {} KiB; kernel log {}",
            self.rounds,
            self.each.as_millis(),
            self.requests,
            self.memory.0,
            self.memory.1,
            self.descriptors.0,
            self.descriptors.1,
            self.kernel.0,
            self.kernel.1,
            if self.log { "clean" } else { "not readable" }
        )
    }
}

/// Attaches to one server under load and leaves again, so many times. After each round nothing of the agent is in the kernel.
pub fn rounds(dir: &Path, rounds: u64, end: End) -> Result<Shown> {
    let app = Setup::new(Kind::Nginx, dir).start()?;
    let worker = *app.pids().last().context("the server has no process")?;
    let mut plan = Plan::new(app.target(), 8, Until::Requests(0), "/leaf/{n}");
    // Not as fast as it goes: what is looked for is failures, and the rounds need the processors too.
    plan.rate = Some(2_000.0);
    let load = Background::start(plan);
    // One round first: what grows once is no growth.
    round(dir, &app, end)?;
    let before = Snapshot::now();
    let log = KernelLog::from_now();
    let descriptors = || std::fs::read_dir(format!("/proc/{worker}/fd")).map_or(0, Iterator::count);
    let (first_descriptors, first_kernel) = (descriptors(), kernel_memory());
    let mut course = Course::default();
    let start = Instant::now();
    for _ in 0..rounds {
        round(dir, &app, end)?;
        course.add(memory(worker));
    }
    let each = start.elapsed() / u32::try_from(rounds.max(1))?;
    let (last_descriptors, last_kernel) = (descriptors(), kernel_memory());
    let outcome = load.finish()?.all_good()?;
    course.flat("the target", 5)?;
    ensure!(
        last_descriptors == first_descriptors,
        "the target has {last_descriptors} descriptors, it had {first_descriptors}"
    );
    let left = before.left();
    ensure!(left.is_empty(), "left on the machine: {left}");
    if let Some(log) = &log {
        let trouble = log.trouble()?;
        ensure!(trouble.is_empty(), "the kernel complains: {}", trouble.join("; "));
    }
    Ok(Shown {
        rounds,
        requests: outcome.good,
        memory: course.ends(),
        descriptors: (first_descriptors, last_descriptors),
        kernel: (first_kernel, last_kernel),
        each,
        log: log.is_some(),
    })
}

fn round(dir: &Path, app: &App, end: End) -> Result<()> {
    let options = Options::default().without_file().arg(&["--exporter", "none"]);
    let mut agent = Agent::attach(dir, &app.pids(), &options)?;
    let owned = Owned::by(agent.proc.pid())?;
    ensure!(owned.programs() > 0, "nothing was attached, so this shows nothing");
    match end {
        End::Asked => {
            let stats = agent.stop()?.stats;
            // On a busy machine a round may be over before the next request.
            if stats.stages.iter().any(|stage| stage.input > 0) {
                stats.check_balance()?;
            }
        }
        End::Killed => {
            agent.proc.signal(libc::SIGKILL)?;
            agent.proc.wait(Duration::from_secs(5))?;
        }
    }
    let links = owned.links_left()?;
    ensure!(links.is_empty(), "still attached after the agent's end: {links}");
    let since = Instant::now();
    loop {
        let left = owned.left()?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(since.elapsed() < FREED, "left in the kernel after {FREED:?}: {left}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Resident memory of a process, in KiB.
pub fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&text, "VmRSS:")
}

fn kernel_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    ["SUnreclaim:", "Percpu:", "VmallocUsed:"].iter().map(|name| field(&text, name)).sum()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Short-lived processes under one agent: each makes one request and ends. Gives the agent's memory while so many (thousands)
/// come and go, after 6,000 that are not looked at.
pub fn processes(dir: &Path, count: u64) -> Result<(Course, Report)> {
    let app = Setup::new(Kind::Nginx, dir).start()?;
    let mut command = Command::new(paths::churn()?);
    let total = FIRST + count;
    command.args([total.to_string(), app.port.to_string()]).env("SPANWISE_KEEP_STDIN", "1");
    let mut churn = Proc::start("churn", &mut command, dir)?;
    churn.wait_line("ready", Duration::from_secs(5))?;
    let agent = Agent::attach(dir, &[app.pids(), vec![churn.pid()]].concat(), &Options::default())?;
    // Buffers and tables get as large as they are going to be: with 60,000 processes memory is flat after the first 15,000.
    Plan::new(app.target(), 16, Until::Requests(WARM), "/warm/{n}").run()?;
    churn.stdin().context("churn has no standard input")?.write_all(b"go\n")?;
    let mut course = Course::default();
    let mut descriptors = Vec::new();
    for thousand in 0..=count / 1_000 {
        churn.wait_line(&format!("at {}", FIRST + thousand * 1_000), Duration::from_secs(120))?;
        course.add(agent.proc.memory_kib().0);
        descriptors.push(agent.proc.descriptors());
    }
    let done = churn.wait_line("done", Duration::from_secs(10))?;
    ensure!(done == format!("done {total} 0"), "requests failed: {done}\n{}", churn.tail());
    std::thread::sleep(Duration::from_millis(500));
    // A look at a process opens one for a moment, so the fewest of each half count.
    let (early, late) = descriptors.split_at(descriptors.len() / 2);
    ensure!(early.iter().min() == late.iter().min(), "the agent's descriptors are not flat: {descriptors:?}");
    let report = agent.stop()?;
    report.stats.check_balance()?;
    for (what, found) in [
        ("server", report.spans.under(Span::Server, "/leaf/").count() as u64),
        ("client", report.spans.of(Span::Client).count() as u64),
    ] {
        ensure!(found == total, "{found} {what} spans of {total} processes\n{}", report.stats.table());
    }
    Ok((course, report))
}
