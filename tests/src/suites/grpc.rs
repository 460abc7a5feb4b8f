//! gRPC: unary calls and all kinds of streams, with every status, many at once on few connections; in Go and Python; connections
//! and streams older than the agent; a chain of three services. The name of a method says how the call must end, so every span
//! can be judged by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, check_most};
use crate::agent::{Agent, Options, Report};
use crate::apps::{App, pids};
use crate::certs::Certs;
use crate::clients::Client;
use crate::golang::{self, GoApp, Program, Variant};
use crate::judge;
use crate::runner::{Case, Context, full};
use crate::secure::{Server, Speaker};
use crate::spans::{Kind, Span};

const LIMIT: Duration = Duration::from_secs(150);
/// Of each of the 17 statuses and four kinds of calls the same number.
const CALLS: u64 = 68 * 60;

pub(super) const CASES: &[Case] = &[
    Case { name: "grpc/go_every_status", seconds: 240, run: |c| go(c, None) },
    Case { name: "grpc/go_old_stripped", seconds: 240, run: |c| go(c, Some(golang::OLDEST)) },
    Case { name: "grpc/python_server", seconds: 120, run: python_server },
    Case { name: "grpc/python_client", seconds: 120, run: python_client },
    Case { name: "grpc/attach_in_mid_stream", seconds: 120, run: mid_stream },
    Case { name: "grpc/attach_late", seconds: 120, run: attach_late },
    Case { name: "grpc/chain_of_three", seconds: 120, run: chain },
    Case { name: "grpc/go_tls", seconds: 240, run: go_tls },
];

/// Of gRPC, by number.
pub(super) const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The status that a call of this method must end with.
fn status_of(method: &str) -> Option<&'static str> {
    let name = method.strip_prefix("load.Work/")?;
    if name.starts_with(['W', 'L']) {
        return Some("OK");
    }
    let code: usize = name.strip_prefix(['U', 'S', 'C', 'B'])?.parse().ok()?;
    STATUSES.get(code).copied()
}

/// What is wrong in this span, in words. What is not known is not wrong.
pub(super) fn wrong(span: &Span) -> Option<String> {
    let say = |what: &str| Some(format!("{what}: {span:?}"));
    let call = span.get("rpc.system.name");
    if call != Some("grpc") && (call.is_some() || span.get("spanwise.truncated").is_none()) {
        return say("not a call");
    }
    let method = method_of(span)?;
    let Some(wanted) = status_of(method) else { return say("a method that nobody called") };
    if span.get("rpc.response.status_code").is_some_and(|status| status != wanted) {
        return say("a wrong status");
    }
    None
}

/// Its method, also where it was not seen to be a call.
fn method_of(span: &Span) -> Option<&str> {
    let path = span.get("url.path").and_then(|path| path.strip_prefix('/')).filter(|path| !path.is_empty());
    span.rpc_method().or(path)
}

/// Each span is right, and of each method there are as many as calls; what is missing is in the drop counters.
fn check(what: &str, report: &Report, kind: Kind, service: &str, calls: u64) -> Result<()> {
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    for span in report.spans.at(kind, service) {
        let odd = wrong(span);
        ensure!(odd.is_none(), "{what}: {}\n{}", odd.unwrap_or_default(), report.stats.table());
        ensure!(
            span.get("rpc.response.status_code").is_some(),
            "{what}: no status: {span:?}\n{}",
            report.stats.table()
        );
        *found.entry(span.rpc_method().unwrap_or("unknown")).or_default() += 1;
    }
    let spans: u64 = found.values().sum();
    println!("    {what}: {calls} calls, {spans} spans, {} drops", report.stats.drops());
    let each = calls / 68;
    let odd = found.iter().find(|(_, count)| **count > each);
    ensure!(
        odd.is_none(),
        "{what}: {odd:?} spans, of each method there were {each}\n{}",
        report.stats.table()
    );
    check_most(what, spans, calls, report)
}

