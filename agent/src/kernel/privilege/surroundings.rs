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

fn namespace(path: &str) -> Option<u64> {
    read_link(path).ok()?.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// What process ids mean here.
pub fn pid_view() -> PidView {
    let own = namespace("/proc/self/ns/pid").or_else(|| namespace("/proc/thread-self/ns/pid"));
    judge_view(own, namespace("/proc/1/ns/pid"))
}

fn judge_view(own: Option<u64>, of_first: Option<u64>) -> PidView {
    match (own, of_first) {
        (Some(INITIAL_PID_NAMESPACE), _) => PidView::Host,
        (_, Some(INITIAL_PID_NAMESPACE)) => PidView::HostInProc,
        (Some(_), _) => PidView::Own,
        (None, _) => PidView::Unknown,
    }
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

/// The limit of locked memory as it was; put back when this is dropped, so that a program that is started gets it.
pub struct LockedMemory(Option<libc::rlimit>);

fn set_locked_memory(limit: libc::rlimit) -> bool {
    // SAFETY: `limit` is alive during the call.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) == 0
    }
}

impl Drop for LockedMemory {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            set_locked_memory(before);
        }
    }
}

/// Raises the limit of locked memory as far as this process may: before Linux 5.11 maps count against it when they are made.
pub fn raise_locked_memory() -> LockedMemory {
    let Some(before) = locked_memory() else { return LockedMemory(None) };
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    let raised = set_locked_memory(all) || set_locked_memory(libc::rlimit { rlim_cur: before.rlim_max, ..before });
    LockedMemory(raised.then_some(before))
}

fn locked_memory() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    #[expect(unsafe_code, reason = "system call")]
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    known.then_some(limit)
}

/// What to do about a failure of the kernel to load, from its error number.
pub fn advice(failure: &str) -> Option<String> {
    const NUMBERS: [(i32, &str); 4] = [
        (
            libc::ENOMEM,
            "the memory limit of the agent's cgroup is too low for its maps, which count against it; give it 64 MiB or more",
        ),
        (
            libc::E2BIG,
            "a map or program is larger than this kernel allows; use a newer kernel, or report its version",
        ),
        (libc::EMFILE, "the agent may open too few files; raise the limit (ulimit -n) to 64 or more"),
        (libc::ENFILE, "the host has no room for more open files; raise fs.file-max"),
    ];
    let (_, advice) = NUMBERS.iter().find(|(number, _)| failure.contains(&format!("(os error {number})")))?;
    Some((*advice).to_owned())
}

/// What to do when the kernel refuses although the capabilities are there. To be asked while [`LockedMemory`] lives.
pub fn advice_on_permission() -> Option<String> {
    let limit = locked_memory().filter(|limit| limit.rlim_cur != libc::RLIM_INFINITY)?;
    Some(format!(
        "locked memory is limited to {} bytes, and before Linux 5.11 maps count against that; run with ulimit -l unlimited, or \
         give the agent CAP_SYS_RESOURCE",
        limit.rlim_cur
    ))
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
        assert_eq!(judge_view(Some(INITIAL_PID_NAMESPACE), None), PidView::Host);
        assert_eq!(judge_view(Some(7), Some(INITIAL_PID_NAMESPACE)), PidView::HostInProc);
        assert_eq!(judge_view(Some(7), Some(7)), PidView::Own);
        assert_eq!(judge_view(None, None), PidView::Unknown);
    }

    #[test]
    fn who_exists() {
        assert!(exists(std::process::id()) && exists(1));
        assert!(!exists(4_194_303));
        assert_eq!(cannot_look(4_194_303), None);
    }

    #[test]
    fn the_limit_of_locked_memory_comes_back() {
        let both = || locked_memory().map(|limit| (limit.rlim_cur, limit.rlim_max));
        let before = both();
        let raised = raise_locked_memory();
        assert!(both() >= before);
        drop(raised);
        assert_eq!(both(), before);
    }

    #[test]
    fn failures_get_advice() {
        assert!(advice("failed to create map `EVENTS`: x (os error 12)").unwrap().contains("memory limit"));
        assert!(advice("failed: Too many open files (os error 24)").unwrap().contains("ulimit -n"));
        assert_eq!(advice("Invalid argument (os error 22)"), None);
    }
}
