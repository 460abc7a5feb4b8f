//! Is an application harmed by being traced? In: an application, seconds. Out: three loads (without, with and without the
//! agent): what failed, digests of the answers, throughput and latency, and what the agent said of the traffic.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::agent::{Agent, Options};
use crate::apps::{App, Kind, Setup};
use crate::databases::{Load, Postgres, Redis};
use crate::load::{Plan, Until};
use crate::proc::Proc;
use crate::sink::Sink;
use crate::stats::Stats;

/// Applications by name.
pub const NAMES: &[&str] = &["nginx", "node", "gunicorn", "go", "postgres", "redis"];
/// Connections of a load over HTTP.
const CONNECTIONS: usize = 16;
/// Requests whose answers are compared.
const COMPARED: u64 = 500;
/// Questions to a database beside a load, at most.
const OTHERS: u64 = 3_000;

/// A running application.
pub enum Subject {
    /// It speaks HTTP.
    Web(App),
    /// Each transaction of the load is one question.
    Postgres(Postgres),
    /// Commands, one at a time on each connection.
    Redis(Redis),
}

/// One load.
#[derive(Clone, Copy, Default, Debug)]
pub struct Phase {
    /// How it went.
    pub load: Load,
    /// Of the answers to fixed questions.
    pub digest: u64,
}

/// Three loads.
#[derive(Debug)]
pub struct Comparison {
    /// Without the agent.
    pub before: Phase,
    /// With it.
    pub with: Phase,
    /// Without it again.
    pub after: Phase,
    /// Spans that were exported.
    pub spans: u64,
    /// The agent's account.
    pub stats: Stats,
}

impl Subject {
    /// Starts one.
    pub fn start(name: &str, dir: &Path) -> Result<Self> {
        let kind = match name {
            "nginx" => Kind::Nginx,
            "node" => Kind::Node("callback"),
            "gunicorn" => Kind::Gunicorn,
            "go" => Kind::Go("direct"),
            "postgres" => return Ok(Self::Postgres(Postgres::start(dir)?)),
            "redis" => return Ok(Self::Redis(Redis::start(dir)?)),
            other => bail!("there is no application `{other}`: choose from {}", NAMES.join(", ")),
        };
        Ok(Self::Web(Setup::new(kind, dir).start()?))
    }

    /// Its first process.
    pub fn proc(&self) -> &Proc {
        match self {
            Self::Web(app) => &app.proc,
            Self::Postgres(server) => &server.proc,
            Self::Redis(server) => &server.proc,
        }
    }

    /// Whether it speaks HTTP.
    pub fn is_web(&self) -> bool {
        matches!(self, Self::Web(_))
    }

    fn phase(&self, seconds: u64) -> Result<Phase> {
        match self {
            Self::Web(app) => web(app, seconds),
            Self::Postgres(server) => Ok(Phase { digest: server.digest()?, load: server.load(seconds)? }),
            Self::Redis(server) => Ok(Phase { digest: server.digest()?, load: server.load(seconds)? }),
        }
    }
}

fn web(app: &App, seconds: u64) -> Result<Phase> {
    let plan = |until, path| Plan::new(app.target(), CONNECTIONS, until, path).run();
    let fixed = plan(Until::Requests(COMPARED), "/leaf/{n}")?;
    let mut digest = fixed.digest;
    let mut failed = fixed.failed + fixed.bad;
    let mut requests = fixed.sent;
    if app.name == "nginx" {
        let file = plan(Until::Requests(COMPARED), "/static/file")?;
        digest = digest.wrapping_add(file.digest);
        failed += file.failed + file.bad;
        requests += file.sent;
    }
    let outcome = plan(Until::Time(Duration::from_secs(seconds)), "/leaf/{n}")?;
    let load = Load {
        requests: requests + outcome.sent,
        failed: failed + outcome.failed + outcome.bad,
        per_second: outcome.per_second(),
        p50_us: outcome.percentile_us(0.50),
        p99_us: outcome.percentile_us(0.99),
    };
    Ok(Phase { load, digest })
}

/// Loads it without, with and without the agent.
pub fn compare(subject: &Subject, dir: &Path, seconds: u64) -> Result<Comparison> {
    // Once unmeasured: what comes first finds nothing in caches.
    subject.phase(1)?;
    let before = subject.phase(seconds)?;
    let sink = Sink::start()?;
    let endpoint = sink.endpoint();
    let options = Options::default().without_file().arg(&["--exporter", "otlp", "--endpoint", &endpoint]);
    let agent = Agent::attach(&own(dir, "agent")?, &subject.proc().pids(), &options)?;
    let with = subject.phase(seconds)?;
    std::thread::sleep(Duration::from_millis(500));
    let report = agent.stop()?;
    let after = subject.phase(seconds)?;
    Ok(Comparison { before, with, after, spans: sink.spans(), stats: report.stats })
}

/// A folder in another one, for one of several agents of a test.
pub fn own(dir: &Path, name: &str) -> Result<PathBuf> {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

impl Comparison {
    /// Fails if anything failed, an answer differs, or the agent's account is not right.
    pub fn check(&self, is_web: bool) -> Result<()> {
        for (when, phase) in [("before", &self.before), ("with", &self.with), ("after", &self.after)] {
            ensure!(phase.load.failed == 0, "{} requests failed, {when} the agent", phase.load.failed);
            ensure!(phase.load.requests > 500, "only {} requests, {when} the agent", phase.load.requests);
            ensure!(phase.digest == self.before.digest, "the answers differ, {when} the agent");
        }
        self.stats.check_balance()?;
        let table = self.stats.table();
        let requests = self.with.load.requests;
        let missing = requests.saturating_sub(self.spans);
        ensure!(
            missing <= self.stats.drops(),
            "{missing} of {requests} requests have no span, and {} drops are counted\n{table}",
            self.stats.drops()
        );
        // Clients of databases ask a little for themselves, and what is compared is not in the load.
        let most = if is_web { requests } else { requests + OTHERS };
        ensure!(self.spans <= most, "{} spans for {requests} requests\n{table}", self.spans);
        Ok(())
    }

    /// With the agent by without it (the mean of before and after), and after by before, which is noise.
    pub fn ratios(&self, of: impl Fn(&Load) -> f64) -> (f64, f64) {
        let (before, with, after) = (of(&self.before.load), of(&self.with.load), of(&self.after.load));
        (with / f64::midpoint(before, after).max(1e-9), after / before.max(1e-9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_their_noise_beside_them() {
        let phase = |per_second| Phase { load: Load { per_second, ..Load::default() }, digest: 1 };
        let comparison = Comparison {
            before: phase(100.0),
            with: phase(90.0),
            after: phase(80.0),
            spans: 0,
            stats: Stats::default(),
        };
        let (ratio, noise) = comparison.ratios(|load| load.per_second);
        assert!((ratio - 1.0).abs() < 1e-9 && (noise - 0.8).abs() < 1e-9);
        assert!(comparison.check(true).is_err());
    }
}
