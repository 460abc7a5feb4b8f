//! The governor. In: agents with small budgets of CPU time and memory, under load and after it. Out: less is captured, step by
//! step and said; nothing that is captured is wrong; the account balances; afterwards all is captured again.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, until};
use crate::agent::{Agent, Options, Report};
use crate::apps::{App, Kind, Setup};
use crate::bpf::Owned;
use crate::load::{Connection, Plan, Until, wrk};
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;

pub(super) const CASES: &[Case] = &[
    Case { name: "governor/defaults", seconds: 60, run: defaults },
    Case { name: "governor/maps", seconds: 30, run: maps },
    Case { name: "governor/cpu", seconds: 240, run: cpu },
    Case { name: "governor/memory", seconds: 240, run: memory },
];

/// What it says when it is back at the beginning.
const BACK: &str = "within the budgets again: everything is captured";
/// Longest way back: six steps, the first of which may have been tried too early a few times.
const WAY_BACK: Duration = Duration::from_secs(150);

/// Figures of one of its stages: rows and notes by their labels.
fn figure(report: &Report, stage: &str, label: &str) -> Result<u64> {
    let found = report.stats.stages.iter().find(|found| found.name.starts_with(stage));
    let found = found.with_context(|| format!("there is no stage `{stage}`\n{}", report.stats.table()))?;
    let rows = found.rows.iter().map(|row| (&row.1, row.2));
    let mut all = rows.chain(found.notes.iter().map(|note| (&note.0, note.1)));
    let value = all.find(|(name, _)| name.as_str() == label).map(|(_, value)| value);
    value.with_context(|| format!("stage `{stage}` says nothing of `{label}`"))
}

/// Every one of these requests has one whole span, and nothing is said twice.
fn all_there(report: &Report, numbers: std::ops::RangeInclusive<u64>) -> Result<()> {
    let due: HashSet<u64> = numbers.clone().collect();
    let mut found = HashSet::new();
    for span in report.spans.of(Span::Server) {
        let Some(number) = span.request_number().filter(|number| numbers.contains(number)) else { continue };
        ensure!(found.insert(number), "request {number} has two spans");
        ensure!(
            span.number("http.response.status_code") == Some(200)
                && span.get("spanwise.incomplete").is_none(),
            "the span of request {number} is not whole: {span:?}"
        );
    }
    ensure!(
        found == due,
        "{} of {} requests have their span\n{}{}",
        found.len(),
        due.len(),
        report.stats.table(),
        report.stderr
    );
    Ok(())
}

/// An ordinary load never gets near the defaults.
fn defaults(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let options = Options::default().without_file().arg(&["--exporter", "none"]);
    let agent = Agent::attach(&context.dir, &app.pids(), &options)?;
    let load = wrk::run(&format!("http://{}/leaf/1", app.address()), 16, 5, &context.dir)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    ensure!(!report.stderr.contains("budget"), "it gave something up:\n{}", report.stderr);
    let (all, whole) =
        (figure(&report, "governor", "steps up")?, figure(&report, "governor", "everything is captured")?);
    ensure!(all == 0 && whole >= 4, "{all} steps, {whole} half seconds\n{}", report.stats.table());
    println!(
        "    {:.0} requests/s; at most {} thousandths of a core, {} MiB resident",
        load.per_second,
        figure(&report, "governor", "most CPU in thousandths of a core")?,
        figure(&report, "governor", "most resident bytes")? >> 20
    );
    Ok(())
}

static STOP: AtomicBool = AtomicBool::new(false);

