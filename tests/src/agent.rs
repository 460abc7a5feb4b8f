//! The agent under test. In: what to attach to or run, with which options. Out: a running agent, and at its end its spans,
//! its account of itself, its exit code and how long things took.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::proc::Proc;
use crate::spans::Spans;
use crate::stats::Stats;
use crate::sys;

/// Longest time to wait for the probes.
const READY: Duration = Duration::from_secs(20);
/// Longest time to wait for the end after a signal; tests of signals measure it.
const END: Duration = Duration::from_secs(20);

/// How to start it.
#[derive(Clone, Default, Debug)]
pub struct Options {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    no_file: bool,
    under: Vec<String>,
    program: Option<PathBuf>,
}

impl Options {
    /// More arguments.
    pub fn arg(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// One more variable.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Started by this command, which makes itself the agent: the agent's path and arguments follow it.
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under.extend(command.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Another copy of the agent.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Without `--exporter file` and its file.
    pub fn without_file(mut self) -> Self {
        self.no_file = true;
        self
    }
}

/// A running agent.
pub struct Agent {
    /// Its process.
    pub proc: Proc,
    /// Time from its start until its probes were live.
    pub ready_after: Duration,
    traces: Option<PathBuf>,
    stats: PathBuf,
    /// It runs a program, whose end it passes on.
    runs: bool,
}

/// What an agent left behind.
#[derive(Debug)]
pub struct Report {
    /// Its spans (none when it ran without a file).
    pub spans: Spans,
    /// Its account of itself.
    pub stats: Stats,
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Time from the signal to its end.
    pub stopped_after: Duration,
}

impl Agent {
    /// Attaches to running processes and waits until the probes are live.
    pub fn attach(dir: &Path, pids: &[u32], options: &Options) -> Result<Self> {
        if pids.is_empty() {
            bail!("there is no process to attach to");
        }
        let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        Self::start(dir, &["attach", "--pid", &list], &[], options, true)
    }

    /// Runs a program under the agent; waits until the probes are live.
    pub fn run(dir: &Path, command: &[&str], options: &Options) -> Result<Self> {
        Self::start(dir, &["run"], command, options, true)
    }

    /// Starts it without waiting.
    pub fn start(dir: &Path, what: &[&str], command: &[&str], options: &Options, wait: bool) -> Result<Self> {
        let (ready, stats) = (dir.join("ready"), dir.join("stats.json"));
        let traces = (!options.no_file).then(|| dir.join("traces.jsonl"));
        for left in [Some(&ready), Some(&stats), traces.as_ref()].into_iter().flatten() {
            let _ = std::fs::remove_file(left);
        }
        let program = options.program.clone().map_or_else(paths::agent, Ok)?;
        let mut agent = under(&options.under, &program);
        clean_environment(&mut agent);
        agent.args(what).arg("--ready-file").arg(&ready);
        if let Some(traces) = &traces {
            agent.args(["--exporter", "file", "--file"]).arg(traces);
        }
        agent.args(&options.arguments);
        if !command.is_empty() {
            agent.arg("--").args(command);
        }
        agent.env("SPANWISE_STATS_JSON", &stats).envs(options.environment.iter().cloned()).current_dir(dir);
        let begin = Instant::now();
        let mut proc = Proc::start("spanwise", &mut agent, dir)?;
        while wait && !ready.exists() {
            if let Some(status) = proc.poll()? {
                // A short program that it ran may have ended already.
                if ready.exists() || (what == ["run"] && status.success()) {
                    break;
                }
                bail!("the agent ended ({status}) before its probes were live:\n{}", proc.tail());
            }
            if begin.elapsed() > READY {
                bail!("the agent's probes were not live within {READY:?}:\n{}", proc.tail());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { proc, ready_after: begin.elapsed(), traces, stats, runs: !command.is_empty() })
    }

    /// Asks it to end, and reads what it left.
    pub fn stop(self) -> Result<Report> {
        self.stop_with(libc::SIGINT)
    }

    /// Asks it to end with this signal, and reads what it left. One that runs a program may end with that program's code.
    pub fn stop_with(mut self, signal: i32) -> Result<Report> {
        if self.proc.poll()?.is_none() {
            if self.runs {
                // As a terminal does it: the program gets the signal too.
                sys::kill_group(self.proc.pid(), signal)?;
            } else {
                self.proc.signal(signal)?;
            }
        }
        self.finish(END)
    }

    /// Waits until it ends by itself, and reads what it left.
    pub fn finish(mut self, limit: Duration) -> Result<Report> {
        let begin = Instant::now();
        let status = self.proc.wait(limit).context("the agent did not end")?;
        let stopped_after = begin.elapsed();
        let (stdout, stderr) = (self.proc.stdout(), self.proc.stderr());
        if stderr.contains("panicked at") {
            bail!("the agent panicked:\n{}", self.proc.tail());
        }
        if !self.runs && status.code() != Some(0) {
            bail!("the agent ended with {status}:\n{}", self.proc.tail());
        }
        let spans = match &self.traces {
            Some(path) => Spans::read(path).with_context(|| format!("agent:\n{}", self.proc.tail()))?,
            None => Spans::default(),
        };
        spans.check_shape()?;
        let stats = Stats::read(&self.stats).with_context(|| format!("agent:\n{}", self.proc.tail()))?;
        Ok(Report { spans, stats, code: status.code(), stdout, stderr, stopped_after })
    }

    /// The spans in its file right now. A line that is still being written is left out.
    pub fn spans_so_far(&self) -> Result<Spans> {
        let path = self.traces.as_ref().context("this agent writes no file")?;
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').and_then(|end| text.get(..=end)).unwrap_or_default();
        Spans::parse(whole)
    }

    /// Waits until its file holds this many spans that are wanted.
    pub fn wait_spans(
        &self,
        count: usize,
        limit: Duration,
        wanted: impl Fn(&Spans) -> usize,
    ) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            let spans = self.spans_so_far()?;
            let found = wanted(&spans);
            if found >= count {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > limit {
                bail!("{found} of {count} spans within {limit:?}:\n{}{}", spans.sample(), self.proc.tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs the agent with arguments that should make it end by itself; gives exit code, standard output, standard error.
pub fn once(dir: &Path, arguments: &[&str], limit: Duration) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(paths::agent()?);
    clean_environment(&mut command);
    command.args(arguments).current_dir(dir);
    let (status, stdout, stderr) = crate::proc::run("spanwise-once", &mut command, dir, limit)?;
    Ok((status.code(), stdout, stderr))
}

/// A command that becomes the program.
fn under(command: &[String], program: &Path) -> Command {
    let Some((first, rest)) = command.split_first() else { return Command::new(program) };
    let mut all = Command::new(first);
    all.args(rest).arg(program);
    all
}

/// [`once`], started by another command (see [`Options::under`]).
pub fn once_under(
    dir: &Path,
    command: &[String],
    program: &Path,
    arguments: &[&str],
    limit: Duration,
) -> Result<(Option<i32>, String, String)> {
    let mut command = under(command, program);
    clean_environment(&mut command);
    command.args(arguments).current_dir("/");
    let (status, stdout, stderr) = crate::proc::run("spanwise-once", &mut command, dir, limit)?;
    Ok((status.code(), stdout, stderr))
}

/// Without variables that would change what the agent does.
pub fn clean_environment(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if (name.starts_with("OTEL_") || name.starts_with("SPANWISE_")) && name != "SPANWISE_BIN" {
            command.env_remove(&key);
        }
    }
}
