//! Looks, and judges nothing. Programs are loaded to see whether the kernel takes them; nothing stays.

use std::collections::BTreeMap;
use std::fs::read_to_string;

use crate::instrument::{self, Coverages, Gap};
use crate::kernel::fault::Faults;
use crate::kernel::hazard::{FEATURES, Hazards, Lockdown, Row, lockdown};
use crate::kernel::host::Host;
use crate::kernel::load::{Kernel, LoadError};
use crate::kernel::object;
use crate::kernel::offsets::{cost_of_missing, is_essential};
use crate::kernel::plane::{self, COMPANIONS, Plane, SOCK_COMPANIONS};
use crate::kernel::privilege::{self, PidView};
use crate::process::{Naming, Proc, listing};

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) kernel: String,
    pub(super) machine: &'static str,
    /// Findings in the type description, or why there are none.
    pub(super) btf: Result<BtfFacts, String>,
    /// The lockdown mode, if the kernel shows it.
    pub(super) lockdown: Option<Lockdown>,
    /// Effective capabilities.
    pub(super) capabilities: u64,
    /// What process ids mean here.
    pub(super) pid_view: PidView,
    /// Whether the capabilities are those of a user namespace.
    pub(super) user_namespace: bool,
    /// What is dangerous on some kernels.
    pub(super) hazards: Vec<Row>,
    pub(super) perf_event_paranoid: Option<i64>,
    pub(super) unprivileged_bpf_disabled: Option<i64>,
    pub(super) bpf_jit: Option<i64>,
    pub(super) bpf_stats: Option<i64>,
    pub(super) io_uring_disabled: Option<i64>,
    /// Limit of locked memory in bytes; none if unlimited or unknown.
    pub(super) memlock: Option<u64>,
    /// What is not read of processes that run now, and of which; none if they cannot be listed.
    pub(super) not_covered: Option<BTreeMap<Gap, Vec<String>>>,
}

/// What the kernel's types tell.
#[derive(Clone, Debug, Default)]
pub(super) struct BtfFacts {
    /// Why a plane cannot be used; planes that can are not here.
    pub(super) refused: Vec<(Plane, String)>,
    /// What is lost on the best plane because the kernel refuses a program.
    pub(super) losses: Vec<String>,
    /// The completions of io_uring do not tell enough.
    pub(super) no_uring: bool,
    /// Tracepoints that are not there, with what is lost without them.
    pub(super) tracepoints: Vec<(&'static str, &'static str)>,
    /// Members that are not there: why, what is lost, whether all is lost.
    pub(super) offsets: Vec<(String, &'static str, bool)>,
    /// Helper functions that are not there, and what that costs.
    pub(super) helpers: Vec<String>,
    /// Instructions that the verifier looked at, for each program that it took and where it tells.
    pub(super) verified: BTreeMap<&'static str, u32>,
}

impl BtfFacts {
    fn of(host: &Host) -> Self {
        let mut facts = Self {
            no_uring: plane::uring(host).is_none(),
            tracepoints: COMPANIONS
                .iter()
                .chain(SOCK_COMPANIONS)
                .filter(|(_, hook, _)| !host.has_tracepoint(hook))
                .map(|(_, hook, cost)| (*hook, *cost))
                .collect(),
            offsets: host
                .offsets
                .missing
                .iter()
                .zip(&host.offsets.reasons)
                .map(|(wanted, why)| {
                    (why.to_string(), cost_of_missing(wanted.global), is_essential(wanted.global))
                })
                .collect(),
            helpers: host.helpers.clone(),
            ..Self::default()
        };
        let known: Vec<String> = host.offsets.losses().chain(host.helpers.iter().cloned()).collect();
        let mut best = true;
        for plane in Plane::ALL {
            match try_plane(plane, host, best) {
                Ok((losses, verified)) => {
                    if best {
                        facts.losses = losses.into_iter().filter(|loss| !known.contains(loss)).collect();
                    }
                    best = false;
                    facts.verified.extend(verified);
                }
                Err(why) => facts.refused.push((plane, why)),
            }
        }
        facts
    }
}

/// What is lost on a plane, and how hard its programs are to verify.
type Tried = (Vec<String>, Vec<(&'static str, u32)>);

/// Loads the programs of a plane, tries its kind of hook, and takes them out again; `probes`: those on user code too, which are the
/// same on every plane.
fn try_plane(plane: Plane, host: &Host, probes: bool) -> Result<Tried, String> {
    if !object::is_present() {
        return plane.obstacle(host).map_or_else(|| Ok(Default::default()), Err);
    }
    match Kernel::load_on(plane.choice(), host) {
        Ok(mut kernel) => {
            if probes {
                instrument::try_programs(&mut kernel);
            }
            let verified = kernel.verified();
            Ok((kernel.losses, verified))
        }
        Err(LoadError::Refused { why, .. }) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

impl Facts {
    pub(super) fn gather() -> Self {
        Self {
            kernel: text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            machine: std::env::consts::ARCH,
            btf: Faults::from_env()
                .and_then(|faults| Host::look(faults).map_err(|error| error.to_string()))
                .map(|host| BtfFacts::of(&host)),
            lockdown: lockdown(),
            capabilities: text("/proc/self/status").as_deref().and_then(effective).unwrap_or(0),
            pid_view: privilege::pid_view(),
            user_namespace: privilege::in_user_namespace(),
            hazards: Hazards::look(FEATURES).rows().to_vec(),
            perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
            unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            bpf_jit: number("/proc/sys/net/core/bpf_jit_enable"),
            bpf_stats: number("/proc/sys/kernel/bpf_stats_enabled"),
            io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
            memlock: text("/proc/self/limits").as_deref().and_then(memlock),
            not_covered: None,
        }
    }

    /// With what is not covered of each process.
    pub(super) fn and_processes(self) -> Self {
        Self { not_covered: not_covered(), ..self }
    }
}

/// Looks at every process that may be looked at, but this one.
fn not_covered() -> Option<BTreeMap<Gap, Vec<String>>> {
    let rows = listing(&Proc::default(), Naming::default()).ok()?;
    let mut coverages = Coverages::default();
    let mut found: BTreeMap<Gap, Vec<String>> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.traceable && row.pid != std::process::id()) {
        for gap in coverages.of(row.pid).not_covered {
            found.entry(gap).or_default().push(format!("{} ({})", row.program, row.pid));
        }
    }
    Some(found)
}

fn text(path: &str) -> Option<String> {
    read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<i64> {
    text(path)?.parse().ok()
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn memlock(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(
            memlock("Max locked memory         8388608              8388608   bytes\n"),
            Some(8_388_608)
        );
        assert_eq!(memlock("Max locked memory         unlimited            unlimited   bytes\n"), None);
    }
}
