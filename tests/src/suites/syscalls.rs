//! Every family of system calls over every family of sockets. In: the exerciser's exchanges. Out: a server span and a client
//! span for each, with the right sizes; and the same spans from every capture plane.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::SETTLE;
use crate::agent::{Agent, Options, Report, once};
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context, skip};
use crate::spans::{Kind, Span};

pub(super) const CASES: &[Case] = &[
    Case { name: "syscalls/sock", seconds: 60, run: |context| plane(context, "sock") },
    Case { name: "syscalls/fentry", seconds: 60, run: |context| plane(context, "fentry") },
    Case { name: "syscalls/kprobe", seconds: 60, run: |context| plane(context, "kprobe") },
    Case { name: "syscalls/syscall", seconds: 60, run: |context| plane(context, "syscall") },
    Case { name: "syscalls/parity", seconds: 180, run: parity },
];

/// What this kernel can do, by `spanwise doctor`.
struct Host {
    /// Planes that can be used, best first.
    planes: Vec<&'static str>,
    /// The completions of io_uring tell where the bytes are.
    uring: bool,
}

impl Host {
    fn ask(context: &Context) -> Result<Self> {
        let (_, said, errors) = once(&context.dir, &["doctor", "--json"], Duration::from_secs(60))?;
        let said: Value =
            serde_json::from_str(&said).with_context(|| format!("doctor said: {said}{errors}"))?;
        let usable = |plane: &&str| said.pointer(&format!("/planes/{plane}")) == Some(&Value::Bool(true));
        let findings = said.get("findings").and_then(Value::as_array).context("doctor found nothing")?;
        let no_uring = findings.iter().any(|finding| {
            let sentence = finding.get("sentence").and_then(Value::as_str).unwrap_or_default();
            finding.get("key") == Some(&"io_uring".into()) && sentence.contains("counted but not read")
        });
        Ok(Self {
            planes: ["sock", "fentry", "kprobe", "syscall"].into_iter().filter(usable).collect(),
            uring: !no_uring,
        })
    }

    /// What a plane cannot see, by its nature (README, limits).
    ///
    /// Plane `syscall`: io_uring moves its bytes inside another call, and of a message vector only the first one is read.
    /// Plane `sock`: no hook tells of bytes that leave a unix socket by `splice`. Planes `fentry` and `kprobe`: io_uring only
    /// where its completions tell enough.
    fn sees(&self, plane: &str, path: &str) -> bool {
        match plane {
            "syscall" => !path.contains("/uring-") && !path.contains("/sendmmsg-"),
            "sock" => !path.ends_with("/splice-unix"),
            _ => self.uring || !path.contains("/uring-"),
        }
    }

    /// What all its planes can see.
    fn common(&self, path: &str) -> bool {
        self.planes.iter().all(|plane| self.sees(plane, path))
    }
}

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

fn plane(context: &Context, plane: &str) -> Result<()> {
    let host = Host::ask(context)?;
    if !host.planes.contains(&plane) {
        return skip(format!("this kernel cannot do plane {plane}"));
    }
    let (made, report) = exercise(context, plane)?;
    let mut broken = Vec::new();
    for (path, sizes) in made.iter().filter(|(path, _)| host.sees(plane, path)) {
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
fn essence(host: &Host, report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report
        .spans
        .all
        .iter()
        .filter(|span| host.common(span.path()))
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
    let host = Host::ask(context)?;
    let Some((best, others)) = host.planes.split_first() else { return skip("this kernel can do no plane") };
    if others.is_empty() {
        return skip(format!("this kernel can do plane {best} only"));
    }
    let first = essence(&host, &exercise(context, best)?.1);
    ensure!(!first.is_empty(), "plane {best} gave no span");
    for other in others {
        let second = essence(&host, &exercise(context, other)?.1);
        let only = |these: &[String], those: &[String], plane: &str| {
            let missing = these.iter().filter(|line| !those.contains(line));
            missing.map(|line| format!("only {plane}: {line}")).collect::<Vec<_>>()
        };
        let mut differ = only(&first, &second, best);
        differ.extend(only(&second, &first, other));
        ensure!(
            differ.is_empty(),
            "planes {best} and {other} differ in {} spans:\n    {}",
            differ.len(),
            differ.iter().take(30).cloned().collect::<Vec<_>>().join("\n    ")
        );
        println!("    planes {best} and {other} give the same {} spans", first.len());
    }
    Ok(())
}
