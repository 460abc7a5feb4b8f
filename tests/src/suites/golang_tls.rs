//! Go programs with TLS and gRPC: each request of a chain of two has its spans under the right parents; with HTTP/1 and HTTP/2, by
//! the newest and the oldest Go, stripped, movable and linked with C, on connections older than the agent, and while the agent comes
//! and goes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::SETTLE;
use crate::agent::{Agent, Options, Report, once};
use crate::apps::{App, pids};
use crate::certs::Certs;
use crate::golang::{GoApp, Program, Variant};
use crate::judge;
use crate::runner::{Case, Context};
use crate::spans::Kind;

const LIMIT: Duration = Duration::from_secs(60);
const REQUESTS: u64 = 600;
/// How often the agent comes and goes under load.
const ROUNDS: usize = 12;

pub(super) const CASES: &[Case] = &[
    Case { name: "golang_tls/sites", seconds: 400, run: sites },
    Case { name: "golang_tls/http1", seconds: 60, run: |c| web(c, &Way::new("direct")) },
    Case {
        name: "golang_tls/http1_child_pie",
        seconds: 60,
        run: |c| web(c, &Way::new("child").built(Variant::Pie)),
    },
    Case {
        name: "golang_tls/http1_cgo",
        seconds: 60,
        run: |c| web(c, &Way::new("direct").built(Variant::Cgo)),
    },
    Case {
        name: "golang_tls/http1_oldest_stripped",
        seconds: 120,
        run: |c| web(c, &Way::new("direct").oldest()),
    },
    Case { name: "golang_tls/http2", seconds: 60, run: |c| web(c, &Way::new("direct").http2()) },
    Case { name: "golang_tls/http2_child", seconds: 60, run: |c| web(c, &Way::new("child").http2()) },
    Case {
        name: "golang_tls/http2_oldest_stripped",
        seconds: 120,
        run: |c| web(c, &Way::new("direct").http2().oldest()),
    },
    Case { name: "golang_tls/grpc", seconds: 60, run: |c| rpc(c, &Way::new("direct")) },
    Case {
        name: "golang_tls/grpc_child_stripped",
        seconds: 60,
        run: |c| rpc(c, &Way::new("child").built(Variant::Stripped)),
    },
    Case {
        name: "golang_tls/grpc_oldest_stripped",
        seconds: 120,
        run: |c| rpc(c, &Way::new("direct").oldest()),
    },
    Case { name: "golang_tls/older_connections", seconds: 60, run: older_connections },
    Case { name: "golang_tls/attach_rounds", seconds: 120, run: attach_rounds },
];

/// Releases of Go, the last is that installed.
const RELEASES: [Option<&str>; 7] = [
    Some("1.21.13"),
    Some("1.22.12"),
    Some("1.23.12"),
    Some("1.24.11"),
    Some("1.25.5"),
    Some("1.27.3"),
    None,
];

/// Every release gets every hook, stripped too, each at an instruction that the kernel emulates, and nothing is refused.
fn sites(context: &Context) -> Result<()> {
    let web =
        ["go_encrypt", "go_decrypt", "go_http_call", "go_serves", "go_serves", "go_h2_call", "go_h2_call"];
    let rpc = ["go_encrypt", "go_decrypt", "go_serves", "go_calls", "go_opens"];
    for release in RELEASES {
        for (program, mut wanted) in [(Program::Web, web.to_vec()), (Program::Rpc, rpc.to_vec())] {
            let way = Way { go: release, ..Way::new("direct").built(Variant::Stripped) };
            let app = way.app(program, "direct", context).start()?;
            let pid = app.pids().first().context("no process")?.to_string();
            let (code, out, err) = once(&context.dir, &["ps", "--probes", &pid, "--json"], LIMIT)?;
            ensure!(code == Some(0), "ps --probes: {err}");
            let told: Value = serde_json::from_str(&out)?;
            let all = |key: &str| -> Vec<Value> {
                let instruments = told.get("files").and_then(Value::as_array).into_iter().flatten();
                let instruments = instruments
                    .flat_map(|file| file.get("instruments").and_then(Value::as_array).into_iter().flatten());
                instruments
                    .flat_map(|one| one.get(key).and_then(Value::as_array).cloned().unwrap_or_default())
                    .collect()
            };
            let (refusals, notes) = (all("refusals"), all("notes"));
            ensure!(
                refusals.is_empty() && notes.is_empty(),
                "{release:?} {program:?}: {refusals:?} {notes:?}"
            );
            let mut found = Vec::new();
            for site in all("sites") {
                let class = site.get("class").and_then(Value::as_str).unwrap_or_default();
                ensure!(
                    matches!(class, "push" | "jump" | "call"),
                    "{release:?} {program:?}: a dear site: {site}"
                );
                found.push(site.get("program").and_then(Value::as_str).unwrap_or_default().to_owned());
            }
            found.sort_unstable();
            wanted.sort_unstable();
            ensure!(found == wanted, "{release:?} {program:?}: {found:?}, not {wanted:?}");
        }
        println!("    {}: every hook of web and rpc", release.unwrap_or("installed"));
    }
    Ok(())
}

/// How the programs are built and call.
#[derive(Clone, Copy)]
struct Way {
    mode: &'static str,
    http2: bool,
    variant: Variant,
    go: Option<&'static str>,
}

impl Way {
    fn new(mode: &'static str) -> Self {
        Self { mode, http2: false, variant: Variant::Plain, go: None }
    }

    fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    fn built(mut self, variant: Variant) -> Self {
        self.variant = variant;
        self
    }

    fn oldest(mut self) -> Self {
        self.go = Some("1.21.13");
        self.built(Variant::Stripped)
    }

