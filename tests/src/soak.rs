//! Soak: everything at once for a long time. In: minutes. Out: what was asked of the applications, that none of it failed, the
//! course of the agent's memory and descriptors, and an account that sums.

use std::fmt;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, Options};
use crate::apps::{App, Kind, Setup};
use crate::load::{Background, Plan, Target, Until};
use crate::memory::Course;
use crate::proc::Proc;
use crate::sink::Sink;
use crate::traces::KernelLog;

/// Requests a second of each application: enough to be busy, not so much that nothing else gets a turn.
const RATE: f64 = 150.0;
/// Connections of each load.
const CONNECTIONS: usize = 8;
/// From this time on memory must be flat within 5 %, the first third left out.
const SETTLED: Duration = Duration::from_secs(300);
/// Memory is looked at so often.
const LOOK: Duration = Duration::from_secs(2);

/// What it showed.
#[derive(Debug)]
pub struct Soaked {
    /// How long it was.
    pub time: Duration,
    /// Requests of the loads.
    pub requests: u64,
    /// Connections that were aborted in the middle of something.
    pub aborted: u64,
    /// Runs of curl.
    pub curls: u64,
    /// Spans that came.
    pub spans: u64,
    /// What was dropped, with its reason.
    pub drops: String,
    /// The agent's memory in KiB, early and late.
    pub memory: (u64, u64),
    /// The agent's descriptors, fewest of the first half and of the second.
    pub descriptors: (usize, usize),
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} s: {} requests and {} runs of curl, none failed; {} aborted connections; {} spans; drops: {}; the agent's memory \
             {} -> {} KiB, descriptors {} -> {}",
            self.time.as_secs_f64(),
            self.requests,
            self.curls,
            self.aborted,
            self.spans,
            if self.drops.is_empty() { "none" } else { &self.drops },
            self.memory.0,
            self.memory.1,
            self.descriptors.0,
            self.descriptors.1
        )
    }
}

