//! What would be attached to a process, and why: nothing is. Comes in: a process. Goes out: each file that some instrument
//! wants, with what it found there.

use std::path::Path;

use super::{Facts, Found, all, look};
use crate::kernel::hazard::{Feature, Hazards};
use crate::placement::Rules;
use crate::process::{InspectError, Process, maps};

/// A file that some instrument wants.
#[derive(Debug)]
pub struct Explained {
    /// Its path, as the process sees it.
    pub path: String,
    /// What each instrument that wants it found, by its name; or why the file cannot be used.
    pub by: Vec<(&'static str, Result<Found, String>)>,
}

/// Looks at a process.
pub fn explain(tgid: u32) -> Result<Vec<Explained>, InspectError> {
    let proc = Path::new("/proc");
    let process = Process::inspect(tgid)?;
    let instruments = all();
    let returns = Hazards::look(&[Feature::ReturnProbesUnderSeccomp]);
    let returns = returns.allows(Feature::ReturnProbesUnderSeccomp).is_ok();
    let rules = Rules::of_environment();
    let program = std::fs::metadata(proc.join(tgid.to_string()).join("exe"));
    let program = program.map(|about| std::os::unix::fs::MetadataExt::ino(&about)).ok();
    let read = |source| InspectError::Read { pid: tgid, source };
    let mut files = Vec::new();
    for one in maps::mapped(proc, tgid).map_err(read)? {
        let is_program = program == Some(one.id.inode);
        let facts = Facts { path: &one.path, is_program, language: process.language, rules, returns };
        let wanting = instruments.iter().filter(|instrument| instrument.wants(&facts));
        let by = match maps::open(proc, tgid, &one) {
            Ok(file) => look(&file, &facts, &instruments).by,
            Err(error) => wanting.map(|one| (one.name(), Err(error.to_string()))).collect(),
        };
        if !by.is_empty() {
            files.push(Explained { path: one.path, by });
        }
    }
    Ok(files)
}
