//! Signals. In: SIGINT and SIGTERM in the middle of things, SIGUSR1. Out: everything flushed and detached within two seconds;
//! the table of accounts.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{SETTLE, until};
use crate::agent::{Agent, Options};
use crate::apps::{App, Kind, Setup};
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;

pub(super) const CASES: &[Case] = &[
    Case { name: "signals/int", seconds: 60, run: |context| flushes(context, libc::SIGINT) },
    Case { name: "signals/term", seconds: 60, run: |context| flushes(context, libc::SIGTERM) },
    Case { name: "signals/usr1", seconds: 60, run: table },
];

fn some_requests(app: &App) -> Result<()> {
    Plan::new(app.target(), 4, Until::Requests(500), "/leaf/{n}").run()?.all_good().map(drop)
}

/// The signal comes at once after the last answer: what was seen must still come out.
fn flushes(context: &Context, signal: i32) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    some_requests(&app)?;
    let report = agent.stop_with(signal)?;
    ensure!(
        report.stopped_after < Duration::from_secs(2),
        "it took {:?} to end after signal {signal}, 2 s are allowed",
        report.stopped_after
    );
    let found = report.spans.of(Span::Server).count();
    super::check_count("nginx", found as u64, 500, 0, &report)?;
    ensure!(found == 500, "{found} spans of 500 were flushed\n{}", report.stats.table());
    // The application goes on.
    some_requests(&app)
}

fn table(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    some_requests(&app)?;
    std::thread::sleep(SETTLE);
    let before = agent.proc.stderr();
    agent.proc.signal(libc::SIGUSR1)?;
    until(Duration::from_secs(2), "a table after SIGUSR1", || {
        agent.proc.stderr().get(before.len()..).is_some_and(|more| more.contains("500"))
    })?;
    let report = agent.stop()?;
    ensure!(report.spans.of(Span::Server).count() == 500, "SIGUSR1 cost spans:\n{}", report.stats.table());
    ensure!(
        report.stderr.contains("drop") || report.stderr.contains("out"),
        "no table at exit:\n{}",
        report.stderr
    );
    Ok(())
}
