//! `accuracy`: are the parents right? In: programs of several kinds, at 1, 8 and 64 requests at once (Go at 256 too), with a
//! number in every path. Out: right, wrong, abstained; the agent's own estimate of its precision against the truth; a table, and JSON.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use spanwise_tests::agent::{Agent, Options as Agents};
use spanwise_tests::apps::{App, Kind, Setup, pids};
use spanwise_tests::cleanup;
use spanwise_tests::golang::{GoApp, Program};
use spanwise_tests::judge::{self, Verdict};
use spanwise_tests::load::{Plan, Until};

use crate::run::{self, Options};
use crate::setup;

/// A program.
#[derive(Clone, Copy)]
enum Measured {
    /// One of the small servers.
    App(Kind),
    /// The Go program `web`, in a mode, by a release of Go.
    Go(&'static str, Option<&'static str>),
}

impl Measured {
    fn name(self) -> String {
        match self {
            Self::App(kind) => kind.name(),
            Self::Go(mode, None) => format!("go-web-{mode}"),
            Self::Go(mode, Some(go)) => format!("go{go}-web-{mode}"),
        }
    }

    fn start(self, name: &str, leaf: &App, dir: &Path) -> Result<App> {
        match self {
            Self::App(kind) => Setup::new(kind, dir).calling(leaf).start(),
            Self::Go(mode, go) => {
                let app = GoApp::new(Program::Web, mode, dir).named(name);
                let app = go.into_iter().fold(app, spanwise_tests::golang::GoApp::by);
                app.calling(leaf).start()
            }
        }
    }
}

/// Program, calls that each of its requests makes.
const GO_PROGRAMS: &[(Measured, u64)] = &[
    (Measured::Go("direct", None), 1),
    (Measured::Go("child", None), 1),
    (Measured::Go("grandchild", None), 1),
    (Measured::Go("errgroup", None), 5),
    (Measured::Go("pool", None), 1),
    (Measured::Go("proxy", None), 1),
    (Measured::Go("timer", None), 1),
    (Measured::Go("both", None), 1),
    (Measured::Go("child", Some("1.21.13")), 1),
];

/// Program, calls that each of its requests makes.
const PROGRAMS: &[(Kind, u64)] = &[
    (Kind::Threaded, 1),
    (Kind::Gunicorn, 1),
    (Kind::Java, 1),
    (Kind::Nginx, 1),
    (Kind::Node("callback"), 1),
    (Kind::Node("before"), 1),
    (Kind::Node("all"), 3),
    (Kind::Node("both"), 1),
    (Kind::Asyncio("direct"), 1),
    (Kind::Asyncio("before"), 1),
    (Kind::Asyncio("both"), 1),
    (Kind::Go("direct"), 1),
    (Kind::Go("child"), 1),
    (Kind::Go("both"), 1),
];
/// What one thread serves one request at a time needs no warming up; there is little to get wrong, and it takes long.
const WARM_ALONE: u64 = 300;
/// Requests after which the agent knows a program, where it can: a few seconds of load.
const WARM: u64 = 3_000;
/// The same where only the order of an event loop's turns tells, and many requests are open.
const WARM_IN_ORDER: u64 = 9_000;

#[derive(Serialize)]
struct Row {
    program: String,
    at_once: usize,
    /// Requests before those that count.
    warm: u64,
    /// Client spans of the program among those.
    learning: Verdict,
    /// Client spans of the program, once warm.
    calls: Verdict,
    /// Server spans of what it calls, from the first request on.
    joined: Verdict,
}

