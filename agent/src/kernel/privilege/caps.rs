//! Capability sets of the calling thread.

use std::io;

/// One capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability(u32);

impl Capability {
    /// Look into folders and read files whatever their permissions say.
    pub const DAC_READ_SEARCH: Self = Self(2);
    /// Signal processes of other users.
    pub const KILL: Self = Self(5);
    /// Networks; here: sockets in maps.
    pub const NET_ADMIN: Self = Self(12);
    /// Look at processes of other users.
    pub const SYS_PTRACE: Self = Self(19);
    /// Nearly everything.
    pub const SYS_ADMIN: Self = Self(21);
    /// Raise priorities.
    pub const SYS_NICE: Self = Self(23);
    /// Exceed limits; here: locked memory on kernels before 5.11.
    pub const SYS_RESOURCE: Self = Self(24);
    /// Look at what the kernel does.
    pub const PERFMON: Self = Self(38);
    /// Load BPF programs and make maps.
    pub const BPF: Self = Self(39);
    /// Open what a process has mapped, also when it has no name any more.
    pub const CHECKPOINT_RESTORE: Self = Self(40);

    /// Its name, as in the manual.
    pub fn name(self) -> &'static str {
        match self {
            Self::DAC_READ_SEARCH => "CAP_DAC_READ_SEARCH",
            Self::KILL => "CAP_KILL",
            Self::NET_ADMIN => "CAP_NET_ADMIN",
            Self::SYS_PTRACE => "CAP_SYS_PTRACE",
            Self::SYS_ADMIN => "CAP_SYS_ADMIN",
            Self::SYS_NICE => "CAP_SYS_NICE",
            Self::SYS_RESOURCE => "CAP_SYS_RESOURCE",
            Self::PERFMON => "CAP_PERFMON",
            Self::BPF => "CAP_BPF",
            Self::CHECKPOINT_RESTORE => "CAP_CHECKPOINT_RESTORE",
            Self(_) => "a capability",
        }
    }
}

/// Capabilities as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Set(pub u64);

impl Set {
    /// These.
    pub fn of(list: &[Capability]) -> Self {
        list.iter().fold(Self::default(), |set, one| set.with(*one))
    }

    /// One more.
    #[must_use]
    pub fn with(self, one: Capability) -> Self {
        Self(self.0 | 1 << one.0)
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// All others.
    #[must_use]
    pub fn inverted(self) -> Self {
        Self(!self.0)
    }

    /// Whether it is in.
    pub fn has(self, one: Capability) -> bool {
        self.0 >> one.0 & 1 == 1
    }

    /// What a line of `/proc/PID/status` says, such as `CapEff`.
    pub fn in_status(status: &str, line: &str) -> Option<Self> {
        let text = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))?;
        u64::from_str_radix(text.trim(), 16).ok().map(Self)
    }
}

/// The three sets of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sets {
    pub(super) effective: Set,
    pub(super) permitted: Set,
    pub(super) inheritable: Set,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two halves.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Sets {
    pub(super) fn of_this_thread() -> io::Result<Self> {
        let mut header = Header { version: VERSION, pid: 0 };
        let mut halves = [Half::default(); 2];
        // SAFETY: the header says that there are two halves, and both are alive during the call.
        #[expect(unsafe_code, reason = "system call")]
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let [low, high] = halves;
        let join = |low: u32, high: u32| Set(u64::from(high) << 32 | u64::from(low));
        Ok(Self {
            effective: join(low.effective, high.effective),
            permitted: join(low.permitted, high.permitted),
            inheritable: join(low.inheritable, high.inheritable),
        })
    }

    /// Makes these the sets of the calling thread. What is neither permitted nor inheritable leaves the ambient set too.
    /// Safe inside a signal handler.
    pub(super) fn apply(self) -> io::Result<()> {
        let mut header = Header { version: VERSION, pid: 0 };
        let half = |shift: u32| Half {
            effective: (self.effective.0 >> shift) as u32,
            permitted: (self.permitted.0 >> shift) as u32,
            inheritable: (self.inheritable.0 >> shift) as u32,
        };
        let halves = [half(0), half(32)];
        // SAFETY: the header says that there are two halves, and both are alive during the call.
        #[expect(unsafe_code, reason = "system call")]
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// No program that the calling thread starts gets more privileges than it has. Safe inside a signal handler.
pub(super) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: no memory is involved.
    #[expect(unsafe_code, reason = "system call")]
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_and_its_file_agree() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let sets = Sets::of_this_thread().unwrap();
        assert_eq!(Set::in_status(&status, "CapEff"), Some(sets.effective));
        assert_eq!(Set::in_status(&status, "CapPrm"), Some(sets.permitted));
        assert_eq!(Set::in_status(&status, "CapNone"), None);
    }

    #[test]
    fn a_thread_gives_up_what_it_has_and_others_do_not() {
        std::thread::spawn(|| {
            Sets::default().apply().unwrap();
            no_new_privileges().unwrap();
            assert_eq!(Sets::of_this_thread().unwrap(), Sets::default());
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("NoNewPrivs:\t1"));
        })
        .join()
        .unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("NoNewPrivs:\t0"));
    }

    #[test]
    fn sets() {
        let set = Set::of(&[Capability::BPF, Capability::KILL]);
        assert!(set.has(Capability::BPF) && !set.has(Capability::PERFMON));
        assert_eq!(set.and(Set::of(&[Capability::KILL])).0, 1 << 5);
        assert!(!set.inverted().has(Capability::BPF));
    }
}
