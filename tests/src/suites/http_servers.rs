//! Servers under wrk with 16 connections: spans exported are requests made, on the server's side and, with wrk itself traced,
//! on the client's.

use anyhow::{Result, ensure};

use super::{SETTLE, check_count};
use crate::agent::{Agent, Options};
use crate::apps::{App, Kind, Setup};
use crate::load::{Plan, Until, wrk};
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;

const CONNECTIONS: usize = 16;
const SECONDS: u64 = 3;

pub(super) const CASES: &[Case] = &[
    Case { name: "http_servers/nginx", seconds: 60, run: |context| server(context, Kind::Nginx) },
    Case { name: "http_servers/python", seconds: 60, run: |context| server(context, Kind::Threaded) },
    Case { name: "http_servers/gunicorn", seconds: 60, run: |context| server(context, Kind::Gunicorn) },
    Case { name: "http_servers/node", seconds: 60, run: |context| server(context, Kind::Node("callback")) },
    Case { name: "http_servers/go", seconds: 60, run: |context| server(context, Kind::Go("direct")) },
    Case { name: "http_servers/static_file", seconds: 60, run: static_file },
    Case { name: "http_servers/both_sides", seconds: 60, run: both_sides },
];

fn server(context: &Context, kind: Kind) -> Result<()> {
    let app = Setup::new(kind, &context.dir).start()?;
    exact(context, &app)?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let report = wrk::run(&format!("http://{}/leaf/1", app.address()), CONNECTIONS, SECONDS, &context.dir)?;
    ensure!(report.requests > 0 && report.errors == 0, "wrk: {report:?}");
    std::thread::sleep(SETTLE);
    let result = agent.stop()?;
    let found = result.spans.under(Span::Server, "/leaf/1").count() as u64;
    println!("    {}: {} requests by wrk, {found} server spans", app.name, report.requests);
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
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
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
    println!("    {servers} server spans, {clients} client spans");
    ensure!(servers > 1_000, "only {servers} server spans\n{}", result.stats.table());
    // wrk gives up what is in flight at its end, and the agent may come in the middle of a request.
    ensure!(
        servers.abs_diff(clients) <= 2 * CONNECTIONS,
        "{servers} server spans but {clients} client spans\n{}",
        result.stats.table()
    );
    let joined = result
        .spans
        .of(Span::Server)
        .filter(|span| result.spans.parent(span).is_some_and(|parent| parent.kind == Span::Client));
    let joined = joined.count();
    ensure!(
        joined + 2 * CONNECTIONS >= servers,
        "{joined} of {servers} server spans are under their client span\n{}",
        result.stats.table()
    );
    Ok(())
}
