//! Judges what was tried: one row for each feature, with a sentence and what to do.

use super::Feature;
use super::lockdown::Lockdown;
use super::trial::{Facts, Trial};

/// Whether a feature is used here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It does no harm here.
    Allowed,
    /// It is not used here.
    Refused,
}

/// What is known of a feature on this kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The feature.
    pub feature: Feature,
    /// Whether it is used.
    pub verdict: Verdict,
    /// What was found.
    pub sentence: String,
    /// What to do about a refusal; empty if it is allowed.
    pub todo: &'static str,
}

/// Judges one feature.
pub(super) fn row(feature: Feature, facts: &Facts) -> Row {
    let (verdict, sentence, todo) = match feature {
        Feature::KernelMemory => kernel_memory(facts),
        Feature::UserMemoryWrite => user_memory_write(facts),
        Feature::SocketMaps => sockets(&facts.sockets),
        Feature::ReturnProbesUnderSeccomp => return_probes(&facts.return_probes),
        Feature::Nop5Probes => nop5(&facts.nop5),
        Feature::MultiProbesByPid => multi(&facts.multi),
        Feature::FunctionHooks => trampolines(&facts.counted_trampolines),
        Feature::PerfProbes => perf(facts),
    };
    Row { feature, verdict, sentence, todo }
}

