//! The file that says that the probes are live.

use std::path::Path;

use super::CliError;

/// The file that says that the probes are live.
pub(super) struct ReadyFile<'a>(&'a Path);

impl<'a> ReadyFile<'a> {
    /// Finds out early that it could not be created, and removes one that a former run left.
    pub(super) fn check(path: &'a Path) -> Result<Self, CliError> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(CliError::usage(format!(
                "cannot create the ready file {}: its folder does not exist; create it or give another path",
                path.display()
            )));
        }
        // Not being there is the usual case.
        drop(std::fs::remove_file(path));
        Ok(Self(path))
    }

    pub(super) fn create(&mut self) -> Result<(), CliError> {
        std::fs::write(self.0, format!("{}\n", std::process::id())).map_err(|error| {
            CliError::usage(format!(
                "cannot create the ready file {}: {error}; check that its folder can be written",
                self.0.display()
            ))
        })
    }
}
