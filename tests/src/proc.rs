//! Programs started by the tests. In: commands. Out: running programs, each in its own process group, whose output goes
//! to files, and which end when dropped.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{cleanup, sys};

/// A running program.
pub struct Proc {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    status: Option<ExitStatus>,
}

impl Proc {
    /// Starts a program in a process group of its own; its output goes to `dir/NAME.out` and `dir/NAME.err`.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Self> {
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let to = |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        command.stdout(to(&out)?).stderr(to(&err)?).process_group(0);
        if command.get_envs().all(|(key, _)| key != "SPANWISE_KEEP_STDIN") {
            command.stdin(Stdio::null());
        } else {
            command.stdin(Stdio::piped()).env_remove("SPANWISE_KEEP_STDIN");
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        cleanup::add_group(child.id());
        Ok(Self { name: name.to_owned(), child, out, err, status: None })
    }

    /// Its pid, which is also its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, when it was started with `SPANWISE_KEEP_STDIN` in its environment.
    pub fn stdin(&mut self) -> Option<&mut std::process::ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// All processes of its group, children included.
    pub fn pids(&self) -> Vec<u32> {
        let mut found = BTreeSet::new();
        for pid in all_pids() {
            if stat_field(pid, 2) == Some(u64::from(self.pid())) {
                found.insert(pid);
            }
        }
        found.into_iter().collect()
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.out)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.err)
    }

    /// Waits for a line on standard output that starts with `word`, and returns it.
    pub fn wait_line(&mut self, word: &str, limit: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            let said = self.stdout();
            // A line that has no end yet may be half of one.
            let mut whole = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            if let Some(line) = whole.find(|line| line.starts_with(word)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.poll()? {
                bail!("{} ended ({status}) before it said `{word}`:\n{}", self.name, self.tail());
            }
            if start.elapsed() > limit {
                bail!("{} did not say `{word}` within {limit:?}:\n{}", self.name, self.tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Exit status, if it has ended.
    pub fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("{} did not end within {limit:?}:\n{}", self.name, self.tail());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::kill(self.pid(), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// CPU time of all its processes so far, in microseconds.
    pub fn cpu_us(&self) -> u64 {
        self.pids().into_iter().map(cpu_us).sum()
    }

    /// Resident memory of the process itself in KiB: now, and at its highest.
    pub fn memory_kib(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Open descriptors of the process itself.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Ends it: SIGTERM, and SIGKILL for what is left of the group after two seconds.
    pub fn end(&mut self) {
        if self.status.is_none() {
            let _ = sys::kill_group(self.pid(), libc::SIGTERM);
            if self.wait(Duration::from_secs(2)).is_err() {
                let _ = sys::kill_group(self.pid(), libc::SIGKILL);
                self.status = self.child.wait().ok();
            }
        }
        // Children of it may have outlived it; they are in its group.
        let _ = sys::kill_group(self.pid(), libc::SIGKILL);
        cleanup::remove_group(self.pid());
    }

    /// The end of its output, for messages.
    pub fn tail(&self) -> String {
        format!("{}{}", last_lines(&self.stdout(), 15), last_lines(&self.stderr(), 25))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.end();
    }
}

/// CPU time of one process so far (its threads included), in microseconds.
pub fn cpu_us(pid: u32) -> u64 {
    let ticks = stat_field(pid, 11).unwrap_or(0) + stat_field(pid, 12).unwrap_or(0);
    ticks * 1_000_000 / sys::ticks_per_second()
}

/// Runs a command to its end within `limit`; gives its status and what it wrote to both outputs.
pub fn run(
    name: &str,
    command: &mut Command,
    dir: &Path,
    limit: Duration,
) -> Result<(ExitStatus, String, String)> {
    let mut running = Proc::start(name, command, dir)?;
    let status = running.wait(limit)?;
    Ok((status, running.stdout(), running.stderr()))
}

/// Runs a command that must succeed, and gives its standard output.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.iter().skip(from).map(|line| format!("    {line}\n")).collect()
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A numeric field of `/proc/PID/stat`, counted from the one after the command's name (0 is the state).
fn stat_field(pid: u32, index: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_program_is_gone_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        let proc =
            Proc::start("sleeper", shell.args(["-c", "sleep 60 & echo ready; wait"]), dir.path()).unwrap();
        let mut proc = proc;
        proc.wait_line("ready", Duration::from_secs(5)).unwrap();
        let pids = proc.pids();
        assert_eq!(pids.len(), 2, "{pids:?}");
        drop(proc);
        let end = Instant::now() + Duration::from_secs(2);
        while pids.iter().any(|pid| stat_field(*pid, 2).is_some()) {
            assert!(Instant::now() < end, "still running: {pids:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn own_cpu_time_is_counted() {
        let start = Instant::now();
        let mut n = 0_u64;
        while start.elapsed() < Duration::from_millis(200) {
            n = std::hint::black_box(n + 1);
        }
        assert!(cpu_us(std::process::id()) >= 50_000);
    }
}
