//! Go programs by several releases of Go: every call has the request that caused it, or none, however the work goes from goroutine
//! to goroutine. The truth is the number in every path.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::apps::{App, pids};
use crate::certs::Certs;
use crate::golang::{GoApp, Program, Variant};
use crate::judge::{self, Verdict};
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};
use crate::stats::Stats;

/// Shares of calls that must be right. What is not right has no parent; nothing may be wrong.
const NEARLY_ALL: f64 = 0.99;
/// Share of the calls of a pool's workers that must be right, and share that may be wrong.
const POOL: (f64, f64) = (0.95, 0.001);
/// The same for wrong ones among the first, which only the order of events tells of.
const LEARNING: f64 = 0.01;
/// Releases of Go beside the installed one.
const RELEASES: [&str; 6] = ["1.21.13", "1.22.12", "1.23.12", "1.24.11", "1.25.5", "1.27.3"];
/// Probes on values that pass channels.
const CHANNELS: u64 = 6;
/// Requests before those that count, where goroutines that do nothing themselves start others: starts are probed once some were
/// missed.
const WARM: u64 = 200;

pub(super) const CASES: &[Case] = &[
    Case { name: "goroutines/direct", seconds: 60, run: |context| mode(context, "direct", 1, 0) },
    Case { name: "goroutines/child", seconds: 60, run: |context| mode(context, "child", 1, 0) },
    Case { name: "goroutines/grandchild", seconds: 60, run: |context| mode(context, "grandchild", 1, WARM) },
    Case { name: "goroutines/errgroup", seconds: 60, run: |context| mode(context, "errgroup", 5, 0) },
    Case { name: "goroutines/proxy", seconds: 60, run: |context| mode(context, "proxy", 1, 0) },
    Case { name: "goroutines/both", seconds: 60, run: |context| mode(context, "both", 1, 0) },
    Case { name: "goroutines/versions", seconds: 240, run: versions },
    Case { name: "goroutines/variants", seconds: 180, run: variants },
    Case { name: "goroutines/pool", seconds: 90, run: pool },
    Case { name: "goroutines/pool-given-up", seconds: 90, run: pool_given_up },
    Case { name: "goroutines/pool-variants", seconds: 120, run: pool_variants },
    Case { name: "goroutines/tls", seconds: 60, run: tls },
    Case { name: "goroutines/collections", seconds: 60, run: collections },
];

/// What came of it.
struct Judged {
    /// Of the requests that do not count.
    before: Verdict,
    verdict: Verdict,
    stats: Stats,
}

/// What is asked of a program.
#[derive(Clone, Copy)]
struct Work {
    /// Calls of each request.
    calls: u64,
    /// Requests before those that count.
    warm: u64,
    /// Requests that count.
    requests: u64,
    at_once: usize,
}

/// Calls of a program in front of one that answers after 0 to 10 ms.
fn measure(context: &Context, app: GoApp<'_>, work: Work) -> Result<()> {
    let leaf = GoApp::new(Program::Web, "direct", &context.dir).named("leaf").delayed(10).start()?;
    let app = app.calling(&leaf).start()?;
    judged(context, &app, &leaf, work)
}

/// The calls of a program that runs in front of another.
fn judged(context: &Context, app: &App, leaf: &App, work: Work) -> Result<()> {
    let Judged { before, verdict, .. } = verdict(context, app, leaf, work)?;
    ensure!(before.wrong == 0, "wrong parents while it warms up: {}", before.line());
    check(&verdict)
}

