//! What `run` and `attach` share: load, attach, read the ring until told to stop, account for everything.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spanwise_common::config::proc;
use spanwise_common::conn::{Info, Verdict};
use spanwise_common::counters;
use spanwise_common::limits::MAX_PROCS;

use super::stop::Stop;
use super::{CliError, fault};
use crate::config::Settings;
use crate::export::{Exporters, Limits, STOP_WITHIN};
use crate::governor::follow::{self, Following};
use crate::governor::{Governor, KernelSide};
use crate::instrument::{Instruments, News};
use crate::kernel::hazard::{Feature, Hazards, Lockdown, lockdown};
use crate::kernel::load::{Kernel, LoadError};
use crate::kernel::priority::Priority;
use crate::kernel::recording::{Frame, Writer};
use crate::kernel::ring::Ring;
use crate::kernel::{clock, priority, privilege, signal};
use crate::pipeline::{Origin, Pipeline};
use crate::process::{
    Goroutine, Goroutines, Language, Naming, Process, Registry, Service, command, descendants,
};
use crate::session::Who;
use crate::span::clock::Clock;
use crate::span::correlate::{Role, Started, role};
use crate::telemetry::{Flow, Stage, render, to_json};

/// Records handled before the clock is looked at.
const BATCH: usize = 4096;
/// Sleep after a look that found records.
const BUSY: Duration = Duration::from_millis(2);
/// Longest sleep of an idle agent: what a response's end is late by at most, beside the idle bound of its connection.
const IDLE: Duration = Duration::from_millis(16);
/// How often the traced processes are counted, to end with the last one.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// What probes may take before the agent says that it is ready.
const PROBES: Duration = Duration::from_secs(5);
/// What a program that was asked to end may take before the agent leaves without it.
const PROGRAM_GRACE: Duration = Duration::from_millis(300);

/// What to trace.
pub(super) enum Targets {
    /// Running processes.
    Processes(Vec<Process>),
    /// A command to start.
    Command(Vec<OsString>),
}

/// The live kernel, and what is known of processes.
struct Live {
    kernel: Kernel,
    registry: Registry,
    recorder: Option<Writer>,
    recorded: HashSet<u32>,
    exits: u64,
    following: Following,
    instruments: Instruments,
    goroutines: Goroutines,
    /// Why goroutines of some process are not known, as last said.
    unknown: Option<String>,
}

impl Live {
    /// Bits of a process in the kernel side's map.
    fn bits(&mut self, process: &Process) -> u32 {
        let bits = proc::TRACE | proc::FOLLOW;
        if process.language != Language::Go {
            return bits;
        }
        let layout = match self.goroutines.layout(process.tgid) {
            Ok(layout) => self.kernel.go_bits(layout),
            Err(why) => {
                if self.unknown.as_ref() != Some(&why) {
                    eprintln!(
                        "spanwise: goroutines of {} are not known, so its calls find their parents by thread: {why}",
                        process.exe_name()
                    );
                    self.unknown = Some(why);
                }
                0
            }
        };
        bits | proc::GO | layout
    }

    fn record_service(&mut self, tgid: u32, service: &Service) {
        // The end of a process may be lost; saying a service twice does no harm.
        if self.recorded.len() >= MAX_PROCS as usize {
            self.recorded.clear();
        }
        if let Some(recorder) = &mut self.recorder
            && self.recorded.insert(tgid)
        {
            recorder.frame(Frame::Service, &super::replay::encode_service(tgid, service));
        }
    }
}

impl Live {
    /// Where the kernel side does not tell of ends: those that are gone are found by looking.
    fn look_for_exits(&mut self) {
        for tgid in self.kernel.traced() {
            if !Path::new("/proc").join(tgid.to_string()).exists() {
                self.kernel.untrace(tgid);
                self.exit(tgid);
            }
        }
    }
}

