//! Every family of system calls over every family of sockets. In: the exerciser's exchanges. Out: a server span and a client
//! span for each, with the right sizes; and the same spans from every capture plane.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::SETTLE;
use crate::agent::{Agent, Options, Report};
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::spans::{Kind, Span};

pub(super) const CASES: &[Case] = &[
    Case { name: "syscalls/sock", seconds: 60, run: |context| plane(context, "sock") },
    Case { name: "syscalls/syscall", seconds: 60, run: |context| plane(context, "syscall") },
    Case { name: "syscalls/parity", seconds: 90, run: parity },
];

/// An exchange that was made: sizes of the request's and the response's body, by path.
type Made = BTreeMap<String, (u64, u64)>;

fn exercise(context: &Context, plane: &str) -> Result<(Made, Report)> {
    let mut command = Command::new(paths::exerciser()?);
    command.env("SPANWISE_KEEP_STDIN", "1");
    let mut exerciser = Proc::start("exerciser", &mut command, &context.dir)?;
    exerciser.wait_line("ready", Duration::from_secs(5))?;
    let options = Options::default().arg(&["--plane", plane]);
    let agent = Agent::attach(&context.dir, &[exerciser.pid()], &options)?;
    exerciser.stdin().context("the exerciser has no standard input")?.write_all(b"go\n")?;
    exerciser.wait_line("done", Duration::from_secs(30))?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let mut made = Made::new();
    for line in exerciser.stdout().lines().filter(|line| line.starts_with('{')) {
        let value: Value = serde_json::from_str(line)?;
        if let Some(why) = value.get("skipped") {
            println!("    not exercised: {why}");
            continue;
        }
        let number =
            |key: &str| value.get(key).and_then(Value::as_u64).with_context(|| format!("no {key} in {line}"));
        let path = value.get("path").and_then(Value::as_str).context("no path")?;
        made.insert(path.to_owned(), (number("request")?, number("response")?));
    }
    ensure!(made.len() > 100, "the exerciser made only {} exchanges", made.len());
    Ok((made, report))
}

/// io_uring does its transfers inside another call, which exits of the read and write families do not show.
fn visible(plane: &str, path: &str) -> bool {
    plane != "syscall" || !path.contains("/uring-")
}

fn plane(context: &Context, plane: &str) -> Result<()> {
    let (made, report) = exercise(context, plane)?;
    let mut broken = Vec::new();
    for (path, sizes) in made.iter().filter(|(path, _)| visible(plane, path)) {
        for kind in [Kind::Server, Kind::Client] {
            let found: Vec<&Span> = report.spans.of(kind).filter(|span| span.path() == path).collect();
            match found.as_slice() {
                [span] => {
                    let size = |key: &str| span.number(key).unwrap_or(0);
                    let seen = (size("http.request.body.size"), size("http.response.body.size"));
                    if seen != *sizes {
                        broken.push(format!("{path} {kind:?}: sizes {seen:?}, not {sizes:?}"));
                    }
                    if span.number("http.response.status_code") != Some(200) {
                        broken.push(format!(
                            "{path} {kind:?}: status {:?}",
                            span.get("http.response.status_code")
                        ));
                    }
                }
                other => broken.push(format!("{path} {kind:?}: {} spans", other.len())),
            }
        }
        let joined = report.spans.of(Kind::Server).filter(|span| span.path() == path).all(|span| {
            report
                .spans
                .parent(span)
                .is_some_and(|parent| parent.kind == Kind::Client && parent.path() == path)
        });
        if !joined {
            broken.push(format!("{path}: the server span is not under the client span"));
        }
    }
    if !broken.is_empty() {
        bail!(
            "plane {plane}: {} of {} exchanges have faults:\n    {}\n{}",
            broken.len(),
            made.len(),
            broken.iter().take(40).cloned().collect::<Vec<_>>().join("\n    "),
            report.stats.table()
        );
    }
    report.stats.check_balance()
}

/// What must not depend on the plane.
fn essence(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report
        .spans
        .all
        .iter()
        .filter(|span| visible("syscall", span.path()))
        .map(|span| {
            let parent = report.spans.parent(span).map(|parent| (parent.kind, parent.path().to_owned()));
            let mut attributes = span.attributes.clone();
            // Ports are new in each run; how sure a model is depends on time.
            attributes.retain(|key, _| {
                !key.ends_with(".port") && !key.starts_with("spanwise.") && !key.starts_with("thread.")
            });
            attributes.remove("url.full");
            attributes.remove("network.peer.address");
            attributes.remove("network.local.address");
            attributes.remove("server.address");
            attributes.remove("client.address");
            format!("{} {:?} {} parent {parent:?} {attributes:?}", span.path(), span.kind, span.name)
        })
        .collect();
    lines.sort();
    lines
}

fn parity(context: &Context) -> Result<()> {
    let (_, sock) = exercise(context, "sock")?;
    let (_, syscall) = exercise(context, "syscall")?;
    let (sock, syscall) = (essence(&sock), essence(&syscall));
    let only = |these: &[String], those: &[String], plane: &str| {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .map(|line| format!("only {plane}: {line}"))
            .collect::<Vec<_>>()
    };
    let mut differ = only(&sock, &syscall, "sock");
    differ.extend(only(&syscall, &sock, "syscall"));
    ensure!(
        differ.is_empty(),
        "the planes differ in {} spans:\n    {}",
        differ.len(),
        differ.iter().take(30).cloned().collect::<Vec<_>>().join("\n    ")
    );
    ensure!(!sock.is_empty(), "no plane gave a span");
    Ok(())
}
