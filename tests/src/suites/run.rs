//! `spanwise run`: the very first request is caught. In: curl, and a Python server that is asked as soon as it listens.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, Options};
use crate::apps::{Kind, Setup};
use crate::load::{Connection, Target};
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;
use crate::{paths, toolbox};

pub(super) const CASES: &[Case] = &[
    Case { name: "run/curl", seconds: 60, run: curl },
    Case { name: "run/python", seconds: 60, run: python },
    Case { name: "run/exit_code", seconds: 60, run: exit_code },
    Case { name: "run/children", seconds: 60, run: children },
];

fn curl(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let url = format!("http://{}/leaf/1?secret=hush", app.address());
    let curl = paths::need("curl")?;
    let agent = Agent::run(&context.dir, &[&curl.to_string_lossy(), "-s", &url], &Options::default())?;
    let report = agent.finish(Duration::from_secs(20))?;
    let span = report
        .spans
        .of(Span::Client)
        .next()
        .with_context(|| format!("no client span:\n{}", report.stderr))?;
    ensure!(report.spans.all.len() == 1, "one span was due:\n{}", report.spans.sample());
    ensure!(span.get("http.request.method") == Some("GET"), "{span:?}");
    ensure!(span.number("http.response.status_code") == Some(200), "{span:?}");
    ensure!(span.path() == "/leaf/1", "{span:?}");
    ensure!(!format!("{span:?}").contains("hush"), "a query value left the host: {span:?}");
    ensure!(span.service() == "curl", "service {}", span.service());
    ensure!(span.number("server.port") == Some(u64::from(app.port)), "{span:?}");
    report.stats.check_balance()
}

fn python(context: &Context) -> Result<()> {
    let port = paths::free_port()?;
    let (python, script) = (toolbox::python()?, paths::app("threaded.py"));
    let command = [&python.to_string_lossy(), &*script.to_string_lossy(), &port.to_string()];
    let mut agent = Agent::run(&context.dir, &command, &Options::default())?;
    let target = Target::tcp(port);
    target.wait(Duration::from_secs(10)).with_context(|| agent.proc.tail())?;
    let response = Connection::open(&target)?.request("GET", "/leaf/1", b"")?;
    ensure!(response.status == 200 && response.body == b"1", "{response:?}");
    agent.wait_spans(1, Duration::from_secs(2), |spans| spans.under(Span::Server, "/leaf/1").count())?;
    ensure!(agent.proc.poll()?.is_none(), "the agent ended before its program did");
    let report = agent.stop()?;
    let span = report.spans.of(Span::Server).next().context("no server span")?;
    ensure!(span.service() == "threaded.py" || span.service() == "threaded", "service {}", span.service());
    report.stats.check_balance()
}

/// The agent ends with its program, and says how that ended.
fn exit_code(context: &Context) -> Result<()> {
    let agent = Agent::start(&context.dir, &["run"], &["sh", "-c", "exit 7"], &Options::default(), false)?;
    let mut proc = agent.proc;
    let code = proc.wait(Duration::from_secs(10))?.code();
    ensure!(code == Some(0), "exit code {code:?}: the agent itself was done\n{}", proc.tail());
    ensure!(proc.stderr().contains('7'), "it does not say how the program ended:\n{}", proc.tail());
    Ok(())
}

/// A grandchild of the program is traced from its first request.
fn children(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let curl = paths::need("curl")?.to_string_lossy().into_owned();
    let script = format!(
        "sh -c '{curl} -s http://{address}/leaf/1; true'; {curl} -s http://{address}/leaf/2 & wait",
        address = app.address()
    );
    let report = Agent::run(&context.dir, &["sh", "-c", &script], &Options::default())?
        .finish(Duration::from_secs(20))?;
    for path in ["/leaf/1", "/leaf/2"] {
        ensure!(
            report.spans.under(Span::Client, path).count() == 1,
            "no client span of {path}:\n{}{}",
            report.spans.sample(),
            report.stats.table()
        );
    }
    Ok(())
}
