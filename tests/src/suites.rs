//! The end-to-end suites: one file per subject, each a list of cases.

mod attach;
mod bad_input;
mod chain;
mod collector;
mod databases;
mod databases_go;
mod databases_python;
mod degradation;
mod detach;
mod environment;
mod golang_analysis;
mod golang_tls;
mod goroutines;
mod governor;
mod ground;
mod grpc;
mod harm;
mod harmless;
mod hostile;
mod http2;
mod http_servers;
mod liar;
mod losses;
mod namespaces;
mod optional;
mod overrun;
mod privileges;
mod probes;
mod redis;
mod rounds;
mod routes;
mod run;
mod sampling;
mod signals;
mod syscalls;
mod tls;
mod tls_old;
mod tls_rust;
mod tls_sites;
mod web;
mod wild;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::agent::Report;
use crate::runner::Case;

/// All of them, in the order in which they run: cheap ones first.
pub const SUITES: &[&[Case]] = &[
    ground::CASES,
    golang_analysis::CASES,
    golang_tls::CASES,
    degradation::CASES,
    run::CASES,
    wild::CASES,
    attach::CASES,
    signals::CASES,
    http_servers::CASES,
    tls::CASES,
    web::CASES,
    tls_old::CASES,
    tls_rust::CASES,
    tls_sites::CASES,
    syscalls::CASES,
    chain::CASES,
    databases::CASES,
    databases_go::CASES,
    databases_python::CASES,
    redis::CASES,
    http2::CASES,
    http2::TLS_CASES,
    wild::TLS_CASES,
    grpc::CASES,
    losses::CASES,
    goroutines::CASES,
    routes::CASES,
    namespaces::CASES,
    sampling::CASES,
    harm::CASES,
    harmless::CASES,
    probes::CASES,
    detach::CASES,
    rounds::CASES,
    overrun::CASES,
    bad_input::CASES,
    privileges::CASES,
    optional::CASES,
    environment::CASES,
    hostile::CASES,
    liar::CASES,
    collector::CASES,
    governor::CASES,
];

/// How long to leave the agent after a load: the end of the last response is known within 100 ms, and parents are decided late.
pub(crate) const SETTLE: Duration = Duration::from_millis(400);

/// Waits until something holds.
pub(crate) fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            bail!("{what} did not happen within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed())
}

/// Spans found must be spans expected, or drop counters must say how many are missing, to the unit. At most `in_flight`
/// more may come: requests that the load generator gave up at its end.
pub(crate) fn check_count(
    what: &str,
    found: u64,
    expected: u64,
    in_flight: u64,
    report: &Report,
) -> Result<()> {
    report.stats.check_balance()?;
    if found > expected + in_flight {
        bail!("{what}: {found} spans for {expected} requests\n{}", report.stats.table());
    }
    let missing = expected.saturating_sub(found);
    let counted = report.stats.drops();
    if missing > 0 && missing > counted {
        bail!(
            "{what}: {found} spans for {expected} requests, and drop counters explain {counted} of {missing} missing\n{}",
            report.stats.table()
        );
    }
    if missing > 0 {
        println!(
            "    {what}: {missing} of {expected} requests are without span, which is in the drop counters"
        );
    }
    Ok(())
}

/// [`check_count`], of which nothing may come over, and of which little may be missing at that.
pub(crate) fn check_most(what: &str, found: u64, expected: u64, report: &Report) -> Result<()> {
    check_count(what, found, expected, 0, report)?;
    if found * 100 < expected * 98 {
        bail!("{what}: only {found} spans for {expected} requests\n{}", report.stats.table());
    }
    Ok(())
}
