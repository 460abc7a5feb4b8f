//! Overrun. In: an agent that is stopped (SIGSTOP) while its programs produce. Out: what was lost is counted, in = out + drops
//! at every stage, and afterwards all is as before.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::apps::{Kind, Setup};
use crate::load::{Plan, Until, wrk};
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;

pub(super) const CASES: &[Case] = &[Case { name: "overrun/stopped_agent", seconds: 120, run: stopped }];

fn stopped(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    agent.proc.signal(libc::SIGSTOP)?;
    let load = wrk::run(&format!("http://{}/leaf/1", app.address()), 16, 8, &context.dir)?;
    agent.proc.signal(libc::SIGCONT)?;
    ensure!(load.errors == 0, "the load was disturbed: {load:?}");
    // It catches up, and sees everything that comes afterwards.
    std::thread::sleep(Duration::from_secs(2));
    Plan::new(app.target(), 4, Until::Requests(1_000), "/after/{n}").run()?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let found = report.spans.under(Span::Server, "/leaf/1").count() as u64;
    println!(
        "    {} requests while stopped, {found} spans, {} drops counted",
        load.requests,
        report.stats.drops()
    );
    ensure!(
        found < load.requests && report.stats.drops() > 0,
        "nothing was lost ({found} spans of {}), so this test shows nothing: make the load bigger\n{}",
        load.requests,
        report.stats.table()
    );
    let after = report.spans.under(Span::Server, "/after/").count();
    ensure!(after == 1_000, "{after} spans of 1000 after the overrun\n{}", report.stats.table());
    Ok(())
}
