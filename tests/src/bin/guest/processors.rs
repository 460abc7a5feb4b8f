//! Processors come and go. In: the servers, plain and over TLS, and the second processor's switch. Out: a row for an agent that
//! started when there was one processor (and neither tracefs nor bpffs) and is given a second, one for a processor that is taken
//! away and given back under load, and one for requests over TLS, whose probes must be live on every processor.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use spanwise_tests::agent::{Agent, Options};
use spanwise_tests::apps::App;
use spanwise_tests::certs::Certs;
use spanwise_tests::cleanup::Undo;
use spanwise_tests::load::{Background, Connection, Plan, Until};
use spanwise_tests::paths;
use spanwise_tests::proc::capture;
use spanwise_tests::secure::{Protocol, Server};
use spanwise_tests::spans::{Kind, Span, Spans};
use spanwise_tests::traces::Snapshot;

use crate::exchange::Apps;
use crate::kernel::uptime;
use crate::objects::Objects;
use crate::plane::{LOADS, Seen, Started, start_with};
use crate::{Row, State, limits, plane};

const AUTO: &str = "auto";
const COMES: &str = "processor given later";
const GOES: &str = "processor taken and given back";
const BARE: &str = "without tracefs and bpffs";
const TLS: &str = "TLS (OpenSSL), by probes";
/// Switches the second processor.
const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";
/// Longest time from an answer to its spans in the file; an agent that misses a request never writes them.
const WRITTEN: Duration = Duration::from_secs(8);
/// Requests of each kind in one go.
const REQUESTS: u64 = 2;
/// How often a go is made before what is missing counts: see `plane::exchanges`.
const TRIES: usize = 3;
/// Numbers of the load's requests begin here.
const LOAD: u64 = 1_000_000;
/// Requests a second of the load, which an emulated processor can do beside all else.
const RATE: f64 = 40.0;

/// Tries all of it on the plane that the agent chooses.
pub(crate) fn examine(apps: &Apps, dir: &Path) -> Seen {
    let back = Undo::new(|| {
        if let Err(error) = switch(true) {
            eprintln!("the second processor stays away: {error:#}");
        }
    });
    let mut seen = Seen { plane: AUTO.to_owned(), programs: vec![], ring_buffer: false, rows: vec![] };
    if let Err(error) = all(&mut seen, apps, dir) {
        let has = |name: &str| seen.rows.iter().any(|row| row.feature == name);
        let name = [LOADS, BARE, COMES, GOES].into_iter().find(|name| !has(name)).unwrap_or("to the end");
        seen.rows.push(Row::new(name, State::Fault, format!("{error:#}")));
    }
    drop(back);
    seen.rows = std::mem::take(&mut seen.rows).into_iter().map(|row| row.on(AUTO)).collect();
    seen
}

/// Gives the second processor, or takes it away.
fn switch(on: bool) -> Result<()> {
    fs::write(SWITCH, if on { "1" } else { "0" }).context("the second processor cannot be switched")?;
    let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
    ensure!(online.trim() == if on { "0-1" } else { "0" }, "processors {} are there", online.trim());
    Ok(())
}

/// Has all threads of these processes run on these processors only.
pub(crate) fn pin(pids: &[u32], processors: &str) -> Result<()> {
    for pid in pids {
        capture(Command::new(paths::need("taskset")?).args(["-acp", processors, &pid.to_string()]))?;
    }
    Ok(())
}

/// What is asked, and by what agent it is seen.
struct Scene<'a> {
    apps: &'a Apps,
    secure: App,
    agent: Agent,
    /// Whether requests over TLS have spans here.
    sees_tls: bool,
    next: u64,
}

/// Takes a file system away until this is dropped.
fn hidden(kind: &'static str, place: &'static str) -> Result<Undo> {
    capture(Command::new("umount").arg(place))?;
    Ok(Undo::new(move || {
        if let Err(error) = capture(Command::new("mount").args(["-t", kind, kind, place])) {
            eprintln!("{place} stays away: {error:#}");
        }
    }))
}

