//! HTTP/2: many streams on few connections, in clear and with TLS, prior knowledge, ALPN and upgrade; connections older than the
//! agent. Every request has its span, and each span the method, path and status of its own request.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, check_most};
use crate::agent::{Agent, Options, Report};
use crate::apps::App;
use crate::certs::Certs;
use crate::clients::Client;
use crate::golang::{GoApp, Program};
use crate::load::h2load;
use crate::paths;
use crate::proc::capture;
use crate::runner::{Case, Context, full};
use crate::secure::{Protocol, Server, Speaker};
use crate::spans::{Kind, Span};

/// Connections of h2load.
const CONNECTIONS: u64 = 4;
const LIMIT: Duration = Duration::from_secs(120);

pub(super) const CASES: &[Case] = &[
    Case { name: "http2/nginx_h2c_1", seconds: 90, run: |c| h2load(c, Server::Nginx(Protocol::H2c), 1) },
    Case { name: "http2/nginx_h2c_10", seconds: 90, run: |c| h2load(c, Server::Nginx(Protocol::H2c), 10) },
    Case { name: "http2/nginx_h2c_100", seconds: 90, run: |c| h2load(c, Server::Nginx(Protocol::H2c), 100) },
    Case { name: "http2/node_h2c_1", seconds: 90, run: |c| h2load(c, Server::Node(Protocol::H2c), 1) },
    Case { name: "http2/node_h2c_10", seconds: 90, run: |c| h2load(c, Server::Node(Protocol::H2c), 10) },
    Case { name: "http2/node_h2c_100", seconds: 90, run: |c| h2load(c, Server::Node(Protocol::H2c), 100) },
    Case { name: "http2/curl_prior_knowledge", seconds: 60, run: curl_prior_knowledge },
    Case { name: "http2/curl_upgrade", seconds: 60, run: curl_upgrade },
    Case { name: "http2/go_both_sides", seconds: 90, run: go_both_sides },
    Case { name: "http2/node_both_sides", seconds: 90, run: node_both_sides },
    Case { name: "http2/attach_late", seconds: 120, run: attach_late },
];

/// Those that need the plaintext of TLS.
pub(super) const TLS_CASES: &[Case] = &[
    Case { name: "http2/nginx_tls_1", seconds: 90, run: |c| h2load(c, Server::Nginx(Protocol::H2), 1) },
    Case { name: "http2/nginx_tls_10", seconds: 90, run: |c| h2load(c, Server::Nginx(Protocol::H2), 10) },
    Case { name: "http2/nginx_tls_100", seconds: 90, run: |c| h2load(c, Server::Nginx(Protocol::H2), 100) },
    Case { name: "http2/node_tls_1", seconds: 90, run: |c| h2load(c, Server::Node(Protocol::H2), 1) },
    Case { name: "http2/node_tls_10", seconds: 90, run: |c| h2load(c, Server::Node(Protocol::H2), 10) },
    Case { name: "http2/node_tls_100", seconds: 90, run: |c| h2load(c, Server::Node(Protocol::H2), 100) },
    Case { name: "http2/httpx_tls", seconds: 90, run: httpx },
];

/// What a span says of its request.
type Seen = (String, String, u64);

fn seen(span: &Span) -> Seen {
    let text = |key| span.get(key).unwrap_or("unknown").to_owned();
    (
        text("http.request.method"),
        span.path().to_owned(),
        span.number("http.response.status_code").unwrap_or(0),
    )
}

/// Whether something of it is unknown: nobody asks for `/`, so that is a path that is not there.
fn lacks((method, path, status): &Seen) -> bool {
    ["unknown", "_OTHER"].contains(&method.as_str()) || path == "/" || *status == 0
}

/// Whether what is known of a span is that of a request.
fn may_be((method, path, status): &Seen, made: &Seen) -> bool {
    (["unknown", "_OTHER"].contains(&method.as_str()) || *method == made.0)
        && (path == "/" || *path == made.1)
        && (*status == 0 || *status == made.2)
}

