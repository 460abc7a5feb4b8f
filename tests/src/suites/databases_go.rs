//! Go servers that ask PostgreSQL (pgx, database/sql) and Redis (go-redis) before they call another server, with net/http and
//! gin: every request and every call has its span, and the call is under the request that made it, though its goroutine spoke
//! with three other connections in between. So has every query, with its text and nothing secret in it.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::apps::pids;
use crate::databases::{Postgres, Redis};
use crate::golang::{GoApp, Program};
use crate::judge;
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};
use crate::spans::{Kind, Spans};

const REQUESTS: u64 = 1_000;

pub(super) const CASES: &[Case] = &[
    Case { name: "databases_go/std_8", seconds: 120, run: |context| asks(context, "std", 8, false) },
    Case { name: "databases_go/gin_64", seconds: 120, run: |context| asks(context, "gin", 64, false) },
    Case { name: "databases_go/tls_8", seconds: 120, run: |context| asks(context, "std", 8, true) },
];

fn asks(context: &Context, framework: &str, at_once: usize, tls: bool) -> Result<()> {
    let postgres = if tls { Postgres::start_tls(&context.dir)? } else { Postgres::start(&context.dir)? };
    let redis = Redis::start(&context.dir)?;
    let leaf = GoApp::new(Program::Web, "direct", &context.dir).named("leaf").delayed(5).start()?;
    let app = GoApp::new(Program::Data, framework, &context.dir).calling(&leaf);
    let app = app.arg(&["-postgres", &postgres.url(), "-redis", &redis.address()]).start()?;
    let agent = Agent::attach(&context.dir, &pids(&[&app, &leaf]), &Options::default())?;
    Plan::new(app.target(), at_once, Until::Requests(REQUESTS), "/work/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let served = report.spans.at(Kind::Server, &app.name).count() as u64;
    ensure!(served == REQUESTS, "{served} spans of {REQUESTS} requests\n{}", report.stats.table());
    queries(&report.spans, &app.name, tls)?;
    let calls = judge::calls(&report.spans, &app.name, 1, REQUESTS, 1);
    println!("    {} at {at_once}: {}", app.name, calls.line());
    ensure!(calls.missing + calls.surplus == 0, "{}\n{}", calls.line(), report.stats.table());
    ensure!(calls.wrong_share() <= 0.001 && calls.right_share() >= 0.99, "{}", calls.line());
    let joined = judge::served(&report.spans, "leaf", 1, REQUESTS, 1);
    ensure!(joined.right == REQUESTS, "leaf's requests: {}", joined.line());
    Ok(())
}

/// What each request asks PostgreSQL once: summary, text, operations of a batch, error.
const QUERIES: &[(&str, &str, Option<u64>, Option<&str>)] = &[
    ("SELECT pgbench_branches", "select $1::int + ? from pgbench_branches where ? <> ?", None, None),
    ("SELECT", "select cast($1 as int) + ? where ? <> ?", None, None),
    ("SELECT pgbench_tellers", "select ? + ? from pgbench_tellers where ? <> ? limit ?", None, None),
    ("BATCH SELECT pgbench_branches", "select $1::int + ?, ? from pgbench_branches", Some(3), None),
    ("SELECT pgbench_tellers", "select ? / ? from pgbench_tellers", None, Some("22012")),
];

/// Every query has its span, to the unit, and each request has one of each kind below it.
fn queries(spans: &Spans, service: &str, tls: bool) -> Result<()> {
    let mut found: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    let asked =
        spans.at(Kind::Client, service).filter(|span| span.get("db.system.name") == Some("postgresql"));
    for span in asked {
        let told = format!("{} {:?}", span.name, span.attributes);
        ensure!(!told.contains("secret") && !told.contains("'x'"), "a literal is told: {told}");
        // Preparing a statement is a call too, once on each connection.
        if span.get("db.operation.name") != Some("PREPARE") {
            found.entry(span.get("db.query.text").unwrap_or_default()).or_default().push(span);
        }
    }
    let other: Vec<_> = found.keys().filter(|text| QUERIES.iter().all(|query| query.1 != **text)).collect();
    // A pool asks a connection that it has not used for a while whether it is there.
    ensure!(other.iter().all(|text| text.is_empty()), "{other:?}");
    for (summary, text, batch, error) in QUERIES {
        let all = found.get(text).with_context(|| format!("no span has the text {text}"))?;
        ensure!(all.len() as u64 == REQUESTS, "{} spans of {REQUESTS} queries: {text}", all.len());
        let mut requests = HashSet::new();
        let mut under = 0;
        for span in all {
            let fits = span.name == *summary
                && span.get("db.query.summary") == Some(summary)
                && span.get("db.namespace") == Some("postgres")
                && span.number("db.operation.batch.size") == *batch
                && span.get("db.response.status_code") == *error
                && span.get("error.type") == *error
                && (span.status == 2) == error.is_some()
                && span.get("tls.protocol.version").is_some() == tls
                && span.get("server.address") == Some("127.0.0.1");
            ensure!(fits, "{text}: {span:?}");
            let parent = spans.parent(span).filter(|parent| parent.kind == Kind::Server);
            if let Some(parent) = parent.filter(|parent| parent.start <= span.start && parent.end >= span.end)
            {
                under += 1;
                requests.insert(&parent.id);
            }
        }
        println!("    {summary}: {} of {under} queries under {} requests", all.len(), requests.len());
        // Each request asked once: one that has two has another's.
        let (own, enough) = (requests.len() as u64, under * 100 >= REQUESTS * 99);
        ensure!(enough && under - own <= REQUESTS / 1_000, "{text}: {under} under {own} requests");
    }
    Ok(())
}