fn cpu(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    // A process that makes others all the time.
    let mut shell = Command::new("sh");
    shell.args(["-c", "while :; do sleep 8 & sleep 0.6; done"]);
    let shell = Proc::start("forks", &mut shell, &context.dir)?;
    let pids = [app.pids(), vec![shell.pid()]].concat();
    let agent = Agent::attach(&context.dir, &pids, &Options::default().arg(&["--max-cpu", "2%"]))?;
    // A connection that is there before, during and after.
    let mut old = Connection::open(&app.target())?;
    for number in 1..=3 {
        old.request("GET", &format!("/leaf/{number}"), b"")?;
    }
    STOP.store(false, Ordering::SeqCst);
    let mut plan = Plan::new(app.target(), 16, Until::Flag(&STOP), "/leaf/{n}");
    plan.first = 1_000;
    // Far too much for the budget, also when one of eight connections is left, and not more than can be looked at afterwards.
    plan.rate = Some(20_000.0);
    let load = std::thread::spawn(move || plan.run());
    let stepped =
        until(Duration::from_secs(30), "giving up seven of eight connections and new processes", || {
            let _ = old.request("GET", "/leaf/0", b"");
            agent.proc.stderr().contains("step 5 of 6")
        });
    STOP.store(true, Ordering::SeqCst);
    let load = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??.all_good()?;
    let stepped = stepped.with_context(|| agent.proc.tail())?;
    let back = until(WAY_BACK, "taking it all back", || agent.proc.stderr().contains(BACK));
    let back = back.with_context(|| agent.proc.tail())?;
    // The old connection and new ones.
    for number in 10..=59 {
        old.request("GET", &format!("/leaf/{number}"), b"")?;
    }
    let mut plan = Plan::new(app.target(), 4, Until::Requests(440), "/leaf/{n}");
    plan.first = 60;
    plan.run()?.all_good()?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    all_there(&report, 1..=3)?;
    all_there(&report, 10..=499)?;
    // Less was captured, and what was is right.
    let mut during = HashSet::new();
    let mut gaps = 0;
    for span in report.spans.of(Span::Server) {
        let Some(number) = span.request_number().filter(|number| *number >= 1_000) else { continue };
        ensure!(during.insert(number), "request {number} has two spans");
        let incomplete = span.get("spanwise.incomplete");
        gaps += u64::from(incomplete == Some("gap"));
        ensure!(
            incomplete.is_some() || span.number("http.response.status_code") == Some(200),
            "wrong: {span:?}"
        );
        ensure!(span.end - span.start < 20_000_000_000, "longer than the load: {span:?}");
    }
    let ignored = figure(&report, "kernel", "connection ignored")?;
    let rested = figure(&report, "session: transfers", "connection rests")?;
    println!(
        "    {} requests, {} spans of them ({gaps} with a gap), {rested} transfers put aside, {ignored} ignored in the kernel; \
         {stepped:.1?} up, {back:.1?} back",
        load.good,
        during.len()
    );
    ensure!(
        (during.len() as u64) < load.good && ignored > 0,
        "nothing was given up\n{}",
        report.stats.table()
    );
    let refused = figure(&report, "governor: new", "not followed, over budget")?;
    let taken_in = figure(&report, "governor: new", "taken in later")?;
    let followed = figure(&report, "governor: new", "followed")?;
    ensure!(
        refused > 0 && taken_in > 0 && followed > 0,
        "{followed} processes followed, {refused} not, {taken_in} taken in later"
    );
    told_in_order(&report)
}

/// One line for each step, each step to a neighbour of the one before.
fn told_in_order(report: &Report) -> Result<()> {
    let mut last = 0_i32;
    let mut lines = 0;
    let told = |line: &&str| {
        line.starts_with("spanwise: ") && (line.contains("budget") || line.contains("too slow"))
    };
    for line in report.stderr.lines().filter(told) {
        let step = line.split("step ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let step = step.unwrap_or(0_i32);
        ensure!((step - last).abs() == 1, "from step {last} to step {step}:\n{}", report.stderr);
        (last, lines) = (step, lines + 1);
    }
    ensure!(last == 0, "it ended at step {last}:\n{}", report.stderr);
    let steps = figure(report, "governor", "steps up")? + figure(report, "governor", "steps back")?;
    // More than twelve lines a minute are held back.
    ensure!(lines == steps, "{lines} lines for {steps} steps:\n{}", report.stderr);
    Ok(())
}

/// Connections with a request whose head does not end: the agent holds what it has of it.
fn unfinished(app: &App, count: usize) -> Result<Vec<TcpStream>> {
    let head = format!("GET /leaf/5 HTTP/1.1\r\nHost: x\r\nX: {}", "y".repeat(3_900));
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(app.address())?;
            stream.write_all(head.as_bytes())?;
            Ok(stream)
        })
        .collect()
}

