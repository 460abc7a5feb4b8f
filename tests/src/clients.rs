//! Clients that count. In: a program that says `ready`, waits for a line, makes its requests, and says `done SENT GOOD`. Out:
//! those two numbers: the truth that spans are compared with.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::proc::Proc;

const START: Duration = Duration::from_secs(30);

/// A client that is ready and waits.
pub struct Client {
    /// Its process.
    pub proc: Proc,
}

impl Client {
    /// Starts it and waits until it is ready.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Self> {
        let mut proc = Proc::start(name, command.env("SPANWISE_KEEP_STDIN", "1"), dir)?;
        proc.wait_line("ready", START)?;
        Ok(Self { proc })
    }

    /// Its processes.
    pub fn pids(&self) -> Vec<u32> {
        self.proc.pids()
    }

    /// Lets it begin.
    pub fn go(&mut self) -> Result<()> {
        Ok(self.proc.stdin().context("the client has no standard input")?.write_all(b"go\n")?)
    }

    /// Waits for its end: how many requests it made. All must have been answered well.
    pub fn done(&mut self, limit: Duration) -> Result<u64> {
        let line = self.proc.wait_line("done", limit)?;
        let count = |at: usize| line.split(' ').nth(at).and_then(|word| word.parse::<u64>().ok());
        let (sent, good) = (count(1).context("no count")?, count(2).context("no count")?);
        ensure!(sent == good, "of {sent} requests {good} were answered as they must\n{}", self.proc.tail());
        Ok(sent)
    }

    /// Lets it begin and waits for its end.
    pub fn run(&mut self, limit: Duration) -> Result<u64> {
        self.go()?;
        self.done(limit)
    }
}
