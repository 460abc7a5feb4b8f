//! `http.route` of Go servers: each span has the pattern that its own request was matched with, by every release that has patterns,
//! however the program was linked, with TLS, and by routers of other packages; and no probe is passed for it. The truth is the path.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::apps::{App, pids};
use crate::bpf::{self, Owned};
use crate::certs::Certs;
use crate::golang::{GoApp, Program, Variant};
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};
use crate::spans::Kind;

/// Requests of each path, and connections for them.
const REQUESTS: u64 = 400;
const AT_ONCE: usize = 16;

pub(super) const CASES: &[Case] = &[
    Case { name: "routes/releases", seconds: 180, run: releases },
    Case { name: "routes/variants", seconds: 120, run: variants },
    Case { name: "routes/tls", seconds: 60, run: tls },
    Case { name: "routes/routers", seconds: 120, run: routers },
];

/// Paths that are asked for at the same time, `{n}` is a number, and the pattern that each is matched with.
type Paths = [(&'static str, &'static str)];

const MUX: &Paths =
    &[("/leaf/{n}", "/leaf/{n}"), ("/leaf/{n}/part", "/leaf/{n}/{part}"), ("/work/{n}", "/work/{n}")];
const WITH_BRACES: &Paths = &[
    ("/leaf/{n}", "/leaf/{n}"),
    ("/leaf/{n}/part", "/leaf/{n}/{part}"),
    ("/api/leaf/{n}", "/api/leaf/{n}"),
    ("/long/{n}", "/long/{n}"),
];
const WITH_COLONS: &Paths = &[
    ("/leaf/{n}", "/leaf/:n"),
    ("/leaf/{n}/part", "/leaf/:n/:part"),
    ("/api/leaf/{n}", "/api/leaf/:n"),
    ("/long/{n}", "/long/:n"),
];

/// The pattern of a path.
fn expected(paths: &Paths, path: &str) -> Option<&'static str> {
    let (number, _) = path.split('/').find_map(|part| Some((part, part.parse::<u64>().ok()?)))?;
    let shape = path.replacen(number, "{n}", 1);
    paths.iter().find(|(path, _)| *path == shape).map(|(_, pattern)| *pattern)
}

/// Asks for all paths at once.
fn ask(app: &App, paths: &Paths) -> Result<()> {
    std::thread::scope(|scope| {
        let loads: Vec<_> = paths
            .iter()
            .map(|(path, _)| {
                let plan = Plan::new(app.target(), AT_ONCE, Until::Requests(REQUESTS), path);
                scope.spawn(move || plan.run()?.all_good())
            })
            .collect();
        for load in loads {
            load.join().ok().context("a load panicked")??;
        }
        Ok(())
    })
}

/// The spans of a server: each has the right pattern and the name that follows from it.
fn check(spans: &crate::spans::Spans, app: &App, paths: &Paths, wanted: u64) -> Result<()> {
    let (mut right, mut without) = (0, 0);
    for span in spans.at(Kind::Server, &app.name) {
        let Some(pattern) = expected(paths, span.path()) else { continue };
        match span.get("http.route") {
            Some(route) => {
                ensure!(route == pattern, "{} has the route {route}, not {pattern}", span.path());
                ensure!(span.name == format!("GET {pattern}"), "{} is called {}", span.path(), span.name);
                right += 1;
            }
            None => {
                ensure!(span.name == "GET", "{} is called {}", span.path(), span.name);
                without += 1;
            }
        }
    }
    println!("    {}: {right} spans have the right route, {without} have none", app.name);
    ensure!(right + without == wanted, "{} spans, {wanted} expected", right + without);
    // A goroutine that lost its processor just then is told without.
    ensure!(without * 50 <= wanted, "{without} of {wanted} spans have no route\n{}", spans.sample());
    Ok(())
}

/// A server in front of another, by which requests of one path are answered.
fn mux(context: &Context, app: GoApp<'_>) -> Result<()> {
    let leaf = GoApp::new(Program::Web, "direct", &context.dir).named("leaf").delayed(3).start()?;
    let app = app.calling(&leaf).delayed(3).start()?;
    let agent = Agent::attach(&context.dir, &pids(&[&app, &leaf]), &Options::default())?;
    ask(&app, MUX)?;
    std::thread::sleep(SETTLE + Duration::from_millis(300));
    let report = agent.stop()?;
    report.stats.check_balance()?;
    check(&report.spans, &app, MUX, REQUESTS * MUX.len() as u64)?;
    check(&report.spans, &leaf, MUX, REQUESTS)?;
    let client = report.spans.of(Kind::Client).find(|span| span.get("http.route").is_some());
    ensure!(client.is_none(), "a call has a route: {client:?}");
    Ok(())
}

fn releases(context: &Context) -> Result<()> {
    for go in [Some("1.22.12"), Some("1.23.12"), Some("1.25.5"), None] {
        let name = format!("go-{}", go.unwrap_or("newest"));
        let app = GoApp::new(Program::Web, "direct", &context.dir).named(&name);
        mux(context, if let Some(go) = go { app.by(go) } else { app })?;
    }
    Ok(())
}

fn variants(context: &Context) -> Result<()> {
    for variant in [Variant::Stripped, Variant::Pie] {
        let name = format!("go-{variant:?}").to_lowercase();
        mux(context, GoApp::new(Program::Web, "child", &context.dir).built(variant).named(&name))?;
    }
    Ok(())
}

fn tls(context: &Context) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let server = GoApp::new(Program::Web, "direct", &context.dir)
        .named("go-tls-leaf")
        .delayed(3)
        .tls(&certs)
        .start()?;
    let app = GoApp::new(Program::Web, "direct", &context.dir).calling_tls(&server, &certs).start()?;
    let agent = Agent::attach(&context.dir, &pids(&[&app, &server]), &Options::default())?;
    Plan::new(app.target(), AT_ONCE, Until::Requests(REQUESTS), "/work/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE + Duration::from_millis(300));
    let report = agent.stop()?;
    check(&report.spans, &server, MUX, REQUESTS)
}

/// Routers that keep the pattern in a pool. Nothing is asked of the program but what is in its memory: no probe is passed.
fn routers(context: &Context) -> Result<()> {
    for (framework, paths) in [("gin", WITH_COLONS), ("echo", WITH_COLONS), ("chi", WITH_BRACES)] {
        let app = GoApp::new(Program::Routers, framework, &context.dir).delayed(3).start()?;
        let agent = Agent::attach(&context.dir, &pids(&[&app]), &Options::default())?;
        let measuring = bpf::measure()?;
        ask(&app, paths)?;
        let costs = Owned::by(agent.proc.pid())?.costs()?;
        drop(measuring);
        std::thread::sleep(SETTLE + Duration::from_millis(300));
        let report = agent.stop()?;
        report.stats.check_balance()?;
        check(&report.spans, &app, paths, REQUESTS * paths.len() as u64)?;
        let hits: u64 =
            costs.iter().filter(|(name, _)| name.starts_with("go_")).map(|(_, cost)| cost.0).sum();
        ensure!(hits == 0, "{hits} hits of probes: {costs:?}");
        ensure!(costs.get("sock_send").is_none_or(|(runs, _)| *runs >= REQUESTS), "nothing was measured");
    }
    Ok(())
}
