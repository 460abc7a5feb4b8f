//! The few system calls that the standard library does not offer. In: pids and signals. Out: results as `io::Result`.
#![expect(unsafe_code, reason = "signals and page sizes are only to be had through libc")]

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// Write end of the pipe that the signal handler tells the watching thread through.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Sends a signal to one process.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    if pid <= 1 {
        return Err(io::Error::other(format!("refusing to signal pid {pid}")));
    }
    // SAFETY: kill takes two integers and touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) })
}

/// Sends a signal to a process group.
pub fn kill_group(group: u32, signal: i32) -> io::Result<()> {
    let group = libc::pid_t::try_from(group).map_err(io::Error::other)?;
    if group <= 1 {
        return Err(io::Error::other(format!("refusing to signal process group {group}")));
    }
    // SAFETY: killpg takes two integers and touches no memory of ours.
    check(unsafe { libc::killpg(group, signal) })
}

/// What of BPF has ids in the kernel; the number is the command that gives the next id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BpfKind {
    /// A program.
    Program = 11,
    /// A map.
    Map = 12,
    /// A link.
    Link = 31,
}

/// Whether the kernel has something of this kind with this id. Nothing is opened, so nothing is kept from going.
pub fn bpf_exists(kind: BpfKind, id: u32) -> io::Result<bool> {
    // The kernel's `union bpf_attr` for these commands: where to start, the id found, flags.
    let mut attributes = [id.saturating_sub(1), 0, 0];
    // SAFETY: the kernel reads and writes at most the twelve bytes that it is told of.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, kind as libc::c_int, attributes.as_mut_ptr(), size_of_val(&attributes))
    };
    let error = io::Error::last_os_error();
    match result {
        0 => Ok(attributes.get(1) == Some(&id)),
        _ if error.kind() == io::ErrorKind::NotFound => Ok(false),
        _ => Err(error),
    }
}

/// Clock ticks a second, the unit of CPU time in `/proc/PID/stat`.
pub fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1)
}

/// Effective user id.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Raises the limit of open files to what this process may have.
pub fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a live rlimit of ours.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Calls `then` once, on a thread of its own, when SIGINT, SIGTERM or SIGHUP comes.
pub fn on_end_signals(then: impl FnOnce(i32) + Send + 'static) -> io::Result<()> {
    let mut ends = [0_i32; 2];
    // SAFETY: pipe2 writes two descriptors into the array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [read_end, write_end] = ends;
    PIPE.store(write_end, Ordering::SeqCst);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only calls write(2), which is safe inside signal handlers.
        let old = unsafe { libc::signal(signal, tell as *const () as libc::sighandler_t) };
        if old == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut byte = 0_u8;
        loop {
            // SAFETY: reads at most one byte into a live byte.
            let got = unsafe { libc::read(read_end, (&raw mut byte).cast(), 1) };
            if got == 1 {
                then(i32::from(byte));
                return;
            }
        }
    })?;
    Ok(())
}

extern "C" fn tell(signal: i32) {
    let byte = u8::try_from(signal).unwrap_or(0);
    // SAFETY: writes one live byte to a descriptor that stays open for the life of the process.
    unsafe { libc::write(PIPE.load(Ordering::SeqCst), (&raw const byte).cast(), 1) };
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