    fn app<'a>(&self, program: Program, mode: &str, context: &'a Context) -> GoApp<'a> {
        let mut app = GoApp::new(program, mode, &context.dir).built(self.variant);
        if let Some(go) = self.go {
            app = app.by(go);
        }
        if self.http2 { app.http2() } else { app }
    }

    /// A leaf and what calls it, both with TLS.
    fn chain(&self, program: Program, certs: &Certs, context: &Context) -> Result<[App; 2]> {
        let leaf = self.app(program, "direct", context).named("leaf").tls(certs).delayed(2).start()?;
        let front = self.app(program, self.mode, context).named("front").tls(certs);
        Ok([front.calling_tls(&leaf, certs).start()?, leaf])
    }
}

/// The calls of the first and the requests of the second are under the right spans, and all of them are there.
fn check(report: &Report, requests: u64) -> Result<()> {
    report.stats.check_balance()?;
    for (what, verdict) in [
        ("calls", judge::calls(&report.spans, "front", 1, requests, 1)),
        ("requests of the leaf", judge::served(&report.spans, "leaf", 1, requests, 1)),
    ] {
        println!("    {what}: {}", verdict.line());
        let told = || format!("{what}: {}\n{}", verdict.line(), report.stats.table());
        ensure!(verdict.wrong == 0, told());
        ensure!(verdict.missing + verdict.surplus == 0, told());
        ensure!(verdict.right_share() >= 0.99, told());
    }
    Ok(())
}

fn web(context: &Context, way: &Way) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let apps = way.chain(Program::Web, &certs, context)?;
    let [front, _] = &apps;
    let client = GoApp::client_of(Program::Web, REQUESTS, 2, 4, &context.dir)?.arg(&["-path", "/work/{n}"]);
    let client = if way.http2 { client.http2() } else { client };
    let mut client = client.calling_tls(front, &certs).start_client()?;
    let agent = Agent::attach(&context.dir, &pids(&apps.each_ref()), &Options::default())?;
    client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    check(&report, REQUESTS)?;
    let wanted = if way.http2 { "2" } else { "1.1" };
    let odd = report.spans.at(Kind::Server, "leaf").find(|span| {
        span.get("network.protocol.version") != Some(wanted)
            || span.number("http.response.status_code") != Some(200)
    });
    ensure!(odd.is_none(), "{odd:?}");
    Ok(())
}

fn rpc(context: &Context, way: &Way) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let apps = way.chain(Program::Rpc, &certs, context)?;
    let [front, _] = &apps;
    let client = GoApp::client_of(Program::Rpc, REQUESTS, 2, 4, &context.dir)?.arg(&["-kinds", "W"]);
    let mut client = client.calling_tls(front, &certs).start_client()?;
    let agent = Agent::attach(&context.dir, &pids(&apps.each_ref()), &Options::default())?;
    client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    check(&report, REQUESTS)?;
    let odd = report.spans.at(Kind::Server, "leaf").find(|span| {
        span.get("rpc.response.status_code") != Some("OK")
            || span.rpc_method().is_none_or(|method| !method.starts_with("load.Work/L"))
    });
    ensure!(odd.is_none(), "{odd:?}");
    Ok(())
}

/// The agent comes when connections are there and in use: what it shows of them is right.
fn older_connections(context: &Context) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let apps = Way::new("direct").chain(Program::Web, &certs, context)?;
    let [front, _] = &apps;
    let requests = 4_000;
    let client = GoApp::client_of(Program::Web, requests, 2, 2, &context.dir)?.arg(&["-path", "/work/{n}"]);
    let mut client = client.calling_tls(front, &certs).start_client()?;
    client.go()?;
    std::thread::sleep(Duration::from_millis(300));
    let agent = Agent::attach(&context.dir, &pids(&apps.each_ref()), &Options::default())?;
    client.done(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let calls = judge::calls(&report.spans, "front", 1, requests, 1);
    println!("    calls: {}", calls.line());
    let seen = requests - calls.missing;
    ensure!(
        seen > 100 && calls.wrong == 0 && calls.surplus == 0,
        "{}\n{}",
        calls.line(),
        report.stats.table()
    );
    ensure!(calls.right * 100 >= seen * 98, "{}\n{}", calls.line(), report.stats.table());
    Ok(())
}

/// Probes come and go under load, with the garbage collector stopping the world and stacks that are copied: no request fails.
fn attach_rounds(context: &Context) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let leaf = GoApp::new(Program::Web, "direct", &context.dir).named("leaf").tls(&certs).start()?;
    let front = GoApp::new(Program::Web, "child", &context.dir).named("front").tls(&certs);
    let front =
        front.env("GODEBUG", "gcstoptheworld=1").env("GOGC", "5").calling_tls(&leaf, &certs).start()?;
    let apps = [front, leaf];
    let [front, _] = &apps;
    let requests = 20_000;
    let client = GoApp::client_of(Program::Web, requests, 4, 4, &context.dir)?.arg(&["-path", "/work/{n}"]);
    let mut client = client.calling_tls(front, &certs).start_client()?;
    client.go()?;
    for round in 0..ROUNDS {
        let dir = context.dir.join(format!("round-{round}"));
        std::fs::create_dir_all(&dir)?;
        let agent = Agent::attach(&dir, &pids(&apps.each_ref()), &Options::default())?;
        std::thread::sleep(Duration::from_millis(100));
        agent.stop()?.stats.check_balance()?;
    }
    let done = client.done(LIMIT)?;
    ensure!(done == requests, "{done} of {requests} requests were answered");
    println!("    {ROUNDS} rounds, {done} requests answered");
    Ok(())
}