/// As many spans of each request as there were of them, and none that was not made. What is missing is in the drop counters.
fn check(what: &str, report: &Report, kind: Kind, service: &str, truth: &BTreeMap<Seen, u64>) -> Result<()> {
    let mut found: BTreeMap<Seen, u64> = BTreeMap::new();
    let mut unknown = 0_u64;
    // What passes a socket encrypted is counted as dropped there, and nothing of it is missing.
    let lost = report.stats.drops() - report.stats.drops_named("encrypted");
    for span in report.spans.at(kind, service) {
        let seen = seen(span);
        if lost > 0 && lacks(&seen) {
            // Where events were lost, and counted, a span may lack what they held; the rest of it is right.
            ensure!(truth.keys().any(|made| may_be(&seen, made)), "{what}: nobody asked for {span:?}");
            unknown += 1;
        } else {
            *found.entry(seen).or_default() += 1;
        }
        let version = span.get("network.protocol.version");
        ensure!(version == Some("2"), "{what}: a span of HTTP {version:?}: {span:?}");
    }
    let (spans, requests) = (found.values().sum::<u64>() + unknown, truth.values().sum());
    println!(
        "    {what}: {requests} requests, {spans} spans, {unknown} of them with something unknown, {} drops",
        report.stats.drops()
    );
    for (seen, count) in &found {
        let made = truth.get(seen).copied().unwrap_or(0);
        ensure!(
            *count <= made,
            "{what}: {count} spans of {seen:?}, which {made} requests were\n{}",
            report.stats.table()
        );
    }
    check_most(what, spans, requests, report)
}

fn leaves(method: &str, count: u64) -> BTreeMap<Seen, u64> {
    (1..=count).map(|n| ((method.to_owned(), format!("/leaf/{n}"), 200), 1)).collect()
}

fn h2load(context: &Context, server: Server, streams: u64) -> Result<()> {
    let tls = matches!(server, Server::Nginx(Protocol::H2) | Server::Node(Protocol::H2));
    let certs = Certs::make(&context.dir)?;
    let app = server.start(&context.dir, tls.then_some(&certs), None)?;
    let mut paths: Vec<String> = (1..=40).map(|n| format!("/leaf/{n}")).collect();
    paths.extend(["/status/404".to_owned(), "/status/503".to_owned()]);
    let url =
        if tls { format!("https://127.0.0.1:{}", app.port) } else { format!("http://{}", app.address()) };
    let requests = if full() { 100_000 } else { 4_000 };
    let load =
        h2load::Load { url: &url, paths: &paths, requests, connections: CONNECTIONS, streams, more: &[] };
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let answered = load.run(&context.dir, LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    ensure!(answered.done == requests, "h2load got {} answers to {requests} requests", answered.done);
    let status = |path: &str| path.strip_prefix("/status/").map_or(Ok(200), str::parse);
    let mut truth = BTreeMap::new();
    for (path, count) in paths.iter().zip(load.expected()) {
        truth.insert(("GET".to_owned(), path.clone(), status(path)?), count);
    }
    // What h2load counted must agree with what we take for the truth.
    let of =
        |class| truth.iter().filter(|(seen, _)| seen.2 / 100 == class).map(|(_, count)| count).sum::<u64>();
    ensure!([of(2), of(3), of(4), of(5)] == answered.statuses, "h2load answered otherwise: {answered:?}");
    // nginx's worker has no environment, and so no name of its own.
    let service = if matches!(server, Server::Nginx(_)) { "nginx" } else { &app.name };
    check(&app.name, &report, Kind::Server, service, &truth)
}

fn go_server(context: &Context) -> Result<App> {
    GoApp::new(Program::Web, "direct", &context.dir).named("go-h2c").http2().start()
}

/// GET and POST by curl, a connection each (curl 7.88 fails when it uses one again), and several streams of one by nghttp.
fn curl_prior_knowledge(context: &Context) -> Result<()> {
    let app = go_server(context)?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let url = format!("http://{}", app.address());
    for more in [["--request", "GET"], ["--data", "twenty bytes of data"]] {
        for n in 1..=10 {
            let mut curl = Command::new(paths::need("curl")?);
            curl.args(["--silent", "--fail", "--http2-prior-knowledge"]).args(more);
            let answer = capture(curl.arg(format!("{url}/leaf/{n}")))?;
            ensure!(answer == n.to_string(), "curl got `{answer}`");
        }
    }
    let mut nghttp = Command::new(paths::need("nghttp")?);
    capture(nghttp.args((11..=30).map(|n| format!("{url}/leaf/{n}"))))?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let mut truth = leaves("GET", 30);
    truth.extend(leaves("POST", 10));
    check("curl and nghttp", &report, Kind::Server, &app.name, &truth)
}

/// The first request comes in HTTP/1.1 with `Upgrade: h2c`, and is answered in HTTP/2.
fn curl_upgrade(context: &Context) -> Result<()> {
    let app = go_server(context)?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let mut curl = Command::new(paths::need("curl")?);
    curl.args(["--silent", "--fail", "--http2", "--write-out", " %{http_version}\n"]);
    let answer = capture(curl.arg(format!("http://{}/leaf/[1-20]", app.address())))?;
    let versions: Vec<&str> = answer.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    ensure!(versions.len() == 20 && versions.iter().all(|version| *version == "2"), "curl got {answer}");
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let spans: Vec<Seen> = report.spans.at(Kind::Server, &app.name).map(seen).collect();
    for n in 1..=20 {
        let wanted = ("GET".to_owned(), format!("/leaf/{n}"), 200);
        let count = spans.iter().filter(|span| **span == wanted).count();
        ensure!(count == 1, "{count} spans of /leaf/{n}\n{}{}", report.spans.sample(), report.stats.table());
    }
    ensure!(spans.len() == 20, "{} spans of 20 requests", spans.len());
    check_most("curl", 20, 20, &report)
}

/// Each server span is under the client span of its own request.
fn joined(what: &str, report: &Report, service: &str, requests: u64) -> Result<()> {
    let mut right = 0;
    for span in report.spans.at(Kind::Server, service) {
        let Some(parent) = report.spans.parent(span) else { continue };
        ensure!(
            parent.kind == Kind::Client && parent.path() == span.path(),
            "{what}: {span:?} is under {parent:?}"
        );
        right += 1;
    }
    println!("    {what}: {right} of {requests} under their client span");
    ensure!(right + report.stats.drops() >= requests, "{what}: {right} joined\n{}", report.stats.table());
    Ok(())
}

/// Requests of a load that is traced on both sides.
fn on_both_sides() -> u64 {
    if full() { 50_000 } else { 3_000 }
}

fn go_both_sides(context: &Context) -> Result<()> {
    let app = go_server(context)?;
    let client = GoApp::client_of(Program::Web, on_both_sides(), 4, 16, &context.dir)?.http2().calling(&app);
    both_sides(context, &app, client.start_client()?, "go-web-client")
}

fn node_both_sides(context: &Context) -> Result<()> {
    let app = Server::Node(Protocol::H2c).start(&context.dir, None, None)?;
    let client = Speaker::Node(Protocol::H2c);
    let client = client.start(&app, on_both_sides(), [4, 16], None, &context.dir)?;
    both_sides(context, &app, client, "node-client")
}

fn both_sides(context: &Context, app: &App, mut client: Client, name: &str) -> Result<()> {
    let pids = [app.pids(), client.pids()].concat();
    let agent = Agent::attach(&context.dir, &pids, &Options::default())?;
    client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let truth = leaves("GET", on_both_sides());
    check("server", &report, Kind::Server, &app.name, &truth)?;
    check("client", &report, Kind::Client, name, &truth)?;
    joined("server", &report, &app.name, on_both_sides())
}

/// httpx over TLS, one connection.
fn httpx(context: &Context) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let app = Server::Node(Protocol::H2).start(&context.dir, Some(&certs), None)?;
    let mut client = Speaker::Httpx.start(&app, 300, [1, 8], Some(&certs), &context.dir)?;
    let pids = [app.pids(), client.pids()].concat();
    let agent = Agent::attach(&context.dir, &pids, &Options::default())?;
    client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let truth = leaves("GET", 300);
    check("server", &report, Kind::Server, &app.name, &truth)?;
    check("client", &report, Kind::Client, "httpx-client", &truth)
}

