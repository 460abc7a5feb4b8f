//! Sampling. In: samplers and flags from upstream. Out: one answer for one trace, and what is sampled out is counted.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options, Report};
use crate::apps::{Kind, Setup, pids};
use crate::load::{Connection, Plan, Until};
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;

pub(super) const CASES: &[Case] = &[
    Case { name: "sampling/off", seconds: 60, run: off },
    Case { name: "sampling/ratio", seconds: 60, run: ratio },
    Case { name: "sampling/environment", seconds: 60, run: environment },
    Case { name: "sampling/upstream_flag", seconds: 60, run: upstream_flag },
];

const REQUESTS: u64 = 1_000;

/// Two servers, the first of which calls the second, under this sampler.
fn two(context: &Context, options: &Options) -> Result<Report> {
    let leaf = Setup::new(Kind::Go("direct"), &context.dir).named("leaf").start()?;
    let app = Setup::new(Kind::Threaded, &context.dir).named("front-app").calling(&leaf).start()?;
    let agent = Agent::attach(&context.dir, &pids(&[&app, &leaf]), options)?;
    Plan::new(app.target(), 4, Until::Requests(REQUESTS), "/work/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE * 2);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    Ok(report)
}

/// Each request gives three spans, exported or counted.
fn all_counted(report: &Report) -> Result<()> {
    let (found, dropped) = (report.spans.all.len() as u64, report.stats.drops_named("sampl"));
    ensure!(
        found + dropped == 3 * REQUESTS,
        "{found} spans and {dropped} sampled out do not make {}\n{}",
        3 * REQUESTS,
        report.stats.table()
    );
    Ok(())
}

fn off(context: &Context) -> Result<()> {
    let report = two(context, &Options::default().arg(&["--sampler", "always_off"]))?;
    ensure!(report.spans.all.is_empty(), "{} spans came\n{}", report.spans.all.len(), report.spans.sample());
    all_counted(&report)
}

fn some(report: &Report) -> Result<()> {
    let mut by_trace: HashMap<&str, usize> = HashMap::new();
    for span in &report.spans.all {
        *by_trace.entry(&span.trace).or_default() += 1;
    }
    // 25 % of 1000, five standard deviations of 14 wide.
    ensure!(
        (180..=320).contains(&by_trace.len()),
        "{} of {REQUESTS} traces at a ratio of 0.25",
        by_trace.len()
    );
    let torn = by_trace.values().filter(|count| **count != 3).count();
    ensure!(torn == 0, "{torn} traces are torn: some of their spans were sampled out and some not");
    all_counted(report)
}

fn ratio(context: &Context) -> Result<()> {
    some(&two(context, &Options::default().arg(&["--sampler", "traceidratio=0.25"]))?)
}

fn environment(context: &Context) -> Result<()> {
    let options = Options::default()
        .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .env("OTEL_TRACES_SAMPLER_ARG", "0.25");
    some(&two(context, &options)?)
}

/// Parent-based samplers follow the flag, whatever they would say themselves.
fn upstream_flag(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    for (sampler, flag, due) in [
        ("parentbased_always_off", "01", 20),
        ("parentbased_always_on", "00", 0),
        ("parentbased_always_off", "00", 0),
    ] {
        let agent =
            Agent::attach(&context.dir, &app.pids(), &Options::default().arg(&["--sampler", sampler]))?;
        let mut connection = Connection::open(&app.target())?;
        for number in 1..=20 {
            let headers = format!("traceparent: 00-{:032x}-00f067aa0ba902b7-{flag}\r\n", 1_000 + number);
            connection.request_with("GET", "/leaf/1", &headers, b"")?;
        }
        std::thread::sleep(SETTLE);
        let report = agent.stop()?;
        let found = report.spans.of(Span::Server).count();
        ensure!(
            found == due,
            "{sampler} with flag {flag}: {found} spans, {due} were due\n{}",
            report.stats.table()
        );
        report.stats.check_balance()?;
    }
    Ok(())
}