impl Live {
    /// What the instruments' thread has found out.
    fn hear(&mut self) {
        for news in self.instruments.news() {
            match news {
                News::Bits { tgid, set, of } => self.kernel.mark(tgid, set, of),
                News::Said(sentence) => eprintln!("spanwise: {sentence}"),
            }
        }
    }

    /// The probes on what is going to be started are there before it is, unless that takes long.
    fn expect(&mut self, command: &[OsString]) {
        for program in command.first().into_iter().flat_map(|name| command::programs(name)) {
            self.instruments.expect(program);
        }
        self.instruments.settle(PROBES);
    }

    /// The probes on the processes that are traced from the start are there, unless that takes long.
    fn settle(&mut self) {
        for tgid in self.kernel.traced() {
            self.instruments.started(tgid);
        }
        if !self.instruments.settle(PROBES) {
            eprintln!("spanwise: some probes are not attached yet after {PROBES:?}; they follow");
        }
        self.hear();
    }
}

impl Who for Live {
    fn service(&mut self, tgid: u32) -> Arc<Service> {
        let service = self.registry.service(tgid);
        if self.recorder.is_some() {
            self.record_service(tgid, &service);
        }
        service
    }

    fn connection(&mut self, cookie: u64) -> Option<Info> {
        self.kernel.connection(cookie).map(|state| state.info)
    }

    fn is_gone(&mut self, cookie: u64) -> bool {
        self.kernel.connection(cookie).is_none()
    }
}

impl Origin for Live {
    fn fork(&mut self, parent: u32, child: u32) {
        if self.following.child() {
            self.registry.fork(parent, child);
            self.instruments.forked(parent, child);
        } else {
            self.kernel.untrace(child);
        }
    }

    fn follow(&mut self, new: bool) {
        if self.following.set(new) {
            for child in follow::left_out(&self.kernel.traced()) {
                let Ok(child) = Process::inspect(child) else { continue };
                let bits = self.bits(&child);
                if self.kernel.trace(child.tgid, bits).is_ok() {
                    self.registry.add(&child);
                    self.instruments.started(child.tgid);
                    self.following.took_in();
                }
            }
        }
    }

    fn exec(&mut self, tgid: u32, comm: [u8; 16]) {
        self.recorded.remove(&tgid);
        self.goroutines.forget(tgid);
        if let Some(process) = self.registry.exec(tgid, comm)
            && process.language == Language::Go
        {
            let bits = self.bits(&process);
            self.kernel.mark(tgid, bits, bits);
        }
        self.instruments.became(tgid);
    }

    fn exit(&mut self, tgid: u32) {
        self.recorded.remove(&tgid);
        self.registry.exit(tgid);
        self.instruments.ended(tgid);
        self.goroutines.forget(tgid);
        self.exits += 1;
    }

    fn decide(&mut self, cookie: u64, verdict: Verdict) {
        self.kernel.decide(cookie, verdict);
    }

    fn forget(&mut self, cookie: u64) {
        self.kernel.forget(cookie);
    }

    fn mapped(&mut self, tgid: u32, more: bool) {
        self.instruments.mapped(tgid, more);
    }

    fn role(&mut self, tgid: u32, start: u64) -> Role {
        let name = self.goroutines.function(tgid, start);
        name.map_or_else(Role::default, |name| role::of(&name))
    }

    fn tasks(&mut self, tgid: u32) -> Option<Vec<Started>> {
        if self.goroutines.misses(tgid) {
            self.instruments.more(tgid);
        }
        let started = |Goroutine { id, parent, start }| Started { id, parent, start };
        Some(self.goroutines.all(tgid)?.into_iter().map(started).collect())
    }

