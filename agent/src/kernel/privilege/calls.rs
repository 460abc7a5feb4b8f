//! The system calls that the agent makes once its probes are live, and with which arguments.

use libc::c_long;

/// How a call is judged.
pub(super) enum Rule {
    /// Always.
    Any(c_long),
    /// If the low half of the argument with this index is one of these.
    OneOf(c_long, u32, &'static [u32]),
    /// If the argument with this index has one of these bits.
    Has(c_long, u32, u32),
    /// If the argument with this index has none of these bits.
    Lacks(c_long, u32, u32),
    /// Never, with the error of a kernel that does not know it: the C library then takes an older call.
    Unknown(c_long),
}

use Rule::{Any, Has, Lacks, OneOf, Unknown};

/// Commands of `bpf` that work on what is open: look up, update and delete elements, next key, information, batches; and
/// attaching a program that was loaded before to the hook that it was loaded for (the one for splice is attached on demand).
const BPF_ON_OPEN: &[u32] = &[1, 2, 3, 4, 15, 17, 24, 25, 26, 27];
/// Unix, IPv4, IPv6, and netlink, which name look-ups ask for the host's addresses.
const FAMILIES: &[u32] = &[1, 2, 10, 16];
/// FIONREAD, FIONBIO, FIOCLEX, and reading (never setting) what a terminal is: TCGETS, TCGETS2, TIOCGWINSZ.
const IOCTLS: &[u32] = &[0x541b, 0x5421, 0x5451, 0x5401, 0x802c_542a, 0x5413];
/// Names of threads, and of memory (the C library's allocator).
const PRCTLS: &[u32] = &[15, 16, 0x5356_4d41];
const CLONE_THREAD: u32 = 0x0001_0000;
const PROT_EXEC: u32 = 4;
const SELF: &[u32] = &[0];

/// The calls, frequent ones first: kernels before 5.11 go through the list at every call.
pub(super) const RULES: &[Rule] = &[
    Any(libc::SYS_futex),
    Any(libc::SYS_clock_nanosleep),
    OneOf(libc::SYS_bpf, 0, BPF_ON_OPEN),
    Any(libc::SYS_read),
    Any(libc::SYS_write),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_epoll_wait),
    Any(libc::SYS_epoll_pwait),
    Any(libc::SYS_writev),
    Any(libc::SYS_sendto),
    Any(libc::SYS_recvfrom),
    Any(libc::SYS_openat),
    Any(libc::SYS_close),
    Any(libc::SYS_clock_gettime),
    OneOf(libc::SYS_sched_setattr, 0, SELF),
    // Files.
    Any(libc::SYS_readv),
    Any(libc::SYS_pread64),
    Any(libc::SYS_pwrite64),
    Any(libc::SYS_preadv),
    Any(libc::SYS_pwritev),
    Any(libc::SYS_lseek),
    Any(libc::SYS_fstat),
    Any(libc::SYS_newfstatat),
    Any(libc::SYS_statx),
    Any(libc::SYS_statfs),
    Any(libc::SYS_fstatfs),
    Any(libc::SYS_faccessat),
    Any(libc::SYS_faccessat2),
    Any(libc::SYS_readlinkat),
    Any(libc::SYS_getdents64),
    Any(libc::SYS_getcwd),
    Any(libc::SYS_unlinkat),
    Any(libc::SYS_renameat),
    Any(libc::SYS_renameat2),
    Any(libc::SYS_mkdirat),
    Any(libc::SYS_ftruncate),
    Any(libc::SYS_fallocate),
    Any(libc::SYS_fsync),
    Any(libc::SYS_fdatasync),
    Any(libc::SYS_sync_file_range),
    Any(libc::SYS_flock),
    Any(libc::SYS_fcntl),
    Any(libc::SYS_fadvise64),
    Any(libc::SYS_close_range),
    Any(libc::SYS_dup),
    Any(libc::SYS_dup3),
    Any(libc::SYS_pipe2),
    Any(libc::SYS_umask),
    OneOf(libc::SYS_ioctl, 1, IOCTLS),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_open),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_stat),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_lstat),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_access),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_readlink),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_unlink),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_rename),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_mkdir),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_rmdir),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_dup2),
    // Waiting.
    Any(libc::SYS_epoll_create1),
    Any(libc::SYS_epoll_ctl),
    Any(libc::SYS_eventfd2),
    Any(libc::SYS_ppoll),
    Any(libc::SYS_pselect6),
    Any(libc::SYS_timerfd_create),
    Any(libc::SYS_timerfd_settime),
    Any(libc::SYS_timerfd_gettime),
    Any(libc::SYS_nanosleep),
    Any(libc::SYS_inotify_init1),
    Any(libc::SYS_inotify_add_watch),
    Any(libc::SYS_inotify_rm_watch),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_poll),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_select),
    // The network.
    OneOf(libc::SYS_socket, 0, FAMILIES),
    OneOf(libc::SYS_socketpair, 0, FAMILIES),
    Any(libc::SYS_connect),
    Any(libc::SYS_bind),
    Any(libc::SYS_listen),
    Any(libc::SYS_accept4),
    Any(libc::SYS_sendmsg),
    Any(libc::SYS_sendmmsg),
    Any(libc::SYS_recvmsg),
    Any(libc::SYS_recvmmsg),
    Any(libc::SYS_getsockname),
    Any(libc::SYS_getpeername),
    Any(libc::SYS_setsockopt),
    Any(libc::SYS_getsockopt),
    Any(libc::SYS_shutdown),
    // Memory and threads. Programs are never started, and memory never becomes code except when a library is loaded.
    Any(libc::SYS_mmap),
    Any(libc::SYS_munmap),
    Any(libc::SYS_mremap),
    Any(libc::SYS_madvise),
    Any(libc::SYS_brk),
    Any(libc::SYS_mincore),
    Lacks(libc::SYS_mprotect, 2, PROT_EXEC),
    Has(libc::SYS_clone, 0, CLONE_THREAD),
    // Its flags are in memory, where a filter cannot look.
    Unknown(libc::SYS_clone3),
    Any(libc::SYS_set_robust_list),
    Any(libc::SYS_get_robust_list),
    Any(libc::SYS_set_tid_address),
    Any(libc::SYS_rseq),
    Any(libc::SYS_membarrier),
    Any(libc::SYS_sched_yield),
    Any(libc::SYS_sched_getaffinity),
    OneOf(libc::SYS_sched_setaffinity, 0, SELF),
    OneOf(libc::SYS_sched_setscheduler, 0, SELF),
    Any(libc::SYS_sched_getscheduler),
    Any(libc::SYS_sched_getparam),
    Any(libc::SYS_sched_getattr),
    Any(libc::SYS_getpriority),
    OneOf(libc::SYS_setpriority, 1, SELF),
    Any(libc::SYS_getcpu),
    Any(libc::SYS_exit),
    Any(libc::SYS_exit_group),
    Any(libc::SYS_restart_syscall),
    OneOf(libc::SYS_prctl, 0, PRCTLS),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_arch_prctl),
    // Signals, to itself only; the end of the program that was started.
    Any(libc::SYS_rt_sigaction),
    Any(libc::SYS_rt_sigprocmask),
    Any(libc::SYS_rt_sigreturn),
    Any(libc::SYS_rt_sigtimedwait),
    Any(libc::SYS_sigaltstack),
    OneOf(libc::SYS_tgkill, 2, &[libc::SIGABRT as u32]),
    Any(libc::SYS_wait4),
    Any(libc::SYS_waitid),
    // Facts.
    Any(libc::SYS_getpid),
    Any(libc::SYS_gettid),
    Any(libc::SYS_getppid),
    Any(libc::SYS_getuid),
    Any(libc::SYS_geteuid),
    Any(libc::SYS_getgid),
    Any(libc::SYS_getegid),
    Any(libc::SYS_capget),
    Any(libc::SYS_uname),
    Any(libc::SYS_sysinfo),
    Any(libc::SYS_getrusage),
    Any(libc::SYS_times),
    Any(libc::SYS_getrandom),
    Any(libc::SYS_gettimeofday),
    Any(libc::SYS_clock_getres),
    OneOf(libc::SYS_prlimit64, 0, SELF),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_getrlimit),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_time),
    // A probe that somebody else puts on the agent ends in these; refusing them would end the agent.
    #[cfg(target_arch = "x86_64")]
    Any(335),
    #[cfg(target_arch = "x86_64")]
    Any(336),
];

/// The same and making links, for probes on user code: of programs that were loaded before.
const BPF_WITH_LINKS: &[u32] = &[1, 2, 3, 4, 15, 17, 24, 25, 26, 27, 28];

/// What this run needs beside the list: `probes` if it puts probes on user code, and whether those are perf events.
pub(super) fn beside(signal_child: bool, probes: Option<bool>) -> Vec<Rule> {
    let mut rules = Vec::new();
    if let Some(perf_events) = probes {
        rules.push(OneOf(libc::SYS_bpf, 0, BPF_WITH_LINKS));
        if perf_events {
            rules.push(Any(libc::SYS_perf_event_open));
        }
    }
    if signal_child {
        rules.push(SIGNAL_CHILD);
    }
    rules
}

/// Asking the program that was started to end.
const SIGNAL_CHILD: Rule =
    OneOf(libc::SYS_kill, 1, &[libc::SIGTERM as u32, libc::SIGINT as u32, libc::SIGKILL as u32]);

/// Calls with higher numbers came after this list was written: they get the error of a kernel that does not know them, so that
/// libraries take the older call. (`mseal`, Linux 6.10.)
pub(super) const NEWEST: u32 = 462;
