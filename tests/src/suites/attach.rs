//! `spanwise attach`: how fast, and what it leaves behind. In: running servers. Out: the first span within a second.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::apps::{Kind, Setup};
use crate::bpf::Loaded;
use crate::load::Connection;
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;

pub(super) const CASES: &[Case] = &[
    Case { name: "attach/time", seconds: 60, run: time },
    Case { name: "attach/nothing_left", seconds: 60, run: nothing_left },
    Case { name: "attach/response_end", seconds: 60, run: response_end },
    Case { name: "attach/duration", seconds: 60, run: duration },
];

fn time(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Go("direct"), &context.dir).start()?;
    let begin = Instant::now();
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let attached = agent.ready_after;
    Connection::open(&app.target())?.request("GET", "/leaf/1", b"")?;
    agent.wait_spans(1, Duration::from_secs(5), |spans| spans.of(Span::Server).count())?;
    let first = begin.elapsed();
    println!("    attached after {attached:.0?}, first span in the file after {first:.0?}");
    ensure!(first < Duration::from_secs(1), "the first span came after {first:?}, one second is allowed");
    ensure!(attached < Duration::from_millis(300), "attaching took {attached:?}, 300 ms are allowed");
    agent.stop().map(drop)
}

fn nothing_left(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let before = Loaded::now()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    ensure!(Loaded::now()?.count() > before.count(), "nothing was attached, so this test shows nothing");
    agent.stop()?;
    // The kernel frees programs a moment after the last reference is gone.
    let mut left = String::new();
    let gone = super::until(Duration::from_secs(3), "detaching", || {
        left = Loaded::now().map_or_else(|error| error.to_string(), |now| now.beyond(&before));
        left.is_empty()
    });
    ensure!(gone.is_ok(), "left in the kernel: {left}");
    Ok(())
}

/// The end of a response on an idle keep-alive connection is known within 100 ms, without waiting for the next request.
fn response_end(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Threaded, &context.dir).start()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let mut connection = Connection::open(&app.target())?;
    for number in 1..=5 {
        connection.request("GET", &format!("/leaf/{number}"), b"")?;
        // 100 ms to know it, the rest to decide on its parent and to write it.
        let count = usize::try_from(number)?;
        agent.wait_spans(count, Duration::from_millis(600), |spans| spans.of(Span::Server).count())?;
    }
    agent.stop().map(drop)
}

/// `--duration` ends the agent by itself.
fn duration(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let options = Options::default().arg(&["--duration", "1s"]);
    let begin = Instant::now();
    let agent = Agent::attach(&context.dir, &app.pids(), &options)?;
    Connection::open(&app.target())?.request("GET", "/leaf/1", b"")?;
    std::thread::sleep(SETTLE);
    let report = agent.finish(Duration::from_secs(5))?;
    let took = begin.elapsed();
    ensure!(
        (Duration::from_millis(900)..Duration::from_secs(4)).contains(&took),
        "it ran for {took:?}, not for 1 s"
    );
    ensure!(report.spans.of(Span::Server).count() == 1, "one span was due:\n{}", report.spans.sample());
    Ok(())
}
