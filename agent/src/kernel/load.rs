//! Loads and attaches the programs, and holds the maps. Dropping [`Kernel`] detaches everything.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::{Ebpf, Endianness, Pod};
use spanwise_common::config::feature;
use spanwise_common::conn::{State, Verdict};
use spanwise_common::golang::{self, Layout};
use spanwise_common::names::program;
use spanwise_common::{counters, names};
use thiserror::Error;

use super::btf::BtfError;
use super::fault::Faults;
use super::host::Host;
use super::maps::Lost;
use super::object;
use super::plane::{self, COMPANIONS, NO_URING, ON_DEMAND, Plane};
use super::programs::{self, Refusal};
use super::ring::Ring;
use super::uprobe::{self, Probes};
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
    #[error("the kernel's type information cannot be used, and without it nothing can be captured: {0}")]
    Btf(#[from] BtfError),
    /// The plane asked for cannot be had.
    #[error("plane {plane} cannot be used: {why}; use --plane auto")]
    Refused {
        /// Its name.
        plane: &'static str,
        /// Why.
        why: String,
    },
    /// No plane can be had.
    #[error("{0}")]
    Plane(String),
    /// Not allowed to use BPF.
    #[error("not permitted to load BPF programs ({0}); run as root, or with CAP_BPF and CAP_PERFMON")]
    Permission(String),
    /// The kernel lacks what nothing can be done without.
    #[error("{0}")]
    Lacking(String),
    /// The program that watches io_uring is refused: the others are to be loaded without it.
    #[error("{0}")]
    Uring(String),
    /// A map is refused that the rest can do without: it is to be loaded with what is lost now.
    #[error("it is to be loaded once more")]
    Again,
    /// Anything else.
    #[error("loading the BPF programs failed: {0}")]
    Other(String),
}

/// Flag of a map update: only what is there already (`BPF_EXIST`).
const EXISTING: u64 = 2;

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

// SAFETY: six integers of the same size.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Pod for Plain<Layout> {}

