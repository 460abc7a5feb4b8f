//! A program that does what a line on its standard input says, and answers `done NUMBER`. In: the program. Out: the numbers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::agent::Agent;
use crate::bpf::Owned;
use crate::paths;
use crate::proc::{Proc, capture};
use crate::suites::until;

/// Longest time to wait for an answer.
pub const ANSWER: Duration = Duration::from_secs(20);

/// Such a program, running.
pub struct Told {
    /// Its process.
    pub proc: Proc,
    answers: usize,
}

impl Told {
    /// Starts one; its output goes to `dir`.
    pub fn start(dir: &Path, command: &mut Command) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("told{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut proc = Proc::start(&name, command.env("SPANWISE_KEEP_STDIN", "yes"), dir)?;
        proc.wait_line("ready", ANSWER)?;
        Ok(Self { proc, answers: 0 })
    }

    /// Says a line.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let input = self.proc.stdin().context("the program has no standard input")?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }

    /// Says a line and waits for the answer.
    pub fn tell(&mut self, line: &str) -> Result<u64> {
        self.send(line)?;
        self.answers += 1;
        let answers = self.answers;
        let done = |proc: &Proc| proc.stdout().lines().filter(|line| line.starts_with("done")).count();
        until(ANSWER, line, || done(&self.proc) >= answers)?;
        let text = self.proc.stdout();
        let last = text.lines().rfind(|line| line.starts_with("done")).unwrap_or_default();
        last.split(' ').nth(1).and_then(|sum| sum.parse().ok()).with_context(|| format!("it said {last}"))
    }
}

/// Compiles one of `tests/apps/probes`.
pub fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> Result<PathBuf> {
    let to = dir.join(name);
    let mut command = Command::new(paths::need("cc")?);
    command.args(flags).arg("-o").arg(&to).arg(paths::app("probes").join(source));
    capture(&mut command).with_context(|| format!("cannot compile {source} with {flags:?}"))?;
    Ok(to)
}

/// Hits, and sums of the first value, of the sites that `SPANWISE_TEST_PROBES` names, by their numbers.
pub fn trials(agent: &Agent) -> Result<Vec<(u64, u64)>> {
    let entries = Owned::by(agent.proc.pid())?.dump("TRIAL")?;
    let word = |words: &[u64], at: usize| words.get(at).copied().unwrap_or(0);
    Ok(entries.into_iter().map(|words| (word(&words, 0), word(&words, 1))).collect())
}

/// What `ps --probes` says that the instrument for tests finds in a process, with `probes` as what it is asked for.
pub fn listed(pid: u32, probes: &str) -> Result<Value> {
    let mut command = Command::new(paths::agent()?);
    command.args(["ps", "--json", "--probes", &pid.to_string()]).env("SPANWISE_TEST_PROBES", probes);
    let json: Value = serde_json::from_str(&capture(&mut command)?)?;
    let files = json.get("files").and_then(Value::as_array).into_iter().flatten();
    let mut instruments = files.filter_map(|file| file.get("instruments")?.as_array()).flatten();
    let trial = instruments.find(|one| one.get("name").is_some_and(|name| name == "trial"));
    trial.cloned().with_context(|| format!("nothing is listed for {probes}: {json:#}"))
}
