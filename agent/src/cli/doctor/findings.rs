//! Judges what was seen: each finding has a stable key, a status, a sentence, and what to do about it.

use std::collections::BTreeMap;

use super::facts::Facts;
use crate::kernel::hazard::{Lockdown, Verdict};
use crate::kernel::plane::Plane;
use crate::kernel::privilege::{Capability, PidView, Set};

/// How well something works here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// Works.
    Ok,
    /// Works with a loss.
    Limited,
    /// Does not work.
    Missing,
    /// Would do harm here, so it is not used.
    Refused,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
            Self::Refused => "refused",
        }
    }
}

/// One thing looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) key: &'static str,
    pub(super) status: Status,
    pub(super) sentence: String,
    pub(super) todo: Option<String>,
}

/// All findings, and what follows from them.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) kernel: String,
    pub(super) findings: Vec<Finding>,
    /// The plane that would be used; none if tracing cannot work.
    pub(super) best_plane: Option<Plane>,
    /// Instructions that the verifier looked at, by program.
    pub(super) verified: BTreeMap<&'static str, u32>,
}

impl Report {
    fn ok(&mut self, key: &'static str, sentence: impl Into<String>) {
        self.add(key, Status::Ok, sentence.into(), None);
    }
    fn limited(&mut self, key: &'static str, sentence: impl Into<String>, todo: &str) {
        self.add(key, Status::Limited, sentence.into(), Some(todo.into()));
    }
    fn missing(&mut self, key: &'static str, sentence: impl Into<String>, todo: &str) {
        self.add(key, Status::Missing, sentence.into(), Some(todo.into()));
    }
    fn add(&mut self, key: &'static str, status: Status, sentence: String, todo: Option<String>) {
        self.findings.push(Finding { key, status, sentence, todo });
    }
}

/// What the facts mean.
pub(super) fn judge(facts: &Facts) -> Report {
    let verified = facts.btf.as_ref().map(|btf| btf.verified.clone()).unwrap_or_default();
    let mut report = Report { kernel: facts.kernel.clone(), verified, ..Report::default() };
    let mut possible = machine(&mut report, facts);
    possible &= types(&mut report, facts);
    possible &= lockdown(&mut report, facts);
    possible &= privileges(&mut report, facts);
    possible &= namespace(&mut report, facts);
    planes(&mut report, facts, possible);
    hazards(&mut report, facts);
    settings(&mut report, facts);
    coverage(&mut report, facts);
    report
}

/// What is not read of programs that run now. Keys may come more than once: each sentence has a finding.
fn coverage(report: &mut Report, facts: &Facts) {
    const FEW: usize = 4;
    const MOST: usize = 32;
    let Some(gaps) = &facts.not_covered else { return };
    if gaps.is_empty() {
        report.ok(
            "coverage",
            "No process that may be looked at here uses HTTP/3, or TLS in a way that is not covered.",
        );
    }
    for (gap, who) in gaps.iter().take(MOST) {
        let mut listed = who.iter().take(FEW).cloned().collect::<Vec<_>>().join(", ");
        if who.len() > FEW {
            listed.push_str(&format!(" and {} more", who.len() - FEW));
        }
        report.limited(gap.key, format!("{} Seen in {listed}.", gap.sentence), gap.todo);
    }
    if gaps.len() > MOST {
        report.limited(
            "coverage",
            format!("{} more such sentences are left out.", gaps.len() - MOST),
            "See spanwise ps.",
        );
    }
}

fn machine(report: &mut Report, facts: &Facts) -> bool {
    report.ok("kernel", format!("The kernel is Linux {} on {}.", facts.kernel, facts.machine));
    let known = facts.machine == "x86_64";
    if !known {
        report.missing(
            "machine",
            format!("Capture is written for x86_64; this is {}.", facts.machine),
            "Use an x86_64 host.",
        );
    }
    known
}

fn types(report: &mut Report, facts: &Facts) -> bool {
    let btf = match &facts.btf {
        Err(why) => {
            report.missing(
                "btf",
                format!("The kernel's types are not known: {why}."),
                "Without them nothing can be captured.",
            );
            return false;
        }
        Ok(btf) => btf,
    };
    report.ok("btf", "The kernel describes its types (BTF).");
    if btf.offsets.is_empty() {
        report.ok("offsets", "Every kernel field that is read was found.");
    }
    for (why, cost, essential) in &btf.offsets {
        let status = if *essential { Status::Missing } else { Status::Limited };
        report.add("offsets", status, format!("In the kernel's types, {why}: {cost}."), None);
    }
    for (hook, cost) in &btf.tracepoints {
        report.add(
            "tracepoints",
            Status::Limited,
            format!("This kernel has no typed tracepoint {hook}: {cost}."),
            None,
        );
    }
    for helper in &btf.helpers {
        report.add("helpers", Status::Limited, format!("On planes sock and fentry, {helper}."), None);
    }
    if btf.helpers.is_empty() {
        report.ok("helpers", "Every helper function that is called was found.");
    }
    if btf.tracepoints.is_empty() {
        report.ok("tracepoints", "Process, TCP state and io_uring tracepoints are there.");
    }
    btf.offsets.iter().all(|(.., essential)| !essential)
}

