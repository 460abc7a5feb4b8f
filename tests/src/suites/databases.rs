//! PostgreSQL from both sides: the clients that come with it (libpq) and the server are traced, in clear and with TLS. Every statement has a span at each end,
//! to the unit, joined; with its text, its error, and no literal.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options, Report};
use crate::databases::Postgres;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::spans::{Kind, Span};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "databases/pgbench_simple",
        seconds: 120,
        run: |context| pgbench(context, "simple", Way::Tcp),
    },
    Case {
        name: "databases/pgbench_extended_unix",
        seconds: 120,
        run: |context| pgbench(context, "extended", Way::Unix),
    },
    Case {
        name: "databases/pgbench_prepared",
        seconds: 120,
        run: |context| pgbench(context, "prepared", Way::Tcp),
    },
    Case { name: "databases/psql", seconds: 120, run: |context| psql(context, Way::Tcp) },
    Case { name: "databases/psql_unix", seconds: 120, run: |context| psql(context, Way::Unix) },
    Case { name: "databases/psql_tls", seconds: 120, run: |context| psql(context, Way::Tls) },
];

/// How clients reach the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Unix,
    /// TLS that the client asks for on a connection in clear.
    Tls,
}

/// Longest time that a client may take.
const CLIENT: Duration = Duration::from_secs(60);
const CONNECTIONS: u64 = 4;
const TRANSACTIONS: u64 = 100;

