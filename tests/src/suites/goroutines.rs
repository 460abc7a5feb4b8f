//! Go programs by several releases of Go: every call has the request that caused it, or none, however the work goes from goroutine
//! to goroutine. The truth is the number in every path.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::apps::pids;
use crate::golang::{GoApp, Program, Variant};
use crate::judge::{self, Verdict};
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};

/// Shares of calls that must be right. What is not right has no parent; nothing may be wrong.
const NEARLY_ALL: f64 = 0.99;

pub(super) const CASES: &[Case] = &[
    Case { name: "goroutines/direct", seconds: 60, run: |context| mode(context, "direct", 1, NEARLY_ALL) },
    Case { name: "goroutines/child", seconds: 60, run: |context| mode(context, "child", 1, NEARLY_ALL) },
    Case {
        name: "goroutines/grandchild",
        seconds: 60,
        run: |context| mode(context, "grandchild", 1, NEARLY_ALL),
    },
    Case {
        name: "goroutines/errgroup",
        seconds: 60,
        run: |context| mode(context, "errgroup", 5, NEARLY_ALL),
    },
    Case { name: "goroutines/proxy", seconds: 60, run: |context| mode(context, "proxy", 1, NEARLY_ALL) },
    Case { name: "goroutines/both", seconds: 60, run: |context| mode(context, "both", 1, NEARLY_ALL) },
    Case { name: "goroutines/versions", seconds: 240, run: versions },
    Case { name: "goroutines/variants", seconds: 180, run: variants },
    Case { name: "goroutines/collections", seconds: 60, run: collections },
];

/// Calls of a program in front of one that answers after 0 to 10 ms.
fn measure(context: &Context, app: GoApp<'_>, calls: u64, at_once: usize, requests: u64) -> Result<Verdict> {
    let leaf = GoApp::new(Program::Web, "direct", &context.dir).named("leaf").delayed(10).start()?;
    let app = app.calling(&leaf).start()?;
    let agent = Agent::attach(&context.dir, &pids(&[&app, &leaf]), &Options::default())?;
    Plan::new(app.target(), at_once, Until::Requests(requests), "/work/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE + Duration::from_millis(500));
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let verdict = judge::calls(&report.spans, &app.name, 1, requests, calls);
    println!("    {} at {at_once}: {} {:?}", app.name, verdict.line(), verdict.sources);
    Ok(verdict)
}

fn check(verdict: &Verdict, share: f64) -> Result<()> {
    ensure!(verdict.wrong == 0, "wrong parents: {}", verdict.line());
    ensure!(verdict.missing == 0 && verdict.surplus == 0, "spans and calls differ: {}", verdict.line());
    ensure!(verdict.right_share() >= share, "too few parents: {}", verdict.line());
    Ok(())
}

/// From the first request on: nothing is learnt.
fn mode(context: &Context, mode: &str, calls: u64, share: f64) -> Result<()> {
    for at_once in [8, 64] {
        let app = GoApp::new(Program::Web, mode, &context.dir);
        check(&measure(context, app, calls, at_once, 1_000)?, share)?;
    }
    Ok(())
}

fn versions(context: &Context) -> Result<()> {
    for go in ["1.21.13", "1.22.12", "1.23.12", "1.24.11", "1.25.5"] {
        let name = format!("go-{go}");
        let app = GoApp::new(Program::Web, "child", &context.dir).by(go).named(&name);
        check(&measure(context, app, 1, 16, 500)?, NEARLY_ALL)?;
    }
    Ok(())
}

fn variants(context: &Context) -> Result<()> {
    for variant in [Variant::Stripped, Variant::Pie, Variant::Cgo] {
        let name = format!("go-{variant:?}").to_lowercase();
        // A starter that does nothing itself is read from memory, which takes the program's tables.
        let app = GoApp::new(Program::Web, "grandchild", &context.dir).built(variant).named(&name);
        check(&measure(context, app, 1, 16, 500)?, NEARLY_ALL)?;
    }
    Ok(())
}

/// Stacks that move all the time, and a collector that stops the world.
fn collections(context: &Context) -> Result<()> {
    let app = GoApp::new(Program::Web, "errgroup", &context.dir).named("go-collections");
    let app = app.env("GODEBUG", "gcstoptheworld=1,gcshrinkstackoff=0").env("GOGC", "5");
    check(&measure(context, app, 5, 16, 500)?, NEARLY_ALL)
}
