//! Go programs among the traced processes. Comes in: process ids, addresses of functions. Goes out: where the runtime keeps what is
//! read of a goroutine (or in a sentence why that is not known), names of functions, what a function is for.

use std::collections::HashMap;
use std::rc::Rc;

use spanwise_common::golang::Layout;
use spanwise_common::limits::MAX_PROCS;
use spanwise_common::offsets::MISSING;
use spanwise_golang::{Binaries, Binary, Runtime, load_bias};

use super::procfs::Proc;

/// A Go process.
struct Program {
    binary: Rc<Binary<'static>>,
    /// What the kernel added to the addresses of the file.
    bias: u64,
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
        if let Some(bias) = load_bias(&binary, &self.proc.path(tgid, "")) {
            self.programs.insert(tgid, Program { binary, bias });
        }
        Ok(Layout { m, curg, goid, parent: parent_goid.unwrap_or(MISSING), start: start_pc, pad: 0 })
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
