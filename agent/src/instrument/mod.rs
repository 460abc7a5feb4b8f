//! Beside stages 1 and 2: probes on user code: which functions of which files, for which processes.
//!
//! Comes in: the files that a traced process has mapped. Goes out: what is attached to them, and for each thing that is not, a
//! sentence. What to look for in a file is an [`Instrument`]'s; everything else (when a file is looked at, that it is looked
//! at once, that its probes go when its last process goes) is done here for all of them.

mod coverage;
mod explain;
mod files;
mod further;
pub mod golang;
mod inside;
mod look;
pub mod tls;
mod trial;
mod worker;

use std::fmt;
use std::sync::Arc;

use crate::placement::{Elf, Refusal, Rules, Site};
use crate::process::Language;

pub use coverage::{Coverage, Coverages, Gap};
pub use explain::{Explained, explain};
pub use further::Need;
pub use look::{Findings, look};
pub use worker::{Instruments, News, try_programs};

/// Every instrument there is.
#[must_use]
pub fn all() -> Vec<Arc<dyn Instrument>> {
    let mut all: Vec<Arc<dyn Instrument>> =
        vec![Arc::new(tls::OpenSsl), Arc::new(tls::GnuTls), Arc::new(tls::Rustls), Arc::new(golang::Golang)];
    all.extend(trial::Trial::of_environment().map(|trial| Arc::new(trial) as Arc<dyn Instrument>));
    all
}

/// What is known of a mapped file when an instrument looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its path, as the process sees it.
    pub path: &'a str,
    /// It is the program itself, and not a library.
    pub is_program: bool,
    /// What the program is written in.
    pub language: Language,
    /// What sites may be used here.
    pub rules: Rules,
    /// The return of a function may be hooked (`hazard.uretprobe_seccomp`); never for Go.
    pub returns: bool,
}

impl Facts<'_> {
    /// The last part of the path.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

/// A probe that an instrument wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The BPF program, one of `names::program`.
    pub program: &'static str,
    /// Where.
    pub site: Site,
    /// What the program gets with every hit: usually [`Site::cookie`].
    pub cookie: u64,
}

/// Makes the value that a map keyed by process id holds for a process, from the difference between where the file is mapped and
/// the addresses it was linked at.
pub type PerProcess = Box<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// What an instrument found in a file.
#[derive(Default)]
pub struct Found {
    /// Probes. All of them are attached, or, if the kernel refuses one, none.
    pub probes: Vec<Wanted>,
    /// Probes that are attached only when the agent finds that it needs them, in some process that maps the file.
    pub later: Vec<(Need, Wanted)>,
    /// Bits of `config::proc` for every process that maps the file.
    pub bits: u32,
    /// Maps keyed by process id, and what they hold for a process that maps the file.
    pub values: Vec<(&'static str, PerProcess)>,
    /// Functions that were looked for and get no probe.
    pub refusals: Vec<Refusal>,
    /// What else there is to say: a sentence each.
    pub notes: Vec<String>,
}

impl fmt::Debug for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Found")
            .field("probes", &self.probes)
            .field("bits", &self.bits)
            .field("refusals", &self.refusals)
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

/// Knows one kind of program or library, and where to put probes into it. Called on a thread of its own, once for each file.
pub trait Instrument: Send + Sync {
    /// Its name, in `ps --probes`.
    fn name(&self) -> &'static str;

    /// BPF programs that it may want: loaded at the start, when the agent may still do so.
    fn programs(&self) -> &'static [&'static str];

    /// Whether a file is worth opening, judged by its name and the language.
    fn wants(&self, facts: &Facts<'_>) -> bool;

    /// Libraries that programs load late (`libssl.so`): those in the usual folders are looked at as soon as a process is
    /// traced, so that their probes are there before the library is. Beginnings of file names.
    fn loaded_late(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether what it looks for may be mapped after the start of a program.
    fn comes_late(&self) -> bool {
        !self.loaded_late().is_empty()
    }

    /// Looks at the file. Nothing of what is looked for being there is not an error: it is `Ok` with nothing in it.
    fn look(&self, elf: &Elf<'_>, facts: &Facts<'_>) -> Result<Found, String>;
}
