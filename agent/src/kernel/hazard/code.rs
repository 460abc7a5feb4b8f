//! A few instructions in a file without a name, mapped so that they can be run and probed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const PAGE: usize = 4096;

/// Mapped code of the agent's own.
pub(super) struct Code {
    file: OwnedFd,
    at: *const u8,
}

/// A function that does nothing and returns.
#[cfg(target_arch = "x86_64")]
pub(super) const NOTHING: &[u8] = &[0x90, 0xc3];
/// A function that does nothing and returns.
#[cfg(target_arch = "aarch64")]
pub(super) const NOTHING: &[u8] = &[0x1f, 0x20, 0x03, 0xd5, 0xc0, 0x03, 0x5f, 0xd6];

impl Code {
    pub(super) fn new(instructions: &[u8]) -> io::Result<Self> {
        // SAFETY: the name is a valid text; the kernel makes a new descriptor.
        #[expect(unsafe_code, reason = "system call")]
        let fd =
            unsafe { libc::syscall(libc::SYS_memfd_create, c"spanwise-trial".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else knows.
        #[expect(unsafe_code, reason = "kernel boundary")]
        let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
        let mut page = vec![0; PAGE];
        for (place, byte) in page.iter_mut().zip(instructions) {
            *place = *byte;
        }
        io::Write::write_all(&mut &file, &page)?;
        let file = OwnedFd::from(file);
        // SAFETY: a new mapping of a whole page of a file that holds one, at a place that the kernel chooses.
        #[expect(unsafe_code, reason = "system call")]
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, at: at.cast() })
    }

    /// A path by which the kernel finds the file, as long as this lives.
    pub(super) fn path(&self) -> CString {
        CString::new(format!("/proc/self/fd/{}", self.file.as_raw_fd())).unwrap_or_default()
    }

    /// Runs it as a function that takes a number and gives one.
    pub(super) fn run(&self, number: u64) -> u64 {
        // SAFETY: the mapping holds a function of the C calling convention, written by this module's callers, and is alive.
        #[expect(unsafe_code, reason = "runs its own instructions")]
        unsafe {
            let function: extern "C" fn(u64) -> u64 = std::mem::transmute(self.at);
            function(number)
        }
    }

    /// A byte of the code as it is now: probes change it.
    pub(super) fn byte(&self, at: usize) -> u8 {
        // SAFETY: inside the page, which is alive and readable.
        #[expect(unsafe_code, reason = "reads what the kernel changes")]
        unsafe {
            self.at.add(at.min(PAGE - 1)).read_volatile()
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: the mapping was made here with this length, and nothing runs in it any more.
        #[expect(unsafe_code, reason = "system call")]
        unsafe {
            libc::munmap(self.at.cast_mut().cast(), PAGE);
        }
    }
}

// SAFETY: the mapping never changes from here and is only read or run.
#[expect(unsafe_code, reason = "a mapping may be used by every thread")]
unsafe impl Sync for Code {}
