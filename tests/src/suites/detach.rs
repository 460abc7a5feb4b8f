//! The agent leaves. In: a loaded server and every way in which an agent can end. Out: no failed request, and nothing left behind
//! after a second: no program, map, link, pin, cgroup or event, no mark on the server.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, until};
use crate::agent::{Agent, Options, Report};
use crate::apps::{App, Kind, Setup};
use crate::bpf::Owned;
use crate::harm::own;
use crate::load::{Background, Connection, Plan, Until};
use crate::memory::{self, Memory};
use crate::runner::{Case, Context, skip};
use crate::spans::Kind as Span;
use crate::traces::{self, Snapshot};

pub(super) const CASES: &[Case] = &[
    Case { name: "detach/time", seconds: 120, run: time },
    Case { name: "detach/term", seconds: 60, run: |context| asked(context, libc::SIGTERM) },
    Case { name: "detach/int", seconds: 60, run: |context| asked(context, libc::SIGINT) },
    Case { name: "detach/panic", seconds: 60, run: |context| panics(context, "engine") },
    Case { name: "detach/panic_in_background", seconds: 60, run: |context| panics(context, "background") },
    Case { name: "detach/kill9", seconds: 60, run: killed },
    Case { name: "detach/out_of_memory", seconds: 90, run: out_of_memory },
    Case { name: "detach/endpoint_hangs", seconds: 60, run: endpoint_hangs },
    Case { name: "detach/upgrade", seconds: 60, run: upgrade },
];

/// Longest time from the end's cause until no program runs any more.
const DETACHED: Duration = Duration::from_secs(1);
/// The same on a machine that has other things to do. What is due within `DETACHED` is the best of a few rounds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Rounds of which one must be as fast as is promised.
const ROUNDS: usize = 4;
/// Longest time until programs and maps are freed, which the kernel does when it finds the time: 10 s were seen on a machine
/// with seven times the work that it has processors for.
const FREED: Duration = Duration::from_secs(30);
/// Time under load before the end.
const LOADED: Duration = Duration::from_millis(400);

/// A server under load with an agent on it.
struct Scene {
    before: Snapshot,
    app: App,
    load: Background,
    agent: Agent,
    owned: Owned,
}

impl Scene {
    fn set(context: &Context, options: &Options) -> Result<Self> {
        let before = Snapshot::now();
        let app = Setup::new(Kind::Nginx, &context.dir).start()?;
        // The flag ends it; so many requests are never made.
        let plan = Plan::new(app.target(), 8, Until::Requests(0), "/leaf/{n}");
        let load = Background::start(plan);
        let agent = Agent::attach(&context.dir, &app.pids(), options)?;
        std::thread::sleep(LOADED);
        let owned = Owned::by(agent.proc.pid())?;
        ensure!(owned.programs() > 0, "nothing was attached, so this test shows nothing");
        Ok(Self { before, app, load, agent, owned })
    }

    /// Waits until nothing of the agent is left in the kernel; `since` is when its end began.
    fn gone(&self, since: Instant) -> Result<Duration> {
        gone(&self.owned, since)
    }

    /// The server was not disturbed and is as it was.
    fn undisturbed(self) -> Result<()> {
        std::thread::sleep(LOADED);
        let outcome = self.load.finish()?;
        ensure!(outcome.good > 1_000, "only {} requests were made", outcome.good);
        outcome.all_good()?;
        let left = self.before.left();
        ensure!(left.is_empty(), "left on the machine: {left}");
        for pid in self.app.pids() {
            let marks = traces::on_process(pid);
            ensure!(marks.is_empty(), "process {pid} of the server: {marks}");
        }
        Connection::open(&self.app.target())?.request("GET", "/leaf/1", b"")?;
        Ok(())
    }
}