type Judged = (Verdict, String, &'static str);

fn allow(sentence: impl Into<String>) -> Judged {
    (Verdict::Allowed, sentence.into(), "")
}

fn refuse(sentence: impl Into<String>, todo: &'static str) -> Judged {
    (Verdict::Refused, sentence.into(), todo)
}

/// A trial that gave no answer is a refusal.
fn untried(what: &str, trial: &Trial, todo: &'static str) -> Judged {
    match trial {
        Trial::Failed(why) => refuse(format!("{what} could not be tried ({why}), so it is not used."), todo),
        _ => refuse(format!("{what} was not tried, so it is not used."), todo),
    }
}

const AS_ROOT: &str = "Run as root to have it tried.";

fn kernel_memory(facts: &Facts) -> Judged {
    match (&facts.kernel_memory, facts.lockdown) {
        (Trial::Sound, _) => allow("BPF programs may read the kernel's memory."),
        (_, Some(Lockdown::Confidentiality)) => refuse(
            "The kernel is locked down in mode confidentiality, which forbids BPF programs to read its memory, so nothing can be captured.",
            "Boot with lockdown=integrity, which Spanwise is built for.",
        ),
        (Trial::Failed(why), _) => refuse(
            format!(
                "The kernel does not load a program that reads its memory ({why}), so nothing can be captured."
            ),
            "Run as root, or with CAP_BPF and CAP_PERFMON.",
        ),
        (other, _) => untried("Reading the kernel's memory", other, AS_ROOT),
    }
}

fn user_memory_write(facts: &Facts) -> Judged {
    match facts.lockdown {
        Some(Lockdown::None) => {
            allow("The kernel lets BPF programs write to processes; nothing in Spanwise does.")
        }
        Some(mode) => refuse(
            format!("Lockdown mode {} forbids BPF programs to write to processes.", mode.name()),
            "Nothing is lost: nothing in Spanwise writes to processes.",
        ),
        None => refuse(
            "The kernel shows no lockdown mode, so whether BPF programs may write to processes is not known.",
            "Nothing is lost: nothing in Spanwise writes to processes.",
        ),
    }
}

fn sockets(trial: &Trial) -> Judged {
    match trial {
        Trial::Sound => allow("A socket in a sockmap still tells how much it has to read (FIONREAD)."),
        Trial::Harmful => refuse(
            "On this kernel a socket that is put into a sockmap says that it has nothing to read (FIONREAD is 0), which stalls programs, so headers are never injected.",
            "Use a kernel that has the repair; traces are joined without injected headers.",
        ),
        other => untried(
            "Putting sockets into a sockmap",
            other,
            "It takes CAP_NET_ADMIN and a loopback device that is up.",
        ),
    }
}

fn return_probes(trial: &Trial) -> Judged {
    match trial {
        Trial::Sound => allow("Return probes work in processes with a seccomp filter."),
        Trial::Absent => allow("Return probes end by a trap here, which no seccomp filter sees."),
        Trial::Harmful => refuse(
            "On this kernel a return probe ends by a system call that seccomp filters refuse, which kills the program, so no return is probed: ends of calls are found by dearer probes, or not at all.",
            "Use Linux 6.14 or newer.",
        ),
        other => {
            untried("A return probe under a seccomp filter", other, "Run where processes can be started.")
        }
    }
}

fn nop5(trial: &Trial) -> Judged {
    match trial {
        Trial::Sound => allow("A probe on a five-byte nop leaves alone what is below the stack pointer."),
        Trial::Absent => allow("Probes on a five-byte nop are traps here, which touch no stack."),
        Trial::Harmful => refuse(
            "On this kernel a probe on a five-byte nop overwrites what a leaf function keeps below its stack pointer, so no probe is put inside one.",
            "Use a kernel that has the repair; other instructions are probed instead.",
        ),
        other => untried("A probe on a five-byte nop", other, AS_ROOT),
    }
}

fn multi(trial: &Trial) -> Judged {
    match trial {
        Trial::Sound => allow("The pid filter of uprobe.multi lets every thread of its process through."),
        Trial::Absent => refuse(
            "This kernel has no uprobe.multi, so probes are attached one by one.",
            "Use Linux 6.6 or newer; starting is slower without.",
        ),
        Trial::Harmful => refuse(
            "The pid filter of uprobe.multi lets only the first thread of a process through on this kernel, so the BPF programs filter by themselves.",
            "Nothing needs to be done; Linux 6.10 has the repair.",
        ),
        other => untried("The pid filter of uprobe.multi", other, AS_ROOT),
    }
}

fn trampolines(trial: &Trial) -> Judged {
    match trial {
        Trial::Sound => allow("The kernel keeps a trampoline as long as somebody runs in it."),
        Trial::Harmful => refuse(
            "This kernel frees the trampoline of a function hook while somebody may sleep in it, which can crash the host, so fentry and fexit are not used.",
            "Use Linux 5.12 or newer, or a repaired 5.10.",
        ),
        other => untried("A function hook", other, "It takes a kernel that describes its types (BTF)."),
    }
}

fn perf(facts: &Facts) -> Judged {
    match &facts.perf {
        Trial::Sound => allow("Perf events may probe user code."),
        Trial::Failed(why) if facts.perf_event_paranoid.is_some_and(|level| level >= 3) => refuse(
            format!(
                "kernel.perf_event_paranoid is {}, and perf events may not probe user code ({why}).",
                facts.perf_event_paranoid.unwrap_or_default()
            ),
            "Set sysctl kernel.perf_event_paranoid=2, or give the agent CAP_SYS_ADMIN; uprobe.multi (Linux 6.6) does without.",
        ),
        other => untried("A probe by a perf event", other, AS_ROOT),
    }
}

#[cfg(test)]
mod tests {
    use super::super::FEATURES;
    use super::*;

    fn sound() -> Facts {
        Facts {
            lockdown: Some(Lockdown::None),
            kernel_memory: Trial::Sound,
            sockets: Trial::Sound,
            return_probes: Trial::Sound,
            nop5: Trial::Sound,
            multi: Trial::Sound,
            counted_trampolines: Trial::Sound,
            perf: Trial::Sound,
            perf_event_paranoid: Some(2),
        }
    }

    fn refused(facts: &Facts) -> Vec<&'static str> {
        let rows = FEATURES.iter().map(|feature| row(*feature, facts));
        rows.filter(|row| row.verdict == Verdict::Refused).map(|row| row.feature.key()).collect()
    }

    #[test]
    fn a_sound_kernel_refuses_nothing() {
        assert_eq!(refused(&sound()), [""; 0]);
    }

    #[test]
    fn harm_is_refused_by_name_and_only_there() {
        type Damage = fn(&mut Facts);
        let cases: [(&str, Damage); 7] = [
            ("hazard.kernel_memory", |f| f.kernel_memory = Trial::Failed("no".into())),
            ("hazard.sockmap", |f| f.sockets = Trial::Harmful),
            ("hazard.uretprobe_seccomp", |f| f.return_probes = Trial::Harmful),
            ("hazard.uprobe_nop5", |f| f.nop5 = Trial::Harmful),
            ("hazard.uprobe_multi_pid", |f| f.multi = Trial::Harmful),
            ("hazard.trampoline", |f| f.counted_trampolines = Trial::Harmful),
            ("hazard.perf_event", |f| f.perf = Trial::Failed("no".into())),
        ];
        for (key, damage) in cases {
            let mut facts = sound();
            damage(&mut facts);
            assert_eq!(refused(&facts), [key]);
        }
    }

    #[test]
    fn lockdown_levels() {
        let at = |mode| Facts { lockdown: mode, ..sound() };
        assert_eq!(refused(&at(Some(Lockdown::Integrity))), ["hazard.user_memory_write"]);
        assert_eq!(refused(&at(None)), ["hazard.user_memory_write"]);
        let mut worst = at(Some(Lockdown::Confidentiality));
        worst.kernel_memory = Trial::Failed("Operation not permitted".into());
        assert_eq!(refused(&worst), ["hazard.kernel_memory", "hazard.user_memory_write"]);
        assert!(row(Feature::KernelMemory, &worst).sentence.contains("confidentiality"));
    }

    #[test]
    fn what_a_kernel_does_not_have_cannot_hurt() {
        let mut facts = sound();
        facts.return_probes = Trial::Absent;
        facts.nop5 = Trial::Absent;
        facts.multi = Trial::Absent;
        assert_eq!(refused(&facts), ["hazard.uprobe_multi_pid"], "what is not there cannot be used either");
    }

    #[test]
    fn paranoia_is_named() {
        let facts = Facts { perf: Trial::Failed("denied".into()), perf_event_paranoid: Some(4), ..sound() };
        let row = row(Feature::PerfProbes, &facts);
        assert!(
            row.sentence.contains("perf_event_paranoid is 4") && row.sentence.contains("denied"),
            "{row:?}"
        );
    }

    #[test]
    fn doubt_is_a_refusal_with_a_reason_and_advice() {
        for trial in [Trial::NotRun, Trial::Failed("Permission denied".into())] {
            let mut facts = sound();
            facts.kernel_memory = trial.clone();
            facts.sockets = trial.clone();
            facts.return_probes = trial.clone();
            facts.nop5 = trial.clone();
            facts.multi = trial.clone();
            facts.counted_trampolines = trial.clone();
            facts.perf = trial.clone();
            facts.lockdown = None;
            assert_eq!(refused(&facts).len(), FEATURES.len());
            for feature in FEATURES {
                let row = row(*feature, &facts);
                assert!(row.sentence.ends_with('.') && row.todo.ends_with('.'), "{row:?}");
            }
        }
    }
}
