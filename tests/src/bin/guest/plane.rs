//! One capture plane. In: its name. Out: the rows of its features, its programs, whether it had a ring.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use spanwise_tests::agent::{Agent, Options, Report};
use spanwise_tests::proc::last_lines;

use crate::exchange::{Apps, Exerciser, Made};
use crate::objects::Objects;
use crate::{Row, State, events, exchange};

/// The first row of a plane. Without it there are no others.
pub(crate) const LOADS: &str = "loads and attaches";
/// How often the exchanges are made before what is missing counts.
const TRIES: usize = 3;
/// How long the probes may take; the verifier is slow in an emulator.
const READY: Duration = Duration::from_secs(120);

/// A plane that was tried.
pub(crate) struct Seen {
    /// Its name.
    pub(crate) plane: String,
    /// Programs that were loaded; none if the kernel cannot do the plane.
    pub(crate) programs: Vec<String>,
    /// A map of the type ring buffer was there.
    pub(crate) ring_buffer: bool,
    /// What was found.
    pub(crate) rows: Vec<Row>,
}

/// An agent that traces, or what it said when it refused to.
pub(crate) enum Started {
    /// It traces.
    Running(Box<Running>),
    /// It ended with the code for "the kernel lacks this", and said so.
    Refused(String),
}

/// An agent that traces.
pub(crate) struct Running {
    /// It.
    pub(crate) agent: Agent,
    /// How long it took to trace.
    pub(crate) ready: Duration,
    /// What it cannot do here, in its own words.
    pub(crate) losses: Vec<String>,
    /// What was in the kernel before.
    pub(crate) before: Objects,
}

/// Starts an agent on this plane and waits until it traces.
pub(crate) fn start(plane: &str, pids: &[u32], dir: &Path) -> Result<Started> {
    start_with(Options::default(), plane, pids, dir)
}

/// The same with more options.
pub(crate) fn start_with(options: Options, plane: &str, pids: &[u32], dir: &Path) -> Result<Started> {
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let options = options.arg(&["--plane", plane]);
    let before = Objects::now()?;
    let begin = Instant::now();
    let mut agent = Agent::start(dir, &["attach", "--pid", &list], &[], &options, false)?;
    while !dir.join("ready").exists() {
        if let Some(status) = agent.proc.poll()? {
            let said = agent.proc.stderr();
            if status.code() == Some(3) {
                return Ok(Started::Refused(said.trim().trim_start_matches("spanwise: ").to_owned()));
            }
            verifier(plane, &list, dir);
            bail!("the agent ended ({status}): {}", said.trim());
        }
        if begin.elapsed() > READY {
            bail!("its probes were not live within {READY:?}: {}", agent.proc.tail());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let ready = begin.elapsed();
    let losses: Vec<String> = agent
        .proc
        .stderr()
        .lines()
        .filter_map(|line| line.strip_prefix("spanwise: "))
        .map(str::to_owned)
        .collect();
    if losses.iter().any(|loss| is_fault(loss)) {
        verifier(plane, &list, dir);
    }
    Ok(Started::Running(Box::new(Running { agent, ready, losses, before })))
}

/// Prints what the verifier says, with its reasons, for whoever looks at the VM's output.
fn verifier(plane: &str, pids: &str, dir: &Path) {
    let debug = Options::default().arg(&["--plane", plane, "--duration", "1s"]).env("SPANWISE_LOG", "debug");
    let ended = Agent::start(dir, &["attach", "--pid", pids], &[], &debug, false).and_then(|mut agent| {
        agent.proc.wait(READY)?;
        Ok(agent.proc.stderr())
    });
    match ended {
        Ok(said) => println!("the agent on plane {plane}:\n{}", last_lines(&said, 60)),
        Err(error) => println!("the agent on plane {plane}, once more: {error:#}"),
    }
}

/// The verifier refused a program, which is a fault of the program. That a kernel has no such hook is none.
fn is_fault(loss: &str) -> bool {
    loss.contains("does not load") && (loss.contains("processed") || loss.contains("BPF_PROG_LOAD"))
        || loss.contains("is not loaded: the kernel refuses it")
        || loss.contains("does not attach")
}

/// Without the verifier's words: "program X does not load: what that costs".
fn short(loss: &str) -> String {
    match (loss.find(" ("), loss.rfind("): ")) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{}", loss.get(..from).unwrap_or(loss), loss.get(to + 1..).unwrap_or_default())
        }
        _ => loss.to_owned(),
    }
}

/// Everything about a plane.
pub(crate) fn examine(plane: &str, apps: &Apps, dir: &Path) -> Seen {
    let mut seen = Seen { plane: plane.to_owned(), programs: vec![], ring_buffer: false, rows: vec![] };
    if let Err(error) = all(&mut seen, apps, dir) {
        let feature = if seen.rows.is_empty() { LOADS } else { "to the end" };
        seen.rows.push(Row::new(feature, State::Fault, format!("{error:#}")));
    }
    seen.rows = std::mem::take(&mut seen.rows).into_iter().map(|row| row.on(plane)).collect();
    seen
}

