//! Servers under load with 16 connections: spans exported are requests made, on the server's side and, with the client traced,
//! on the client's. wrk gives up what is in flight at its end and does not count it; our own client finishes what it began, so
//! that with it the numbers are equal to the unit, or drop counters say by how much they are not.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, check_count};
use crate::agent::{Agent, Options};
use crate::apps::{App, Kind, Setup};
use crate::load::{Plan, Until, wrk};
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::sink::Sink;
use crate::spans::Kind as Span;

const CONNECTIONS: usize = 16;
const SECONDS: u64 = 10;

pub(super) const CASES: &[Case] = &[
    Case { name: "http_servers/nginx", seconds: 60, run: |context| server(context, Kind::Nginx) },
    Case { name: "http_servers/python", seconds: 60, run: |context| server(context, Kind::Threaded) },
    Case { name: "http_servers/gunicorn", seconds: 60, run: |context| server(context, Kind::Gunicorn) },
    Case { name: "http_servers/node", seconds: 60, run: |context| server(context, Kind::Node("callback")) },
    Case { name: "http_servers/go", seconds: 60, run: |context| server(context, Kind::Go("direct")) },
    Case { name: "http_servers/static_file", seconds: 60, run: static_file },
    Case {
        name: "http_servers/nginx_both_sides",
        seconds: 60,
        run: |context| client_too(context, Kind::Nginx),
    },
    Case {
        name: "http_servers/python_both_sides",
        seconds: 60,
        run: |context| client_too(context, Kind::Threaded),
    },
    Case {
        name: "http_servers/gunicorn_both_sides",
        seconds: 60,
        run: |context| client_too(context, Kind::Gunicorn),
    },
    Case {
        name: "http_servers/node_both_sides",
        seconds: 60,
        run: |context| client_too(context, Kind::Node("callback")),
    },
    Case {
        name: "http_servers/go_both_sides",
        seconds: 60,
        run: |context| client_too(context, Kind::Go("direct")),
    },
    Case { name: "http_servers/both_sides", seconds: 60, run: both_sides },
];

fn server(context: &Context, kind: Kind) -> Result<()> {
    let app = Setup::new(kind, &context.dir).start()?;
    exact(context, &app)?;
    // Hundreds of thousands of spans: counted at a receiver of OTLP, as a backend would see them.
    let sink = Sink::start()?;
    let endpoint = sink.endpoint();
    let options = Options::default().without_file().arg(&["--exporter", "otlp", "--endpoint", &endpoint]);
    let agent = Agent::attach(&context.dir, &app.pids(), &options)?;
    let report = wrk::run(&format!("http://{}/leaf/1", app.address()), CONNECTIONS, SECONDS, &context.dir)?;
    ensure!(report.requests > 0 && report.errors == 0, "wrk: {report:?}");
    std::thread::sleep(SETTLE);
    let result = agent.stop()?;
    let found = sink.spans();
    println!("    {}: {} requests by wrk, {found} spans received", app.name, report.requests);
    check_count(&app.name, found, report.requests, CONNECTIONS as u64, &result)
}