/// Both sides of a load of every kind of call with every status.
fn both_sides(context: &Context, server: GoApp<'_>, client: GoApp<'_>, certs: Option<&Certs>) -> Result<()> {
    let server = certs.map_or_else(|| server.clone(), |certs| server.clone().tls(certs)).start()?;
    let client = certs
        .map_or_else(|| client.clone().calling(&server), |certs| client.clone().calling_tls(&server, certs));
    let mut client = client.start_client()?;
    let agent = Agent::attach(&context.dir, &[server.pids(), client.pids()].concat(), &Options::default())?;
    let calls = client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    check("server", &report, Kind::Server, &server.name, calls)?;
    check("client", &report, Kind::Client, "go-rpc-client", calls)?;
    joined(&report, &server.name, calls)
}

/// Server spans are under client spans of the same method.
fn joined(report: &Report, service: &str, calls: u64) -> Result<()> {
    let mut right = 0;
    for span in report.spans.at(Kind::Server, service) {
        let Some(parent) = report.spans.parent(span) else { continue };
        ensure!(
            parent.kind == Kind::Client && parent.rpc_method() == span.rpc_method(),
            "{span:?} is under {parent:?}"
        );
        right += 1;
    }
    println!("    {right} of {calls} server spans under their client span");
    ensure!(right + report.stats.drops() >= calls, "{right} of {calls} joined\n{}", report.stats.table());
    Ok(())
}

fn calls() -> u64 {
    if full() { 68 * 1_471 } else { CALLS }
}

fn go(context: &Context, old: Option<&'static str>) -> Result<()> {
    let mut server = GoApp::new(Program::Rpc, "direct", &context.dir).named("work");
    if let Some(version) = old {
        server = server.by(version).built(Variant::Stripped);
    }
    let client = GoApp::client_of(Program::Rpc, calls(), 8, 50, &context.dir)?;
    both_sides(context, server, client, None)
}

fn go_tls(context: &Context) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let server = GoApp::new(Program::Rpc, "direct", &context.dir).named("work");
    let client = GoApp::client_of(Program::Rpc, calls(), 8, 50, &context.dir)?;
    both_sides(context, server, client, Some(&certs))
}

fn python_server(context: &Context) -> Result<()> {
    let server = Server::Rpc.start(&context.dir, None, None)?;
    let client = GoApp::client_of(Program::Rpc, 68 * 15, 8, 8, &context.dir)?.calling(&server);
    with_python(context, &server, client.start_client()?, "go-rpc-client")
}

fn python_client(context: &Context) -> Result<()> {
    let server = GoApp::new(Program::Rpc, "direct", &context.dir).named("work").start()?;
    let client = Speaker::Rpc.start(&server, 68 * 15, [4, 4], None, &context.dir)?;
    with_python(context, &server, client, "grpcio-client")
}

fn with_python(context: &Context, server: &App, mut client: Client, name: &str) -> Result<()> {
    let agent = Agent::attach(&context.dir, &[server.pids(), client.pids()].concat(), &Options::default())?;
    let calls = client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    check("server", &report, Kind::Server, &server.name, calls)?;
    check("client", &report, Kind::Client, name, calls)?;
    joined(&report, &server.name, calls)
}