    fn unseen(&mut self) {
        self.kernel.watch_splice();
    }
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        match error {
            // The capabilities are there, as was seen before: something else forbids it.
            LoadError::Permission(what) => {
                let why = privilege::advice_on_permission().unwrap_or_else(|| {
                    "something else on this host forbids it; spanwise doctor may know what".into()
                });
                Self::not_possible(format!("not permitted to load BPF programs ({what}): {why}"))
            }
            LoadError::Refused { .. } | LoadError::Plane(_) | LoadError::Btf(_) | LoadError::Uring(_) => {
                Self::not_possible(error.to_string())
            }
            LoadError::Other(what) => match privilege::advice(&what) {
                Some(advice) => {
                    Self::not_possible(format!("loading the BPF programs failed ({what}): {advice}"))
                }
                None => Self::failed(LoadError::Other(what).to_string()),
            },
            LoadError::Lacking(what) => Self::not_possible(match privilege::advice(&what) {
                Some(advice) => format!("{what}: {advice}"),
                None => what,
            }),
            LoadError::Stub => Self::failed(error.to_string()),
        }
    }
}

impl From<privilege::Refusal> for CliError {
    fn from(refusal: privilege::Refusal) -> Self {
        Self::not_possible(refusal.0)
    }
}

/// Traces until a signal, the end of the time, or the end of what is traced.
pub(super) fn trace(settings: &Settings, targets: Targets) -> Result<(), CliError> {
    if settings.disabled {
        eprintln!("spanwise: nothing is traced, because OTEL_SDK_DISABLED is true");
        return match targets {
            Targets::Processes(_) => Ok(()),
            Targets::Command(command) => report_status(start(&command)?.wait().ok()),
        };
    }
    let limits =
        Limits { batch_spans: settings.batch.size as u64, delay: settings.batch.delay, ..Limits::default() };
    let recorder = settings.record.as_deref().map(create_recording).transpose()?;
    let mut ready = settings.ready_file.as_deref().map(ReadyFile::check).transpose()?;
    privilege::check_load(matches!(targets, Targets::Command(_)))?;
    // Only what can be found wrong without side effects comes before this.
    match privilege::too_little_memory() {
        Some(little) if little.hopeless => return Err(CliError::not_possible(little.what)),
        Some(little) => eprintln!("spanwise: {}", little.what),
        None => {}
    }
    let locked_memory = privilege::raise_locked_memory();
    let mut kernel = Kernel::load(settings.plane).map_err(|error| {
        // Only in this mode is the hazard the reason of the failure, and only now is it worth the time to look.
        let hazards = |feature| Hazards::look(&[feature]).allows(feature);
        match (&error, lockdown()) {
            (LoadError::Permission(_) | LoadError::Other(_), Some(Lockdown::Confidentiality)) => {
                hazards(Feature::KernelMemory).map_or_else(CliError::not_possible, |()| error.into())
            }
            _ => error.into(),
        }
    })?;
    drop(locked_memory);
    // Their threads are made by one that has stepped back; this one, whose child the program of `run` will be, has not.
    let exporters = std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            priority::step_back();
            Exporters::start(&settings.exporters, limits)
        });
        started.join()
    });
    let exporters = exporters
        .map_err(|_| {
            CliError::failed("the thread that starts the exporters ended early; this is a fault of the agent")
        })?
        .map_err(|error| CliError::usage(error.to_string()))?;
    let stop = Stop::listen()?;
    for note in settings.notes.iter().chain(&kernel.losses) {
        eprintln!("spanwise: {note}");
    }
    let Some(ring) = kernel.take_ring() else {
        return Err(CliError::failed("the ring buffer of the BPF programs is missing"));
    };
    let instruments = Instruments::load(&mut kernel);
    let mut live = Live {
        kernel,
        registry: Registry::new(Naming::from(settings)),
        recorder,
        recorded: HashSet::new(),
        exits: 0,
        following: Following::default(),
        instruments,
        goroutines: Goroutines::default(),
        unknown: None,
    };
    let clock = Clock::now();
    if let Some(recorder) = &mut live.recorder {
        recorder.frame(Frame::Clock, &super::replay::encode_clock(&clock::sample()));
    }
    let child = match targets {
        Targets::Processes(processes) => {
            if let Some(loss) = privilege::losses(processes.iter().map(|process| process.tgid)) {
                eprintln!("spanwise: {loss}");
            }
            follow(&mut live, &processes)?;
            None
        }
        Targets::Command(command) => {
            live.expect(&command);
            // The agent's own children are traced from their first instruction; the agent itself is not.
            let own = std::process::id();
            live.kernel.trace(own, proc::FOLLOW)?;
            live.kernel.attach()?;
            let child = start(&command);
            live.kernel.untrace(own);
            let child = child?;
            if !live.kernel.tells_forks {
                // Not from its first instruction then, but from its first ones.
                live.kernel.trace(child.id(), proc::TRACE | proc::FOLLOW)?;
            }
            Some(child)
        }
    };
    live.settle();
    if let Some(ready) = &mut ready {
        ready.create()?;
    }
    // The program of `run` has its own by now; from here on nothing is opened that takes more than looking at processes.
    let prober = live.instruments.prober();
    let needs = privilege::Needs { signal_child: child.is_some(), filter: settings.seccomp, prober };
    let begin = Instant::now();
    let reduced = privilege::reduce(needs);
    tracing::info!(
        "capabilities {:#x} are kept, the others given up in {:?}",
        reduced.kept.0,
        begin.elapsed()
    );
    for loss in reduced.losses {
        eprintln!("spanwise: {loss}");
    }
    priority::step_back();
    let governor = Governor::new(settings.budgets, Instant::now(), kernel_side(&live.kernel));
    let mut engine = Engine {
        governor,
        pipeline: Pipeline::new(live, settings, exporters, clock),
        ring,
        child,
        seen: 0,
        longest_pause: Duration::ZERO,
    };
    let status = engine.run(settings, &stop);
    engine.finish();
    status.and_then(|()| fault::check())
}