/// Waits until no program of an agent runs any more; `since` is when its end began.
fn detached(owned: &Owned, since: Instant) -> Result<Duration> {
    loop {
        let left = owned.links_left()?;
        let took = since.elapsed();
        ensure!(took < PATIENCE, "still attached after {took:?}: {left}");
        if left.is_empty() {
            return Ok(took);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The same, and until nothing of it is left in the kernel.
fn gone(owned: &Owned, since: Instant) -> Result<Duration> {
    let detached = detached(owned, since)?;
    let left = || owned.left().unwrap_or_else(|error| error.to_string());
    let freed = until(FREED, "freeing what was loaded", || left().is_empty());
    ensure!(freed.is_ok(), "left in the kernel after {FREED:?}: {}", left());
    println!(
        "    detached after {} ms, freed after {} ms",
        detached.as_millis(),
        since.elapsed().as_millis()
    );
    Ok(detached)
}

/// Asked to end, and killed: how fast, as far as the machine lets it.
fn time(context: &Context) -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let mut scene = Scene::set(context, &Options::default())?;
            let since = Instant::now();
            scene.agent.proc.signal(signal)?;
            best = best.min(scene.gone(since)?);
            scene.agent.proc.wait(PATIENCE)?;
            scene.undisturbed()?;
            if best < DETACHED {
                break;
            }
        }
        ensure!(best < DETACHED, "after signal {signal} it was still attached after {best:?} at best");
    }
    Ok(())
}

fn asked(context: &Context, signal: i32) -> Result<()> {
    let mut scene = Scene::set(context, &Options::default())?;
    let since = Instant::now();
    scene.agent.proc.signal(signal)?;
    scene.gone(since)?;
    let status = scene.agent.proc.wait(PATIENCE)?;
    ensure!(status.code() == Some(0), "it ended with {status}:\n{}", scene.agent.proc.tail());
    scene.undisturbed()
}

/// A fault of the agent itself, on the thread that reads the ring or on another one.
fn panics(context: &Context, thread: &str) -> Result<()> {
    let mut scene = Scene::set(context, &Options::default().env("SPANWISE_TEST_PANIC", thread))?;
    let said = scene.agent.proc.stderr().len();
    let since = Instant::now();
    scene.agent.proc.signal(libc::SIGUSR1)?;
    scene.gone(since)?;
    let status = scene.agent.proc.wait(PATIENCE)?;
    ensure!(status.code() == Some(1), "it ended with {status}:\n{}", scene.agent.proc.tail());
    let stderr = scene.agent.proc.stderr();
    let words = stderr.get(said..).unwrap_or_default();
    let sentences: Vec<&str> = words.lines().filter(|line| line.contains("panicked at")).collect();
    ensure!(
        sentences.len() == 1 && sentences.iter().all(|line| line.contains("detaches and ends now")),
        "a panic is not told in one sentence:\n{words}"
    );
    ensure!(!words.contains("stack backtrace"), "a backtrace is no sentence:\n{words}");
    scene.undisturbed()
}

fn killed(context: &Context) -> Result<()> {
    let mut scene = Scene::set(context, &Options::default())?;
    let since = Instant::now();
    scene.agent.proc.signal(libc::SIGKILL)?;
    scene.agent.proc.wait(PATIENCE)?;
    scene.gone(since)?;
    scene.undisturbed()
}

/// An endpoint that takes everything and never answers.
fn hanging() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
            });
        }
    });
    Ok(endpoint)
}

/// The agent's memory is limited to less than it needs: the kernel kills it.
fn out_of_memory(context: &Context) -> Result<()> {
    let group = match Memory::below_own(&format!("spanwise-e2e-{}", std::process::id())) {
        Ok(group) => group,
        Err(error) => return skip(format!("no memory cgroup to be had: {error:#}")),
    };
    let mut scene = Scene::set(context, &Options::default().env("SPANWISE_TEST_PANIC", "memory"))?;
    group.take(scene.agent.proc.pid())?;
    group.limit(1 << 20)?;
    scene.agent.proc.signal(libc::SIGUSR1)?;
    let end = Instant::now() + Duration::from_secs(30);
    // The time of its end is not known beforehand: it is looked for often.
    let status = loop {
        if let Some(status) = scene.agent.proc.poll()? {
            break status;
        }
        ensure!(Instant::now() < end, "the agent lives on 1 MiB of memory, so this test shows nothing");
        std::thread::sleep(Duration::from_millis(5));
    };
    scene.gone(Instant::now())?;
    ensure!(memory::was_killed(status), "it ended with {status}:\n{}", scene.agent.proc.tail());
    ensure!(group.kills()? > 0, "it was not the kernel's memory limit that killed it");
    scene.undisturbed()
}

