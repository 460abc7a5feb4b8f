//! Whether the agent's surroundings let it work, found before anything is loaded, so that the sentence names the cause and not
//! the system call that failed.

use std::fs::read_link;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::caps::{Capability, Set, Sets};

/// Why the agent cannot work here: one sentence.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Inodes of the first namespaces, fixed in the kernel.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What process ids mean to the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PidView {
    /// Those of the kernel.
    Host,
    /// Its own are others, but `/proc` shows those of the kernel.
    HostInProc,
    /// Others.
    Own,
    /// Not to be found out.
    Unknown,
}

fn namespace(path: impl AsRef<Path>) -> Option<u64> {
    read_link(path.as_ref()).ok()?.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// What process ids mean here.
pub fn pid_view() -> PidView {
    let own = namespace("/proc/self/ns/pid").or_else(|| namespace("/proc/thread-self/ns/pid"));
    judge_view(own, shows_host)
}

fn judge_view(own: Option<u64>, shows_host: impl FnOnce() -> bool) -> PidView {
    match own {
        Some(INITIAL_PID_NAMESPACE) => PidView::Host,
        Some(_) if shows_host() => PidView::HostInProc,
        Some(_) => PidView::Own,
        None => PidView::Unknown,
    }
}

/// Whether `/proc` shows a process of the host's namespace, which only the host's own `/proc` does. Some hosts protect their
/// first process from being looked at, so a few are tried.
fn shows_host() -> bool {
    const TRIES: usize = 1000;
    let Ok(entries) = std::fs::read_dir("/proc") else { return false };
    let processes = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit));
    processes.take(TRIES).any(|entry| namespace(entry.path().join("ns/pid")) == Some(INITIAL_PID_NAMESPACE))
}

/// Whether the agent's capabilities are those of a user namespace, which the kernel does not accept for BPF.
pub fn in_user_namespace() -> bool {
    namespace("/proc/self/ns/user").is_some_and(|inode| inode != INITIAL_USER_NAMESPACE)
}

/// Effective capabilities of the calling thread.
pub(in crate::kernel) fn effective() -> Set {
    Sets::of_this_thread().map(|sets| sets.effective).unwrap_or_default()
}

/// Whether programs can be loaded and processes be named. `starts_program`: the agent's own id matters too.
pub fn check_load(starts_program: bool) -> Result<(), Refusal> {
    judge(effective(), in_user_namespace(), pid_view(), starts_program)
}

fn judge(have: Set, user_namespace: bool, view: PidView, starts_program: bool) -> Result<(), Refusal> {
    let refuse = |sentence: String| Err(Refusal(sentence));
    let lacks = missing(have, &[Capability::BPF, Capability::PERFMON]);
    if !lacks.is_empty() && !have.has(Capability::SYS_ADMIN) {
        return refuse(format!(
            "not permitted to load BPF programs, because the agent lacks {}; run it as root, or give it CAP_BPF, CAP_PERFMON, \
             CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            lacks.join(" and ")
        ));
    }
    if user_namespace {
        return refuse(
            "not permitted to load BPF programs, because the agent's privileges are those of a user namespace and count for \
             nothing outside it; run it as root of the host"
                .into(),
        );
    }
    match view {
        PidView::Own => refuse(
            "process ids mean something else here, because the agent is in a process id namespace of its own while the kernel \
             reports the host's ids; run it on the host, or in a container with the host's process ids (docker run --pid=host, \
             hostPID: true)"
                .into(),
        ),
        PidView::HostInProc if starts_program => refuse(
            "a program cannot be started and traced here, because the agent is in a process id namespace of its own; run it on \
             the host, or attach by the host's ids with spanwise attach"
                .into(),
        ),
        PidView::Unknown => refuse("/proc is not mounted here, and processes are found through it; mount it".into()),
        PidView::Host | PidView::HostInProc => Ok(()),
    }
}

