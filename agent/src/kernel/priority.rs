//! The scheduling priority of the thread that empties the ring.

/// How much nicer than usual, negative for less: enough to be woken in time on a full machine.
const NICE: libc::c_int = -10;

/// Lets the calling thread run soon when it wakes, so that the ring does not overflow while every core is busy with the
/// traced programs. It sleeps most of the time; what it may use is what its records cost. Without the privilege
/// (CAP_SYS_NICE) it stays as it is, and a full ring is counted.
pub fn raise() -> bool {
    // SAFETY: no memory is involved; 0 names the calling thread.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE) == 0
    }
}
