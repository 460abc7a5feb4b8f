//! Programs that leave the beaten path. In: one that serves and calls in the ways of `tests/apps/wild.py` or `streams.js`. Out: of
//! each request a span on both sides, which says how it really ended, and the server's below the client's.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, Options, Report};
use crate::certs::Certs;
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::spans::{Kind, Span};

pub(super) const CASES: &[Case] = &[
    Case { name: "wild/crash", seconds: 60, run: crash },
    Case { name: "wild/fork", seconds: 60, run: fork },
    Case { name: "wild/half", seconds: 60, run: half },
    Case { name: "wild/pipeline", seconds: 60, run: pipeline },
    Case { name: "wild/giveup", seconds: 60, run: giveup },
    Case { name: "wild/unix", seconds: 60, run: unix },
    Case { name: "wild/silent", seconds: 60, run: silent },
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

/// A client that closes while the server works: its call is over then, and not when the server's answer is refused.
fn giveup(context: &Context) -> Result<()> {
    let report = wild(context, "giveup", 3)?;
    for span in report.spans.of(Kind::Client) {
        let lasted = span.end - span.start;
        ensure!(
            span.get("error.type") == Some("connection_closed") && lasted >= 40_000_000,
            "a call that was given up: {span:?}"
        );
        let served = report.spans.of(Kind::Server).find(|server| server.path() == span.path());
        let served = served.context("no server's span")?;
        // The server is at it for 250 ms longer.
        ensure!(span.end + 100_000_000 < served.end, "given up, and goes on: {span:?}\n{served:?}");
    }
    Ok(())
}

/// A server at a unix socket that closes: the end that reads the end of the stream tells of it at both.
fn unix(context: &Context) -> Result<()> {
    let report = wild(context, "unix", 4)?;
    for span in &report.spans.all {
        let answered = span.path().ends_with('1') || span.path().ends_with('3');
        let said = (span.get("error.type"), span.number("http.response.status_code"));
        let due = if answered { (None, Some(200)) } else { (Some("connection_closed"), None) };
        ensure!(
            said == due && span.get("spanwise.incomplete").is_none() && span.end - span.start >= 40_000_000,
            "{span:?}"
        );
    }
    Ok(())
}

/// The same where only the server is traced: it is looked whether it still holds the socket.
fn silent(context: &Context) -> Result<()> {
    let socket = context.dir.join("silent.sock");
    let mut command = Command::new(paths::need("python3")?);
    command.arg(paths::app("wild.py")).arg("silent").arg(&socket);
    let mut server = Proc::start("silent", &mut command, &context.dir)?;
    server.wait_line("listening", Duration::from_secs(10))?;
    let agent = Agent::attach(&context.dir, &[server.pid()], &Options::default())?;
    let ask = |path: &str| -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: wild\r\n\r\n").as_bytes())?;
        Ok(stream)
    };
    let mut slow = ask("/slow")?;
    ask("/never")?.read_to_end(&mut Vec::new())?;
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer)?;
    ensure!(answer.ends_with(b"ok"), "no answer");
    // What is found while the server lives, and not at its end.
    agent.wait_spans(2, Duration::from_secs(10), |spans| spans.of(Kind::Server).count())?;
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let spans = &report.spans;
    let of = |path| spans.all.iter().find(|span| span.path() == path).with_context(|| format!("no {path}"));
    let (slow, never) = (of("/slow")?, of("/never")?);
    ensure!(is_whole(slow) && slow.number("http.response.status_code") == Some(200), "{slow:?}");
    ensure!(never.get("spanwise.incomplete") == Some("unfinished"), "{never:?}");
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