/// Makes every page of the ring resident, as it becomes in time.
fn use_ring(app: &App, context: &Context) -> Result<()> {
    let load = wrk::run(&format!("http://{}/leaf/0", app.address()), 4, 3, &context.dir)?;
    ensure!(load.requests > 10_000, "only {} requests, the ring may not have gone round", load.requests);
    Ok(())
}

fn memory(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let first = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    use_ring(&app, context)?;
    std::thread::sleep(SETTLE);
    let (usual, _) = first.proc.memory_kib();
    first.stop()?;
    let most = format!("{}KiB", usual * 5 / 4);
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default().arg(&["--max-rss", &most]))?;
    use_ring(&app, context)?;
    ensure!(
        !agent.proc.stderr().contains("memory budget"),
        "the budget is too small:\n{}",
        agent.proc.tail()
    );
    let held = unfinished(&app, 3_500)?;
    let stepped = until(Duration::from_secs(30), "letting connections rest", || {
        agent.proc.stderr().contains("step 3 of 6")
    });
    let stepped = stepped.with_context(|| format!("{usual} KiB: {}", agent.proc.tail()))?;
    drop(held);
    let back = until(WAY_BACK, "taking it all back", || agent.proc.stderr().contains(BACK));
    let back = back.with_context(|| agent.proc.tail())?;
    let mut plan = Plan::new(app.target(), 4, Until::Requests(500), "/leaf/{n}");
    plan.first = 1_000;
    plan.run()?.all_good()?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    println!("    usually {usual} KiB, {most} allowed; {stepped:.1?} up, {back:.1?} back");
    all_there(&report, 1_000..=1_499)?;
    told_in_order(&report)
}

/// The maps are as docs/memory.md says: their sizes, and what they weigh.
fn maps(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let owned = Owned::by(agent.proc.pid())?;
    let (maps, kprobe) = (owned.maps()?, owned.has_program("kp_sent"));
    agent.stop()?;
    let path = paths::root().join("docs/memory.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut said = HashSet::new();
    let cpus = u64::try_from(std::thread::available_parallelism()?.get())?;
    let number = |cell: &str| -> Result<u64> {
        // "1 (kprobe: 16,384)": on that plane the second.
        let said =
            cell.split_once("(kprobe: ").map_or(cell, |(usual, there)| if kprobe { there } else { usual });
        let first = said.split([' ', ')']).next().unwrap_or_default();
        first.replace(',', "").parse().with_context(|| format!("`{cell}` in docs/memory.md is no number"))
    };
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, entries, key, value, bytes, ..] = cells.as_slice() else { continue };
        let name = name.trim_matches('`');
        let map = maps.iter().find(|map| map.name == name);
        let map = map.with_context(|| format!("{name} is in docs/memory.md and not in the kernel"))?;
        let documented = (*kind, number(entries)?, number(key)?, number(value)?);
        let real = (map.kind.as_str(), map.entries, map.key, map.value);
        // Each new setting adds to the frozen globals.
        let frozen = name == ".rodata";
        ensure!(real == documented || frozen, "{name} is {real:?}, docs/memory.md says {documented:?}");
        let due = number(bytes)? * if bytes.ends_with("a CPU") { cpus } else { 1 };
        ensure!(
            map.bytes.abs_diff(due) * 5 <= due.max(40_960),
            "{name} weighs {} bytes, docs/memory.md says {due}",
            map.bytes
        );
        said.insert(name.to_owned());
    }
    let unsaid: Vec<_> = maps.iter().filter(|map| !said.contains(&map.name)).collect();
    ensure!(unsaid.is_empty(), "not in docs/memory.md: {unsaid:?}");
    println!("    {} maps, {} KiB", maps.len(), maps.iter().map(|map| map.bytes).sum::<u64>() >> 10);
    Ok(())
}