fn verdict(context: &Context, app: &App, leaf: &App, work: Work) -> Result<Judged> {
    let Work { calls, warm, requests, at_once } = work;
    let agent = Agent::attach(&context.dir, &pids(&[app, leaf]), &Options::default())?;
    let mut plan = Plan::new(app.target(), at_once, Until::Requests(warm), "/work/{n}");
    if warm > 0 {
        plan.run()?.all_good()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    (plan.first, plan.until) = (warm + 1, Until::Requests(requests));
    plan.run()?.all_good()?;
    std::thread::sleep(SETTLE + Duration::from_millis(500));
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let before = judge::calls(&report.spans, &app.name, 1, warm, calls);
    let verdict = judge::calls(&report.spans, &app.name, warm + 1, warm + requests, calls);
    println!("    {} at {at_once}: {} {:?}", app.name, verdict.line(), verdict.sources);
    Ok(Judged { before, verdict, stats: report.stats })
}

fn check(verdict: &Verdict) -> Result<()> {
    ensure!(verdict.wrong == 0, "wrong parents: {}", verdict.line());
    ensure!(verdict.missing == 0 && verdict.surplus == 0, "spans and calls differ: {}", verdict.line());
    ensure!(verdict.right_share() >= NEARLY_ALL, "too few parents: {}", verdict.line());
    Ok(())
}

/// From the first request on, where nothing has to be found out.
fn mode(context: &Context, mode: &str, calls: u64, warm: u64) -> Result<()> {
    for at_once in [8, 64] {
        let app = GoApp::new(Program::Web, mode, &context.dir);
        measure(context, app, Work { calls, warm, requests: 1_000, at_once })?;
    }
    Ok(())
}

fn versions(context: &Context) -> Result<()> {
    for go in RELEASES {
        let name = format!("go-{go}");
        let app = GoApp::new(Program::Web, "child", &context.dir).by(go).named(&name);
        measure(context, app, Work { calls: 1, warm: 0, requests: 500, at_once: 16 })?;
    }
    Ok(())
}

fn variants(context: &Context) -> Result<()> {
    for variant in [Variant::Stripped, Variant::Pie, Variant::Cgo] {
        let name = format!("go-{variant:?}").to_lowercase();
        // A starter that does nothing itself is looked for in memory and by a probe, which takes the program's tables.
        let app = GoApp::new(Program::Web, "grandchild", &context.dir).built(variant).named(&name);
        measure(context, app, Work { calls: 1, warm: WARM, requests: 500, at_once: 16 })?;
    }
    Ok(())
}

/// Workers that live as long as the program and get their work over a channel, at as many requests at once. What they do is found
/// out once some of their calls were not explained.
fn pooled(context: &Context, app: GoApp<'_>, at_once: usize, requests: u64) -> Result<()> {
    let leaf = GoApp::new(Program::Web, "direct", &context.dir).named("leaf").delayed(10).start()?;
    let app = app.calling(&leaf).start()?;
    let warm = WARM.max(2 * at_once as u64);
    let work = Work { calls: 1, warm, requests, at_once };
    let Judged { before, verdict, stats } = verdict(context, &app, &leaf, work)?;
    ensure!(before.wrong_share() <= LEARNING, "wrong parents while it warms up: {}", before.line());
    let (values, away) = hand_overs(&stats)?;
    ensure!(at_once < 64 || values > requests, "hand-overs are not told: {}", stats.table());
    ensure!(away == 0, "{away} probes were taken away: {}", stats.table());
    ensure!(verdict.missing == 0 && verdict.surplus == 0, "spans and calls differ: {}", verdict.line());
    ensure!(verdict.right_share() >= POOL.0, "too few parents: {}", verdict.line());
    ensure!(verdict.wrong_share() <= POOL.1, "wrong parents: {}", verdict.line());
    Ok(())
}

fn pool(context: &Context) -> Result<()> {
    for at_once in [1, 8, 64, 256] {
        let app = GoApp::new(Program::Web, "pool", &context.dir).named(&format!("pool-{at_once}"));
        let requests = if at_once == 1 { 200 } else { 2_000 };
        pooled(context, app, at_once, requests)?;
    }
    let app = GoApp::new(Program::Web, "queue", &context.dir);
    pooled(context, app, 64, 2_000)
}

/// Values that were handed over, and probes that were taken away again.
fn hand_overs(stats: &Stats) -> Result<(u64, u64)> {
    let stage = |name: &str| {
        let found = stats.stages.iter().find(|stage| stage.name == name);
        found.with_context(|| format!("the agent has no stage {name}: {}", stats.table()))
    };
    let values = stage("correlate: exchanges")?.note("values handed over between tasks");
    let probes = stage("instrument: probes")?;
    Ok((values, probes.row("attached").saturating_sub(probes.note("sites in use"))))
}

/// Those that do not get their work over a channel: asked for, of no use, and taken away. Handlers that call themselves never have
/// them.
fn pool_given_up(context: &Context) -> Result<()> {
    for (mode, expected) in [("list", CHANNELS), ("direct", 0)] {
        let leaf = GoApp::new(Program::Web, "direct", &context.dir).named("leaf").delayed(4).start()?;
        let app = GoApp::new(Program::Web, mode, &context.dir).calling(&leaf).start()?;
        let work = Work { calls: 1, warm: WARM, requests: 5_000, at_once: 64 };
        let Judged { verdict, stats, .. } = verdict(context, &app, &leaf, work)?;
        ensure!(verdict.wrong_share() <= POOL.1, "wrong parents: {}", verdict.line());
        let (values, away) = hand_overs(&stats)?;
        ensure!(away == expected, "{mode}: {away} probes were taken away: {}", stats.table());
        ensure!((values > 0) == (mode == "list"), "{mode}: {values} values: {}", stats.table());
    }
    Ok(())
}

fn pool_variants(context: &Context) -> Result<()> {
    let app = |name: &str| GoApp::new(Program::Web, "queue", &context.dir).named(name);
    for variant in [Variant::Stripped, Variant::Pie, Variant::Cgo] {
        let name = format!("queue-{variant:?}").to_lowercase();
        pooled(context, app(&name).built(variant), 64, 500)?;
    }
    for go in RELEASES {
        pooled(context, app(&format!("queue-{go}")).by(go), 64, 500)?;
    }
    Ok(())
}

/// Calls by TLS, whose bytes a goroutine of the connection encrypts and writes.
fn tls(context: &Context) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let leaf =
        GoApp::new(Program::Web, "direct", &context.dir).named("leaf").delayed(10).tls(&certs).start()?;
    let app = GoApp::new(Program::Web, "child", &context.dir).calling_tls(&leaf, &certs).start()?;
    judged(context, &app, &leaf, Work { calls: 1, warm: 0, requests: 500, at_once: 16 })
}

/// Stacks that move all the time, and a collector that stops the world.
fn collections(context: &Context) -> Result<()> {
    let app = GoApp::new(Program::Web, "errgroup", &context.dir).named("go-collections");
    let app = app.env("GODEBUG", "gcstoptheworld=1,gcshrinkstackoff=0").env("GOGC", "5");
    measure(context, app, Work { calls: 5, warm: 0, requests: 500, at_once: 16 })?;
    let app = GoApp::new(Program::Web, "pool", &context.dir).named("pool-collections");
    let app = app.env("GODEBUG", "gcstoptheworld=1,gcshrinkstackoff=0").env("GOGC", "5");
    pooled(context, app, 64, 500)
}