/// Streams that are open when the agent comes: nothing wrong is said of them, and calls that begin later are right.
fn mid_stream(context: &Context) -> Result<()> {
    let server = GoApp::new(Program::Rpc, "direct", &context.dir).named("work").start()?;
    // Streams that take two seconds, of which the agent sees the second half.
    let held = GoApp::client_of(Program::Rpc, 68, 4, 17, &context.dir)?.named("held").calling(&server);
    let mut held = held.arg(&["-kinds", "B", "-hold", "700ms"]).start_client()?;
    held.go()?;
    std::thread::sleep(Duration::from_millis(900));
    let later = GoApp::client_of(Program::Rpc, 68 * 10, 4, 8, &context.dir)?.calling(&server);
    let mut later = later.start_client()?;
    let all = [server.pids(), held.pids(), later.pids()].concat();
    let agent = Agent::attach(&context.dir, &all, &Options::default())?;
    let made = later.run(LIMIT)?;
    let open = held.done(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let mut known = 0;
    for span in report.spans.at(Kind::Server, "work") {
        let odd = wrong(span);
        ensure!(odd.is_none(), "{}", odd.unwrap_or_default());
        known += u64::from(span.rpc_method().is_some());
    }
    let spans = report.spans.at(Kind::Server, "work").count() as u64;
    println!("    {made} new calls and {open} older ones: {spans} spans, {known} with their method");
    ensure!(spans <= made + open, "{spans} spans of {made} and {open} calls");
    // The new ones are on new connections, where everything is known.
    check("later", &report, Kind::Client, "go-rpc-client", made)
}

/// 100 connections older than the agent, whose clients keep the names of methods in their tables: a name that is shown is
/// right, and the share that is known grows as other names push the old ones out.
fn attach_late(context: &Context) -> Result<()> {
    let server = GoApp::new(Program::Rpc, "direct", &context.dir).named("work").start()?;
    let calls = if full() { 40_000 } else { 30_000 };
    let client = GoApp::client_of(Program::Rpc, calls, 100, 1, &context.dir)?.calling(&server);
    let mut client = client.arg(&["-kinds", "UW", "-warm", "40"]).start_client()?;
    let agent = Agent::attach(&context.dir, &server.pids(), &Options::default())?;
    client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let mut spans: Vec<&Span> = report.spans.at(Kind::Server, "work").collect();
    spans.sort_by_key(|span| span.start);
    let mut shares = Vec::new();
    for part in spans.chunks((spans.len() / 10).max(1)) {
        let known = part.iter().filter(|span| method_of(span).is_some()).count();
        shares.push(100 * known / part.len());
    }
    println!(
        "    {} spans of {calls} calls; known methods, by tenths of the calls: {shares:?} %",
        spans.len()
    );
    for span in &spans {
        let odd = wrong(span);
        ensure!(odd.is_none(), "{}", odd.unwrap_or_default());
    }
    let last = *shares.last().with_context(|| format!("there is no span\n{}", report.stats.table()))?;
    ensure!(
        shares.first().is_some_and(|first| *first <= last) && last >= 90,
        "{shares:?}\n{}",
        report.stats.table()
    );
    check_most("late", spans.len() as u64, calls, &report)
}

/// Three services, eight calls at once: every span under the one that caused it.
fn chain(context: &Context) -> Result<()> {
    let leaf = GoApp::new(Program::Rpc, "direct", &context.dir).named("leaf").delayed(5).start()?;
    let middle = GoApp::new(Program::Rpc, "direct", &context.dir).named("middle").calling(&leaf).start()?;
    let front = GoApp::new(Program::Rpc, "direct", &context.dir).named("front");
    let front = front.arg(&["-next", "W"]).calling(&middle).start()?;
    let calls = 1_000;
    let client = GoApp::client_of(Program::Rpc, calls, 2, 4, &context.dir)?.calling(&front);
    let mut client = client.arg(&["-kinds", "W"]).start_client()?;
    let agent = Agent::attach(&context.dir, &pids(&[&front, &middle, &leaf]), &Options::default())?;
    client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    for (what, verdict) in [
        ("front's calls", judge::calls(&report.spans, "front", 1, calls, 1)),
        ("middle's requests", judge::served(&report.spans, "middle", 1, calls, 1)),
        ("middle's calls", judge::calls(&report.spans, "middle", 1, calls, 1)),
        ("leaf's requests", judge::served(&report.spans, "leaf", 1, calls, 1)),
    ] {
        println!("    {what}: {}", verdict.line());
        ensure!(verdict.wrong_share() <= 0.001, "{what}: {}", verdict.line());
        ensure!(
            verdict.missing + verdict.surplus == 0,
            "{what}: {}\n{}",
            verdict.line(),
            report.stats.table()
        );
        ensure!(verdict.right_share() >= 0.99, "{what}: {}", verdict.line());
    }
    Ok(())
}
