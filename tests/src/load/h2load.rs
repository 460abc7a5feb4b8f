//! h2load, a load generator for HTTP/2. In: a URL, paths, connections, streams. Out: what was answered, by its own count.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::paths;
use crate::proc::Proc;

/// What it said.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests with a whole answer.
    pub done: u64,
    /// Requests without a whole answer.
    pub failed: u64,
    /// Answers of 2xx, 3xx, 4xx and 5xx.
    pub statuses: [u64; 4],
    /// Requests a second.
    pub per_second: f64,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// Base URL.
    pub url: &'a str,
    /// Each connection asks for these in turn, from the first one on.
    pub paths: &'a [String],
    /// Over all connections.
    pub requests: u64,
    /// Connections.
    pub connections: u64,
    /// Requests at once on each.
    pub streams: u64,
    /// More arguments.
    pub more: &'a [&'a str],
}

impl Load<'_> {
    /// Starts it.
    pub fn start(&self, dir: &Path) -> Result<Proc> {
        self.start_with(dir, &[])
    }

    /// Starts it with more in its environment.
    pub fn start_with(&self, dir: &Path, environment: &[(&str, &str)]) -> Result<Proc> {
        let mut command = Command::new(paths::need("h2load")?);
        command.envs(environment.iter().copied());
        let number = |flag: &str, value: u64| [flag.to_owned(), value.to_string()];
        command.args(number("-n", self.requests)).args(number("-c", self.connections));
        command.args(number("-m", self.streams)).args(self.more);
        command.args(self.paths.iter().map(|path| format!("{}{path}", self.url)));
        Proc::start("h2load", &mut command, dir)
    }

    /// Runs it to its end. Nothing may fail.
    pub fn run(&self, dir: &Path, limit: Duration) -> Result<Report> {
        finish(self.start(dir)?, limit)
    }

    /// How often each path is asked for: every connection has its share of the requests and begins with the first path.
    pub fn expected(&self) -> Vec<u64> {
        let count = self.paths.len() as u64;
        let mut all = vec![0; self.paths.len()];
        for connection in 0..self.connections {
            let extra = u64::from(connection < self.requests % self.connections);
            let own = self.requests / self.connections + extra;
            for (place, total) in (0..).zip(&mut all) {
                *total += own / count + u64::from(place < own % count);
            }
        }
        all
    }
}

/// Waits for its end.
pub fn finish(mut proc: Proc, limit: Duration) -> Result<Report> {
    proc.wait(limit)?;
    let text = proc.stdout();
    let report = parse(&text)
        .with_context(|| format!("h2load said something unexpected:\n{text}{}", proc.stderr()))?;
    ensure!(report.failed == 0, "{} requests of h2load failed:\n{text}", report.failed);
    Ok(report)
}

fn parse(text: &str) -> Option<Report> {
    // "NUMBER word" pairs after the colon.
    let counts = |name: &str| -> Option<Vec<u64>> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split(',').map(|part| part.split_whitespace().next()?.parse().ok()).collect()
    };
    let [_, _, done, _, failed, errored, timeout] = counts("requests:")?.try_into().ok()?;
    let statuses: [u64; 4] = counts("status codes:")?.try_into().ok()?;
    // It takes answers of 4xx and 5xx for failures.
    let broken = failed.saturating_sub(statuses[2] + statuses[3]);
    let finished = text.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let per_second = finished.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok()?;
    Some(Report { done, failed: broken + errored + timeout, statuses, per_second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_report_is_read() {
        let text = "finished in 6.41ms, 3120.12 req/s, 60.94KB/s\n\
            requests: 20 total, 20 started, 20 done, 14 succeeded, 7 failed, 2 errored, 3 timeout\n\
            status codes: 14 2xx, 0 3xx, 5 4xx, 1 5xx\ntraffic: 400B (400) total\n";
        let report = parse(text).unwrap();
        assert_eq!((report.done, report.failed, report.statuses), (20, 6, [14, 0, 5, 1]));
        assert!((report.per_second - 3120.12).abs() < 1e-9);
    }

    #[test]
    fn connections_begin_with_the_first_path() {
        let paths = ["/a".to_owned(), "/b".to_owned(), "/c".to_owned()];
        let load = Load { url: "", paths: &paths, requests: 9, connections: 2, streams: 1, more: &[] };
        // Five and four requests: a b c a b, a b c a.
        assert_eq!(load.expected(), [4, 3, 2]);
    }
}
