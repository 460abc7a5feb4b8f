//! Limits that stand in the way of loading: locked memory, the memory of the agent's cgroup, open files; and what to do about each.

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
    let raised =
        set_locked_memory(all) || set_locked_memory(libc::rlimit { rlim_cur: before.rlim_max, ..before });
    LockedMemory(raised.then_some(before))
}

fn locked_memory() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    #[expect(unsafe_code, reason = "system call")]
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    known.then_some(limit)
}

/// Where less is allowed, the kernel may end the agent while it starts, and it cannot say anything any more.
const MEMORY: u64 = 32 << 20;

/// With less the kernel does end it.
const LEAST_MEMORY: u64 = 16 << 20;

/// The agent's cgroup allows little memory.
pub struct LittleMemory {
    /// One sentence.
    pub what: String,
    /// Too little to begin at all.
    pub hopeless: bool,
}

/// Asked before loading, so that it is said whatever happens then.
pub fn too_little_memory() -> Option<LittleMemory> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limit = memory_limit(&own, |path| std::fs::read_to_string(path).ok())?;
    (limit < MEMORY).then(|| LittleMemory {
        hopeless: limit < LEAST_MEMORY,
        what: format!(
            "the memory limit of the agent's cgroup is {} MiB, and below {} MiB the kernel may end the agent without a word; its \
             maps count against it, give it 64 MiB or more",
            limit >> 20,
            MEMORY >> 20
        ),
    })
}

/// The limit of the cgroup itself, of either version.
fn memory_limit(own: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_end_matches('/');
        let file = match controllers {
            "" => format!("/sys/fs/cgroup{path}/memory.max"),
            list if list.split(',').any(|one| one == "memory") => {
                format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
            }
            _ => return None,
        };
        read(&file)?.trim().parse().ok()
    })
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
        (libc::EMFILE, "the agent may open too few files; raise the limit (ulimit -n) to 256 or more"),
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

    #[test]
    fn limits_of_both_kinds_of_cgroups() {
        let files = |path: &str| match path {
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes" => Some("16777216\n".to_owned()),
            "/sys/fs/cgroup/c/memory.max" => Some("20971520\n".to_owned()),
            "/sys/fs/cgroup/d/memory.max" => Some("max\n".to_owned()),
            _ => None,
        };
        assert_eq!(memory_limit("4:cpu,memory:/a/b\n0::/\n", files), Some(16 << 20));
        assert_eq!(memory_limit("0::/c\n", files), Some(20 << 20));
        assert_eq!(memory_limit("0::/d\n", files), None);
        assert_eq!(memory_limit("0::/none\n", files), None);
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
