//! h2load as the generator of load. In: a running server, how many requests, how fast. Out: throughput, latency, CPU of the server
//! for each request.
//!
//! It has a TLS library of its own file: probes sit in a file, so with the server's library it would pay for them too, as no client
//! on another machine does.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use spanwise_tests::apps::App;
use spanwise_tests::load::h2load::{self, Load};
use spanwise_tests::paths;
use spanwise_tests::proc::capture;

use super::subject::{Spoken, Subject};

/// The slowest that a server may get, in requests a second, before a load is given up.
const SLOWEST: u64 = 50;
/// Longest load, in seconds.
const LONGEST: u64 = 300;

/// What a load came to.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) requests: u64,
    pub(super) per_second: f64,
    pub(super) cpu_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0}/s, {:.1} us CPU, p50 {:.0} us, p99 {:.0} us",
            self.per_second, self.cpu_us, self.p50_us, self.p99_us
        )
    }
}

/// Makes loads on one server.
pub(super) struct Generator<'a> {
    app: &'a App,
    spoken: Spoken,
    dir: &'a Path,
    libraries: PathBuf,
    message: PathBuf,
}

impl<'a> Generator<'a> {
    pub(super) fn new(app: &'a App, subject: &Subject, dir: &'a Path) -> Result<Self> {
        let libraries = dir.join("libraries");
        fs::create_dir_all(&libraries)?;
        for line in capture(Command::new("ldd").arg(paths::need("h2load")?))?.lines() {
            let library = line.split_whitespace().find(|word| word.starts_with('/'));
            if let Some((library, name)) = library.and_then(|path| Some((path, Path::new(path).file_name()?)))
                && ["libssl.", "libgnutls."].iter().any(|start| name.to_string_lossy().starts_with(start))
            {
                fs::copy(library, libraries.join(name)).with_context(|| format!("cannot copy {library}"))?;
            }
        }
        // A gRPC message: not compressed, four bytes long, a google.protobuf.StringValue of "U0".
        let message = dir.join("message");
        fs::write(&message, [0, 0, 0, 0, 4, 0x0a, 2, b'U', b'0'])?;
        Ok(Self { app, spoken: subject.spoken, dir, libraries, message })
    }

    /// So many requests; with a rate, so many a second at most.
    pub(super) fn run(&self, requests: u64, rate: Option<f64>) -> Result<Run> {
        let [connections, streams] = self.spoken.shape();
        let url = self.spoken.url(self.app);
        let path = [self.spoken.path().to_owned()];
        let log = self.dir.join("h2load.log");
        let _ = fs::remove_file(&log);
        let (log_text, message) = (log.display().to_string(), self.message.display().to_string());
        let each = rate.map(|rate| per_connection(rate, connections).to_string());
        let mut more = vec!["--log-file", log_text.as_str(), "--connection-inactivity-timeout", "20"];
        match self.spoken {
            Spoken::Http1 | Spoken::Https1 => more.push("--h1"),
            Spoken::Grpc => {
                more.extend(["-d", &message, "-H", "content-type: application/grpc", "-H", "te: trailers"]);
            }
            Spoken::H2c | Spoken::H2 => {}
        }
        more.extend(each.iter().flat_map(|each| ["--rps", each.as_str()]));
        let load = Load { url: &url, paths: &path, requests, connections, streams, more: &more };
        let libraries = self.libraries.display().to_string();
        let before = self.app.proc.cpu_us();
        let running = load.start_with(self.dir, &[("LD_LIBRARY_PATH", &libraries)])?;
        let report = h2load::finish(running, Duration::from_secs(30 + (requests / SLOWEST).min(LONGEST)))?;
        let cpu = self.app.proc.cpu_us() - before;
        ensure!(report.done == requests, "h2load made {} of {requests} requests", report.done);
        let latencies = latencies(&fs::read_to_string(&log).context("h2load left no log")?);
        ensure!(!latencies.is_empty(), "h2load's log holds no request");
        Ok(Run {
            requests,
            per_second: report.per_second,
            cpu_us: ratio(cpu, requests),
            p50_us: percentile(&latencies, 50),
            p99_us: percentile(&latencies, 99),
        })
    }
}

/// h2load wants whole numbers for each connection.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "rates are positive and far below 2^52"
)]
fn per_connection(rate: f64, connections: u64) -> u64 {
    ((rate / connections as f64) as u64).max(1)
}

/// Microseconds of each request, sorted: the third column of its log.
fn latencies(log: &str) -> Vec<u64> {
    let mut all: Vec<u64> =
        log.lines().filter_map(|line| line.split('\t').nth(2)?.trim().parse().ok()).collect();
    all.sort_unstable();
    all
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a request")]
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or(0) as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_read_from_the_log() {
        let all = latencies("100\t200\t30\n101\t200\t10\nnothing\n102\t200\t20\n");
        assert_eq!(all, [10, 20, 30]);
        assert!((percentile(&all, 50) - 20.0).abs() < 1e-9);
        assert!((percentile(&all, 99) - 30.0).abs() < 1e-9);
        assert!(percentile(&[], 99).abs() < 1e-9);
    }

    #[test]
    fn rates_are_whole_and_never_zero() {
        assert_eq!((per_connection(1_000.0, 16), per_connection(3.0, 16)), (62, 1));
    }
}