/// The last spans cannot be sent. The probes do not wait for that.
fn endpoint_hangs(context: &Context) -> Result<()> {
    let endpoint = hanging()?;
    let options = Options::default().without_file().arg(&["--exporter", "otlp", "--endpoint", &endpoint]);
    let mut scene = Scene::set(context, &options)?;
    let since = Instant::now();
    scene.agent.proc.signal(libc::SIGTERM)?;
    detached(&scene.owned, since)?;
    // Its probes are taken off within a grace period or two of the kernel, which are long on a busy machine.
    let status = scene.agent.proc.wait(PATIENCE)?;
    // It leaves its last spans unsent, within the time that it has for that.
    scene.gone(Instant::now())?;
    ensure!(status.code() == Some(0), "it ended with {status}:\n{}", scene.agent.proc.tail());
    scene.undisturbed()
}

/// A second agent comes before the first one leaves: both see everything of their time, under the same ids.
fn upgrade(context: &Context) -> Result<()> {
    let before = Snapshot::now();
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let mut plan = Plan::new(app.target(), 4, Until::Requests(0), "/");
    plan.rate = Some(2_000.0);
    let load = Background::start(plan);
    let some = |first: u64| -> Result<()> {
        let mut plan = Plan::new(app.target(), 4, Until::Requests(500), "/leaf/{n}");
        plan.first = first;
        plan.run()?.all_good()?;
        std::thread::sleep(SETTLE);
        Ok(())
    };
    let old = Agent::attach(&own(&context.dir, "old")?, &app.pids(), &Options::default())?;
    some(1)?;
    let new = Agent::attach(&own(&context.dir, "new")?, &app.pids(), &Options::default())?;
    some(501)?;
    let owned = Owned::by(old.proc.pid())?;
    let old = old.stop()?;
    gone(&owned, Instant::now())?;
    some(1_001)?;
    let owned = Owned::by(new.proc.pid())?;
    let new = new.stop()?;
    gone(&owned, Instant::now())?;
    load.finish()?.all_good()?;
    for (name, report, due) in [("old", &old, 1..=1_000), ("new", &new, 501..=1_500)] {
        report.stats.check_balance()?;
        let numbers = numbers(report);
        ensure!(
            numbers == due.collect::<Vec<u64>>(),
            "the {name} agent has {} spans, not one for each of its 1000 requests\n{}",
            numbers.len(),
            report.stats.table()
        );
    }
    let id = |report: &Report, number: u64| -> Result<(String, String)> {
        let mut spans = report.spans.of(Span::Server);
        let span = spans.find(|span| span.request_number() == Some(number)).context("no span")?;
        Ok((span.trace.clone(), span.id.clone()))
    };
    for number in (501..=1_000).step_by(50) {
        let (first, second) = (id(&old, number)?, id(&new, number)?);
        ensure!(
            first == second,
            "request {number} is {first:?} for the old agent and {second:?} for the new"
        );
    }
    let left = before.left();
    ensure!(left.is_empty(), "left on the machine: {left}");
    Ok(())
}

fn numbers(report: &Report) -> Vec<u64> {
    let spans = report.spans.of(Span::Server);
    let mut numbers: Vec<u64> = spans.filter_map(crate::spans::Span::request_number).collect();
    numbers.sort_unstable();
    numbers
}