/// Attaches to processes and to the descendants that they have already.
fn follow(live: &mut Live, processes: &[Process]) -> Result<(), CliError> {
    for process in processes {
        let bits = live.bits(process);
        live.kernel.trace(process.tgid, bits)?;
        live.registry.add(process);
    }
    live.kernel.attach()?;
    // From here on forks are followed by events; what was there before is found by looking.
    for process in processes {
        for child in descendants(process.tgid) {
            if let Ok(child) = Process::inspect(child) {
                let bits = live.bits(&child);
                live.kernel.trace(child.tgid, bits)?;
                live.registry.add(&child);
            }
        }
    }
    // A process that ended meanwhile has no exit event to come.
    let (mut gone, mut left) = (Vec::new(), 0);
    for process in processes {
        if Path::new("/proc").join(process.tgid.to_string()).exists() {
            left += 1;
        } else {
            live.kernel.untrace(process.tgid);
            gone.push(process.tgid.to_string());
        }
    }
    if left == 0 {
        return Err(CliError::failed(format!(
            "process {} ended while it was being attached to; give the id of a process that runs",
            gone.join(", ")
        )));
    }
    if !gone.is_empty() {
        eprintln!("spanwise: process {} ended while it was being attached to", gone.join(", "));
    }
    Ok(())
}

fn start(command: &[OsString]) -> Result<Child, CliError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(CliError::usage("there is no command to run; give one after --"));
    };
    Command::new(program).args(arguments).spawn().map_err(|error| {
        CliError::failed(format!(
            "cannot start {}: {error}; check the command and its permissions",
            Path::new(program).display()
        ))
    })
}

fn create_recording(path: &Path) -> Result<Writer, CliError> {
    Writer::create(path).map_err(|error| {
        CliError::usage(format!(
            "cannot write the recording {}: {error}; check that the folder exists and can be written",
            path.display()
        ))
    })
}

/// The file that says that the probes are live.
struct ReadyFile<'a>(&'a Path);

