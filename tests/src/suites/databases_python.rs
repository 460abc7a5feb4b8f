//! Python servers that ask PostgreSQL and Redis: gunicorn with threads (psycopg2, psycopg, redis-py), and one event loop (asyncpg,
//! redis.asyncio). In: requests, some at once, whose number stands in their statements. Out: a span of every call, with its text and
//! nothing secret; none of them below another request than its own.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::databases::{Postgres, Redis};
use crate::load::{Plan, Target, Until};
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::spans::{Kind, Span, Spans};
use crate::{paths, toolbox};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "databases_python/threads_8",
        seconds: 90,
        run: |context| asks(context, Server::Threads, 8),
    },
    Case {
        name: "databases_python/threads_32",
        seconds: 90,
        run: |context| asks(context, Server::Threads, 32),
    },
    Case {
        name: "databases_python/asyncio_1",
        seconds: 90,
        run: |context| asks(context, Server::Asyncio, 1),
    },
    Case {
        name: "databases_python/asyncio_8",
        seconds: 90,
        run: |context| asks(context, Server::Asyncio, 8),
    },
    Case {
        name: "databases_python/asyncio_32",
        seconds: 90,
        run: |context| asks(context, Server::Asyncio, 32),
    },
];

const START: Duration = Duration::from_secs(20);
const REQUESTS: u64 = 400;
/// The application repeats its statements after so many requests.
const KINDS: u64 = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Threads,
    Asyncio,
}

impl Server {
    /// What each request asks: the name's beginning, the text up to the number of the request, the text after it.
    fn asks(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Threads => &[
                ("select ? + ? as two_", "_ from pgbench_branches where ? <> ?"),
                ("select $1::int + ? as three_", "_ from pgbench_branches where $2 <> ?"),
            ],
            Self::Asyncio => &[("select $1::int + ? as two_", "_ from pgbench_branches where $2 <> ?")],
        }
    }
}

fn asks(context: &Context, server: Server, at_once: usize) -> Result<()> {
    let (postgres, redis) = (Postgres::start(&context.dir)?, Redis::start(&context.dir)?);
    let (port, at) = (paths::free_port()?, redis.address());
    let mut command = Command::new(toolbox::python()?);
    match server {
        Server::Threads => {
            command.args(["-m", "gunicorn", "--threads", "64", "--worker-class", "gthread"]);
            command.args(["--keep-alive", "75", "--config", "python:gunicorn_ready"]);
            command.args(["--bind", &format!("127.0.0.1:{port}"), "asking:application"]);
        }
        Server::Asyncio => drop(command.arg(paths::app("asking.py")).arg(port.to_string())),
    }
    command.env("PYTHONPATH", paths::app("")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("POSTGRES", postgres.url()).env("OTEL_SERVICE_NAME", "asking").current_dir(&context.dir);
    command.env("REDIS", at.rsplit(':').next().unwrap_or_default());
    let mut app = Proc::start("asking", &mut command, &context.dir)?;
    app.wait_line("ready", START)?;
    Target::tcp(port).wait(START)?;
    let pids = [app.pids(), vec![postgres.proc.pid(), redis.proc.pid()]].concat();
    let agent = Agent::attach(&context.dir, &pids, &Options::default())?;
    Plan::new(Target::tcp(port), at_once, Until::Requests(REQUESTS), "/work/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let served = report.spans.at(Kind::Server, "asking").count() as u64;
    ensure!(served == REQUESTS, "{served} spans of {REQUESTS} requests\n{}", report.stats.table());
    for span in &report.spans.all {
        let told = format!("{} {:?}", span.name, span.attributes);
        ensure!(!told.contains("secret") && !told.contains("'x'"), "a literal is told: {told}");
        ensure!(span.get("spanwise.incomplete").is_none(), "a part is missing: {span:?}");
    }
    // Where one thread serves several at once there may be nothing to tell the parent by.
    let sure = server == Server::Threads || at_once == 1;
    for (begin, end) in server.asks() {
        queries(&report.spans, begin, end, sure).with_context(|| report.stats.table())?;
    }
    commands(&report.spans, sure).with_context(|| report.stats.table())
}

/// Every query has its span at both ends, and none is below another request than its own.
fn queries(spans: &Spans, begin: &str, end: &str, sure: bool) -> Result<()> {
    let number = |span: &Span| -> Option<u64> {
        // Preparing the statement is a call of its own, with the same text.
        let told = span.get("db.query.text").filter(|_| span.get("db.operation.name") == Some("SELECT"))?;
        told.strip_prefix(begin)?.strip_suffix(end)?.parse().ok()
    };
    let (mut counts, mut right, mut wrong) = (BTreeMap::<u64, u64>::new(), 0, 0);
    for span in spans.at(Kind::Client, "asking") {
        let Some(number) = number(span) else { continue };
        let fits = span.name == "SELECT pgbench_branches"
            && span.get("db.system.name") == Some("postgresql")
            && span.get("db.query.summary") == Some("SELECT pgbench_branches")
            && span.get("db.namespace") == Some("postgres")
            && span.get("server.address") == Some("127.0.0.1")
            && span.get("error.type").is_none();
        ensure!(fits, "{span:?}");
        *counts.entry(number).or_default() += 1;
        let Some(parent) = spans.parent(span) else { continue };
        let own = parent.request_number().is_some_and(|request| request % KINDS == number);
        *(if own { &mut right } else { &mut wrong }) += 1;
    }
    let served = spans.of(Kind::Server).filter(|span| number(span).is_some());
    let joined = served.filter(|span| spans.parent(span).and_then(number) == number(span)).count() as u64;
    println!("    {begin}: {right} right, {wrong} wrong, {} abstained", REQUESTS - right - wrong);
    ensure!(
        counts.len() as u64 == KINDS && counts.values().all(|count| *count == REQUESTS / KINDS),
        "not every query has one span: {counts:?}"
    );
    ensure!(joined == REQUESTS, "{joined} of {REQUESTS} served queries are below their calls");
    ensure!(wrong == 0, "{wrong} queries are below another request");
    ensure!(!sure || right * 100 >= REQUESTS * 99, "{right} of {REQUESTS} queries are below their requests");
    Ok(())
}

/// Every request sets and gets once.
fn commands(spans: &Spans, sure: bool) -> Result<()> {
    for name in ["SET", "GET"] {
        let (mut count, mut below) = (0, BTreeMap::<&str, u64>::new());
        for span in spans.at(Kind::Client, "asking").filter(|span| span.name == name) {
            let text = if name == "SET" { "SET ? ?" } else { "GET ?" };
            let fits = span.get("db.system.name") == Some("redis")
                && span.get("db.operation.name") == Some(name)
                && span.get("db.query.text") == Some(text)
                && span.get("error.type").is_none();
            ensure!(fits, "{span:?}");
            count += 1;
            if let Some(parent) = spans.parent(span) {
                ensure!(
                    parent.start <= span.start && span.end <= parent.end,
                    "{span:?}\nis not within\n{parent:?}"
                );
                *below.entry(&parent.id).or_default() += 1;
            }
        }
        println!("    {name}: {count}, of {} requests", below.len());
        ensure!(count == REQUESTS, "{count} spans of {REQUESTS} {name}");
        ensure!(below.values().all(|count| *count == 1), "a request has another's {name}");
        let own = below.len() as u64;
        ensure!(!sure || own * 100 >= REQUESTS * 99, "{own} of {REQUESTS} requests have their {name}");
    }
    Ok(())
}