/// Connections that end where no program expects it, until told to stop. Gives how many.
fn abort(target: &str, stop: &AtomicBool, count: &AtomicU64) {
    let request = b"POST /leaf/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf of a body";
    while !stop.load(Ordering::SeqCst) {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if let Ok(mut stream) = TcpStream::connect(target) {
            // A different place each time: nothing, half a line, half a head, half a body, all but the answer.
            let places = [0, 5, 30, request.len()];
            let place = usize::try_from(number % 4).ok().and_then(|at| places.get(at)).copied().unwrap_or(0);
            // The server may be faster with closing.
            let _ = stream.write_all(request.get(..place).unwrap_or_default());
            if number.is_multiple_of(3) {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A loop of short-lived processes, each of which makes a request.
fn curls(app: &App, dir: &Path) -> Result<Proc> {
    let script = format!(
        "echo ready; n=0; bad=0; while :; do curl -s -o /dev/null -f http://{}/leaf/$n || bad=$((bad+1)); n=$((n+1)); \
         echo \"$n $bad\"; sleep 0.1; done",
        app.address()
    );
    let mut shell = Proc::start("curls", Command::new("sh").args(["-c", &script]), dir)?;
    shell.wait_line("ready", Duration::from_secs(5))?;
    Ok(shell)
}

/// Soaks for so long.
pub fn soak(dir: &Path, time: Duration) -> Result<Soaked> {
    let socket = dir.join("gunicorn.sock");
    let leaf = Setup::new(Kind::Go("direct"), dir).named("leaf").delayed(5).start()?;
    let threaded = Setup::new(Kind::Threaded, dir).calling(&leaf).start()?;
    let node = Setup::new(Kind::Node("before"), dir).calling(&leaf).start()?;
    let gunicorn = Setup::new(Kind::Gunicorn, dir).calling(&leaf).on_socket(&socket).start()?;
    let nginx = Setup::new(Kind::Nginx, dir).calling_socket(&socket).start()?;
    let shell = curls(&nginx, dir)?;
    let mut pids: Vec<u32> =
        [&leaf, &threaded, &node, &gunicorn, &nginx].iter().flat_map(|app| app.pids()).collect();
    // Its children come and go.
    pids.push(shell.pid());
    let sink = Sink::start()?;
    let endpoint = sink.endpoint();
    let options = Options::default().without_file().arg(&["--exporter", "otlp", "--endpoint", &endpoint]);
    let log = KernelLog::from_now();
    let mut agent = Agent::attach(dir, &pids, &options)?;
    let begin = |target: Target| {
        let mut plan = Plan::new(target, CONNECTIONS, Until::Requests(0), "/work/{n}");
        plan.rate = Some(RATE);
        Background::start(plan)
    };
    // nginx passes its requests on over the unix socket; gunicorn is also asked there directly.
    // Each with the spans that a request of it gives: server and call at each station, and the leaf's server.
    let loads = vec![
        (begin(nginx.target()), 5),
        (begin(threaded.target()), 3),
        (begin(node.target()), 3),
        (begin(Target::Unix(socket.clone())), 3),
    ];
    let (stop, aborted) = (AtomicBool::new(false), AtomicU64::new(0));
    let (course, descriptors) = std::thread::scope(|scope| {
        for app in [&nginx, &threaded, &node, &leaf] {
            let (address, stop, aborted) = (app.address(), &stop, &aborted);
            scope.spawn(move || abort(&address, stop, aborted));
        }
        let result = watch(&mut agent, time);
        stop.store(true, Ordering::SeqCst);
        result
    })?;
    let (mut requests, mut due) = (0, 0);
    for (load, spans) in loads {
        let outcome = load.finish()?.all_good()?;
        requests += outcome.sent;
        due += outcome.sent * spans;
    }
    let said = shell.stdout();
    drop(shell);
    let last = said.lines().last().and_then(|line| line.split_once(' ')).context("no curl was run")?;
    ensure!(last.1 == "0", "{} runs of curl of {} failed", last.1, last.0);
    std::thread::sleep(Duration::from_millis(500));
    let report = agent.stop()?;
    report.stats.check_balance()?;
    if let Some(log) = log {
        let trouble = log.trouble()?;
        ensure!(trouble.is_empty(), "the kernel complains: {}", trouble.join("; "));
    }
    // In its first minutes tables still double, from 27 to 40 MB. Keeping what every span needs would be 100 MB a minute.
    course.flat("the agent", if time < SETTLED { 80 } else { 5 })?;
    let drops: Vec<String> = report
        .stats
        .drops_by_reason()
        .iter()
        .map(|drop| format!("{} ({}) {}", drop.reason, drop.stage, drop.count))
        .collect();
    let (early, late) = descriptors.split_at(descriptors.len() / 2);
    let fewest = |of: &[usize]| of.iter().min().copied().unwrap_or(0);
    let (early, late) = (fewest(early), fewest(late));
    ensure!(late <= early + 2, "the agent's descriptors grow: {descriptors:?}");
    let curls: u64 = last.0.parse()?;
    // The aborted ones come on top, as far as they were requests.
    let due = due + 2 * curls;
    ensure!(
        sink.spans() + report.stats.drops() >= due,
        "{} spans where there must be {due}\n{}",
        sink.spans(),
        report.stats.table()
    );
    Ok(Soaked {
        time,
        requests,
        aborted: aborted.into_inner(),
        curls,
        spans: sink.spans(),
        drops: drops.join(", "),
        memory: course.ends(),
        descriptors: (early, late),
    })
}

fn watch(agent: &mut Agent, time: Duration) -> Result<(Course, Vec<usize>)> {
    let (start, mut course, mut descriptors) = (Instant::now(), Course::default(), Vec::new());
    while start.elapsed() < time {
        std::thread::sleep(LOOK);
        ensure!(agent.proc.poll()?.is_none(), "the agent ended:\n{}", agent.proc.tail());
        descriptors.push(agent.proc.descriptors());
        if start.elapsed() > time / 3 {
            course.add(agent.proc.memory_kib().0);
        }
    }
    Ok((course, descriptors))
}