fn all(seen: &mut Seen, apps: &Apps, dir: &Path) -> Result<()> {
    let secure = Server::Nginx(Protocol::Https).start(dir, Some(&Certs::make(dir)?), None)?;
    let pids = [apps.pids(), secure.pids()].concat();
    let clean = Snapshot::now();
    let hidden = [hidden("tracefs", "/sys/kernel/tracing")?, hidden("bpf", "/sys/fs/bpf")?];
    switch(false)?;
    let options = Options::default().env("SPANWISE_TEST_PANIC", "memory");
    let running = match start_with(options, AUTO, &pids, dir)? {
        Started::Running(running) => running,
        Started::Refused(why) => bail!("the agent refused to start: {why}"),
    };
    let (rows, objects) = (&mut seen.rows, Objects::now()?.since(&running.before));
    (seen.ring_buffer, seen.programs) = (objects.has_ring()?, objects.programs()?);
    // They are loaded at the same time, so the order of their numbers says nothing.
    seen.programs.sort();
    rows.push(plane::loads(&running.losses, &seen.programs));
    let mut scene = Scene { apps, secure, agent: running.agent, sees_tls: true, next: 100 };
    // Python waits in a call that began before the agent: this one wakes it.
    scene.ask(1)?;
    rows.push(scene.tls()?);
    scene.go("while there is one processor", None)?;
    drop(hidden);
    rows.push(Row::new(BARE, State::Ok, ""));
    switch(true)?;
    for processor in [1, 0] {
        scene.go("after the second processor came", Some(processor))?;
    }
    rows.push(Row::new(COMES, State::Ok, ""));

    let mut plan = Plan::new(apps.nginx.target(), 2, Until::Requests(0), "/leaf/{n}");
    (plan.rate, plan.first) = (Some(RATE), LOAD);
    let load = Background::start(plan);
    scene.everywhere()?;
    switch(false)?;
    scene.go("after the second processor went", None)?;
    switch(true)?;
    for processor in [1, 0] {
        scene.go("after the second processor came back", Some(processor))?;
    }
    scene.everywhere()?;
    let outcome = load.finish()?.all_good()?;
    rows.push(Row::of(GOES, load_seen(&scene.agent, outcome.good)));
    // What is told when it ends in peace, every plane has shown: this one is killed.
    rows.extend(limits::examine(scene.agent, &running.before, &clean, apps));
    Ok(())
}