/// The `accuracy` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let requests = options.number("--requests", 1_000)?;
    let only = options.value("--only")?;
    let json = options.value("--json")?;
    let warm = options
        .value("--warm")?
        .map(|text| text.parse::<u64>())
        .transpose()
        .context("--warm needs a number")?;
    let record = options.value("--record")?;
    options.finish()?;
    run::need_root("`cargo xtask accuracy`")?;
    setup::main(&[])?;
    run::build_agent("quick")?;

    println!(
        "\n{requests} requests each (at most 300 one at a time), once warm; what is called answers after 0 to 10 ms\n"
    );
    println!(
        "{:<18} {:>7} {:>8} {:>9} {:>9} {:>9} {:>8} {:>10} {:>7}  how (claimed)",
        "program", "at once", "warm-up", "right %", "wrong %", "abst. %", "missing", "estimated", "true"
    );
    let mut rows = Vec::new();
    let apps = PROGRAMS.iter().filter(|(kind, _)| kind.available());
    let apps = apps.map(|(kind, calls)| (Measured::App(*kind), *calls));
    for (kind, calls) in apps.chain(GO_PROGRAMS.iter().copied()) {
        if only.as_deref().is_some_and(|word| !kind.name().contains(word)) {
            continue;
        }
        let most: &[usize] = if matches!(kind, Measured::Go(..)) { &[1, 8, 64, 256] } else { &[1, 8, 64] };
        for at_once in most.iter().copied() {
            // One at a time takes long, and there is little to get wrong.
            let requests = if at_once == 1 { requests.min(300) } else { requests };
            let warm = warm.unwrap_or(match (kind, at_once) {
                (_, 1) => WARM_ALONE,
                (Measured::App(Kind::Asyncio(_)), 64) => WARM_IN_ORDER,
                // Who started whom is known from the first request on.
                (Measured::Go(mode, _), _) if mode != "pool" && mode != "grandchild" => 0,
                _ => WARM,
            });
            let row = measure(kind, calls, at_once, [warm, requests], record.as_deref())
                .with_context(|| format!("{} at {at_once}", kind.name()))?;
            print(&row);
            rows.push(row);
        }
    }
    if let Some(path) = json {
        std::fs::write(&path, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

fn measure(
    kind: Measured,
    calls: u64,
    at_once: usize,
    [warm, requests]: [u64; 2],
    record: Option<&str>,
) -> Result<Row> {
    let folder = tempfile::Builder::new().prefix("spanwise-accuracy-").tempdir()?;
    cleanup::add_folder(folder.path());
    let dir = folder.path();
    let leaf = Setup::new(Kind::Go("direct"), dir).named("leaf").delayed(10).start()?;
    let app = kind.start(&kind.name(), &leaf, dir)?;
    let mut agents = Agents::default();
    if let Some(folder) = record {
        agents = agents.arg(&["--record", &format!("{folder}/{}-{at_once}.rec", kind.name())]);
    }
    let agent = Agent::attach(dir, &pids(&[&app, &leaf]), &agents)?;
    let total = warm + requests;
    Plan::new(app.target(), at_once, Until::Requests(total), "/work/{n}").run()?.all_good()?;
    std::thread::sleep(Duration::from_millis(800));
    let report = agent.stop()?;
    report.stats.check_balance()?;
    Ok(Row {
        program: kind.name(),
        at_once,
        warm,
        learning: judge::calls(&report.spans, &app.name, 1, warm, calls),
        calls: judge::calls(&report.spans, &app.name, warm + 1, total, calls),
        joined: judge::served(&report.spans, "leaf", 1, total, calls),
    })
}

fn print(row: &Row) {
    let calls = &row.calls;
    #[expect(clippy::cast_precision_loss, reason = "numbers of spans are far below 2^52")]
    let percent = |count: u64| 100.0 * count as f64 / calls.expected.max(1) as f64;
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let how: Vec<String> =
        calls.sources.iter().map(|(name, (claimed, _))| format!("{name} {claimed}")).collect();
    println!(
        "{:<18} {:>7} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>8} {:>10} {:>7}  {}",
        row.program,
        row.at_once,
        row.warm,
        percent(calls.right),
        percent(calls.wrong),
        percent(calls.abstained),
        calls.missing,
        number(calls.estimated),
        number(calls.precision()),
        how.join(", ")
    );
    if row.learning.wrong > 0 {
        println!("    while it learns: {}", row.learning.line());
    }
    if row.joined.right != row.joined.expected {
        println!("    joined by connection: {}", row.joined.line());
    }
}
