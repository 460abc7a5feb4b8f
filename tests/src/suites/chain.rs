//! A chain curl -> nginx -> threads -> leaf, with a request number in every path: no wrong parent, and where a thread is a
//! request, none that is missing.

use std::process::Command;

use anyhow::{Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options, Report};
use crate::apps::{App, Kind, Setup, pids};
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;
use crate::{judge, paths, proc};

const REQUESTS: u64 = 1_000;
/// Requests after which the agent knows programs that answer in the turn in which their answer comes: a second or two.
const WARM: u64 = 2_000;
/// The same for asyncio at 64 at once, where the order of the loop's turns is all there is to go by.
const WARM_IN_ORDER: u64 = 14_000;

pub(super) const CASES: &[Case] = &[
    Case { name: "chain/curl", seconds: 60, run: curl },
    Case { name: "chain/threads_8", seconds: 90, run: |context| threads(context, 8) },
    Case { name: "chain/threads_64", seconds: 90, run: |context| threads(context, 64) },
    Case {
        name: "chain/node_callback_8",
        seconds: 90,
        run: |context| event_loop(context, Kind::Node("callback"), 8, 1, WARM),
    },
    Case {
        name: "chain/node_callback_64",
        seconds: 90,
        run: |context| event_loop(context, Kind::Node("callback"), 64, 1, WARM),
    },
    Case {
        name: "chain/node_before_64",
        seconds: 90,
        run: |context| event_loop(context, Kind::Node("before"), 64, 1, WARM),
    },
    Case {
        name: "chain/node_all_8",
        seconds: 90,
        run: |context| event_loop(context, Kind::Node("all"), 8, 3, WARM),
    },
    Case {
        name: "chain/asyncio_8",
        seconds: 90,
        run: |context| event_loop(context, Kind::Asyncio("before"), 8, 1, WARM),
    },
    Case {
        name: "chain/asyncio_64",
        seconds: 120,
        run: |context| event_loop(context, Kind::Asyncio("before"), 64, 1, WARM_IN_ORDER),
    },
    Case {
        name: "chain/node_no_evidence",
        seconds: 90,
        run: |context| no_evidence(context, Kind::Node("both")),
    },
    Case {
        name: "chain/asyncio_no_evidence",
        seconds: 90,
        run: |context| no_evidence(context, Kind::Asyncio("both")),
    },
    Case { name: "chain/unix_socket_8", seconds: 90, run: |context| unix_socket(context, 8) },
    Case { name: "chain/unix_socket_64", seconds: 90, run: |context| unix_socket(context, 64) },
    Case { name: "chain/traceparent", seconds: 60, run: traceparent },
];

fn three(context: &Context) -> Result<(App, App, App)> {
    let leaf = Setup::new(Kind::Go("direct"), &context.dir).named("leaf").delayed(10).start()?;
    let app = Setup::new(Kind::Threaded, &context.dir).named("front-app").calling(&leaf).start()?;
    let nginx = Setup::new(Kind::Nginx, &context.dir).calling(&app).start()?;
    Ok((nginx, app, leaf))
}

/// One request of curl crosses all: one trace of five spans.
fn curl(context: &Context) -> Result<()> {
    let (nginx, app, leaf) = three(context)?;
    let mut agent = Agent::attach(&context.dir, &pids(&[&nginx, &app, &leaf]), &Options::default())?;
    let url = format!("http://{}/work/7", nginx.address());
    let mut command = Command::new(paths::need("curl")?);
    let body = proc::capture(command.args(["-s", &url]))?;
    ensure!(body == "7", "curl got `{body}`");
    agent.wait_spans(5, std::time::Duration::from_secs(3), |spans| spans.all.len())?;
    ensure!(agent.proc.poll()?.is_none(), "the agent ended:\n{}", agent.proc.tail());
    let report = agent.stop()?;
    let spans = &report.spans;
    let last =
        spans.at(Span::Server, "leaf").next().ok_or_else(|| anyhow::anyhow!("no span of the last server"))?;
    let line: Vec<(Span, &str)> = spans.ancestors(last).map(|span| (span.kind, span.service())).collect();
    let due = [
        (Span::Client, "front-app"),
        (Span::Server, "front-app"),
        (Span::Client, "nginx"),
        (Span::Server, "nginx"),
    ];
    ensure!(line == due, "the last server's ancestors are {line:?}\n{}", spans.sample());
    let traces: std::collections::HashSet<&String> = spans.all.iter().map(|span| &span.trace).collect();
    ensure!(traces.len() == 1, "{} traces for one request", traces.len());
    Ok(())
}