fn missing(have: Set, wanted: &[Capability]) -> Vec<&'static str> {
    wanted.iter().filter(|one| !have.has(**one)).map(|one| one.name()).collect()
}

/// Why a process that exists cannot be looked at, or does not seem to exist; none if privileges are not the reason.
pub fn cannot_look(pid: u32) -> Option<Refusal> {
    let lacks = missing(effective(), &[Capability::SYS_PTRACE, Capability::DAC_READ_SEARCH]);
    if !Path::new("/proc").join(pid.to_string()).exists() {
        return exists(pid).then(|| {
            Refusal(format!(
                "process {pid} runs, but /proc does not show it to the agent, because it is mounted with hidepid or for another \
                 process id namespace; run the agent as root, or give it CAP_SYS_PTRACE"
            ))
        });
    }
    (!lacks.is_empty()).then(|| {
        Refusal(format!(
            "not permitted to look at process {pid}, which is not the agent's own user's or protects itself, because the agent \
             lacks {}; run it as root, or give it CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            lacks.join(" and ")
        ))
    })
}

/// Whether there is a process with this id, whatever `/proc` says.
fn exists(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: no memory is involved; signal 0 is never delivered.
    #[expect(unsafe_code, reason = "system call")]
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// What cannot be read of these processes although they can be traced.
pub fn losses(pids: impl IntoIterator<Item = u32>) -> Option<String> {
    // SAFETY: no arguments.
    #[expect(unsafe_code, reason = "system call")]
    let own = unsafe { libc::geteuid() };
    if effective().has(Capability::DAC_READ_SEARCH) {
        return None;
    }
    let foreign = |pid: &u32| {
        std::fs::metadata(Path::new("/proc").join(pid.to_string())).is_ok_and(|data| data.uid() != own)
    };
    pids.into_iter().find(foreign).map(|pid| {
        format!(
            "the environment of process {pid} and of others that are not the agent's own user's is not read, so \
             OTEL_SERVICE_NAME in it does not count, because the agent lacks CAP_DAC_READ_SEARCH"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: [Capability; 2] = [Capability::BPF, Capability::PERFMON];

    #[test]
    fn each_obstacle_has_its_sentence() {
        let enough = Set::of(&ENOUGH);
        assert_eq!(judge(enough, false, PidView::Host, true), Ok(()));
        assert_eq!(judge(Set::of(&[Capability::SYS_ADMIN]), false, PidView::Host, true), Ok(()));
        let says = |result: Result<(), Refusal>, word: &str| {
            let sentence = result.unwrap_err().0;
            assert!(sentence.contains(word) && sentence.contains("; "), "{sentence}");
        };
        says(judge(Set::of(&[Capability::BPF]), false, PidView::Host, false), "lacks CAP_PERFMON;");
        says(judge(Set::of(&[Capability::PERFMON]), false, PidView::Host, false), "lacks CAP_BPF;");
        says(judge(Set::default(), false, PidView::Host, false), "lacks CAP_BPF and CAP_PERFMON;");
        says(judge(Set(u64::MAX), true, PidView::Host, false), "user namespace");
        says(judge(enough, false, PidView::Own, false), "mean something else");
        says(judge(enough, false, PidView::HostInProc, true), "attach");
        assert_eq!(judge(enough, false, PidView::HostInProc, false), Ok(()));
        says(judge(enough, false, PidView::Unknown, false), "/proc");
    }

    #[test]
    fn views() {
        assert_eq!(judge_view(Some(INITIAL_PID_NAMESPACE), || false), PidView::Host);
        assert_eq!(judge_view(Some(7), || true), PidView::HostInProc);
        assert_eq!(judge_view(Some(7), || false), PidView::Own);
        assert_eq!(judge_view(None, || true), PidView::Unknown);
    }

    #[test]
    fn who_exists() {
        assert!(exists(std::process::id()) && exists(1));
        assert!(!exists(4_194_303));
        assert_eq!(cannot_look(4_194_303), None);
    }
}