fn all(seen: &mut Seen, apps: &Apps, dir: &Path) -> Result<()> {
    let mut exerciser = Exerciser::start(dir)?;
    let mut pids = apps.pids();
    pids.push(exerciser.pid());
    let running = match start(&seen.plane, &pids, dir)? {
        Started::Refused(why) => {
            seen.rows.push(Row::new(LOADS, State::Gap, why));
            return Ok(());
        }
        Started::Running(running) => running,
    };
    let objects = Objects::now()?.since(&running.before);
    seen.ring_buffer = objects.has_ring()?;
    seen.programs = objects.programs()?;
    // They are loaded at the same time, so the order of their numbers says nothing.
    seen.programs.sort();
    seen.rows.push(loads(&running.losses, &seen.programs));
    let first = exchange::first_span(apps, &running.agent, running.ready);
    let made = exerciser.go()?;
    let report = running.agent.stop().context("stopping the agent")?;
    let missed = report.stats.kernel.get("returns missed by kretprobes").copied().unwrap_or(0);
    let mut chain = Row::of("nginx to Python", exchange::chain(&report));
    if chain.state == State::Fault && missed > 0 {
        // The agent said so itself: not seen, and counted.
        let why = "transfers missed and counted: threads that wait for bytes use up the kernel's return probes, of which some \
                   kernels have one a CPU";
        chain = Row::new("nginx to Python", State::Gap, why.to_owned());
    }
    seen.rows.push(chain);
    seen.rows.push(Row::of("first span", first));
    seen.rows.extend(exchanges(&seen.plane, made, report, dir)?);
    seen.rows.push(Row::of("detaches", Objects::wait_gone(&running.before).map(|()| String::new())));
    seen.rows.push(Row::of("fork, exec, exit", events::examine(&seen.plane, apps, dir)));
    Ok(())
}

/// What the exerciser's exchanges show. A thread that an emulated processor leaves alone for tens of milliseconds can make the
/// agent give up waiting for what it would report. That hits another exchange each time: what fails each time is a fault.
fn exchanges(plane: &str, made: Made, report: Report, dir: &Path) -> Result<Vec<Row>> {
    let mut tries = vec![report];
    loop {
        let rows = exchange::rows(plane, &made, &tries);
        let (faulty, last) = (rows.iter().filter(|row| row.state == State::Fault), tries.len() == TRIES);
        for row in faulty.clone() {
            println!("try {} on plane {plane}: {}: {}", tries.len(), row.feature, row.note);
        }
        if last || faulty.count() == 0 {
            if last && let Some(report) = tries.last() {
                println!("the agent's account:\n{}{}", report.stats.table(), last_lines(&report.stderr, 40));
            }
            return Ok(rows);
        }
        let mut exerciser = Exerciser::start(dir)?;
        let Started::Running(running) = start(plane, &[exerciser.pid()], dir)? else {
            bail!("plane {plane} could be used, and then no more");
        };
        exerciser.go()?;
        tries.push(running.agent.stop().context("stopping the agent")?);
    }
}

/// What was loaded, and what the agent said that it cannot.
pub(crate) fn loads(losses: &[String], programs: &[String]) -> Row {
    let words: Vec<String> = losses.iter().map(|loss| short(loss)).collect();
    if losses.iter().any(|loss| is_fault(loss)) {
        Row::new(LOADS, State::Fault, words.join("; "))
    } else if !losses.is_empty() {
        Row::new(LOADS, State::Gap, words.join("; "))
    } else if programs.is_empty() {
        Row::new(LOADS, State::Fault, "no program of the agent is in the kernel")
    } else {
        Row::new(LOADS, State::Ok, format!("{} programs", programs.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_apart_and_cut() {
        let refused = "program tcp_state does not load (... 13: call 46 (x) processed 16 insns (limit 1)): aborted late";
        assert_eq!(short(refused), "program tcp_state does not load: aborted late");
        assert!(is_fault(refused));
        let absent = "program x does not load (no BTF type `btf_trace_x`): splice is noticed late";
        assert!(!is_fault(absent));
        assert_eq!(short(absent), "program x does not load: splice is noticed late");
        assert!(is_fault(
            "libssl.so.3: no probes: program tls_leave is not loaded: the kernel refuses it (x) back-edge"
        ));
        assert_eq!(short("this kernel has no struct net: equal"), "this kernel has no struct net: equal");
        assert_eq!(loads(&[], &["a".into()]).state, State::Ok);
        assert_eq!(loads(&[], &[]).state, State::Fault);
        assert_eq!(loads(&[refused.into()], &["a".into()]).state, State::Fault);
        assert_eq!(loads(&[absent.into()], &["a".into()]).state, State::Gap);
    }
}
