//! Probes on user code: the programs for them, and attaching them to places of a file.
//!
//! Comes in: programs of the BPF object, and places of an open file. Goes out: links; when they are dropped the probes are gone. One
//! link holds all places of one program in a file where the kernel has such links (Linux 6.6, `uprobe.multi`); before, each place is a
//! perf event. Both put the probe into the file and not into a process: whoever runs the code hits it, and the
//! programs leave at once where the process is not traced. The kernel's own filter by process is never used (docs/hazards.md).
//!
//! The BPF library does not know links of this kind, so these programs are loaded here: the object is read once more, with the
//! maps that the library has made.

mod calls;
mod object;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use aya::Ebpf;
use thiserror::Error;

use super::fault::{Faults, Kind};
use super::hazard::{Feature, Hazards};
use super::maps::NO_USER_CODE;
use super::probe;
use calls::Kinds;
pub use calls::Links;

/// The helper that tells a program which place was hit.
const COOKIE: &str = "bpf_get_attach_cookie";

/// A place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// In the file.
    pub offset: u64,
    /// What the program gets with every hit.
    pub cookie: u64,
}

/// Descriptors of the maps, for programs that are loaded later.
#[derive(Debug, Default)]
pub(super) struct Maps(HashMap<String, OwnedFd>);

impl Maps {
    /// Those of an object. To be called before any is taken out; one that cannot be had is missed when it is wanted.
    pub(super) fn of(ebpf: &Ebpf) -> Self {
        Self(object::maps(ebpf).unwrap_or_default())
    }
}

/// Why nothing was attached.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The program was refused at the start, or never asked for.
    #[error("program {0} is not loaded: {1}")]
    NotLoaded(&'static str, String),
    /// The kernel says no.
    #[error("the kernel refuses probes of user code by {0} ({1})")]
    Refused(&'static str, #[source] io::Error),
    /// There is no such map.
    #[error("there is no map {0} to write to ({1})")]
    Map(&'static str, #[source] io::Error),
}

/// The loaded programs, and what of the maps belongs to processes. Can be given to another thread.
#[derive(Debug, Default)]
pub struct Probes {
    kinds: Kinds,
    programs: HashMap<&'static str, OwnedFd>,
    refused: HashMap<&'static str, String>,
    maps: HashMap<String, OwnedFd>,
    lacking: Option<String>,
}

impl Probes {
    /// Loads these programs, with the maps that were made. What the kernel refuses is told when it is wanted. `lost`: why there can be
    /// none.
    pub(super) fn load(maps: Maps, wanted: &[&'static str], faults: &Faults, lost: Option<String>) -> Self {
        let mut probes = Self { maps: maps.0, ..Self::default() };
        if wanted.is_empty() {
            return probes;
        }
        if let Some(why) = lost {
            return probes.without(wanted, why);
        }
        if faults.has(Kind::Helper, COOKIE) || !probe::attach_cookie() {
            let why = format!("this kernel has no helper {COOKIE}, which came with Linux 5.15");
            return probes.without(wanted, format!("{why}: {NO_USER_CODE}"));
        }
        let linked = match object::linked(&probes.maps) {
            Ok(linked) => linked,
            Err(why) => {
                probes.refused.extend(wanted.iter().map(|name| (*name, why.clone())));
                return probes;
            }
        };
        probes.kinds = Kinds::try_out(faults.has(Kind::Helper, "uprobe_multi"));
        let multi = probes.kinds.multi;
        if !multi && let Err(why) = Hazards::look(&[Feature::PerfProbes]).allows(Feature::PerfProbes) {
            return probes.without(wanted, format!("{NO_USER_CODE}, because {why}"));
        }
        let load = |name| match faults.has(Kind::Program, name) {
            true => Err("the kernel refuses it".to_owned()),
            false => object::load(&linked, name, multi),
        };
        // The kernel looks long at some of them: at the same time, then.
        std::thread::scope(|scope| {
            let load = &load;
            let loading: Vec<_> =
                wanted.iter().map(|name| (*name, scope.spawn(move || load(name)))).collect();
            for (name, result) in loading {
                match result.join().unwrap_or_else(|_| Err("the thread that loads it ended early".to_owned()))
                {
                    Ok(program) => drop(probes.programs.insert(name, program)),
                    Err(why) => drop(probes.refused.insert(name, why)),
                }
            }
        });
        probes
    }

    /// None of them, and why.
    fn without(mut self, wanted: &[&'static str], why: String) -> Self {
        self.refused.extend(wanted.iter().map(|name| (*name, why.clone())));
        self.lacking = Some(why);
        self
    }

    /// Whether probes stay possible once privileges have been given up only if `CAP_PERFMON` is kept.
    #[must_use]
    pub fn need_perfmon(&self) -> bool {
        !self.programs.is_empty() && !self.kinds.multi
    }

    /// How they are attached, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.kinds.multi { "uprobe.multi links" } else { "perf events" }
    }

    /// Why a program cannot be attached; none if it can.
    #[must_use]
    pub fn refusal(&self, program: &'static str) -> Option<&str> {
        if self.programs.contains_key(program) {
            return None;
        }
        Some(self.refused.get(program).map_or("it was not asked for at the start", String::as_str))
    }

    /// What this kernel lacks for all of them, and what that costs.
    #[must_use]
    pub fn lacking(&self) -> Option<&str> {
        self.lacking.as_deref()
    }

    /// The programs again, for their counts.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&'static str, OwnedFd)> {
        self.programs.iter().filter_map(|(name, program)| Some((*name, program.try_clone().ok()?)))
    }

    /// Puts a program on places of an open file, or, with `returns`, on the returns of the functions that begin there. All of
    /// them, or none.
    pub fn attach(
        &self,
        program: &'static str,
        file: BorrowedFd<'_>,
        points: &[Point],
        returns: bool,
    ) -> Result<Links, ProbeError> {
        let loaded = self.programs.get(program).ok_or_else(|| {
            ProbeError::NotLoaded(program, self.refusal(program).unwrap_or_default().to_owned())
        })?;
        if points.is_empty() {
            return Ok(Links::default());
        }
        // The file is open: its path may be gone, or lead elsewhere by now.
        let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
        self.kinds
            .attach(loaded, &path, points, returns)
            .map_err(|error| ProbeError::Refused(self.kind(), error))
    }

    /// What a map keyed by process id holds for a process; nothing takes it out.
    pub fn set(&self, map: &'static str, tgid: u32, value: Option<&[u8]>) -> Result<(), ProbeError> {
        let missing = || ProbeError::Map(map, io::Error::from_raw_os_error(libc::ENOENT));
        let fd = self.maps.get(map).ok_or_else(missing)?;
        calls::set(fd, tgid, value).map_err(|error| ProbeError::Map(map, error))
    }
}