/// Traces the server and one of its clients.
fn trace(context: &Context, way: Way, program: &str, arguments: &str) -> Result<(Report, String)> {
    let postgres = match way {
        Way::Tcp | Way::Unix => Postgres::start(&context.dir)?,
        Way::Tls => Postgres::start_tls(&context.dir)?,
    };
    let start = context.dir.join("start");
    let mut command = postgres.waiting(program, way == Way::Unix, arguments, &start)?;
    let mut client = Proc::start(program, &mut command, &context.dir)?;
    let agent = Agent::attach(&context.dir, &[postgres.proc.pid(), client.pid()], &Options::default())?;
    fs::write(&start, "")?;
    client.wait(CLIENT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    report.spans.check_shape()?;
    for span in &report.spans.all {
        let told = format!("{} {:?}", span.name, span.attributes);
        ensure!(!told.contains("secret") && !told.contains("4711"), "a literal is told: {told}");
    }
    let said = format!("{}{}", client.stdout(), client.stderr());
    Ok((report, said))
}

/// Spans of both ends by what they say, each of the server's below one of the client's that says the same.
fn both_ends(report: &Report) -> Result<BTreeMap<String, Vec<&Span>>> {
    let mut clients: BTreeMap<String, Vec<&Span>> = BTreeMap::new();
    let (mut servers, mut joined) = (0, 0);
    for span in &report.spans.all {
        ensure!(span.get("db.system.name") == Some("postgresql"), "{span:?}");
        ensure!(span.get("db.namespace") == Some("postgres"), "{span:?}");
        if span.kind == Kind::Client {
            clients.entry(says(span)).or_default().push(span);
            continue;
        }
        servers += 1;
        let parent = report.spans.parent(span);
        joined +=
            u64::from(parent.is_some_and(|parent| parent.kind == Kind::Client && says(parent) == says(span)));
    }
    let asked: usize = clients.values().map(Vec::len).sum();
    println!("    {asked} calls, {servers} served, {joined} of them joined");
    ensure!(asked == servers, "{asked} calls, {servers} served\n{}", report.stats.table());
    ensure!(joined == servers as u64, "{joined} of {servers} joined\n{}", report.stats.table());
    Ok(clients)
}

fn says(span: &Span) -> String {
    let part = |key| span.get(key).unwrap_or("-");
    // The sign of a number is no part of it.
    let text = part("db.query.text").replace("-?", "?");
    format!("{} | {text} | {}", span.name, part("db.response.status_code"))
}

fn pgbench(context: &Context, mode: &str, way: Way) -> Result<()> {
    let arguments = format!("-n -M {mode} -c {CONNECTIONS} -j 2 -t {TRANSACTIONS}");
    let (report, said) = trace(context, way, "pgbench", &arguments)?;
    let wanted = CONNECTIONS * TRANSACTIONS;
    ensure!(said.contains(&format!("actually processed: {wanted}/{wanted}")), "{said}");
    let found = both_ends(&report)?;
    let literal = |number: u32| if mode == "simple" { "?".to_owned() } else { format!("${number}") };
    let (one, two, three, four) = (literal(1), literal(2), literal(3), literal(4));
    // In both modes with parameters pgbench numbers them in each statement anew.
    for (name, text) in [
        ("BEGIN", "BEGIN;".to_owned()),
        (
            "UPDATE pgbench_accounts",
            format!("UPDATE pgbench_accounts SET abalance = abalance + {one} WHERE aid = {two};"),
        ),
        ("SELECT pgbench_accounts", format!("SELECT abalance FROM pgbench_accounts WHERE aid = {one};")),
        (
            "UPDATE pgbench_tellers",
            format!("UPDATE pgbench_tellers SET tbalance = tbalance + {one} WHERE tid = {two};"),
        ),
        (
            "UPDATE pgbench_branches",
            format!("UPDATE pgbench_branches SET bbalance = bbalance + {one} WHERE bid = {two};"),
        ),
        (
            "INSERT pgbench_history",
            format!(
                "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ({one}, {two}, {three}, {four}, CURRENT_TIMESTAMP);"
            ),
        ),
        ("END", "END;".to_owned()),
    ] {
        let count = found.get(&format!("{name} | {text} | -")).map_or(0, Vec::len) as u64;
        ensure!(count == wanted, "{count} of {wanted}: {name} | {text}\n{:#?}", found.keys());
        if mode == "prepared" {
            let prepared = found.get(&format!("PREPARE {name} | {text} | -")).map_or(0, Vec::len) as u64;
            ensure!(prepared == CONNECTIONS, "prepared {prepared} times: {name}\n{:#?}", found.keys());
        }
    }
    Ok(())
}

/// What psql is told to ask, and what is told of that: name, text, error.
const SCRIPT: &[(&str, &str, &str, &str)] = &[
    (
        "create table t (a int primary key, b text);",
        "CREATE TABLE t",
        "create table t (a int primary key, b text);",
        "-",
    ),
    ("insert into t values (4711, 'secret');", "INSERT t", "insert into t values (?, ?);", "-"),
    ("insert into t values (4711, $$secret$$);", "INSERT t", "insert into t values (?, ?);", "23505"),
    ("select secrt from t where b = E'se\\'cret';", "SELECT t", "select secrt from t where b = ?;", "42703"),
    ("selec 'secret';", "SELEC", "selec ?;", "42601"),
    ("copy t from stdin;\n1\tsecret\n2\tsecret\n\\.", "COPY t", "copy t from stdin;", "-"),
    ("copy t to stdout;", "COPY t", "copy t to stdout;", "-"),
    ("select repeat('secret', 100000);", "SELECT", "select repeat(?, ?);", "-"),
    (
        "select * from pgbench_accounts order by aid limit 20000;",
        "SELECT pgbench_accounts",
        "select * from pgbench_accounts order by aid limit ?;",
        "-",
    ),
    ("do $$ begin raise notice 'secret'; end $$;", "DO", "do ?;", "-"),
];

fn psql(context: &Context, way: Way) -> Result<()> {
    let file = context.dir.join("script.sql");
    let script: Vec<&str> = SCRIPT.iter().map(|(asked, ..)| *asked).collect();
    fs::write(&file, script.join("\n") + "\n")?;
    let (report, said) = trace(context, way, "psql", &format!("-X -At -o answers -f {}", file.display()))?;
    let found = both_ends(&report)?;
    let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
    for (_, name, text, error) in SCRIPT {
        *wanted.entry(format!("{name} | {text} | {error}")).or_default() += 1;
    }
    let counted: BTreeMap<String, usize> =
        found.iter().map(|(says, spans)| (says.clone(), spans.len())).collect();
    ensure!(counted == wanted, "found {counted:#?}\nwanted {wanted:#?}\n{said}");
    for span in found.values().flatten() {
        let failed = span.get("db.response.status_code").is_some();
        ensure!((span.status == 2) == failed && span.get("error.type").is_some() == failed, "{span:?}");
        ensure!((span.get("network.transport") == Some("unix")) == (way == Way::Unix), "{span:?}");
        ensure!(span.get("tls.protocol.version").is_some() == (way == Way::Tls), "{span:?}");
    }
    Ok(())
}
