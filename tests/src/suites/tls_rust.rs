//! Plaintext of rustls: a server and a client of tokio, hyper and rustls. Every request has its span on both sides, with the right
//! path, and the server's span is the child of its own client's. A path is asked for once, so a record on a wrong connection
//! shows as a wrong parent, a missing span, or one too many.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::probes::breakpoints;
use super::tls::{all_joined, once_each, own_parents, paths_of};
use super::{SETTLE, until};
use crate::agent::{Agent, Options};
use crate::apps::App;
use crate::certs::Certs;
use crate::clients::Client;
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::secure::Protocol;
use crate::spans::Kind;

const LIMIT: Duration = Duration::from_secs(60);
const REQUESTS: u64 = 1_000;
const SERVER: &str = "rusty";
const CLIENT: &str = "rusty-client";

pub(super) const CASES: &[Case] = &[
    Case { name: "tls/rustls_64", seconds: 60, run: |c| both_sides(c, "h1", 64, 1, &[]) },
    Case { name: "tls/rustls_12", seconds: 60, run: |c| both_sides(c, "h1", 16, 1, &["1.2"]) },
    Case { name: "tls/rustls_http2", seconds: 60, run: |c| both_sides(c, "h2", 8, 16, &[]) },
    Case { name: "tls/rustls_old_connections", seconds: 60, run: |c| both_sides(c, "h1", 64, 1, &["old"]) },
    Case { name: "tls/rustls_killed", seconds: 60, run: killed },
];

fn server(context: &Context) -> Result<(App, Certs)> {
    let (certs, port) = (Certs::make(&context.dir)?, paths::free_port()?);
    let mut command = Command::new(paths::rusty()?);
    command.args(["server", &port.to_string()]).arg(&certs.cert).arg(&certs.key);
    command.env("OTEL_SERVICE_NAME", SERVER).current_dir(&context.dir);
    let mut proc = Proc::start(SERVER, &mut command, &context.dir)?;
    proc.wait_line("ready", LIMIT)?;
    Ok((App { name: SERVER.to_owned(), port, proc }, certs))
}

fn client(
    context: &Context,
    (app, certs): (&App, &Certs),
    protocol: &str,
    [requests, connections, streams]: [u64; 3],
    options: &[&str],
) -> Result<Client> {
    let mut command = Command::new(paths::rusty()?);
    command.args(["client", &Protocol::H2.url(app.port), protocol]);
    command.args([requests, connections, streams].map(|number| number.to_string()));
    command.arg(&certs.ca).args(options).env("OTEL_SERVICE_NAME", CLIENT).current_dir(&context.dir);
    Client::start(CLIENT, &mut command, &context.dir)
}

fn both_sides(
    context: &Context,
    protocol: &str,
    connections: u64,
    streams: u64,
    options: &[&str],
) -> Result<()> {
    let (app, certs) = server(context)?;
    let mut client = client(context, (&app, &certs), protocol, [REQUESTS, connections, streams], options)?;
    let agent = Agent::attach(&context.dir, &[app.pids(), client.pids()].concat(), &Options::default())?;
    let sent = client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    println!("    {sent} requests over {connections} connections");
    report.stats.check_balance()?;
    once_each(&report, Kind::Server, SERVER, &paths_of(sent))?;
    once_each(&report, Kind::Client, CLIENT, &paths_of(sent))?;
    if options.contains(&"old") {
        for span in report.spans.at(Kind::Server, SERVER) {
            let parent = report.spans.parent(span);
            ensure!(
                parent.is_none_or(|parent| parent.path() == span.path() && parent.kind == Kind::Client),
                "{span:?} is a child of {parent:?}"
            );
        }
    } else {
        own_parents(&report, SERVER)?;
    }
    all_joined(&report)
}

/// The agent is killed in the middle: server and client go on, and no probe is left in them.
fn killed(context: &Context) -> Result<()> {
    let (app, certs) = server(context)?;
    let mut first = client(context, (&app, &certs), "h2", [100, 4, 4], &[])?;
    let agent = Agent::attach(&context.dir, &[app.pids(), first.pids()].concat(), &Options::default())?;
    ensure!(first.run(LIMIT)? == 100, "with the agent");
    agent.proc.signal(libc::SIGKILL)?;
    let mut agent = agent;
    agent.proc.wait(LIMIT)?;
    let mut second = client(context, (&app, &certs), "h1", [100, 4, 1], &[])?;
    ensure!(second.run(LIMIT)? == 100, "after the agent");
    let program = paths::rusty()?;
    until(Duration::from_secs(20), "the end of every probe", || {
        breakpoints(app.proc.pid(), &program).is_ok_and(|left| left == 0)
    })?;
    Ok(())
}
