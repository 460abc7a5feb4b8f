//! What the agent itself uses, as the kernel counts it.

use std::time::Duration;

/// CPU time of all threads of this process since it began.
pub fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
    }
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process in bytes; none where `/proc` does not say.
pub fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: no memory is involved.
    #[expect(unsafe_code, reason = "C library call")]
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

/// Gives memory that was freed back to the system, where the allocator keeps it.
pub fn give_back() {
    // SAFETY: no arguments that could be wrong; glibc only.
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "C library call")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_counted() {
        let before = (cpu(), resident().unwrap());
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let sum: u64 = std::hint::black_box(&block).iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(sum, 64 << 20);
        assert!(cpu() > before.0);
        // Other tests of this process may free meanwhile, but not that much.
        assert!(resident().unwrap() > before.1 + (32 << 20));
    }
}
