//! Loads and attaches the programs, and holds the maps. Dropping [`Kernel`] detaches everything.

use std::io;
use std::time::Duration;

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, Program};
use aya::{Ebpf, EbpfLoader, Endianness, Pod};
use spanwise_common::conn::{State, Verdict};
use spanwise_common::names::program;
use spanwise_common::{counters, names};
use thiserror::Error;

use super::btf::{Btf, BtfError};
use super::offsets;
use super::plane::{self, Plane};
use super::ring::Ring;
use super::{object, plane::COMPANIONS, plane::ON_DEMAND, plane::SOCK_COMPANIONS};
use super::{typed, usage};
use crate::config::PlaneChoice;

/// Why the programs could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The build has no programs.
    #[error(
        "this binary was built without its BPF programs (SPANWISE_BPF=stub); build it again without that setting"
    )]
    Stub,
    /// No BTF, or not readable.
    #[error("the kernel's type information cannot be used: {0}")]
    Btf(#[from] BtfError),
    /// The plane asked for cannot be had.
    #[error("{0}")]
    Plane(String),
    /// Not allowed to use BPF.
    #[error("not permitted to load BPF programs ({0}); run as root, or with CAP_BPF and CAP_PERFMON")]
    Permission(String),
    /// Anything else.
    #[error("loading the BPF programs failed: {0}")]
    Other(String),
}

/// Wrapper that lets the contract's structs cross the map interface.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: integers and arrays with explicit padding, whose size the contract asserts.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Pod for Plain<State> {}
// SAFETY: three integers of the same size.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Pod for Plain<Verdict> {}
// SAFETY: an array of integers.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Pod for Plain<[u64; counters::COUNT as usize]> {}

/// The loaded programs and their maps.
pub struct Kernel {
    /// Owns programs and links.
    ebpf: Ebpf,
    procs: HashMap<MapData, u32, u32>,
    conns: HashMap<MapData, u64, Plain<State>>,
    verdicts: HashMap<MapData, u64, Plain<Verdict>>,
    counters: PerCpuArray<MapData, Plain<[u64; counters::COUNT as usize]>>,
    ring: Option<Ring>,
    /// The plane in use.
    pub plane: Plane,
    /// What this kernel does not give, and what that costs: one sentence each.
    pub losses: Vec<String>,
    programs: Vec<(&'static str, bool)>,
    splice_watched: bool,
}

/// Whether an error chain holds a "not permitted" of the kernel.
fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.raw_os_error() == Some(libc::EPERM)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// All sentences of an error chain in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    // The verifier's log is pages long; its last lines say what is wrong.
    tracing::debug!("{text}");
    const MOST: usize = 600;
    if text.len() > MOST {
        let mut from = text.len() - MOST;
        while !text.is_char_boundary(from) {
            from += 1;
        }
        text = format!("... {}", text.get(from..).unwrap_or_default());
    }
    text.replace('\n', " ")
}

fn other(error: impl std::error::Error + 'static) -> LoadError {
    if is_permission(&error) { LoadError::Permission(chain(&error)) } else { LoadError::Other(chain(&error)) }
}