/// Nearly all requests of the load have their span, and none has two.
fn load_seen(agent: &Agent, good: u64) -> Result<String> {
    ensure!(good > 50, "only {good} requests were made");
    let begin = Instant::now();
    loop {
        let spans = agent.spans_so_far()?;
        let numbers = spans.at(Kind::Server, "nginx").filter_map(Span::request_number);
        let mut numbers: Vec<u64> = numbers.filter(|number| *number >= LOAD).collect();
        let all = numbers.len() as u64;
        numbers.sort_unstable();
        numbers.dedup();
        ensure!(numbers.len() as u64 == all, "of {all} spans some are of the same request");
        // The two of a hundred are for threads that the emulator leaves alone for longer than the agent waits.
        let enough = all * 100 >= good * 98;
        if enough || begin.elapsed() > WRITTEN {
            println!("processors: {all} of {good} requests of the load have their span");
            ensure!(enough, "{all} of {good} requests have their span\n{}", agent.proc.tail());
            return Ok(String::new());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Scene<'_> {
    /// The servers' processes run on these processors only, or wherever they like.
    fn pin(&self, processors: &str) -> Result<()> {
        pin(&[self.apps.pids(), self.secure.pids()].concat(), processors)
    }

    fn everywhere(&self) -> Result<()> {
        self.pin("0,1")
    }

    /// One request to Python through nginx, one over TLS.
    fn ask(&self, number: u64) -> Result<()> {
        let answer =
            Connection::open(&self.apps.nginx.target())?.request("GET", &format!("/work/{number}"), b"")?;
        ensure!(answer.status == 200 && answer.body == b"ok\n", "nginx answered {answer:?}");
        let url = format!("https://127.0.0.1:{}/leaf/{number}", self.secure.port);
        let said = capture(Command::new(paths::need("curl")?).args(["-s", "-k", "--http1.1", &url]))?;
        ensure!(said == format!("/leaf/{number}"), "nginx answered {said:?} over TLS");
        Ok(())
    }

    /// What of this request has no span.
    fn missing(&self, spans: &Spans, number: u64) -> Option<&'static str> {
        let has = |service: &str, path: &str| {
            let mut all = spans.at(Kind::Server, service);
            all.any(|span| {
                span.path() == path
                    && span.number("http.response.status_code") == Some(200)
                    && span.get("spanwise.incomplete").is_none()
            })
        };
        let (plain, secure) = (format!("/work/{number}"), format!("/leaf/{number}"));
        // Both servers of nginx are one service: what they are asked for differs.
        if !has("nginx", &plain) {
            Some("nginx")
        } else if !has("threaded", &plain) {
            Some("Python")
        } else if self.sees_tls && !has("nginx", &secure) {
            Some("nginx over TLS")
        } else {
            None
        }
    }

    /// What the agent says of OpenSSL, which it does only if something is wrong.
    fn why_no_tls(&self) -> Option<String> {
        let said = self.agent.proc.stderr();
        let reasons = ["no probes of openssl", "nothing in programs and libraries can be probed"];
        let line = said.lines().find(|line| reasons.iter().any(|reason| line.contains(reason)))?;
        Some(line.trim_start_matches("spanwise: ").to_owned())
    }

    /// Whether requests over TLS have spans, or why not in the agent's words.
    fn tls(&mut self) -> Result<Row> {
        let begin = Instant::now();
        for number in 2.. {
            self.ask(number)?;
            std::thread::sleep(Duration::from_secs(1));
            if self.missing(&self.agent.spans_so_far()?, number).is_none() {
                return Ok(Row::new(TLS, State::Ok, ""));
            }
            if begin.elapsed() > WRITTEN || self.why_no_tls().is_some() {
                break;
            }
        }
        self.sees_tls = false;
        Ok(match self.why_no_tls() {
            Some(line) => Row::new(TLS, State::Gap, line),
            None => {
                Row::new(TLS, State::Fault, "no span of a request over TLS, and the agent does not say why")
            }
        })
    }

    /// A few requests, served on one processor. Each must have its spans.
    fn go(&mut self, when: &str, processor: Option<u32>) -> Result<()> {
        println!("processors: {when}, on {processor:?}, {} s after the boot", uptime());
        if let Some(processor) = processor {
            self.pin(&processor.to_string())?;
        }
        let mut lacking = None;
        for _ in 0..TRIES {
            let numbers = self.next..self.next + REQUESTS;
            self.next = numbers.end;
            for number in numbers.clone() {
                self.ask(number)?;
            }
            if let Some(processor) = processor {
                self.on(processor)?;
            }
            let begin = Instant::now();
            while begin.elapsed() < WRITTEN {
                let spans = self.agent.spans_so_far()?;
                lacking = numbers.clone().find_map(|number| self.missing(&spans, number));
                if lacking.is_none() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            println!("processors: {when}, on {processor:?}: no span of {lacking:?}");
        }
        let on = processor.map_or_else(String::new, |number| format!(", on processor {number}"));
        bail!(
            "{when}{on}: requests to {} have no span\n{}",
            lacking.unwrap_or_default(),
            self.agent.proc.tail()
        )
    }

    /// The worker of each nginx really ran there.
    fn on(&self, processor: u32) -> Result<()> {
        for app in [&self.apps.nginx, &self.secure] {
            let worker = *app.pids().last().context("nginx has no process")?;
            let stat = fs::read_to_string(format!("/proc/{worker}/stat"))?;
            // Behind the name, which may contain anything: the 39th field of all.
            let last = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(36)?.parse().ok());
            ensure!(last == Some(processor), "{} ran on processor {last:?}, not {processor}", app.name);
        }
        Ok(())
    }
}
