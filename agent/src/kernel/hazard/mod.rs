//! What is known to hurt on some kernels, and whether it would on this one.
//!
//! Comes in: the features that somebody wants to use. Goes out: for each, yes, or a refusal that says why. A feature is tried
//! on sockets, memory and processes of the agent's own, which are gone when the trial ends; what cannot be tried without risk
//! is judged by what the kernel says of itself, and in doubt refused (docs/hazards.md).

mod child;
mod code;
mod judge;
mod lockdown;
mod probes;
pub(in crate::kernel) mod raw;
mod sockets;
mod trial;

#[cfg(test)]
pub(in crate::kernel) use child::{Child, End};
pub use judge::{Row, Verdict};
pub use lockdown::{Lockdown, lockdown};

use trial::Facts;

use super::fault::Faults;

/// Something that is dangerous, or forbidden, on some kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// BPF programs read the kernel's memory. Everything rests on it.
    KernelMemory,
    /// BPF programs write to a process's memory.
    UserMemoryWrite,
    /// Sockets of applications in sockmaps or sockhashes (header injection).
    SocketMaps,
    /// Return probes in processes that have a seccomp filter.
    ReturnProbesUnderSeccomp,
    /// Probes on a five-byte nop inside a function that keeps data below its stack pointer.
    Nop5Probes,
    /// The kernel's own pid filter of uprobe.multi.
    MultiProbesByPid,
    /// Trampolines at kernel functions (fentry, fexit).
    FunctionHooks,
    /// Probes of user code by perf events.
    PerfProbes,
}

/// All of them, in the order of the table.
pub const FEATURES: &[Feature] = &[
    Feature::KernelMemory,
    Feature::UserMemoryWrite,
    Feature::SocketMaps,
    Feature::ReturnProbesUnderSeccomp,
    Feature::Nop5Probes,
    Feature::MultiProbesByPid,
    Feature::FunctionHooks,
    Feature::PerfProbes,
];

impl Feature {
    /// Its stable name, in `doctor` and in refusals.
    pub fn key(self) -> &'static str {
        match self {
            Self::KernelMemory => "hazard.kernel_memory",
            Self::UserMemoryWrite => "hazard.user_memory_write",
            Self::SocketMaps => "hazard.sockmap",
            Self::ReturnProbesUnderSeccomp => "hazard.uretprobe_seccomp",
            Self::Nop5Probes => "hazard.uprobe_nop5",
            Self::MultiProbesByPid => "hazard.uprobe_multi_pid",
            Self::FunctionHooks => "hazard.trampoline",
            Self::PerfProbes => "hazard.perf_event",
        }
    }
}

/// What was found of the features that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Hazards {
    rows: Vec<Row>,
}

impl Hazards {
    /// Tries these features. Takes a millisecond or less for each, except `Nop5Probes` and `MultiProbesByPid`, which take
    /// some ten: ask for what will be used. To be called before the agent gives up its privileges.
    pub fn look(features: &[Feature]) -> Self {
        let facts = Facts::gather(features, &Faults::from_env().unwrap_or_default());
        Self { rows: features.iter().map(|feature| judge::row(*feature, &facts)).collect() }
    }

    /// Whether a feature may be used; if not, why, and what to do.
    pub fn allows(&self, feature: Feature) -> Result<(), String> {
        match self.rows.iter().find(|row| row.feature == feature) {
            Some(Row { verdict: Verdict::Allowed, .. }) => Ok(()),
            Some(Row { sentence, todo, .. }) => {
                Err(format!("{}: {sentence} {todo}", feature.key()).trim_end().to_owned())
            }
            None => Err(format!("{}: it was not tried at the start, so it is not used.", feature.key())),
        }
    }

    /// One row for each feature that was asked for.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let hazards = Hazards::default();
        for feature in FEATURES {
            let why = hazards.allows(*feature).unwrap_err();
            assert!(why.starts_with(feature.key()) && why.contains("not tried"), "{why}");
        }
    }

    #[test]
    fn every_feature_has_its_row_here() {
        let hazards = Hazards::look(FEATURES);
        let keys: Vec<_> = hazards.rows().iter().map(|row| row.feature).collect();
        assert_eq!(keys, FEATURES);
        for row in hazards.rows() {
            assert_eq!(hazards.allows(row.feature).is_ok(), row.verdict == Verdict::Allowed, "{row:?}");
        }
    }
}