impl Kernel {
    /// Loads every program that this kernel can run. Nothing is attached yet.
    pub fn load(asked: PlaneChoice) -> Result<Self, LoadError> {
        if !object::is_present() {
            return Err(LoadError::Stub);
        }
        let btf = Btf::from_kernel()?;
        let plane = plane::choose(asked, &btf).map_err(LoadError::Plane)?;
        let found = offsets::resolve(&btf);
        let mut losses: Vec<String> = found
            .missing
            .iter()
            .zip(&found.reasons)
            .map(|(wanted, reason)| format!("{reason}: {}", offsets::cost_of_missing(wanted.global)))
            .collect();
        let hooks = plane.programs().iter().map(|(_, hook)| *hook);
        let others = COMPANIONS.iter().chain(SOCK_COMPANIONS).map(|(_, hook, _)| *hook);
        let blob = typed::blob(&btf, hooks.chain(others));
        drop(btf);
        let typed = aya::Btf::parse(&blob, Endianness::default()).map_err(other)?;
        drop(blob);
        let mut loader = lean_loader();
        for (name, value) in &found.values {
            // A global that no program uses is not in the object.
            loader.override_global(name, value, false);
        }
        let mut ebpf = loader.load(object::bytes()).map_err(other)?;
        let mut programs = Vec::new();
        for (name, hook) in plane.programs() {
            load_program(&mut ebpf, name, hook, &typed).map_err(other)?;
            programs.push((*name, true));
        }
        let companions = COMPANIONS.iter().chain(if plane == Plane::Sock { SOCK_COMPANIONS } else { &[] });
        for (name, hook, cost) in companions {
            match load_program(&mut ebpf, name, hook, &typed) {
                Ok(()) => programs.push((*name, false)),
                Err(error) => {
                    losses.push(format!("program {name} does not load ({}): {cost}", chain(&error)));
                }
            }
        }
        drop(typed);
        let ring = RingBuf::try_from(take(&mut ebpf, names::EVENTS)?).map_err(other)?;
        let procs = HashMap::try_from(take(&mut ebpf, names::PROCS)?).map_err(other)?;
        let conns = HashMap::try_from(take(&mut ebpf, names::CONNS)?).map_err(other)?;
        let verdicts = HashMap::try_from(take(&mut ebpf, names::VERDICTS)?).map_err(other)?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, names::COUNTERS)?).map_err(other)?;
        // The kernel's type information is megabytes once read.
        usage::give_back();
        Ok(Self {
            ebpf,
            procs,
            conns,
            verdicts,
            counters,
            ring: Some(Ring::new(ring)),
            plane,
            losses,
            programs,
            splice_watched: false,
        })
    }

    /// Attaches what was loaded: processes first, so that no child is missed once transfers are seen.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        let (planes, companions): (Vec<_>, Vec<_>) =
            self.programs.iter().copied().partition(|(_, plane)| *plane);
        for (name, is_plane) in companions.into_iter().chain(planes) {
            if ON_DEMAND.contains(&name) {
                continue;
            }
            let Some(program) = self.ebpf.program_mut(name) else { continue };
            let program: &mut BtfTracePoint = program.try_into().map_err(other)?;
            match program.attach() {
                Ok(_) => {}
                Err(error) if is_plane => return Err(other(error)),
                Err(error) => self.losses.push(format!("program {name} does not attach: {}", chain(&error))),
            }
        }
        Ok(())
    }

    /// Bytes were spliced out of a socket: from now on that is watched.
    pub fn watch_splice(&mut self) {
        if std::mem::replace(&mut self.splice_watched, true) {
            return;
        }
        let Some(program) = self.ebpf.program_mut(program::TCP_SPLICE) else { return };
        let attached = match <&mut BtfTracePoint>::try_from(program) {
            Ok(program) => program.attach().map(drop),
            Err(error) => Err(error),
        };
        match attached {
            Ok(()) => tracing::info!("a traced process splices: program tcp_splice is attached"),
            Err(error) => tracing::warn!(
                "program tcp_splice does not attach ({}): responses that are read by splice end late",
                chain(&error)
            ),
        }
    }

    /// The ring of records. Can be taken once.
    pub fn take_ring(&mut self) -> Option<Ring> {
        self.ring.take()
    }

    /// Sets the bits of a process.
    pub fn trace(&mut self, tgid: u32, bits: u32) -> Result<(), LoadError> {
        self.procs.insert(tgid, bits, 0).map_err(other)
    }

    /// Forgets a process.
    pub fn untrace(&mut self, tgid: u32) {
        // Not being there is what was wanted.
        drop(self.procs.remove(&tgid));
    }

    /// Every process that the kernel side traces, children included.
    pub fn traced(&self) -> Vec<u32> {
        self.procs.keys().flatten().collect()
    }

    /// What the kernel side knows of a connection whose `Open` record was lost.
    pub fn connection(&self, cookie: u64) -> Option<State> {
        self.conns.get(&cookie, 0).ok().map(|state| state.0)
    }

    /// Tells the kernel side what of a connection to ship.
    pub fn decide(&mut self, cookie: u64, verdict: Verdict) {
        // A full map evicts; a lost verdict costs bytes, never a span.
        drop(self.verdicts.insert(cookie, Plain(verdict), 0));
    }

    /// Forgets what was decided on a connection.
    pub fn forget(&mut self, cookie: u64) {
        drop(self.verdicts.remove(&cookie));
        drop(self.conns.remove(&cookie));
    }

    /// Counters of all CPUs, by their labels.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut sums = [0u64; counters::COUNT as usize];
        if let Ok(values) = self.counters.get(&0, 0) {
            for cpu in values.iter() {
                for (sum, value) in sums.iter_mut().zip(cpu.0) {
                    *sum += value;
                }
            }
        }
        counters::LABELS.iter().copied().zip(sums).collect()
    }

    /// Run time of all programs so far: zero unless somebody has the kernel measure it (`kernel.bpf_stats_enabled`).
    pub fn run_time(&self) -> Duration {
        let info = |(name, _): &(&str, bool)| self.ebpf.program(name)?.info().ok();
        self.programs.iter().filter_map(info).map(|info| info.run_time()).sum()
    }

    /// Takes the programs off their hooks. The maps stay: what they hold can still be read.
    pub fn unhook(&mut self) {
        for (name, program) in self.ebpf.programs_mut() {
            let done = match program {
                Program::BtfTracePoint(program) => program.unload(),
                Program::FEntry(program) => program.unload(),
                Program::FExit(program) => program.unload(),
                Program::TracePoint(program) => program.unload(),
                Program::RawTracePoint(program) => program.unload(),
                // Of no kind that is used here; it goes with the rest.
                _ => Ok(()),
            };
            if let Err(error) = done {
                // Never loaded on this kernel, most likely.
                tracing::debug!("program {name} is not unloaded: {error}");
            }
        }
    }

    /// Detaches and unloads everything now.
    pub fn detach(self) {
        drop(self);
    }
}

fn load_program(ebpf: &mut Ebpf, name: &str, hook: &str, btf: &aya::Btf) -> Result<(), aya::EbpfError> {
    let Some(program) = ebpf.program_mut(name) else {
        return Err(aya::EbpfError::ProgramError(aya::programs::ProgramError::UnexpectedProgramType));
    };
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(hook, btf)?;
    Ok(())
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| LoadError::Other(format!("the BPF object has no map {name}")))
}

/// A loader without the kernel's type information: the object has no CO-RE relocations, so nothing of it is needed.
///
/// The library reads and parses all of it in the loader's constructor, whether asked to or not: 30 ms and 20 MB, the highest
/// peak of the agent's whole life. If the file cannot be opened it goes on without, so for that moment no file can be. The
/// agent has one thread at this point.
fn lean_loader<'a>() -> EbpfLoader<'a> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    #[expect(unsafe_code, reason = "system call")]
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    if known {
        set_open_files(libc::rlimit { rlim_cur: 0, ..limit });
    }
    let mut loader = EbpfLoader::new();
    if known {
        set_open_files(limit);
    }
    loader.btf(None);
    loader
}

fn set_open_files(limit: libc::rlimit) {
    // SAFETY: `limit` is alive during the call; lowering the soft limit and raising it again up to the hard one is open to
    // everyone.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
}