impl<'a> ReadyFile<'a> {
    /// Finds out early that it could not be created, and removes one that a former run left.
    fn check(path: &'a Path) -> Result<Self, CliError> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(CliError::usage(format!(
                "cannot create the ready file {}: its folder does not exist; create it or give another path",
                path.display()
            )));
        }
        // Not being there is the usual case.
        drop(std::fs::remove_file(path));
        Ok(Self(path))
    }

    fn create(&mut self) -> Result<(), CliError> {
        std::fs::write(self.0, format!("{}\n", std::process::id())).map_err(|error| {
            CliError::usage(format!(
                "cannot create the ready file {}: {error}; check that its folder can be written",
                self.0.display()
            ))
        })
    }
}

fn report_status(status: Option<std::process::ExitStatus>) -> Result<(), CliError> {
    match status {
        Some(status) if !status.success() => eprintln!("spanwise: the program ended with {status}"),
        _ => {}
    }
    Ok(())
}

/// The loop.
struct Engine {
    pipeline: Pipeline<Live>,
    governor: Governor,
    ring: Ring,
    child: Option<Child>,
    /// Exits seen when the processes were last counted.
    seen: u64,
    /// Longest time between two looks at the ring.
    longest_pause: Duration,
}

impl Engine {
    fn run(&mut self, settings: &Settings, stop: &Stop) -> Result<(), CliError> {
        let end = settings.duration.map(|duration| Instant::now() + duration);
        let mut sleep = BUSY;
        let mut counted = Instant::now();
        let mut last = Instant::now();
        let mut priority = Priority::default();
        loop {
            let before = self.ring.bytes;
            let found = self.read(Some(stop));
            let bytes = self.ring.bytes - before;
            priority.found(bytes as usize);
            self.pipeline.origin.hear();
            let now = Instant::now();
            if self.governor.looked(bytes, now)
                && let Some(effort) = self.governor.measure(now, kernel_side(&self.pipeline.origin.kernel))
            {
                self.pipeline.govern(effort, clock::boot_ns());
            }
            self.longest_pause = self.longest_pause.max(now.duration_since(last));
            last = now;
            if stop.wants_table() {
                fault::for_tests();
                eprint!("{}", self.table());
            }
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                self.child = None;
                report_status(Some(status))?;
            }
            if stop.is_asked() || fault::happened() || end.is_some_and(|end| now >= end) {
                self.end_program();
                return Ok(());
            }
            if now.duration_since(counted) >= COUNT_EVERY {
                counted = now;
                if self.all_gone() {
                    return Ok(());
                }
            }
            sleep = if found > 0 { BUSY } else { (sleep * 2).min(IDLE) };
            stop.sleep(sleep);
        }
    }

    /// Reads what the ring has now, but for what is left when the end is asked for.
    fn read(&mut self, stop: Option<&Stop>) -> usize {
        let mut found = 0;
        loop {
            let pipeline = &mut self.pipeline;
            let got = self.ring.drain(BATCH, |bytes| {
                if let Some(recorder) = &mut pipeline.origin.recorder {
                    recorder.frame(Frame::Record, bytes);
                }
                pipeline.record(bytes);
            });
            found += got;
            self.pipeline.tick(clock::boot_ns(), Instant::now());
            // One turn takes a bounded time, however fast records come.
            if got < BATCH || found >= 64 * BATCH || stop.is_some_and(Stop::is_asked) {
                return found;
            }
        }
    }

    /// Whether nothing that is traced is left. Asked only after something ended.
    fn all_gone(&mut self) -> bool {
        if !self.pipeline.origin.kernel.tells_exits {
            self.pipeline.origin.look_for_exits();
        }
        let exits = self.pipeline.origin.exits;
        if exits == self.seen || self.child.is_some() {
            return false;
        }
        self.seen = exits;
        self.pipeline.origin.kernel.traced().is_empty()
    }

    /// Asks the program that was started to end, and reads on while it does.
    fn end_program(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal::terminate(child.id());
        let until = Instant::now() + PROGRAM_GRACE;
        while Instant::now() < until {
            self.read(None);
            if matches!(child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(BUSY);
        }
    }

    fn kernel_stage(&self) -> (Stage, Vec<(&'static str, u64)>) {
        let kernel = &self.pipeline.origin.kernel;
        let mut counters = kernel.counters();
        let stage = kernel_stage(&counters);
        counters.push(("hook runs that the kernel skipped", kernel.skipped()));
        (stage, counters)
    }

    fn table(&self) -> String {
        let (kernel, counters) = self.kernel_stage();
        let mut stages = vec![kernel];
        stages.extend(self.pipeline.stages());
        let origin = &self.pipeline.origin;
        stages.extend([self.governor.stage(), origin.following.stage()]);
        stages.extend(origin.instruments.stage());
        render(&stages, &counters)
    }

    /// Takes the probes off, reads the rest, empties every stage, and prints the account. What was traced waits neither for a
    /// backlog nor for an endpoint that is slow to take the last spans.
    fn finish(mut self) {
        self.pipeline.origin.kernel.unhook();
        self.pipeline.origin.instruments.stop();
        // Nothing is added any more.
        while self.read(None) > 0 {}
        tracing::info!("longest time between two looks at the ring: {:?}", self.longest_pause);
        for report in self.pipeline.explain() {
            tracing::info!("{report}");
        }
        let (kernel, counters) = self.kernel_stage();
        let ring = self.ring;
        let detach = |live: Live| {
            let beside = [Some(live.following.stage()), live.instruments.stage()];
            live.kernel.detach();
            drop(ring);
            (live.recorder, beside)
        };
        let ((recorder, beside), rest) = self.pipeline.finish(clock::boot_ns(), STOP_WITHIN, detach);
        let governor = [Some(self.governor.stage())].into_iter().chain(beside).flatten();
        if let Some(recorder) = recorder {
            let failed = recorder.finish();
            if failed > 0 {
                eprintln!(
                    "spanwise: {failed} frames of the recording could not be written; it is not complete"
                );
            }
        }
        let mut stages = vec![kernel];
        stages.extend(rest);
        stages.extend(governor);
        eprint!("{}", render(&stages, &counters));
        if let Some(path) = std::env::var_os("SPANWISE_STATS_JSON")
            && let Err(error) = std::fs::write(&path, to_json(&stages, &counters).to_string())
        {
            eprintln!("spanwise: cannot write {}: {error}", Path::new(&path).display());
        }
    }
}

/// What the governor wants to know of the kernel side.
fn kernel_side(kernel: &Kernel) -> KernelSide {
    let counters = kernel.counters();
    let of = |index: u32| counters.get(index as usize).map_or(0, |(_, value)| *value);
    KernelSide { run_time: kernel.run_time(), seen: of(counters::SEEN), shipped: of(counters::SHIPPED) }
}

/// The account of the kernel side: every transfer it saw was shipped, or not for a reason.
pub(super) fn kernel_stage(values: &[(&'static str, u64)]) -> Stage {
    let of = |index: u32| values.get(index as usize).map_or(0, |(_, value)| *value);
    let waiting = of(counters::URING_WAITED).saturating_sub(of(counters::URING_TOLD));
    let missed = of(counters::RETURNS_MISSED) + of(counters::CALLS_FULL);
    Stage {
        name: "kernel: transfers",
        input: of(counters::SEEN) + waiting + missed,
        rows: vec![
            (Flow::Drop, "return of the call not seen", missed),
            (Flow::Drop, "io_uring completion not seen", waiting),
            (Flow::Out, "shipped to the ring", of(counters::SHIPPED)),
            (Flow::Drop, "ring full", of(counters::RING_FULL_DATA)),
            (Flow::Drop, "connection ignored", of(counters::IGNORED)),
            (Flow::Drop, "connection encrypted", of(counters::ENCRYPTED)),
            (Flow::Drop, "connection map full", of(counters::CONN_FULL)),
        ],
        notes: vec![],
    }
}
