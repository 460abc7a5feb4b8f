//! Tries what was asked for, and judges nothing.

use std::io;

use super::lockdown::{Lockdown, lockdown};
use super::raw::Program;
use super::{Feature, child, probes, sockets};
use crate::kernel::btf::Btf;
use crate::kernel::fault::{Faults, Kind};
use crate::kernel::host;

/// How a trial ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trial {
    /// It works as it should.
    Sound,
    /// It does harm here.
    Harmful,
    /// This kernel has no such thing.
    Absent,
    /// It could not be tried.
    Failed(String),
    /// Nobody asked.
    NotRun,
}

impl From<io::Error> for Trial {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Result<Trial>> for Trial {
    fn from(result: io::Result<Trial>) -> Self {
        result.unwrap_or_else(Self::from)
    }
}

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) lockdown: Option<Lockdown>,
    pub(super) kernel_memory: Trial,
    pub(super) sockets: Trial,
    pub(super) return_probes: Trial,
    pub(super) nop5: Trial,
    pub(super) multi: Trial,
    /// Whether trampolines live as long as somebody runs in them (Linux 5.12, and repaired versions of older ones).
    pub(super) counted_trampolines: Trial,
    pub(super) perf: Trial,
    pub(super) perf_event_paranoid: Option<i64>,
}

impl Facts {
    pub(super) fn gather(features: &[Feature], faults: &Faults) -> Self {
        let harms = |feature: Feature| {
            let name = feature.key().split_once('.').map_or("", |(_, name)| name);
            faults.has(Kind::Hazard, name)
        };
        let tried = |feature: Feature, trial: fn() -> Trial| match features.contains(&feature) {
            // Of these the kernel itself says no, in words.
            true if harms(feature) && matches!(feature, Feature::KernelMemory | Feature::PerfProbes) => {
                Trial::Failed("a fault on purpose".to_owned())
            }
            true if harms(feature) => Trial::Harmful,
            true => trial(),
            false => Trial::NotRun,
        };
        Self {
            lockdown: lockdown(),
            kernel_memory: tried(Feature::KernelMemory, kernel_memory),
            sockets: tried(Feature::SocketMaps, || sockets::trial().into()),
            return_probes: tried(Feature::ReturnProbesUnderSeccomp, || child::return_probes().into()),
            nop5: tried(Feature::Nop5Probes, || probes::nop5().into()),
            multi: tried(Feature::MultiProbesByPid, || probes::multi().into()),
            counted_trampolines: tried(Feature::FunctionHooks, counted_trampolines),
            perf: tried(Feature::PerfProbes, || probes::perf().into()),
            perf_event_paranoid: std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }
}

/// A program that only reads kernel memory loads, or not. It is never run.
fn kernel_memory() -> Trial {
    match Program::reads_kernel_memory() {
        Ok(_) => Trial::Sound,
        Err(error) => Trial::Failed(error.to_string()),
    }
}

/// What came with the repair is in the kernel's type information.
fn counted_trampolines() -> Trial {
    match Btf::from_kernel() {
        Ok(btf) if host::keeps_trampolines(&btf) => Trial::Sound,
        Ok(_) => Trial::Harmful,
        Err(error) => Trial::Failed(error.to_string()),
    }
}
