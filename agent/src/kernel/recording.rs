//! Recordings: what the kernel side shipped, with what else the pipeline needs, so that any live case can be run again.
//!
//! A file begins with [`MAGIC`] and the wire version; frames follow, each a kind (one byte), a length (four bytes, little
//! endian) and that many bytes. A recording holds request heads as they were on the wire, secrets included.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use spanwise_common::WIRE_VERSION;
use thiserror::Error;

/// First bytes of a recording.
pub const MAGIC: &[u8; 8] = b"SPANWREC";
/// Longest frame that is read.
const MAX_FRAME: u32 = 1 << 20;

/// Kind of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A record as it came from the ring.
    Record,
    /// The service of a process, as JSON.
    Service,
    /// Both clocks: two 64-bit numbers, little endian.
    Clock,
}

impl Frame {
    fn code(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Service => 2,
            Self::Clock => 3,
        }
    }
}

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read the recording {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What happened.
        source: io::Error,
    },
    /// Not a recording.
    #[error("{0} is not a recording; make one with --record FILE")]
    NotOne(String),
    /// Of another version.
    #[error(
        "{path} was recorded by a version of Spanwise with wire version {found}, this one reads {WIRE_VERSION}; record it again"
    )]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
    },
}

/// Writes a recording.
pub struct Writer {
    file: BufWriter<File>,
    /// Frames that could not be written.
    pub failed: u64,
}

impl Writer {
    /// Creates the file, readable by its owner only.
    pub fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut file = BufWriter::with_capacity(256 * 1024, file);
        file.write_all(MAGIC)?;
        file.write_all(&WIRE_VERSION.to_le_bytes())?;
        file.flush()?;
        Ok(Self { file, failed: 0 })
    }

    /// Adds a frame. Failures are counted: a full disk must not stop the tracing.
    pub fn frame(&mut self, kind: Frame, bytes: &[u8]) {
        let length = bytes.len() as u32;
        let written = self
            .file
            .write_all(&[kind.code()])
            .and_then(|()| self.file.write_all(&length.to_le_bytes()))
            .and_then(|()| self.file.write_all(bytes));
        if written.is_err() {
            self.failed += 1;
        }
    }

    /// Writes out what is buffered.
    pub fn finish(mut self) -> u64 {
        if self.file.flush().is_err() {
            self.failed += 1;
        }
        self.failed
    }
}

/// Reads a recording.
pub struct Reader {
    file: BufReader<File>,
    path: String,
}

impl Reader {
    /// Opens a recording and checks its beginning.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        let io = |source| ReadError::Io { path: name.clone(), source };
        let mut file = BufReader::with_capacity(256 * 1024, File::open(path).map_err(io)?);
        let mut magic = [0; 8];
        let mut version = [0; 4];
        match file.read_exact(&mut magic).and_then(|()| file.read_exact(&mut version)) {
            Ok(()) if &magic == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(io(error)),
            _ => return Err(ReadError::NotOne(name)),
        }
        let found = u32::from_le_bytes(version);
        if found != WIRE_VERSION {
            return Err(ReadError::Version { path: name, found });
        }
        Ok(Self { file, path: name })
    }

    /// The next frame; none at the end. A frame cut short (the recorder was killed) ends the recording.
    pub fn next(&mut self, into: &mut Vec<u8>) -> Result<Option<Frame>, ReadError> {
        let mut head = [0; 5];
        match self.file.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(source) => return Err(ReadError::Io { path: self.path.clone(), source }),
        }
        let [code, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        let kind = match code {
            1 => Frame::Record,
            2 => Frame::Service,
            3 => Frame::Clock,
            _ => return Err(ReadError::NotOne(self.path.clone())),
        };
        if length > MAX_FRAME {
            return Err(ReadError::NotOne(self.path.clone()));
        }
        into.resize(length as usize, 0);
        match self.file.read_exact(into) {
            Ok(()) => Ok(Some(kind)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(ReadError::Io { path: self.path.clone(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        let mut writer = Writer::create(&path).unwrap();
        writer.frame(Frame::Record, b"abc");
        writer.frame(Frame::Clock, &[0; 16]);
        assert_eq!(writer.finish(), 0);
        let mut reader = Reader::open(&path).unwrap();
        let mut bytes = Vec::new();
        assert_eq!(reader.next(&mut bytes).unwrap(), Some(Frame::Record));
        assert_eq!(bytes, b"abc");
        assert_eq!(reader.next(&mut bytes).unwrap(), Some(Frame::Clock));
        assert_eq!(reader.next(&mut bytes).unwrap(), None);
    }

    #[test]
    fn other_files_and_cut_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        std::fs::write(&path, b"something else entirely").unwrap();
        assert!(matches!(Reader::open(&path), Err(ReadError::NotOne(_))));
        std::fs::write(&path, b"SPAN").unwrap();
        assert!(matches!(Reader::open(&path), Err(ReadError::NotOne(_))));
        let mut bytes = MAGIC.to_vec();
        bytes.extend(99u32.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(Reader::open(&path), Err(ReadError::Version { found: 99, .. })));
        let mut writer = Writer::create(&path).unwrap();
        writer.frame(Frame::Record, b"abcdef");
        assert_eq!(writer.finish(), 0);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 2]).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.next(&mut Vec::new()).unwrap(), None);
    }
}
