//! Redis. In: its own clients, one of them pipelining, and Go servers that ask it for each request, from before the agent came. Out: a span of every
//! command on both sides, the server's below the client's, called after the command, below the request that it is of; nothing
//! of a key or a value.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, check_count};
use crate::agent::{Agent, Options, Report};
use crate::databases::Redis;
use crate::golang::{GoApp, Program};
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};
use crate::spans::{Kind, Span};
use crate::{paths, toolbox};

pub(super) const CASES: &[Case] = &[
    Case { name: "redis/commands", seconds: 60, run: commands },
    Case { name: "redis/benchmark", seconds: 60, run: |context| benchmark(context, "1") },
    Case { name: "redis/pipeline", seconds: 60, run: |context| benchmark(context, "16") },
    Case { name: "redis/go", seconds: 120, run: go },
];

/// Commands of each kind that a benchmark runs.
const COUNT: u64 = 4_000;
/// Requests to a server that asks Redis twice for each.
const REQUESTS: u64 = 500;

/// Runs a server, and then clients, all of them traced. In the script `$cli` is the client's command.
fn under_agent(context: &Context, clients: &str) -> Result<Report> {
    let (server, cli) = (toolbox::redis_server()?, paths::need("redis-cli")?);
    let port = paths::free_port()?;
    let script = format!(
        "{} --port {port} --bind 127.0.0.1 --save '' --appendonly no > redis.log & server=$!
         cli='{} -p {port}'; port={port}
         n=0; until $cli echo ready > /dev/null 2>&1; do n=$((n+1)); [ $n -lt 200 ] || exit 1; sleep 0.1; done
         set -e
         {clients}
         kill $server; wait $server || true",
        server.display(),
        cli.display()
    );
    let report = Agent::run(&context.dir, &["sh", "-c", &script], &Options::default())?
        .finish(Duration::from_secs(50))?;
    ensure!(report.code == Some(0), "the script failed:\n{}{}", report.stdout, report.stderr);
    report.stats.check_balance()?;
    Ok(report)
}

fn is_redis(span: &&Span) -> bool {
    span.get("db.system.name") == Some("redis")
}

/// The conventions hold of every span, and it has an answer.
fn check(span: &Span) -> Result<()> {
    let error = span.get("error.type");
    ensure!(span.get("spanwise.incomplete").is_none(), "a part is missing: {span:?}");
    ensure!(span.get("db.operation.name") == Some(&span.name), "another name: {span:?}");
    ensure!(span.get("db.response.status_code") == error, "an error without its code: {span:?}");
    ensure!((span.status == 2) == error.is_some(), "a wrong status: {span:?}");
    ensure!(span.get("http.request.method").is_none(), "a call of Redis is not one of HTTP: {span:?}");
    Ok(())
}

/// Whatever is done, its name and its error are told, and no more.
fn commands(context: &Context) -> Result<()> {
    let report = under_agent(
        context,
        r#"head -c 60000 /dev/zero | tr '\0' s > long
           $cli -x set secret-long < long
           $cli get secret-long > long.back
           $cli -n 3 > out 2>&1 <<END
set secret-key secret-value
lpush secret-key secret-item
get secret-key
multi
incr secret-count
exec
client setname secret-name
config get secret-config
auth secret-password
eval "return redis.call('get', KEYS[1])" 1 secret-key
mset secret-1 1 secret-2 2 secret-3 3 secret-4 4 secret-5 5
secret-command secret
END
           $cli -3 hgetall secret-hash > out3"#,
    )?;
    let mut names: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for span in report.spans.all.iter().filter(is_redis) {
        check(span)?;
        let count = names.entry(&span.name).or_default();
        *(if span.kind == Kind::Client { &mut count.0 } else { &mut count.1 }) += 1;
        let texts = span.attributes.iter().filter(|(key, _)| key.starts_with("db."));
        for (key, value) in texts.chain([(&String::new(), &span.name)]) {
            // The name of a command is its name, also if there is no such command.
            let rest = value.replace("SECRET-COMMAND", "");
            ensure!(
                !rest.to_lowercase().contains("secret") && !rest.contains("sss"),
                "{key} tells too much: {span:?}"
            );
        }
    }
    let seen: BTreeMap<&str, u64> = names.iter().map(|(name, count)| (*name, count.0)).collect();
    for (name, count) in &names {
        ensure!(
            count.0 == count.1,
            "{name}: {} calls, {} served\n{}",
            count.0,
            count.1,
            report.stats.table()
        );
    }
    for (name, count) in [
        ("SET", 2),
        ("LPUSH", 1),
        ("GET", 2),
        ("MULTI", 1),
        ("INCR", 1),
        ("EXEC", 1),
        ("CLIENT SETNAME", 1),
        ("CONFIG GET", 1),
        ("AUTH", 1),
        ("EVAL", 1),
        ("MSET", 1),
        ("HELLO", 1),
        ("HGETALL", 1),
    ] {
        ensure!(seen.get(name) == Some(&count), "{name}: not {count} but {seen:?}\n{}", report.stats.table());
    }
    let one =
        |name: &str| report.spans.of(Kind::Client).find(|span| span.name == name).context("no such span");
    let push = one("LPUSH")?;
    ensure!(push.get("error.type") == Some("WRONGTYPE"), "a list that is none: {push:?}");
    ensure!(push.get("db.namespace") == Some("3"), "another database: {push:?}");
    ensure!(push.get("db.query.text") == Some("LPUSH ? ?"), "another text: {push:?}");
    joined(&report)
}

