//! Comes in: program files. Goes out: what is known of them, looked up once per build.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use crate::binary::{Binary, GoError};
use crate::bytes::Opened;

/// Most programs kept. Each holds its file open.
pub const MAX_BINARIES: usize = 64;

/// A file that has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Key {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Programs looked into so far; those not asked for the longest go first.
#[derive(Default)]
pub struct Binaries {
    kept: HashMap<Key, (u64, Option<Rc<Binary<'static>>>)>,
    clock: u64,
}

impl Binaries {
    /// The program of a file, such as `/proc/PID/exe`.
    pub fn get(&mut self, path: &Path) -> Result<Rc<Binary<'static>>, GoError> {
        let file = File::open(path)?;
        let key = Key::of(&file.metadata()?);
        self.clock += 1;
        if let Some((used, binary)) = self.kept.get_mut(&key) {
            *used = self.clock;
            return binary.clone().ok_or(GoError::NotGo);
        }
        let binary = match Binary::read(Box::new(Opened::new(file)?)) {
            Ok(binary) => Some(Rc::new(binary)),
            Err(GoError::NotGo) => None,
            Err(error) => return Err(error),
        };
        if self.kept.len() >= MAX_BINARIES
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
        {
            self.kept.remove(&oldest);
        }
        self.kept.insert(key, (self.clock, binary.clone()));
        binary.ok_or(GoError::NotGo)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}