/// 100 connections that are older than the agent: what is shown is right; what is not known is not shown; and the share that is
/// known grows, because clients put new fields into their tables as they go.
fn attach_late(context: &Context) -> Result<()> {
    let app = go_server(context)?;
    let requests = if full() { 50_000 } else { 6_000 };
    let client = GoApp::client_of(Program::Web, requests, 100, 1, &context.dir)?;
    let mut client = client.http2().calling(&app).arg(&["-warm", "300"]).start_client()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let mut spans: Vec<&Span> = report.spans.at(Kind::Server, &app.name).collect();
    spans.sort_by_key(|span| span.start);
    let mut shares = Vec::new();
    let tenth = (spans.len() / 10).max(1);
    for part in spans.chunks(tenth) {
        let known = part.iter().filter(|span| span.path().starts_with("/leaf/")).count();
        shares.push(100 * known / part.len());
    }
    println!(
        "    {} spans of {requests} requests; known paths, by tenths of the time: {shares:?} %",
        spans.len()
    );
    let mut numbers: Vec<u64> = spans.iter().filter_map(|span| span.request_number()).collect();
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    ensure!(numbers.len() == all, "a path was shown twice");
    ensure!(numbers.last().is_none_or(|last| *last <= requests), "a path was shown that nobody asked for");
    let odd = spans.iter().find(|span| {
        span.number("http.response.status_code").is_some_and(|status| status != 200)
            || span.get("http.request.method").is_some_and(|method| !["GET", "_OTHER"].contains(&method))
    });
    ensure!(odd.is_none(), "a wrong status or method: {odd:?}");
    let last =
        shares.last().copied().with_context(|| format!("there is no span\n{}", report.stats.table()))?;
    ensure!(
        last >= 99 && shares.first().is_some_and(|first| *first <= last),
        "{shares:?}\n{}",
        report.stats.table()
    );
    check_most("late", spans.len() as u64, requests, &report)
}
