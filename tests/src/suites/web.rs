//! What HTTP/1.1 carries beside plain answers: calls of gRPC-Web and Connect, streams of events, WebSockets; in clear and over TLS.
//! The path says how a request must end, so every span can be judged by itself.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::grpc::STATUSES;
use super::{SETTLE, check_count};
use crate::agent::{Agent, Options, Report};
use crate::certs::Certs;
use crate::clients::Client;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::spans::{Kind, Span};
use crate::{paths, toolbox};

const LIMIT: Duration = Duration::from_secs(60);
/// Each of the seven kinds with each of the 17 statuses.
const REQUESTS: u64 = 7 * 17;
pub(super) const CASES: &[Case] = &[
    Case { name: "web/clear", seconds: 60, run: |context| both(context, false) },
    Case { name: "web/tls", seconds: 60, run: |context| both(context, true) },
    Case { name: "web/node", seconds: 60, run: |context| node(context, false) },
    Case { name: "web/node_tls", seconds: 60, run: |context| node(context, true) },
];

/// Server and client in Python.
fn both(context: &Context, tls: bool) -> Result<()> {
    let certs = tls.then(|| Certs::make(&context.dir)).transpose()?;
    let port = paths::free_port()?;
    let mut command = Command::new(toolbox::python()?);
    command.arg(paths::app("web.py")).args(["server", &port.to_string()]);
    command.args(certs.iter().flat_map(|certs| [&certs.cert, &certs.key]));
    command.env("OTEL_SERVICE_NAME", "web");
    let report = run(context, command, port, certs.as_ref())?;
    for (kind, service) in [(Kind::Server, "web"), (Kind::Client, "web-client")] {
        let spans: Vec<&Span> = report.spans.at(kind, service).collect();
        check_count(service, spans.len() as u64, REQUESTS, 0, &report)?;
        for span in spans {
            judge(span).with_context(|| format!("{service}: {span:?}"))?;
        }
    }
    Ok(())
}

/// A server in Node; the client does what Node's server has.
fn node(context: &Context, tls: bool) -> Result<()> {
    let certs = tls.then(|| Certs::make(&context.dir)).transpose()?;
    let port = paths::free_port()?;
    let mut command = Command::new(paths::need("node")?);
    command.arg(paths::app("web.js")).arg(port.to_string());
    command.args(certs.iter().flat_map(|certs| [&certs.cert, &certs.key]));
    command.env("OTEL_SERVICE_NAME", "web");
    let report = run(context, command, port, certs.as_ref())?;
    let spans: Vec<&Span> = report.spans.at(Kind::Server, "web").collect();
    check_count("web", spans.len() as u64, REQUESTS, 0, &report)?;
    for span in spans {
        judge(span).with_context(|| format!("{span:?}"))?;
    }
    Ok(())
}

fn run(context: &Context, mut server: Command, port: u16, certs: Option<&Certs>) -> Result<Report> {
    let mut server = Proc::start("web", server.current_dir(&context.dir), &context.dir)?;
    server.wait_line("ready", LIMIT)?;
    let url = if certs.is_some() { "https://localhost" } else { "http://127.0.0.1" };
    let mut command = Command::new(toolbox::python()?);
    command.arg(paths::app("web.py")).args(["client", &format!("{url}:{port}"), &REQUESTS.to_string()]);
    command.args(certs.iter().map(|certs| &certs.ca)).env("OTEL_SERVICE_NAME", "web-client");
    let mut client = Client::start("web-client", command.current_dir(&context.dir), &context.dir)?;
    let agent = Agent::attach(&context.dir, &[server.pids(), client.pids()].concat(), &Options::default())?;
    ensure!(client.run(LIMIT)? == REQUESTS, "requests are missing");
    std::thread::sleep(SETTLE);
    agent.stop()
}

/// Whether a span is as its path says.
fn judge(span: &Span) -> Result<()> {
    let path = span.path().trim_start_matches('/');
    let (kind, rest) = path.split_once('/').context("a path of another form")?;
    ensure!(span.get("spanwise.incomplete").is_none(), "it is not complete");
    let http = |status: u64| {
        ensure!(span.number("http.response.status_code") == Some(status), "not status {status}");
        ensure!(span.get("rpc.system.name").is_none() && span.rpc_method().is_none(), "it is no call");
        Ok(())
    };
    match kind {
        "socket" => http(101),
        "events" | "close" => http(200),
        "load.Connect" => http(if rest == "C0" { 200 } else { 404 }),
        _ => {
            let code = rest.strip_prefix('C').and_then(|code| code.parse::<usize>().ok());
            let status = code.and_then(|code| STATUSES.get(code)).context("no status")?;
            // A method that a server does not know is not its name.
            let named = span.name == path || (*status == "UNIMPLEMENTED" && span.kind == Kind::Server);
            ensure!(named, "its name is {}", span.name);
            ensure!(span.get("rpc.system.name") == Some("grpc"), "it is no call");
            ensure!(span.get("rpc.response.status_code") == Some(status), "not status {status}");
            let messages = |key: &str| span.number(&format!("spanwise.rpc.{key}.messages")).unwrap_or(0);
            // An answer of trailers only has none.
            let answers = u64::from(kind != "load.Head");
            ensure!((messages("request"), messages("response")) == (1, answers), "other messages");
            Ok(())
        }
    }
}
