//! OTLP/JSON lines in a file, one request a line.
//!
//! Comes in: encoded requests from the queue. Goes out: whole lines; a line that cannot be written whole is taken
//! back where the file allows it, and counted.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::warn;

use super::ExportError;
use super::batch::Batch;
use super::queue::{Queue, Reason, Seldom};

/// A file that lines are appended to.
pub(super) struct LineFile {
    file: File,
    path: PathBuf,
    line: Vec<u8>,
}

impl LineFile {
    /// Opens the file, or makes it. What is in it stays.
    pub(super) fn open(path: &Path) -> Result<Self, ExportError> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|source| ExportError::File { path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned(), line: Vec::new() })
    }

    fn write(&mut self, batch: &Batch) -> std::io::Result<()> {
        self.line.clear();
        for part in batch.body.parts() {
            self.line.extend_from_slice(part);
        }
        self.line.push(b'\n');
        let metadata = self.file.metadata()?;
        let written = self.file.write_all(&self.line);
        if written.is_err() && metadata.is_file() {
            // Part of the line may be there (disk full); a reader must not meet half a line.
            let _ = self.file.set_len(metadata.len());
        }
        written
    }
}

/// Writes until the queue is closed and empty.
pub(super) fn run(mut file: LineFile, queue: &Queue) {
    let mut complain = Seldom::new(Duration::from_secs(60));
    while let Some(batch) = queue.take_blocking() {
        let lost = match file.write(&batch) {
            Ok(()) => None,
            Err(error) => {
                if let Some(quiet) = complain.due(Instant::now()) {
                    warn!(
                        "cannot write {} spans to {} ({error}; {quiet} times more since the last such line); \
                         check space and permissions",
                        batch.spans,
                        file.path.display()
                    );
                }
                Some((Reason::WriteFailed, batch.spans))
            }
        };
        queue.settle(&batch, lost);
    }
}