fn lockdown(report: &mut Report, facts: &Facts) -> bool {
    match facts.lockdown {
        Some(Lockdown::Confidentiality) => {
            report.missing(
                "lockdown",
                "The kernel is locked down in mode confidentiality, which forbids BPF programs to read kernel memory.",
                "Boot with lockdown=integrity, which Spanwise is built for.",
            );
            false
        }
        Some(mode) => {
            report
                .ok("lockdown", format!("Lockdown mode {} forbids nothing that Spanwise does.", mode.name()));
            true
        }
        None => {
            report.ok("lockdown", "The kernel shows no lockdown mode (securityfs may not be mounted).");
            true
        }
    }
}

fn privileges(report: &mut Report, facts: &Facts) -> bool {
    let have = Set(facts.capabilities);
    let lacking = |wanted: &[Capability]| -> Vec<&'static str> {
        wanted.iter().filter(|one| !have.has(**one)).map(|one| one.name()).collect()
    };
    let lacks = lacking(&[Capability::BPF, Capability::PERFMON]);
    let may_load = (lacks.is_empty() || have.has(Capability::SYS_ADMIN)) && !facts.user_namespace;
    if may_load {
        report.ok("capabilities.load", "This process may load and attach BPF programs.");
    } else if facts.user_namespace {
        report.missing(
            "capabilities.load",
            "This process may not load BPF programs: its privileges are those of a user namespace.",
            "Run as root of the host.",
        );
    } else {
        let lacks = lacks.join(" and ");
        report.missing(
            "capabilities.load",
            format!("This process may not load BPF programs: it lacks {lacks}."),
            "Run as root, or give the program CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.",
        );
    }
    let look = |report: &mut Report, key: &'static str, one: Capability, good: &str, loss: &str| {
        if have.has(one) {
            report.ok(key, good);
        } else {
            let todo = format!("Run as root, or give the program {}.", one.name());
            report.limited(key, format!("{loss}: this process lacks {}.", one.name()), &todo);
        }
    };
    look(
        report,
        "capabilities.look",
        Capability::SYS_PTRACE,
        "This process may look at the programs of other users.",
        "Processes of other users cannot be looked at, so they cannot be traced",
    );
    look(
        report,
        "capabilities.read",
        Capability::DAC_READ_SEARCH,
        "This process may read the environments of other users' processes, and programs that only they may read.",
        "OTEL_SERVICE_NAME of other users' processes is not read, and programs that only their users may read are not traced",
    );
    look(
        report,
        "capabilities.priority",
        Capability::SYS_NICE,
        "This process may go first when records would be lost.",
        "When every core is busy, the agent waits its turn, and records may be lost (they are counted)",
    );
    may_load
}

fn namespace(report: &mut Report, facts: &Facts) -> bool {
    match facts.pid_view {
        PidView::Host => {
            report.ok("pid_namespace", "This process sees all processes of the host under the kernel's ids.");
            true
        }
        PidView::HostInProc => {
            report.limited(
                "pid_namespace",
                "This process is in a process id namespace of its own, but /proc shows the host's ids: attaching works, starting a program does not.",
                "Use spanwise attach with the host's ids.",
            );
            true
        }
        PidView::Own => {
            report.missing(
                "pid_namespace",
                "This process is in a process id namespace of its own, so its ids are not those the kernel reports.",
                "Run on the host, or in a container with the host's process ids (docker run --pid=host, hostPID: true).",
            );
            false
        }
        PidView::Unknown => {
            report.missing(
                "pid_namespace",
                "Processes cannot be found, because /proc is not mounted.",
                "Mount /proc.",
            );
            false
        }
    }
}

/// What is dangerous on some kernels. Only the kernel's memory is needed today; the others say what later features may use.
fn hazards(report: &mut Report, facts: &Facts) {
    for row in &facts.hazards {
        match row.verdict {
            Verdict::Allowed => report.ok(row.feature.key(), row.sentence.clone()),
            Verdict::Refused => {
                report.add(row.feature.key(), Status::Refused, row.sentence.clone(), Some(row.todo.into()));
            }
        }
    }
}

