//! A good host, and hosts that lack one thing each.

use super::super::facts::BtfFacts;
use super::*;
use crate::instrument::Gap;

/// Spoils one thing.
type Damage = fn(&mut Facts);

fn good() -> Facts {
    Facts {
        kernel: "6.18.0".into(),
        machine: "x86_64",
        btf: Ok(BtfFacts::default()),
        lockdown: Some(Lockdown::Integrity),
        capabilities: u64::MAX,
        pid_view: PidView::Host,
        user_namespace: false,
        hazards: Vec::new(),
        bpf_jit: Some(1),
        bpf_stats: Some(0),
        perf_event_paranoid: Some(2),
        unprivileged_bpf_disabled: Some(2),
        io_uring_disabled: Some(0),
        memlock: None,
        not_covered: Some(BTreeMap::new()),
    }
}

fn status(report: &Report, key: &str) -> Option<Status> {
    report.findings.iter().find(|f| f.key == key).map(|f| f.status)
}

#[test]
fn a_good_host() {
    let report = judge(&good());
    assert_eq!(report.best_plane, Some(Plane::Sock));
    let bad: Vec<_> = report.findings.iter().filter(|f| f.status == Status::Missing).map(|f| f.key).collect();
    assert_eq!(bad, [""; 0]);
    for finding in &report.findings {
        assert!(finding.sentence.ends_with(['.', ')']), "{finding:?}");
        assert!(
            finding.status == Status::Ok || finding.key == "offsets" || finding.todo.is_some(),
            "{finding:?}"
        );
    }
}

#[test]
fn each_lack_is_named_and_forbids_tracing() {
    let cases: [(&str, Damage); 8] = [
        ("machine", |f| f.machine = "riscv64"),
        ("btf", |f| f.btf = Err("gone".into())),
        ("lockdown", |f| f.lockdown = Some(Lockdown::Confidentiality)),
        ("capabilities.load", |f| f.capabilities = Set::of(&[Capability::SYS_PTRACE, Capability::BPF]).0),
        ("capabilities.load", |f| f.user_namespace = true),
        ("pid_namespace", |f| f.pid_view = PidView::Own),
        ("pid_namespace", |f| f.pid_view = PidView::Unknown),
        ("offsets", |f| f.btf.as_mut().unwrap().offsets.push(("why".into(), "all", true))),
    ];
    for (key, damage) in cases {
        let mut facts = good();
        damage(&mut facts);
        let report = judge(&facts);
        assert_eq!(status(&report, key), Some(Status::Missing), "{key}");
        assert_eq!(report.best_plane, None, "{key}");
        assert_eq!(status(&report, "plane.sock"), Some(Status::Missing), "{key}");
    }
}

#[test]
fn losses_leave_tracing_possible() {
    const LOAD: [Capability; 2] = [Capability::PERFMON, Capability::BPF];
    let cases: [(&str, Damage); 11] = [
        ("capabilities.look", |f| f.capabilities = Set::of(&LOAD).0),
        ("capabilities.read", |f| f.capabilities = Set::of(&LOAD).with(Capability::SYS_PTRACE).0),
        ("capabilities.priority", |f| f.capabilities = Set::of(&LOAD).0),
        ("pid_namespace", |f| f.pid_view = PidView::HostInProc),
        ("bpf_jit", |f| f.bpf_jit = Some(0)),
        ("bpf_stats", |f| f.bpf_stats = Some(1)),
        ("offsets", |f| f.btf.as_mut().unwrap().offsets.push(("why".into(), "some", false))),
        ("helpers", |f| f.btf.as_mut().unwrap().helpers.push("why".into())),
        ("programs", |f| f.btf.as_mut().unwrap().losses.push("why".into())),
        ("io_uring", |f| f.btf.as_mut().unwrap().no_uring = true),
        ("tracepoints", |f| f.btf.as_mut().unwrap().tracepoints.push(("x", "y"))),
    ];
    for (key, damage) in cases {
        let mut facts = good();
        damage(&mut facts);
        let report = judge(&facts);
        assert_eq!(
            (status(&report, key), report.best_plane),
            (Some(Status::Limited), Some(Plane::Sock)),
            "{key}"
        );
    }
}

#[test]
fn an_old_kernel_falls_back() {
    let mut facts = good();
    for (plane, next) in [
        (Plane::Sock, Some(Plane::Fentry)),
        (Plane::Fentry, Some(Plane::Kprobe)),
        (Plane::Kprobe, Some(Plane::Syscall)),
        (Plane::Syscall, None),
    ] {
        facts.btf.as_mut().unwrap().refused.push((plane, "why".into()));
        let report = judge(&facts);
        assert_eq!(report.best_plane, next);
        let uring = if next == Some(Plane::Syscall) { Status::Limited } else { Status::Ok };
        assert_eq!(status(&report, "io_uring"), Some(uring));
    }
    assert_eq!(
        judge(&Facts { capabilities: Set::of(&[Capability::SYS_ADMIN]).0, ..good() }).best_plane,
        Some(Plane::Sock)
    );
}

#[test]
fn hazards_are_listed_and_forbid_nothing_else() {
    use crate::kernel::hazard::{FEATURES, Row};
    let rows = FEATURES.iter().map(|feature| Row {
        feature: *feature,
        verdict: Verdict::Refused,
        sentence: "It hurts.".into(),
        todo: "Wait.",
    });
    let report = judge(&Facts { hazards: rows.collect(), ..good() });
    for feature in FEATURES {
        assert_eq!(status(&report, feature.key()), Some(Status::Refused));
    }
    assert_eq!(report.best_plane, Some(Plane::Sock));
}

#[test]
fn what_is_not_covered_is_said_with_those_it_is_about() {
    let gap = |n: usize| Gap { key: "tls.inside", sentence: format!("File {n} is not read."), todo: "Do." };
    let who = |n: usize| (0..n).map(|pid| format!("app ({pid})")).collect::<Vec<_>>();
    assert_eq!(status(&judge(&good()), "coverage"), Some(Status::Ok));
    let report = judge(&Facts { not_covered: Some(BTreeMap::from([(gap(0), who(6))])), ..good() });
    let finding = report.findings.iter().find(|f| f.key == "tls.inside").unwrap();
    assert_eq!(
        (finding.status, finding.sentence.as_str(), finding.todo.as_deref()),
        (
            Status::Limited,
            "File 0 is not read. Seen in app (0), app (1), app (2), app (3) and 2 more.",
            Some("Do.")
        )
    );
    assert_eq!(status(&report, "coverage"), None);
    assert_eq!(report.best_plane, Some(Plane::Sock));
    let many = (0..40).map(|n| (gap(n), who(1))).collect();
    let report = judge(&Facts { not_covered: Some(many), ..good() });
    assert_eq!(report.findings.iter().filter(|f| f.key == "tls.inside").count(), 32);
    let rest = report.findings.iter().find(|f| f.key == "coverage").unwrap();
    assert!(rest.sentence.starts_with("8 more"));
    // Where processes cannot be listed nothing is said of them.
    assert_eq!(status(&judge(&Facts { not_covered: None, ..good() }), "coverage"), None);
}
