//! OpenSSL 1.1, which is in use long after its end. In: a server and a client that call its libssl, as the library of their sockets or
//! with encrypted bytes that they move themselves. Out: a span of every request on both sides, and parents from the own client.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::SETTLE;
use super::tls::{all_joined, once_each, own_parents, paths_of};
use crate::agent::{Agent, Options};
use crate::certs::Certs;
use crate::clients::Client;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::spans::Kind;
use crate::{paths, toolbox};

const LIMIT: Duration = Duration::from_secs(60);
const REQUESTS: u64 = 400;
const CONNECTIONS: u64 = 8;
const SERVER: &str = "libssl";
const CLIENT: &str = "libssl-client";

pub(super) const CASES: &[Case] = &[
    Case { name: "tls/openssl_1_1", seconds: 60, run: |c| both_sides(c, "socket") },
    Case { name: "tls/openssl_1_1_memory", seconds: 60, run: |c| both_sides(c, "memory") },
];

/// Python with the program and the folder of its library.
fn command(context: &Context, name: &str) -> Result<Command> {
    let mut command = Command::new(toolbox::python()?);
    command.arg(paths::app("libssl.py")).arg(toolbox::openssl_1_1()?);
    command.env("OTEL_SERVICE_NAME", name).current_dir(&context.dir);
    Ok(command)
}

fn both_sides(context: &Context, how: &str) -> Result<()> {
    let (certs, port) = (Certs::make(&context.dir)?, paths::free_port()?.to_string());
    let mut serve = command(context, SERVER)?;
    serve.args(["server", &port]).arg(&certs.cert).arg(&certs.key).arg(how);
    let mut server = Proc::start(SERVER, &mut serve, &context.dir)?;
    let ready = server.wait_line("ready", LIMIT)?;
    ensure!(ready.contains("OpenSSL 1.1.1"), "another library: {ready}");
    let mut ask = command(context, CLIENT)?;
    ask.args(["client", &port]).args([REQUESTS, CONNECTIONS].map(|number| number.to_string())).arg(how);
    let mut client = Client::start(CLIENT, &mut ask, &context.dir)?;
    let agent = Agent::attach(&context.dir, &[server.pid(), client.proc.pid()], &Options::default())?;
    let sent = client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    println!("    {sent} requests over {CONNECTIONS} connections");
    ensure!(sent == REQUESTS, "{sent} of {REQUESTS} requests were sent");
    report.stats.check_balance()?;
    once_each(&report, Kind::Server, SERVER, &paths_of(sent))?;
    once_each(&report, Kind::Client, CLIENT, &paths_of(sent))?;
    own_parents(&report, SERVER)?;
    all_joined(&report)
}