/// The server's span is below the client's, and of the same command.
fn joined(report: &Report) -> Result<()> {
    for server in report.spans.of(Kind::Server).filter(is_redis) {
        let parent = report.spans.parent(server).with_context(|| format!("no parent: {server:?}"))?;
        ensure!(
            parent.kind == Kind::Client && parent.name == server.name,
            "{parent:?}\nis no parent of\n{server:?}"
        );
    }
    Ok(())
}

/// As many spans as commands, on both sides.
fn benchmark(context: &Context, pipeline: &str) -> Result<()> {
    let tool = paths::need("redis-benchmark")?;
    let report = under_agent(
        context,
        &format!("{} -p $port -c 4 -n {COUNT} -P {pipeline} -t set,get,lpush -q", tool.display()),
    )?;
    for name in ["SET", "GET", "LPUSH"] {
        for kind in [Kind::Client, Kind::Server] {
            let spans = || report.spans.of(kind).filter(is_redis).filter(|span| span.name == name);
            check_count(name, spans().count() as u64, COUNT, 0, &report)?;
            if report.stats.drops() == 0 {
                spans().try_for_each(check)?;
            }
        }
    }
    if report.stats.drops() == 0 { joined(&report) } else { Ok(()) }
}

/// Calls are below the request that made them, on connections that are older than the agent.
fn go(context: &Context) -> Result<()> {
    let redis = Redis::start(&context.dir)?;
    let app = GoApp::new(Program::Data, "std", &context.dir).arg(&["-redis", &redis.address()]).start()?;
    let load =
        |requests| Plan::new(app.target(), 8, Until::Requests(requests), "/redis/{n}").run()?.all_good();
    load(100)?;
    let pids = [app.pids(), vec![redis.proc.pid()]].concat();
    let agent = Agent::attach(&context.dir, &pids, &Options::default())?;
    load(REQUESTS)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    joined(&report)?;
    let mut right = 0;
    let mut calls: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for call in report.spans.at(Kind::Client, &app.name).filter(is_redis) {
        check(call)?;
        calls.entry(&call.parent).or_default().push(call);
    }
    for request in report.spans.at(Kind::Server, &app.name) {
        let below = calls.get(request.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let within = below.iter().all(|call| call.start >= request.start && call.end <= request.end);
        let names: Vec<&str> = below.iter().map(|call| call.name.as_str()).collect();
        let mut ordered = below.to_vec();
        ordered.sort_by_key(|call| call.start);
        let order: Vec<&str> = ordered.iter().map(|call| call.name.as_str()).collect();
        ensure!(names.len() <= 2, "too many calls below a request: {names:?}");
        right += u64::from(within && order == ["SET", "GET"]);
    }
    ensure!(
        right * 100 >= REQUESTS * 99,
        "{right} of {REQUESTS} requests have their calls\n{}{}",
        report.spans.sample(),
        report.stats.table()
    );
    let served = report.spans.of(Kind::Server).filter(is_redis).count() as u64;
    check_count("Redis", served, 2 * REQUESTS, 16, &report)
}
