//! Go servers that ask PostgreSQL (pgx, database/sql) and Redis (go-redis) before they call another server, with net/http and
//! gin: every request and every call has its span, and the call is under the request that made it, though its goroutine spoke
//! with three other connections in between.

use anyhow::{Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::apps::pids;
use crate::databases::{Postgres, Redis};
use crate::golang::{GoApp, Program};
use crate::judge;
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};
use crate::spans::Kind;

const REQUESTS: u64 = 1_000;

pub(super) const CASES: &[Case] = &[
    Case { name: "databases_go/std_8", seconds: 120, run: |context| asks(context, "std", 8) },
    Case { name: "databases_go/gin_64", seconds: 120, run: |context| asks(context, "gin", 64) },
];

fn asks(context: &Context, framework: &str, at_once: usize) -> Result<()> {
    let (postgres, redis) = (Postgres::start(&context.dir)?, Redis::start(&context.dir)?);
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
    let calls = judge::calls(&report.spans, &app.name, 1, REQUESTS, 1);
    println!("    {} at {at_once}: {}", app.name, calls.line());
    ensure!(calls.missing + calls.surplus == 0, "{}\n{}", calls.line(), report.stats.table());
    ensure!(calls.wrong_share() <= 0.001 && calls.right_share() >= 0.99, "{}", calls.line());
    let joined = judge::served(&report.spans, "leaf", 1, REQUESTS, 1);
    ensure!(joined.right == REQUESTS, "leaf's requests: {}", joined.line());
    Ok(())
}