/// The loaded programs and their maps.
pub struct Kernel {
    /// Owns programs and links.
    ebpf: Ebpf,
    procs: HashMap<MapData, u32, u32>,
    conns: HashMap<MapData, u64, Plain<State>>,
    verdicts: HashMap<MapData, u64, Plain<Verdict>>,
    counters: PerCpuArray<MapData, Plain<[u64; counters::COUNT as usize]>>,
    go_layouts: Array<MapData, Plain<Layout>>,
    /// Those that are in the map, by their index.
    layouts: Vec<Layout>,
    ring: Option<Ring>,
    /// The plane in use.
    pub plane: Plane,
    /// What this kernel does not give, and what that costs: one sentence each.
    pub losses: Vec<String>,
    /// What was loaded, and whether the plane needs it.
    programs: Vec<(Hooked, bool)>,
    /// Forks of traced processes are told, and so are their children traced.
    pub tells_forks: bool,
    /// The ends of traced processes are told.
    pub tells_exits: bool,
    splice_watched: bool,
    maps: uprobe::Maps,
    /// Why there can be no programs on user code.
    no_user_code: Option<String>,
    /// Programs on user code.
    probes: Vec<(&'static str, OwnedFd)>,
    /// Hook runs that the kernel skipped, as of taking the programs off.
    skipped: u64,
}

/// A program and what it hooks.
type Hooked = (&'static str, &'static str);

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
        let host = Host::look(Faults::from_env().map_err(LoadError::Other)?)?;
        Self::load_on(asked, &host)
    }

    /// [`Self::load`] on a kernel that has been looked at.
    pub fn load_on(asked: PlaneChoice, host: &Host) -> Result<Self, LoadError> {
        if !object::is_present() {
            return Err(LoadError::Stub);
        }
        if let Some(sentence) = plane::hopeless(host) {
            return Err(LoadError::Lacking(sentence));
        }
        let uring = plane::uring(host);
        let plane = plane::candidates(asked).find(|plane| plane.obstacle(host).is_none());
        let calls = plane == Some(Plane::Kprobe);
        let mut lost = Lost::default();
        loop {
            let watched = uring.filter(|_| lost.uring.is_none());
            match Self::load_with(asked, host, watched, calls, &mut lost) {
                // The other programs must know that nobody watches, and what they know is fixed when they are loaded.
                Err(LoadError::Uring(why)) if lost.uring.is_none() => lost.uring = Some(why),
                Err(LoadError::Again) => {}
                Err(error) => return Err(error),
                Ok(mut kernel) => {
                    if watched.is_none() && kernel.plane.sees_uring() {
                        kernel.losses.push(lost.uring.unwrap_or_else(|| {
                            format!("this kernel does not tell enough of completions: {NO_URING}")
                        }));
                    }
                    kernel.no_user_code = lost.user_code;
                    return Ok(kernel);
                }
            }
        }
    }

    /// `calls`: with room for the calls that plane `kprobe` remembers. Maps are made before it is known which plane loads.
    fn load_with(
        asked: PlaneChoice,
        host: &Host,
        uring: Option<Hooked>,
        calls: bool,
        lost: &mut Lost,
    ) -> Result<Self, LoadError> {
        let blob = typed::blob(host.btf(), plane::hooks());
        let types = aya::Btf::parse(&blob, Endianness::default()).map_err(other)?;
        drop(blob);
        let features = host.features | if uring.is_some() { feature::URING } else { 0 };
        let mut loader = object::loader();
        for (name, value) in &host.offsets.values {
            // A global that no program uses is not in the object.
            loader.override_global(name, value, false);
        }
        loader.override_global("FEATURES", &features, false);
        if !calls {
            loader.map_max_entries(names::ENTERED, 1);
        }
        lost.apply(&mut loader, host.faults());
        let mut ebpf = loader.load(object::bytes()).map_err(|error| map_refused(error, lost))?;
        let mut losses: Vec<String> = host.offsets.losses().chain(host.helpers.iter().cloned()).collect();
        let first = plane::candidates(asked).find(|plane| plane.obstacle(host).is_none());
        let long: Vec<Hooked> = first
            .iter()
            .flat_map(|plane| plane.programs())
            .copied()
            .chain(uring.filter(|_| first.is_some_and(Plane::sees_uring)))
            .collect();
        programs::load_together(&mut ebpf, &long, &types, host.faults());
        let plane = Self::choose(asked, host, &mut ebpf, &types)?;
        if plane == Plane::Kprobe && !calls {
            drop(ebpf);
            return Self::load_with(asked, host, uring, true, lost);
        }
        let mut programs: Vec<(Hooked, bool)> =
            plane.programs().iter().map(|hooked| (*hooked, true)).collect();
        if let Some((name, hook)) = uring.filter(|_| plane.sees_uring()) {
            programs::load(&mut ebpf, name, hook, &types, host.faults()).map_err(|error| {
                LoadError::Uring(format!("program {name} does not load ({}): {NO_URING}", chain(&error)))
            })?;
            programs.push(((name, hook), false));
        }
        for (name, hook, cost) in COMPANIONS.iter().chain(plane.companions()) {
            if !host.has_tracepoint(hook) && !host.has_function(hook) {
                if !plane::OLDER.contains(hook) {
                    losses.push(format!("this kernel has no {hook}: {cost}"));
                }
                continue;
            }
            match programs::load(&mut ebpf, name, hook, &types, host.faults()) {
                Ok(()) => programs.push(((name, hook), false)),
                Err(error) => {
                    losses.push(format!("program {name} does not load ({}): {cost}", chain(&error)));
                }
            }
        }
        // One sentence is enough where several functions stand for one thing.
        losses.dedup();
        drop(types);
        // The kernel's type information is megabytes once read: it is gone before the pages of the ring come.
        usage::give_back();
        let loaded = |wanted: &str| programs.iter().any(|((name, _), _)| *name == wanted);
        let tells_forks = loaded(program::PROC_FORK) && !host.lacks("OFF_TASK_TGID");
        let tells_exits =
            loaded(program::PROC_EXIT) && !host.lacks("OFF_TASK_SIGNAL") && !host.lacks("OFF_SIGNAL_LIVE");
        let maps = uprobe::Maps::of(&ebpf);
        let ring = RingBuf::try_from(take(&mut ebpf, names::EVENTS)?).map_err(other)?;
        let procs = HashMap::try_from(take(&mut ebpf, names::PROCS)?).map_err(other)?;
        let conns = HashMap::try_from(take(&mut ebpf, names::CONNS)?).map_err(other)?;
        let verdicts = HashMap::try_from(take(&mut ebpf, names::VERDICTS)?).map_err(other)?;
        let go_layouts = Array::try_from(take(&mut ebpf, names::GO_LAYOUTS)?).map_err(other)?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, names::COUNTERS)?).map_err(other)?;
        Ok(Self {
            ebpf,
            procs,
            conns,
            verdicts,
            counters,
            go_layouts,
            layouts: Vec::new(),
            ring: Some(Ring::new(ring)),
            plane,
            losses,
            programs,
            tells_forks,
            tells_exits,
            splice_watched: false,
            maps,
            no_user_code: None,
            probes: Vec::new(),
            skipped: 0,
        })
    }

    /// The first plane whose programs the kernel takes.
    fn choose(
        asked: PlaneChoice,
        host: &Host,
        ebpf: &mut Ebpf,
        types: &aya::Btf,
    ) -> Result<Plane, LoadError> {
        let mut reasons = Vec::new();
        for plane in plane::candidates(asked) {
            match try_plane(plane, host, ebpf, types) {
                Ok(()) => return Ok(plane),
                Err(why) => reasons.push((plane, why)),
            }
            for (name, _) in plane.programs() {
                programs::unload(ebpf, name);
            }
        }
        if let Some((plane, (why, _))) = reasons.pop_if(|_| asked != PlaneChoice::Auto) {
            return Err(LoadError::Refused { plane: plane.name(), why });
        }
        let said: Vec<String> =
            reasons.iter().map(|(plane, (why, _))| format!("plane {}: {why}", plane.name())).collect();
        let said = said.join("; ");
        // Trampolines may be forbidden to everyone; typed tracepoints are forbidden to those without the capabilities only.
        let everywhere = |plane: &Plane| matches!(plane, Plane::Sock | Plane::Syscall);
        if reasons.iter().any(|(plane, (_, permission))| *permission && everywhere(plane)) {
            return Err(LoadError::Permission(said));
        }
        Err(LoadError::Plane(format!("nothing can be captured: {said}; see `spanwise doctor`")))
    }

    /// Attaches what was loaded: processes first, so that no child is missed once transfers are seen.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        let (planes, companions): (Vec<_>, Vec<_>) =
            self.programs.iter().copied().partition(|(_, plane)| *plane);
        for ((name, hook), is_plane) in companions.into_iter().chain(planes) {
            if ON_DEMAND.contains(&name) {
                continue;
            }
            match programs::attach(&mut self.ebpf, name, hook) {
                Ok(()) => {}
                Err(error) if is_plane => return Err(other(error)),
                Err(error) => {
                    self.tells_forks &= name != program::PROC_FORK;
                    self.tells_exits &= name != program::PROC_EXIT;
                    let loss = format!("program {name} does not attach to {hook}: {}", chain(&error));
                    tracing::warn!("{loss}");
                    self.losses.push(loss);
                }
            }
        }
        Ok(())
    }

    /// Bytes were spliced out of a socket: from now on that is watched, where the plane does not see it anyway.
    pub fn watch_splice(&mut self) {
        if std::mem::replace(&mut self.splice_watched, true) {
            return;
        }
        let watcher = self.programs.iter().find(|((name, _), _)| *name == program::TCP_SPLICE);
        let Some(((name, hook), _)) = watcher.copied() else { return };
        match programs::attach(&mut self.ebpf, name, hook) {
            Ok(()) => tracing::info!("a traced process splices: program tcp_splice is attached"),
            Err(error) => tracing::warn!(
                "program tcp_splice does not attach ({}): responses that are read by splice end late",
                chain(&error)
            ),
        }
    }

    /// Loads programs on user code. Can be done once.
    pub fn load_probes(&mut self, wanted: &[&'static str]) -> Probes {
        let faults = Faults::from_env().unwrap_or_default();
        let lost = self.no_user_code.clone();
        let probes = Probes::load(std::mem::take(&mut self.maps), wanted, &faults, lost);
        self.probes = probes.programs().collect();
        self.losses.extend(probes.lacking().map(str::to_owned));
        probes
    }

    /// From now on it is told when a traced process may have loaded code. What that costs others, and why it is done so, is in
    /// docs/adr/0010-uprobe-sites.md.
    pub fn watch_code(&mut self) {
        let watcher = self.programs.iter().find(|((name, _), _)| *name == program::CODE_MAPPED);
        let Some(((name, hook), _)) = watcher.copied() else { return };
        if let Err(error) = programs::attach(&mut self.ebpf, name, hook) {
            tracing::warn!(
                "program {name} does not attach ({}): libraries that a program loads late are found late",
                chain(&error)
            );
        }
    }

    /// Instructions that the verifier looked at for each loaded program, where the kernel tells.
    pub fn verified(&self) -> Vec<(&'static str, u32)> {
        let verified = |name| Some((name, programs::verified(&self.ebpf, name)?));
        let of_probe = |(name, program): &(&'static str, OwnedFd)| {
            Some((*name, programs::told(program.as_fd(), "verified_insns:")? as u32))
        };
        let others = self.probes.iter().filter_map(of_probe);
        self.names().into_iter().filter_map(verified).chain(others).collect()
    }

    /// Each loaded program once, for however many functions it stands.
    fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.programs.iter().map(|((name, _), _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The ring of records. Can be taken once.
    pub fn take_ring(&mut self) -> Option<Ring> {
        self.ring.take()
    }

    /// Sets the bits of a process.
    pub fn trace(&mut self, tgid: u32, bits: u32) -> Result<(), LoadError> {
        self.procs.insert(tgid, bits, 0).map_err(other)
    }

    /// Bits that let the kernel side read the goroutines of a process with this layout; none when there are too many layouts.
    pub fn go_bits(&mut self, layout: Layout) -> u32 {
        let known = self.layouts.iter().position(|known| *known == layout);
        let index = known.or_else(|| {
            let next = self.layouts.len();
            let room = next < golang::MAX_LAYOUTS as usize;
            (room && self.go_layouts.set(next as u32, Plain(layout), 0).is_ok()).then(|| {
                self.layouts.push(layout);
                next
            })
        });
        index.map_or(0, |index| (index as u32 + 1) << golang::LAYOUT_SHIFT)
    }

    /// Sets these bits of a process that is traced, of those in `of`.
    pub fn mark(&mut self, tgid: u32, set: u32, of: u32) {
        // Only if it is still there: it may have ended.
        if let Ok(bits) = self.procs.get(&tgid, 0) {
            drop(self.procs.insert(tgid, bits & !of | set, EXISTING));
        }
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

    /// Hook runs that the kernel skipped, of whatever process. Opens a file for each program: not for every look.
    pub fn skipped(&self) -> u64 {
        let missed = |(_, program): &(_, OwnedFd)| programs::told(program.as_fd(), "recursion_misses:");
        let probes: u64 = self.probes.iter().filter_map(missed).sum();
        let others: u64 = self.names().into_iter().map(|name| programs::skipped(&self.ebpf, name)).sum();
        self.skipped.max(probes + others)
    }

    /// Run time of all programs so far: zero unless somebody has the kernel measure it (`kernel.bpf_stats_enabled`).
    pub fn run_time(&self) -> Duration {
        let info = |name: &str| self.ebpf.program(name)?.info().ok();
        let of_probe = |(_, program): &(_, OwnedFd)| {
            programs::told(program.as_fd(), "run_time_ns:").map(Duration::from_nanos)
        };
        let others = self.probes.iter().filter_map(of_probe);
        self.names().into_iter().filter_map(info).map(|info| info.run_time()).chain(others).sum()
    }

    /// Takes the programs off their hooks. The maps stay: what they hold can still be read.
    pub fn unhook(&mut self) {
        // With the programs goes what the kernel counted for them.
        self.skipped = self.skipped();
        programs::unload_all(&mut self.ebpf);
        self.probes.clear();
    }

    /// Detaches and unloads everything now.
    pub fn detach(self) {
        drop(self);
    }
}

/// Loads the programs of a plane and tries its kind of hook. Says why not, and whether that is for want of permission.
fn try_plane(plane: Plane, host: &Host, ebpf: &mut Ebpf, types: &aya::Btf) -> Result<(), (String, bool)> {
    if let Some(obstacle) = plane.obstacle(host) {
        return Err((obstacle, false));
    }
    let refused = |name: &str, error: Refusal| {
        (format!("program {name} does not load ({})", chain(&error)), is_permission(&error))
    };
    for (name, hook) in plane.programs() {
        programs::load(ebpf, name, hook, types, host.faults()).map_err(|error| refused(name, error))?;
    }
    // Where the trial itself cannot be had, attaching will tell.
    let Some((name, hook)) = plane.trial().filter(|(_, hook)| host.has_function(hook)) else { return Ok(()) };
    if programs::load(ebpf, name, hook, types, host.faults()).is_err() {
        return Ok(());
    }
    programs::attach_once(ebpf, name, hook).map_err(|error| {
        (format!("programs do not attach to functions ({})", chain(&error)), is_permission(&error))
    })?;
    // Before Linux 5.12 a program of this kind can be attached once in its life.
    programs::unload(ebpf, name);
    programs::load(ebpf, name, hook, types, host.faults()).map_err(|error| refused(name, error))
}

/// The library makes all maps at once; its error names the one that was refused.
fn map_refused(error: aya::EbpfError, lost: &mut Lost) -> LoadError {
    if lost.take(&error) {
        return LoadError::Again;
    }
    if is_permission(&error) {
        return LoadError::Permission(chain(&error));
    }
    LoadError::Lacking(format!(
        "a map cannot be made ({}), and without it nothing can be captured",
        chain(&error)
    ))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| LoadError::Other(format!("the BPF object has no map {name}")))
}
