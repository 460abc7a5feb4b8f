//! Comes in: a file, or bytes in memory. Goes out: pieces of it, checked against its length.
//!
//! Files are read with `pread` and not mapped: a program file that is cut while we look gives an error, not a signal, and the
//! pages do not count as memory of the agent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read at once by what walks over long tables.
const WINDOW: usize = 128 * 1024;

/// Something that bytes can be read from at any place.
pub trait Bytes {
    /// Bytes there are.
    fn size(&self) -> u64;
    /// Fills `into` from `offset`, or fails.
    fn fill(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A file and how long it was when it was opened.
#[derive(Debug)]
pub struct Opened {
    file: File,
    size: u64,
}

impl Opened {
    /// Takes a file.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }
}

impl Bytes for Opened {
    fn size(&self) -> u64 {
        self.size
    }

    fn fill(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn fill(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.as_slice().fill(offset, into)
    }
}

impl Bytes for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn fill(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// `len` bytes from `offset`; nothing if there are not as many.
pub(crate) fn piece(bytes: &dyn Bytes, offset: u64, len: u64) -> Option<Vec<u8>> {
    if offset.checked_add(len)? > bytes.size() {
        return None;
    }
    let mut into = vec![0; usize::try_from(len).ok()?];
    bytes.fill(offset, &mut into).ok()?;
    Some(into)
}

/// The 32-bit number at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

/// The 64-bit number at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))
}

/// A window that moves over a range of a file, mostly forwards.
pub(crate) struct Window<'a> {
    bytes: &'a dyn Bytes,
    /// Where the range begins in the file, and how long it is.
    start: u64,
    len: u64,
    /// What is held: bytes of the range from `at`.
    at: u64,
    held: Vec<u8>,
    /// How often it may still move. What walks forwards needs a fraction of it; a file made to send us to and fro gets no more.
    moves: u64,
}

impl<'a> Window<'a> {
    /// A window over `len` bytes from `start`, as far as the file has them.
    pub(crate) fn new(bytes: &'a dyn Bytes, start: u64, len: u64) -> Self {
        let len = len.min(bytes.size().saturating_sub(start));
        let moves = len / WINDOW as u64 * 4 + 64;
        Self { bytes, start, len, at: 0, held: Vec::new(), moves }
    }

    /// `want` bytes (at most a window) at `at` of the range.
    pub(crate) fn get(&mut self, at: u64, want: usize) -> Option<&[u8]> {
        let end = at.checked_add(want as u64)?;
        if end > self.len || want > WINDOW {
            return None;
        }
        if at < self.at || end > self.at + self.held.len() as u64 {
            self.load(at)?;
        }
        let from = usize::try_from(at - self.at).ok()?;
        self.held.get(from..)?.get(..want)
    }

    /// All that one window holds from `at` of the range: nothing at its end.
    pub(crate) fn rest(&mut self, at: u64) -> Option<&[u8]> {
        if at >= self.len {
            return None;
        }
        self.load(at)?;
        Some(&self.held)
    }

    /// The 32-bit number at `at`.
    pub(crate) fn u32(&mut self, at: u64) -> Option<u32> {
        self.get(at, 4).and_then(|bytes| u32_at(bytes, 0))
    }

    fn load(&mut self, at: u64) -> Option<()> {
        self.moves = self.moves.checked_sub(1)?;
        let len = usize::try_from(self.len.checked_sub(at)?).map_or(WINDOW, |left| left.min(WINDOW));
        self.held.resize(len, 0);
        self.at = at;
        if self.bytes.fill(self.start.checked_add(at)?, &mut self.held).is_err() {
            self.held.clear();
            return None;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_a_range_and_no_more() {
        let data: Vec<u8> = (0..400_000_u32).map(|i| i as u8).collect();
        let slice = data.clone();
        let mut window = Window::new(&slice, 100, 300_000);
        assert_eq!(window.get(0, 3).unwrap(), &data[100..103]);
        assert_eq!(window.get(200_000, 8).unwrap(), &data[200_100..200_108]);
        assert_eq!(window.get(5, 8).unwrap(), &data[105..113], "backwards too");
        assert_eq!(window.get(WINDOW as u64 - 2, 8).unwrap(), &data[98 + WINDOW..106 + WINDOW]);
        assert!(window.get(299_993, 8).is_none());
        assert_eq!(window.get(299_992, 8).unwrap(), &data[300_092..300_100]);
        assert!(window.get(u64::MAX, 8).is_none());
        assert!(window.rest(300_000).is_none());
        assert_eq!(Window::new(&slice, 399_999, 50).len, 1);
        assert_eq!(Window::new(&slice, 500_000, 50).len, 0);
    }

    #[test]
    fn pieces_are_checked_before_memory_is_taken() {
        let slice = b"abcdef".to_vec();
        assert_eq!(piece(&slice, 2, 3).unwrap(), b"cde");
        assert!(piece(&slice, 2, 5).is_none());
        assert!(piece(&slice, u64::MAX, 5).is_none());
        assert!(piece(&slice, 0, u64::MAX).is_none());
    }
}
