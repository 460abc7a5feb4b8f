//! Programs that leave the beaten path. In: one that serves and calls in the ways of `tests/apps/wild.py` or `streams.js`. Out: of
//! each request a span on both sides, which says how it really ended, and the server's below the client's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, Options, Report};
use crate::certs::Certs;
use crate::paths;
use crate::runner::{Case, Context};
use crate::spans::{Kind, Span};

pub(super) const CASES: &[Case] = &[
    Case { name: "wild/crash", seconds: 60, run: crash },
    Case { name: "wild/fork", seconds: 60, run: fork },
    Case { name: "wild/half", seconds: 60, run: half },
    Case { name: "wild/pipeline", seconds: 60, run: pipeline },
    Case { name: "wild/long_writes", seconds: 60, run: |context| long_writes(context, None) },
];

/// Those that need the plaintext of TLS.
pub(super) const TLS_CASES: &[Case] = &[Case {
    name: "wild/long_writes_tls",
    seconds: 60,
    run: |context| long_writes(context, Some(&Certs::make(&context.dir)?)),
}];

/// Runs one of the program's ways; `count` requests are due on either side, each server's below its client's.
fn wild(context: &Context, way: &str, count: usize) -> Result<Report> {
    let (python, script) = (paths::need("python3")?, paths::app("wild.py"));
    both_sides(context, &[&*python.to_string_lossy(), &*script.to_string_lossy(), way], count)
}

fn both_sides(context: &Context, command: &[&str], count: usize) -> Result<Report> {
    let report = Agent::run(&context.dir, command, &Options::default())?.finish(Duration::from_secs(40))?;
    ensure!(report.code == Some(0), "the program failed:\n{}", report.stderr);
    report.stats.check_balance()?;
    for kind in [Kind::Server, Kind::Client] {
        let found = report.spans.of(kind).count();
        ensure!(
            found == count,
            "{found} {kind:?} spans of {count}:\n{}{}",
            report.spans.sample(),
            report.stats.table()
        );
    }
    for server in report.spans.of(Kind::Server) {
        let parent = report.spans.parent(server).with_context(|| format!("no parent: {server:?}"))?;
        ensure!(
            parent.kind == Kind::Client && parent.path() == server.path(),
            "{parent:?}\nis no parent of\n{server:?}"
        );
    }
    Ok(report)
}

fn is_whole(span: &Span) -> bool {
    span.get("error.type").is_none() && span.get("spanwise.incomplete").is_none()
}

/// A server that dies in the middle: both ends say that the connection closed, after as long as it took.
fn crash(context: &Context) -> Result<()> {
    let report = wild(context, "crash", 3)?;
    for span in &report.spans.all {
        ensure!(
            span.get("error.type") == Some("connection_closed")
                && span.get("spanwise.incomplete").is_none()
                && span.end - span.start >= 140_000_000,
            "a request that was cut off: {span:?}"
        );
        let answered = span.number("http.response.status_code");
        ensure!(answered == (span.path() == "/half").then_some(200), "a wrong status: {span:?}");
    }
    Ok(())
}

/// The end of a process is the end of its answer.
fn fork(context: &Context) -> Result<()> {
    answered(&wild(context, "fork", 10)?)
}

/// A connection that the client half closed before the server took it has the same name at both ends.
fn half(context: &Context) -> Result<()> {
    answered(&wild(context, "half", 10)?)
}

/// Every request has its whole answer.
fn answered(report: &Report) -> Result<()> {
    let odd = |span: &&Span| !is_whole(span) || span.number("http.response.status_code") != Some(200);
    let odd = report.spans.all.iter().find(odd);
    ensure!(odd.is_none(), "an answer was not seen to its end: {odd:?}");
    Ok(())
}

/// Requests that do not wait for answers: each has its own answer.
fn pipeline(context: &Context) -> Result<()> {
    let report = wild(context, "pipeline", 20)?;
    for span in &report.spans.all {
        let status = if span.path().ends_with("/3") { 404 } else { 200 };
        let whole = is_whole(span) || status == 404;
        ensure!(whole && span.number("http.response.status_code") == Some(status), "{span:?}");
    }
    Ok(())
}

/// HTTP/2 whose frames pass sockets and library in writes of many frames: no frame header is lost in them.
fn long_writes(context: &Context, certs: Option<&Certs>) -> Result<()> {
    let (node, script) = (paths::need("node")?, paths::app("streams.js"));
    let mut command = vec![node.to_string_lossy(), script.to_string_lossy(), "60".into()];
    command.extend(
        certs.into_iter().flat_map(|certs| [certs.cert.to_string_lossy(), certs.key.to_string_lossy()]),
    );
    let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
    answered(&both_sides(context, &command, 60)?)
}
