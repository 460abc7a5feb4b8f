//! The bytes of a program file, without holding all of them in memory. Comes in: an open file. Goes out: its bytes.
//!
//! Small files are read: whoever cuts a file short while it is mapped ends the reader by a signal. Large ones are mapped, and pages
//! that were looked at can be given back at any time; what is that large is a program that is running, which the kernel
//! protects from being written to, or a library of a few runtimes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

/// Files up to this size are read.
const READ_UP_TO: u64 = 16 * 1024 * 1024;
/// Larger ones are not looked at.
pub const LARGEST: u64 = 4 << 30;

/// Which file it is to the kernel's probes, which sit in the file below all layers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key([u64; 4]);

/// The key of an open file. Two containers of one image have the same files under different devices: there size and time of
/// the last change stand in for the device.
pub fn key(file: &File) -> io::Result<Key> {
    const OVERLAY: u64 = 0x794c_7630;
    let about = file.metadata()?;
    // SAFETY: a zeroed result is valid, and alive during the call.
    #[expect(unsafe_code, reason = "system call")]
    let layered = unsafe {
        let mut system: libc::statfs = std::mem::zeroed();
        libc::fstatfs(file.as_raw_fd(), &raw mut system) == 0 && system.f_type as u64 == OVERLAY
    };
    if layered {
        let changed = about.mtime().wrapping_mul(1_000_000_000).wrapping_add(about.mtime_nsec());
        return Ok(Key([u64::MAX, about.ino(), about.size(), changed as u64]));
    }
    Ok(Key([about.dev(), about.ino(), 0, 0]))
}

/// The bytes of a file.
#[derive(Debug)]
pub struct Mapping(Bytes);

#[derive(Debug)]
enum Bytes {
    Read(Vec<u8>),
    Mapped { at: *mut libc::c_void, len: usize },
}

// SAFETY: the memory is only read, and belongs to this value alone.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Send for Mapping {}

impl Mapping {
    /// Of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        if size > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than any program"));
        }
        if size <= READ_UP_TO {
            let mut bytes = Vec::with_capacity(size as usize);
            file.take(READ_UP_TO).read_to_end(&mut bytes)?;
            return Ok(Self(Bytes::Read(bytes)));
        }
        let len = size as usize;
        // Shared: the kernel puts the breakpoints of every probe on this file, our own and other tracers', into each private mapping
        // of it, also into one that is never executed, and they would be read as code.
        // SAFETY: a new mapping of an open file that is only read; nothing else knows it.
        #[expect(unsafe_code, reason = "system call")]
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(Bytes::Mapped { at, len }))
    }

    /// All of them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Read(bytes) => bytes,
            // SAFETY: the mapping is as long as it says and lives as long as this value.
            #[expect(unsafe_code, reason = "kernel boundary")]
            Bytes::Mapped { at, len } => unsafe { std::slice::from_raw_parts(at.cast(), *len) },
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Bytes::Mapped { at, len } = self.0 {
            // SAFETY: the mapping is this value's own, and nobody borrows from it any more.
            #[expect(unsafe_code, reason = "system call")]
            unsafe {
                libc::munmap(at, len);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn small_and_large_files_have_the_same_bytes() {
        let mut small = tempfile::tempfile().unwrap();
        small.write_all(b"code").unwrap();
        std::io::Seek::rewind(&mut small).unwrap();
        assert_eq!(Mapping::of(&small).unwrap().bytes(), b"code");
        let large = tempfile::tempfile().unwrap();
        large.set_len(READ_UP_TO + 4096).unwrap();
        let mapping = Mapping::of(&large).unwrap();
        assert!(matches!(mapping.0, Bytes::Mapped { .. }));
        assert_eq!(mapping.bytes().len() as u64, READ_UP_TO + 4096);
        assert_eq!(mapping.bytes().last(), Some(&0));
    }
}
