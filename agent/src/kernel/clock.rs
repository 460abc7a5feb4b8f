//! The two clocks, read together.

/// `CLOCK_BOOTTIME` and `CLOCK_REALTIME` at the same moment, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// `CLOCK_REALTIME`, since the Unix epoch.
    pub unix_ns: u64,
    /// Time between the readings around the second clock: the bound of the error.
    pub spread_ns: u64,
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::clock_gettime(clock, &mut time);
    }
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Now, on the clock of the records.
pub fn boot_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

/// Reads both clocks, the best of a few tries (a thread may be interrupted between two readings).
pub fn sample() -> Sample {
    let mut best = Sample { boot_ns: 0, unix_ns: 0, spread_ns: u64::MAX };
    for _ in 0..5 {
        let before = boot_ns();
        let unix_ns = read(libc::CLOCK_REALTIME);
        let after = boot_ns();
        let spread_ns = after.saturating_sub(before);
        if spread_ns < best.spread_ns {
            best = Sample { boot_ns: before + spread_ns / 2, unix_ns, spread_ns };
        }
    }
    best
}