/// What is said of a plane: whether it works without a drawback, what it is like, and what it needs.
fn words(plane: Plane) -> (&'static str, Status, &'static str, &'static str) {
    match plane {
        Plane::Sock => (
            "plane.sock",
            Status::Ok,
            "every socket transfer is seen, system calls of untraced processes cost nothing",
            "It needs Linux 6.3 or newer.",
        ),
        Plane::Fentry => (
            "plane.fentry",
            Status::Ok,
            "every socket transfer is seen where it is made, system calls of untraced processes cost nothing",
            "It needs a kernel with function tracing by trampolines; nothing is lost where plane sock works.",
        ),
        Plane::Kprobe => (
            "plane.kprobe",
            Status::Limited,
            "but transfers may be missed (and are counted) where very many threads wait for bytes at once",
            "It needs a kernel with CONFIG_KPROBES; nothing is lost where a plane before it works.",
        ),
        Plane::Syscall => (
            "plane.syscall",
            Status::Limited,
            "but while it is on every system call of every process takes 35 to 80 ns longer",
            "It needs a kernel with CONFIG_FTRACE_SYSCALLS.",
        ),
    }
}

fn planes(report: &mut Report, facts: &Facts, possible: bool) {
    const BLOCKED: &str = "the lines above marked \"missing\" forbid every plane";
    for plane in Plane::ALL {
        let (key, status, like, needs) = words(plane);
        let name = plane.name();
        let refused = match &facts.btf {
            Err(_) => Some("the kernel's types are not known"),
            Ok(btf) => btf.refused.iter().find(|(p, _)| *p == plane).map(|(_, why)| why.as_str()),
        };
        match refused.or((!possible).then_some(BLOCKED)) {
            Some(why) => report.missing(key, format!("Plane {name} does not work: {why}."), needs),
            None => {
                if report.best_plane.is_none() {
                    report.best_plane = Some(plane);
                }
                match status {
                    Status::Ok => report.ok(key, format!("Plane {name} works: {like}.")),
                    _ => report.limited(
                        key,
                        format!("Plane {name} works, {like}."),
                        "Leave --plane at auto: it takes the best that works.",
                    ),
                }
            }
        }
    }
    let losses = facts.btf.iter().flat_map(|btf| &btf.losses);
    for loss in losses {
        let loss = loss.trim_end_matches('.');
        report.add("programs", Status::Limited, format!("On the best plane, {loss}."), None);
    }
}

fn settings(report: &mut Report, facts: &Facts) {
    match facts.bpf_jit {
        Some(0) => report.limited(
            "bpf_jit",
            "BPF programs are interpreted, which makes them several times slower.",
            "Set sysctl net.core.bpf_jit_enable=1.",
        ),
        _ => report.ok("bpf_jit", "BPF programs are compiled to machine code."),
    }
    match facts.io_uring_disabled {
        Some(2) => report
            .ok("io_uring", "io_uring is switched off on this host, so nothing moves through it unseen."),
        _ => match (report.best_plane, &facts.btf) {
            (Some(plane), _) if !plane.sees_uring() => report.limited(
                "io_uring",
                format!("Transfers through io_uring are not seen on plane {}.", plane.name()),
                "Use Linux 6.3 or newer, or programs that do not use io_uring.",
            ),
            (_, Ok(btf)) if btf.no_uring => report.limited(
                "io_uring",
                "Transfers through io_uring are counted but not read: this kernel does not tell enough of their completions.",
                "Use Linux 6.0 or newer, or programs that do not use io_uring.",
            ),
            _ => report.ok("io_uring", "Transfers through io_uring are seen on every plane but syscall."),
        },
    }
    let paranoid = facts.perf_event_paranoid.map_or_else(|| "unknown".into(), |n| n.to_string());
    report.ok(
        "perf_event_paranoid",
        format!("kernel.perf_event_paranoid is {paranoid}; capture does not depend on it."),
    );
    let disabled = facts.unprivileged_bpf_disabled.map_or_else(|| "unknown".into(), |n| n.to_string());
    report.ok(
        "unprivileged_bpf_disabled",
        format!(
            "kernel.unprivileged_bpf_disabled is {disabled}; it concerns processes without privileges only."
        ),
    );
    match facts.bpf_stats {
        Some(1) => report.limited(
            "bpf_stats",
            "The kernel takes the time of every BPF program, which makes each run some 20 ns longer.",
            "Set sysctl kernel.bpf_stats_enabled=0 unless you are measuring.",
        ),
        _ => report.ok("bpf_stats", "The kernel does not take the time of BPF programs."),
    }
    match facts.memlock {
        Some(bytes) => report.ok(
            "memlock",
            format!("Locked memory is limited to {bytes} bytes; since Linux 5.11 BPF maps do not count against it."),
        ),
        None => report.ok("memlock", "Locked memory is not limited."),
    }
}

#[cfg(test)]
mod tests;
