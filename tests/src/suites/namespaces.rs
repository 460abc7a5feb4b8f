//! Network namespaces, a bridge of two virtual devices, address translation, and connections older than the agent: client and
//! server spans join without any header. In: two namespaces of our own. Out: each server span under its client span.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::cleanup::Undo;
use crate::proc::{Proc, capture};
use crate::runner::{Case, Context, skip};
use crate::spans::Kind;
use crate::{judge, paths, toolbox};

pub(super) const CASES: &[Case] = &[
    Case { name: "namespaces/plain", seconds: 60, run: |context| join(context, false) },
    Case { name: "namespaces/dnat", seconds: 60, run: |context| join(context, true) },
];

const PORT: u16 = 8_080;
/// The address that clients use with translation: no machine has it.
const SERVICE: &str = "10.231.9.9";
const SERVER: &str = "10.231.1.2";
const CLIENT: &str = "10.231.1.1";

/// Two namespaces that reach each other. Removing a namespace removes the device in it, which removes its peer.
struct Net {
    client: String,
    server: String,
    _undo: Vec<Undo>,
}

fn ip(arguments: &[&str]) -> Result<String> {
    capture(Command::new(paths::need("ip")?).args(arguments))
}

fn inside(namespace: &str, command: &[&str]) -> Result<String> {
    let mut all = vec!["netns", "exec", namespace];
    all.extend(command);
    ip(&all)
}

impl Net {
    fn new() -> Result<Self> {
        let id = std::process::id();
        let (client, server) = (format!("spwc{id}"), format!("spws{id}"));
        let mut undo = Vec::new();
        for name in [&client, &server] {
            ip(&["netns", "add", name]).context("this machine cannot make network namespaces")?;
            let name = name.clone();
            undo.push(Undo::new(move || {
                if let Err(error) = ip(&["netns", "del", &name]) {
                    eprintln!("cannot remove network namespace {name}: {error:#}");
                }
            }));
        }
        ip(&[
            "link", "add", "spwv", "netns", &client, "type", "veth", "peer", "name", "spwv", "netns", &server,
        ])?;
        for (name, address) in [(&client, CLIENT), (&server, SERVER)] {
            inside(name, &["ip", "addr", "add", &format!("{address}/24"), "dev", "spwv"])?;
            inside(name, &["ip", "link", "set", "spwv", "up"])?;
            inside(name, &["ip", "link", "set", "lo", "up"])?;
        }
        inside(&client, &["ip", "route", "add", "default", "via", SERVER])?;
        Ok(Self { client, server, _undo: undo })
    }

    /// Clients that ask the service's address reach the server: translated where the connection begins, as a node does it.
    fn translate(&self) -> Result<()> {
        let rules = format!(
            "add table ip spw; add chain ip spw out {{ type nat hook output priority -100 ; }}; \
             add rule ip spw out ip daddr {SERVICE} tcp dport 80 dnat to {SERVER}:{PORT}"
        );
        inside(&self.client, &["nft", &rules]).map(drop)
    }
}

fn join(context: &Context, translated: bool) -> Result<()> {
    if paths::which("nft").is_none() && translated {
        return skip("nft is not installed");
    }
    let net = Net::new()?;
    let address = if translated {
        net.translate()?;
        format!("{SERVICE}:80")
    } else {
        format!("{SERVER}:{PORT}")
    };
    let python = toolbox::python()?;
    let script = |name: &str| paths::app(name);
    let start = |name: &str, namespace: &str, arguments: &[&str]| -> Result<Proc> {
        let mut command = Command::new(paths::need("ip")?);
        command
            .args(["netns", "exec", namespace])
            .arg(&python)
            .args(arguments)
            .env("OTEL_SERVICE_NAME", name);
        let mut proc = Proc::start(name, &mut command, &context.dir)?;
        proc.wait_line("ready", Duration::from_secs(10))?;
        Ok(proc)
    };
    let leaf_script = script("threaded.py");
    let leaf =
        start("leaf", &net.server, &[&leaf_script.to_string_lossy(), &PORT.to_string(), "--host", SERVER])?;
    let caller_script = script("caller.py");
    let mut caller = start("caller", &net.client, &[&caller_script.to_string_lossy(), &address])?;
    // The caller has made a request by now: its connection is older than the agent.
    let pids = [leaf.pids(), caller.pids()].concat();
    let agent = Agent::attach(&context.dir, &pids, &Options::default())?;
    caller.signal(libc::SIGUSR1)?;
    caller.wait_line("done", Duration::from_secs(20))?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let clients = report.spans.at(Kind::Client, "caller").count();
    ensure!(clients == 200, "{clients} client spans of 200\n{}", report.stats.table());
    let verdict = judge::served(&report.spans, "leaf", 1, 200, 1);
    ensure!(verdict.right == 200, "{}\n{}{}", verdict.line(), report.spans.sample(), report.stats.table());
    if translated {
        // The two ends do not even agree on the address, so it was not the tuple that joined them.
        let odd = report.spans.of(Kind::Client).find(|span| span.get("server.address") != Some(SERVICE));
        ensure!(odd.is_none(), "the client did not call {SERVICE}: {odd:?}");
    }
    Ok(())
}