/// With a client that finishes what it began, the numbers are equal, and each request has its span.
fn exact(context: &Context, app: &App) -> Result<()> {
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    Plan::new(app.target(), CONNECTIONS, Until::Requests(2_000), "/leaf/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let mut numbers: Vec<u64> =
        report.spans.of(Span::Server).filter_map(crate::spans::Span::request_number).collect();
    check_count(&app.name, numbers.len() as u64, 2_000, 0, &report)?;
    numbers.sort_unstable();
    ensure!(
        numbers == (1..=2_000).collect::<Vec<u64>>(),
        "{}: {} spans, not one for each of 2000 requests\n{}",
        app.name,
        numbers.len(),
        report.stats.table()
    );
    let odd = report.spans.of(Span::Server).find(|span| {
        span.get("http.request.method") != Some("GET")
            || span.number("http.response.status_code") != Some(200)
            || span.name.contains("/leaf")
            || span.get("network.protocol.version") != Some("1.1")
    });
    ensure!(odd.is_none(), "{}: a span is not as it should be: {odd:?}", app.name);
    Ok(())
}

/// The client is traced too and ends what it began: of each side as many spans as requests, or the missing ones are in the drop
/// counters, to the unit.
fn client_too(context: &Context, kind: Kind) -> Result<()> {
    let app = Setup::new(kind, &context.dir).start()?;
    let mut command = Command::new(paths::client()?);
    command.args([&app.port.to_string(), &CONNECTIONS.to_string(), "3000"]).env("SPANWISE_KEEP_STDIN", "1");
    let mut client = Proc::start("client", &mut command, &context.dir)?;
    client.wait_line("ready", Duration::from_secs(5))?;
    let sink = Sink::start()?;
    let endpoint = sink.endpoint();
    let options = Options::default().without_file().arg(&["--exporter", "otlp", "--endpoint", &endpoint]);
    let agent = Agent::attach(&context.dir, &[app.pids(), client.pids()].concat(), &options)?;
    client.stdin().context("the client has no standard input")?.write_all(b"go\n")?;
    let done = client.wait_line("done", Duration::from_secs(40))?;
    let count = |at: usize| done.split(' ').nth(at).and_then(|word| word.parse::<u64>().ok());
    let (sent, good) = (count(1).context("no count")?, count(2).context("no count")?);
    ensure!(sent == good && sent > 500, "of {sent} requests {good} were answered well\n{}", client.tail());
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let (found, drops) = (sink.spans(), report.stats.drops());
    println!("    {}: {sent} requests, {found} spans of both sides, {drops} drops", app.name);
    ensure!(found <= 2 * sent, "{found} spans for {sent} requests\n{}", report.stats.table());
    // A span that is not there left at least one row of the account short: without drops none is missing.
    ensure!(
        if drops == 0 { found == 2 * sent } else { 2 * sent - found <= drops },
        "{found} spans of {} and {drops} drops\n{}",
        2 * sent,
        report.stats.table()
    );
    let lost = report.stats.drops_named("export otlp");
    let decided = report.stats.stages.iter().find(|stage| stage.name.starts_with("export otlp"));
    let decided = decided.context("the account has no exporter")?.input;
    ensure!(found + lost == decided, "{found} spans came and {lost} were dropped of {decided}");
    Ok(())
}

/// 100,000 bytes by sendfile: counted, not copied.
fn static_file(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let outcome = Plan::new(app.target(), 8, Until::Requests(400), "/static/file").run()?.all_good()?;
    ensure!(outcome.bytes == 40_000_000, "{} bytes came", outcome.bytes);
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let found = report.spans.under(Span::Server, "/static/file").count();
    ensure!(found == 400, "{found} spans of 400\n{}", report.stats.table());
    let odd =
        report.spans.of(Span::Server).find(|span| span.number("http.response.body.size") != Some(100_000));
    ensure!(odd.is_none(), "a size is not 100000: {odd:?}");
    Ok(())
}

/// The client is traced too: a client span for each request, and each server span under its own client span.
fn both_sides(context: &Context) -> Result<()> {
    // Not the fastest server: a span on either side doubles what the agent has to read.
    let app = Setup::new(Kind::Threaded, &context.dir).start()?;
    let url = format!("http://{}/leaf/1", app.address());
    let wrk = wrk::start(&url, CONNECTIONS, SECONDS + 1, &context.dir)?;
    let mut pids = app.pids();
    pids.extend(wrk.pids());
    // Its connections are older than the agent.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let agent = Agent::attach(&context.dir, &pids, &Options::default())?;
    let report = wrk::finish(wrk, SECONDS + 1)?;
    ensure!(report.errors == 0, "wrk: {report:?}");
    std::thread::sleep(SETTLE);
    let result = agent.stop()?;
    result.stats.check_balance()?;
    let (servers, clients) = (result.spans.of(Span::Server).count(), result.spans.of(Span::Client).count());
    println!("    {servers} server spans, {clients} client spans, {} drops", result.stats.drops());
    ensure!(servers > 1_000, "only {servers} server spans\n{}", result.stats.table());
    // wrk gives up what is in flight at its end, and the agent may come in the middle of a request.
    let allowed = 2 * CONNECTIONS + usize::try_from(result.stats.drops())?;
    ensure!(
        servers.abs_diff(clients) <= allowed,
        "{servers} server spans but {clients} client spans\n{}",
        result.stats.table()
    );
    let parent_is_call = |span: &&crate::spans::Span| {
        result.spans.parent(span).is_some_and(|parent| parent.kind == Span::Client)
    };
    let joined = result.spans.of(Span::Server).filter(parent_is_call).count();
    ensure!(
        joined + allowed >= servers,
        "{joined} of {servers} server spans are under their client span\n{}",
        result.stats.table()
    );
    Ok(())
}
