//! wrk, the load generator. In: a URL, connections, seconds. Out: how many requests it counted, and what went wrong.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::paths;
use crate::proc::Proc;

/// What wrk said.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests with a whole answer. At its end wrk leaves up to one request a connection unanswered, which it does not count.
    pub requests: u64,
    /// Requests a second.
    pub per_second: f64,
    /// Connection errors, timeouts and answers other than 2xx and 3xx.
    pub errors: u64,
}

/// Starts wrk with one thread.
pub fn start(url: &str, connections: usize, seconds: u64, dir: &Path) -> Result<Proc> {
    let mut command = Command::new(paths::need("wrk")?);
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), url]);
    Proc::start("wrk", &mut command, dir)
}

/// Waits for its end and reads what it says.
pub fn finish(mut wrk: Proc, seconds: u64) -> Result<Report> {
    wrk.wait(Duration::from_secs(seconds + 20))?;
    let text = wrk.stdout();
    parse(&text).with_context(|| format!("wrk said something unexpected:\n{text}{}", wrk.stderr()))
}

/// Runs wrk to its end.
pub fn run(url: &str, connections: usize, seconds: u64, dir: &Path) -> Result<Report> {
    finish(start(url, connections, seconds, dir)?, seconds)
}

fn parse(text: &str) -> Option<Report> {
    let requests =
        text.lines().find(|line| line.contains(" requests in "))?.split_whitespace().next()?.parse().ok()?;
    let per_second = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"))?.trim().parse().ok()?;
    let mut errors = 0;
    for line in text.lines().map(str::trim) {
        if let Some(counts) = line.strip_prefix("Socket errors:") {
            errors += counts.split([',', ' ']).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
        }
        if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            errors += count.trim().parse::<u64>().ok()?;
        }
    }
    Some(Report { requests, per_second, errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_report_is_read() {
        let text = "Running 1s test @ http://x/\n  1 threads and 2 connections\n  12345 requests in 1.00s, 1.9MB read\n  \
                    Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 7\n\
                    Requests/sec:  12340.50\nTransfer/sec:      1.90MB\n";
        let report = parse(text).unwrap();
        assert_eq!((report.requests, report.errors), (12345, 11));
        assert!((report.per_second - 12340.5).abs() < 0.01);
        assert!(parse("wrk: unknown option").is_none());
    }
}
