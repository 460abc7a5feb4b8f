//! `demo`: nginx in front of two applications of different languages, traced while they run. In: nothing. Out: the waterfall of
//! one trace that crosses all of them, `traces.jsonl`, and how many requests, spans and drops there were.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use spanwise_tests::agent::{Agent, Options as Agents};
use spanwise_tests::apps::{App, Kind, Setup, pids};
use spanwise_tests::load::{Plan, Until};
use spanwise_tests::spans::{Kind as Span, Spans};
use spanwise_tests::stats::Dropped;
use spanwise_tests::{cleanup, paths, proc};

use crate::run::{self, Options};
use crate::setup;

/// Spans of a request: nginx and shop serve and call, stock serves.
const SPANS: u64 = 5;
/// Requests after which the agent knows how a program works.
const WARM: u64 = 200;

/// The `demo` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    Options::new(arguments).finish()?;
    run::need_root("`cargo xtask demo`")?;
    setup::main(&[])?;
    run::build_agent("quick")?;
    let folder = tempfile::Builder::new().prefix("spanwise-demo-").tempdir()?;
    cleanup::add_folder(folder.path());
    let dir = folder.path();

    let stock = Setup::new(Kind::Go("direct"), dir).named("stock").delayed(8).start()?;
    let shop = Setup::new(Kind::Threaded, dir).named("shop").calling(&stock).start()?;
    let nginx = Setup::new(Kind::Nginx, dir).calling(&shop).start()?;
    println!("\nrunning, unchanged: nginx -> shop (Python) -> stock (Go)");
    let traced = pids(&[&nginx, &shop, &stock]);
    let list = traced.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    println!("$ spanwise attach --pid {list} --exporter console --exporter file --file traces.jsonl");
    let agent = Agent::attach(dir, &traced, &Agents::default().arg(&["--exporter", "console"]))?;

    let mut asked = 0;
    // The first request of all is the hardest: nobody knows yet how these programs work.
    while !first_trace(&agent, &nginx, asked + 1)? {
        if asked >= 3 * (WARM + 1) {
            bail!("no trace crosses all three:\n{}", agent.spans_so_far()?.sample());
        }
        println!(
            "this trace is not whole yet: the agent has to see how these programs work; {WARM} requests more"
        );
        let mut warm = Plan::new(nginx.target(), 4, Until::Requests(WARM), "/work/{n}");
        warm.first = asked + 2;
        warm.run()?.all_good()?;
        std::thread::sleep(Duration::from_secs(1));
        asked += WARM + 1;
    }
    asked += 1;

    let mut plan = Plan::new(nginx.target(), 16, Until::Time(Duration::from_secs(2)), "/work/{n}");
    plan.first = asked + 1;
    let load = plan.run()?.all_good()?;
    std::thread::sleep(Duration::from_millis(800));
    let traces = dir.join("traces.jsonl");
    let report = agent.stop()?;
    let kept = paths::root().join("traces.jsonl");
    std::fs::copy(&traces, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    report.stats.check_balance()?;

    let requests = load.sent + asked;
    println!(
        "\nthen {} requests more, 16 at once, in {:.1} s ({:.0}/s)",
        load.sent,
        load.elapsed.as_secs_f64(),
        load.per_second()
    );
    println!("requests: {requests} at nginx, each of which makes {SPANS} spans: {}", SPANS * requests);
    println!("spans:    {} written to {}", report.spans.all.len(), kept.display());
    // The console is for eyes: what it leaves out is in the file.
    let (unseen, dropped): (Vec<_>, Vec<_>) =
        report.stats.drops_by_reason().into_iter().partition(|drop| drop.stage.starts_with("export console"));
    if dropped.is_empty() {
        println!("drops:    none");
    }
    for Dropped { stage, reason, count } in dropped {
        println!("drops:    {count} at `{stage}`: {reason}");
    }
    let unseen: u64 = unseen.iter().map(|drop| drop.count).sum();
    println!("console:  {unseen} of these spans were not shown here, so that it can be read");
    let whole = whole_traces(&report.spans);
    println!("traces:   {whole} of {requests} cross nginx, shop and stock from end to end");
    let parted = requests.saturating_sub(whole as u64);
    if parted > 0 {
        println!(
            "          the spans of {parted} lie in more than one trace: a parent was not sure, and none was named"
        );
    }
    ensure!(whole > 0, "no trace crosses all three");
    Ok(())
}

/// The last server's span of a request, and how many spans stand above it.
fn whole_traces(spans: &Spans) -> usize {
    spans.at(Span::Server, "stock").filter(|span| spans.ancestors(span).count() == 4).count()
}

/// Makes one request and shows what the agent's console says about it; whether its trace crosses all.
fn first_trace(agent: &Agent, nginx: &App, number: u64) -> Result<bool> {
    let url = format!("http://{}/work/{number}", nginx.address());
    println!("$ curl {url}\n");
    let shown = agent.proc.stdout().len();
    let whole = whole_traces(&agent.spans_so_far()?);
    let mut curl = Command::new(paths::need("curl")?);
    ensure!(
        proc::capture(curl.args(["-s", &url]))? == number.to_string(),
        "the applications did not answer as they should"
    );
    agent.wait_spans(5, Duration::from_secs(5), |spans| {
        spans.all.iter().filter(|span| span.request_number() == Some(number)).count()
    })?;
    // The console shows a trace when it is whole.
    std::thread::sleep(Duration::from_secs(1));
    println!("{}", agent.proc.stdout().get(shown..).unwrap_or_default());
    Ok(whole_traces(&agent.spans_so_far()?) > whole)
}
