//! Takes the capabilities of all other threads. They belong to each thread alone, so each must give up its own: a signal
//! makes it.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::caps::{Set, Sets, no_new_privileges};

/// What a thread may take to answer.
const PATIENCE: Duration = Duration::from_millis(300);

/// A thread that keeps something, and what.
static KEEPER: AtomicI32 = AtomicI32::new(0);
static KEPT: AtomicU64 = AtomicU64::new(0);

/// Runs on each of the other threads; only system calls that are allowed in a handler.
extern "C" fn strip_this_thread(_signal: libc::c_int) {
    let errno = errno();
    // SAFETY: the C library gives a valid place for the calling thread.
    #[expect(unsafe_code, reason = "the interrupted code must find its own errno")]
    let before = unsafe { *errno };
    // Whether it worked is read from outside.
    let _ = no_new_privileges();
    let kept = if own_thread() == KEEPER.load(Ordering::Relaxed) { KEPT.load(Ordering::Relaxed) } else { 0 };
    let _ = Sets { effective: Set(kept), permitted: Set(kept), inheritable: Set::default() }.apply();
    // SAFETY: as above.
    #[expect(unsafe_code, reason = "the interrupted code must find its own errno")]
    unsafe {
        *errno = before;
    }
}

fn errno() -> *mut libc::c_int {
    // SAFETY: no arguments; the C library gives a valid place for the calling thread.
    #[expect(unsafe_code, reason = "C library call")]
    unsafe {
        libc::__errno_location()
    }
}

/// A signal that nothing else in the agent uses.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 6
}

/// Takes the capabilities of every thread but the calling one, and but what one of them keeps. Threads that they make meanwhile
/// are found as well.
pub(super) fn strip_others(keeper: Option<(i32, Set)>) -> Result<(), String> {
    let own = own_thread();
    if let Some((thread, kept)) = keeper {
        KEPT.store(kept.0, Ordering::Relaxed);
        KEEPER.store(thread, Ordering::Relaxed);
    }
    let old = handle(strip_this_thread as *const () as libc::sighandler_t)
        .map_err(|error| format!("a signal cannot be handled ({error})"))?;
    let result = strip_all(own);
    // Late signals must find a handler: only a thread that did not answer can get one.
    if result.is_ok() {
        restore(&old);
    }
    result
}

fn strip_all(own: i32) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    let mut asked = HashSet::new();
    loop {
        let others = others(own).map_err(|error| format!("the threads cannot be listed ({error})"))?;
        let left: Vec<i32> = others.into_iter().filter(|thread| !is_stripped(*thread)).collect();
        if left.is_empty() {
            return Ok(());
        }
        for thread in &left {
            if asked.insert(*thread) {
                tell(*thread);
            }
        }
        if Instant::now() > end {
            return Err(format!("{} of them did not answer within {PATIENCE:?}", left.len()));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn others(own: i32) -> io::Result<Vec<i32>> {
    let names = std::fs::read_dir("/proc/self/task")?.flatten();
    Ok(names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|id| *id != own).collect())
}

/// A thread that is gone is stripped too.
fn is_stripped(thread: i32) -> bool {
    let path = Path::new("/proc/self/task").join(thread.to_string()).join("status");
    let Ok(status) = std::fs::read_to_string(path) else { return true };
    let keeps = thread == KEEPER.load(Ordering::Relaxed);
    let kept = if keeps { Set(KEPT.load(Ordering::Relaxed)) } else { Set::default() };
    let only = |line, set| Set::in_status(&status, line).is_none_or(|has| has == set);
    only("CapPrm", kept)
        && only("CapEff", kept)
        && only("CapInh", Set::default())
        && status.contains("NoNewPrivs:\t1")
}

/// Id of the calling thread.
pub fn own_thread() -> i32 {
    // SAFETY: no arguments.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::gettid()
    }
}

fn tell(thread: i32) {
    // SAFETY: no memory is involved, and the thread is one of this process, or gone.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal());
    }
}

fn handle(handler: libc::sighandler_t) -> io::Result<libc::sigaction> {
    // SAFETY: a sigaction of zeros is a valid one; both are alive during the call.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler;
        new.sa_flags = libc::SA_RESTART;
        if libc::sigaction(signal(), &raw const new, &raw mut old) == 0 {
            Ok(old)
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

fn restore(old: &libc::sigaction) {
    // SAFETY: the action came from the kernel.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::sigaction(signal(), old, std::ptr::null_mut());
    }
}
