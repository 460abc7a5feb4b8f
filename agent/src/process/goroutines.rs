//! Go programs among the traced processes. Comes in: process ids, addresses of functions. Goes out: where the runtime keeps what is
//! read of a goroutine (or in a sentence why that is not known), names of functions, what a function is for.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use spanwise_common::golang::Layout;
use spanwise_common::limits::MAX_PROCS;
use spanwise_common::offsets::MISSING;
use spanwise_golang::{Binaries, Binary, Runtime, load_bias};

use super::procfs::Proc;
use super::tasks::{Goroutine, Memory, list};

/// A look at the memory of a process is followed by a pause, so many times as long, and at least of this length: looking takes no
/// more than a twentieth of a core for each process.
const PAUSE: (u32, Duration) = (20, Duration::from_millis(1));

/// Starters that are missed before starts are probed. Looks at the memory find those that still live; calls may be shorter than the
/// time between two looks.
const OFTEN: u32 = 4;

/// A Go process.
struct Program {
    binary: Rc<Binary<'static>>,
    /// What the kernel added to the addresses of the file.
    bias: u64,
    layout: Layout,
    memory: Looks,
    /// How often a starter was not known.
    missed: u32,
}

/// Whether the memory of a process is looked at.
enum Looks {
    /// It was not asked for yet.
    Not,
    /// Not before this time.
    From(Instant, Memory),
    /// It cannot be.
    Never,
}

/// What is known of Go processes.
#[derive(Default)]
pub struct Goroutines {
    proc: Proc,
    binaries: Binaries,
    programs: HashMap<u32, Program>,
}

impl Goroutines {
    /// Looks at a Go process that is traced from now on, or became another program.
    pub fn layout(&mut self, tgid: u32) -> Result<Layout, String> {
        self.programs.remove(&tgid);
        // Through the link of the process itself: it works in other mount namespaces and after the file is gone.
        let binary = self.binaries.get(&self.proc.path(tgid, "exe")).map_err(|error| error.to_string())?;
        let runtime = Runtime::of(&binary).map_err(|error| error.to_string())?;
        let Runtime { goid, parent_goid, start_pc, m, curg, .. } = runtime;
        // The kernel side reads it from the first word.
        if runtime.g0 != 0 {
            return Err(format!("the runtime of {} keeps its threads in another way", runtime.version));
        }
        // The end of a process may be lost in a full ring.
        if self.programs.len() >= MAX_PROCS as usize {
            self.programs.clear();
        }
        let layout =
            Layout { m, curg, goid, parent: parent_goid.unwrap_or(MISSING), start: start_pc, pad: 0 };
        if let Some(bias) = load_bias(&binary, &self.proc.path(tgid, "")) {
            self.programs.insert(tgid, Program { binary, bias, layout, memory: Looks::Not, missed: 0 });
        }
        Ok(layout)
    }

    /// A goroutine's starter is not known. Whether that happened so often that starts are worth a probe; true once.
    pub fn misses(&mut self, tgid: u32) -> bool {
        let Some(program) = self.programs.get_mut(&tgid) else { return false };
        program.missed = program.missed.saturating_add(1);
        program.missed == OFTEN
    }

    /// All goroutines of a process as they are now; nothing if that cannot be had, or was had a moment ago.
    pub fn all(&mut self, tgid: u32) -> Option<Vec<Goroutine>> {
        let program = self.programs.get_mut(&tgid)?;
        let now = Instant::now();
        if matches!(program.memory, Looks::Not) {
            let place = list(&program.binary).map(|place| place.wrapping_add(program.bias));
            let memory = place.map(|place| Memory::open(&self.proc.path(tgid, ""), place, program.layout));
            program.memory = match memory {
                Some(Ok(memory)) => Looks::From(now, memory),
                _ => Looks::Never,
            };
        }
        let Looks::From(from, memory) = &mut program.memory else { return None };
        if now < *from {
            return None;
        }
        let found = memory.goroutines();
        let (times, least) = PAUSE;
        let end = Instant::now();
        *from = end + (end.duration_since(now) * times).max(least);
        match found {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::info!("the goroutines of process {tgid} cannot be read: {error}");
                program.memory = Looks::Never;
                None
            }
        }
    }

    /// The name of the function at an address of a process.
    pub fn function(&self, tgid: u32, address: u64) -> Option<String> {
        let program = self.programs.get(&tgid)?;
        program.binary.name_of(address.checked_sub(program.bias)?).map(|(name, _)| name)
    }

    /// The process ended.
    pub fn forget(&mut self, tgid: u32) {
        self.programs.remove(&tgid);
    }
}
