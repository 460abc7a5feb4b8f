//! Signals to the program that `spanwise run` started.

/// Asks a process of our own to end (SIGTERM).
pub fn terminate(pid: u32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: no memory is involved; the process is our child and not yet waited for, so its id is its own.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::kill(pid, libc::SIGTERM);
    }
}