fn loaded(
    context: &Context,
    apps: &[&App],
    entry: &App,
    connections: usize,
    requests: u64,
) -> Result<Report> {
    let agent = Agent::attach(&context.dir, &pids(apps), &Options::default())?;
    Plan::new(entry.target(), connections, Until::Requests(requests), "/work/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE * 2);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    Ok(report)
}

fn threads(context: &Context, connections: usize) -> Result<()> {
    let (nginx, app, leaf) = three(context)?;
    let total = WARM + REQUESTS;
    let report = loaded(context, &[&nginx, &app, &leaf], &nginx, connections, total)?;
    let spans = &report.spans;
    // One to one on the wire and one to one on the thread, from the first request on.
    for (what, verdict) in [
        ("front-app's calls", judge::calls(spans, "front-app", 1, total, 1)),
        ("front-app's requests", judge::served(spans, "front-app", 1, total, 1)),
        ("leaf's requests", judge::served(spans, "leaf", 1, total, 1)),
    ] {
        println!("    {what}: {}", verdict.line());
        ensure!(verdict.wrong == 0, "{what}: {}", verdict.line());
        ensure!(verdict.right == total, "{what}: {}\n{}", verdict.line(), report.stats.table());
    }
    // nginx is an event loop.
    let nginx = judge::calls(spans, "nginx", WARM + 1, total, 1);
    println!("    nginx's calls, once warm: {}", nginx.line());
    ensure!(nginx.wrong_share() <= 0.001, "nginx: {}", nginx.line());
    ensure!(nginx.right_share() >= 0.99, "nginx: {}", nginx.line());
    Ok(())
}

/// nginx in front of gunicorn over a unix socket, as it is most often installed, with a server behind it.
fn unix_socket(context: &Context, connections: usize) -> Result<()> {
    let leaf = Setup::new(Kind::Go("direct"), &context.dir).named("leaf").delayed(10).start()?;
    let socket = context.dir.join("gunicorn.sock");
    let app = Setup::new(Kind::Gunicorn, &context.dir)
        .named("front-app")
        .calling(&leaf)
        .on_socket(&socket)
        .start()?;
    let nginx = Setup::new(Kind::Nginx, &context.dir).calling_socket(&socket).start()?;
    let total = WARM + REQUESTS;
    let report = loaded(context, &[&nginx, &app, &leaf], &nginx, connections, total)?;
    let spans = &report.spans;
    for (what, verdict) in [
        ("front-app's calls", judge::calls(spans, "front-app", 1, total, 1)),
        ("front-app's requests", judge::served(spans, "front-app", 1, total, 1)),
        ("leaf's requests", judge::served(spans, "leaf", 1, total, 1)),
        ("nginx's calls", judge::calls(spans, "nginx", 1, total, 1)),
    ] {
        println!("    {what}: {}", verdict.line());
        ensure!(verdict.wrong == 0, "{what}: {}", verdict.line());
        ensure!(
            verdict.missing + verdict.surplus == 0,
            "{what}: {}\n{}",
            verdict.line(),
            report.stats.table()
        );
        // What is not sure at first (nginx is an event loop) is without a parent, not with a wrong one.
        ensure!(what == "nginx's calls" || verdict.right == total, "{what}: {}", verdict.line());
    }
    let warm = judge::calls(spans, "nginx", WARM + 1, total, 1);
    ensure!(warm.right_share() >= 0.99, "nginx's calls, once warm: {}", warm.line());
    Ok(())
}

/// Loops that answer when their call completes: right >= 99 %, wrong <= 0.1 %, once warm.
fn event_loop(context: &Context, kind: Kind, connections: usize, calls: u64, warm: u64) -> Result<()> {
    let leaf = Setup::new(Kind::Go("direct"), &context.dir).named("leaf").delayed(10).start()?;
    let app = Setup::new(kind, &context.dir).calling(&leaf).start()?;
    let total = warm + REQUESTS;
    let report = loaded(context, &[&app, &leaf], &app, connections, total)?;
    let served = judge::served(&report.spans, "leaf", 1, total, calls);
    ensure!(served.wrong == 0, "leaf's requests: {}", served.line());
    // Never wrong, not even while it learns.
    let learning = judge::calls(&report.spans, &app.name, 1, warm, calls);
    ensure!(learning.wrong_share() <= 0.001, "{}, while it learns: {}", app.name, learning.line());
    let verdict = judge::calls(&report.spans, &app.name, warm + 1, total, calls);
    println!("    {} at {connections}: {}", app.name, verdict.line());
    ensure!(verdict.wrong_share() <= 0.001, "{}: {}", app.name, verdict.line());
    ensure!(verdict.right_share() >= 0.99, "{}: {}", app.name, verdict.line());
    Ok(())
}

/// Timers on both sides of the call: nothing can be known, so nothing may be claimed.
fn no_evidence(context: &Context, kind: Kind) -> Result<()> {
    let leaf = Setup::new(Kind::Go("direct"), &context.dir).named("leaf").delayed(10).start()?;
    let app = Setup::new(kind, &context.dir).calling(&leaf).start()?;
    // As long as it takes where there is evidence, so that silence means something; wrong counts from the first request on.
    let total = WARM_IN_ORDER + REQUESTS;
    let report = loaded(context, &[&app, &leaf], &app, 64, total)?;
    let verdict = judge::calls(&report.spans, &app.name, 1, total, 1);
    println!("    {}: {}", app.name, verdict.line());
    ensure!(verdict.wrong_share() <= 0.001, "{}: {}", app.name, verdict.line());
    ensure!(verdict.missing == 0, "{}: {}", app.name, verdict.line());
    ensure!(
        report.spans.at(Span::Client, &app.name).all(|span| span.get("spanwise.parent.source").is_some()),
        "a span does not say where its parent comes from, or that it has none"
    );
    Ok(())
}

/// Trace context in the bytes is adopted; malformed context is not.
fn traceparent(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let mut connection = crate::load::Connection::open(&app.target())?;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let cases = [
        (1, format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n"), true),
        (2, format!("Traceparent: cc-{trace}-00f067aa0ba902b8-01-later\r\n"), true),
        (3, format!("traceparent: 00-{trace}-00f067aa0ba902b9\r\n"), false),
        (4, format!("traceparent: ff-{trace}-00f067aa0ba902ba-01\r\n"), false),
        (5, format!("traceparent: 00-{}-00f067aa0ba902bb-01\r\n", "0".repeat(32)), false),
        (6, format!("traceparent: 00-{trace}-{}-01\r\n", "0".repeat(16)), false),
        (7, format!("traceparent: 00-{}-00f067aa0ba902bc-01\r\n", trace.to_uppercase()), false),
    ];
    for (number, headers, _) in &cases {
        connection.request_with("GET", &format!("/leaf/{number}"), headers, b"")?;
    }
    agent
        .wait_spans(cases.len(), std::time::Duration::from_secs(3), |spans| spans.of(Span::Server).count())?;
    let report = agent.stop()?;
    for (number, headers, adopted) in &cases {
        let path = format!("/leaf/{number}");
        let span = report.spans.under(Span::Server, &path).next();
        let span = span.ok_or_else(|| anyhow::anyhow!("no span of {path}"))?;
        ensure!((span.trace == trace) == *adopted, "{} gave trace {}", headers.trim(), span.trace);
        if *number == 1 {
            ensure!(span.parent == "00f067aa0ba902b7" && span.state.contains("a=b"), "{span:?}");
        }
    }
    Ok(())
}
