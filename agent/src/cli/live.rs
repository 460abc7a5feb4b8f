//! What `run` and `attach` share: load, attach, read the ring until told to stop, account for everything.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use spanwise_common::config::proc;

use super::engine::{Engine, kernel_side};
use super::ready::ReadyFile;
use super::source::Live;
use super::stop::Stop;
use super::{CliError, fault};
use crate::config::Settings;
use crate::export::{Exporters, Limits};
use crate::governor::Governor;
use crate::governor::follow::Following;
use crate::instrument::Instruments;
use crate::kernel::hazard::{Feature, Hazards, Lockdown, lockdown};
use crate::kernel::load::{Kernel, LoadError};
use crate::kernel::recording::{Frame, Writer};
use crate::kernel::{clock, priority, privilege};
use crate::pipeline::Pipeline;
use crate::process::{Goroutines, Naming, Process, Registry, descendants};
use crate::span::clock::Clock;

/// What to trace.
pub(super) enum Targets {
    /// Running processes.
    Processes(Vec<Process>),
    /// A command to start.
    Command(Vec<OsString>),
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
            LoadError::Refused { .. }
            | LoadError::Plane(_)
            | LoadError::Btf(_)
            | LoadError::Uring(_)
            | LoadError::Again => Self::not_possible(error.to_string()),
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
        crate::tell!("spanwise: nothing is traced, because OTEL_SDK_DISABLED is true");
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
        Some(little) => crate::tell!("spanwise: {}", little.what),
        None => {}
    }
    let locked_memory = privilege::raise_locked_memory();
    let mut kernel = Kernel::load(settings.plane).map_err(|error| {
        // Only in this mode is the hazard the reason of the failure, and only now is it worth the time to look.
        let hazards = |feature| Hazards::look(&[feature]).allows(feature);
        match (&error, lockdown()) {
            // The verifier says it in many ways: a helper that it does not know, a plane that is refused, a permission.
            (_, Some(Lockdown::Confidentiality)) => {
                hazards(Feature::KernelMemory).map_or_else(CliError::not_possible, |()| error.into())
            }
            _ => error.into(),
        }
    })?;
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
    let Some(ring) = kernel.take_ring() else {
        return Err(CliError::failed("the ring buffer of the BPF programs is missing"));
    };
    let instruments = Instruments::load(&mut kernel);
    // Nothing is loaded after this.
    drop(locked_memory);
    for note in settings.notes.iter().chain(&kernel.losses) {
        crate::tell!("spanwise: {note}");
    }
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
                crate::tell!("spanwise: {loss}");
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
        crate::tell!("spanwise: {loss}");
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
        crate::tell!("spanwise: process {} ended while it was being attached to", gone.join(", "));
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

pub(super) fn report_status(status: Option<std::process::ExitStatus>) -> Result<(), CliError> {
    match status {
        Some(status) if !status.success() => crate::tell!("spanwise: the program ended with {status}"),
        _ => {}
    }
    Ok(())
}
