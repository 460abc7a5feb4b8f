//! Loading and attaching one program, whatever kind it is. Comes in: its name and what it hooks. Goes out: it is in the kernel,
//! or why not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfError};
use thiserror::Error;

use super::fault::{Faults, Kind};

/// Why a program is not in the kernel, or not attached.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// The object has none of that name.
    #[error("the BPF object has no program {0}")]
    Absent(&'static str),
    /// A kind that nothing here uses.
    #[error("program {0} is of a kind that cannot be loaded here")]
    Kind(&'static str),
    /// The kernel said no.
    #[error("{0}")]
    Kernel(#[from] EbpfError),
    /// On purpose.
    #[error("the kernel refuses it")]
    Fault(#[source] io::Error),
}

impl From<ProgramError> for Refusal {
    fn from(error: ProgramError) -> Self {
        Self::Kernel(error.into())
    }
}

fn find<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, Refusal> {
    ebpf.program_mut(name).ok_or(Refusal::Absent(name))
}

/// Loads a program, if it is not there yet.
pub(super) fn load(
    ebpf: &mut Ebpf,
    name: &'static str,
    hook: &'static str,
    types: &Btf,
    faults: &Faults,
) -> Result<(), Refusal> {
    if faults.has(Kind::Program, name) {
        return Err(Refusal::Fault(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let program = find(ebpf, name)?;
    if program.fd().is_ok() {
        return Ok(());
    }
    match program {
        Program::BtfTracePoint(program) => program.load(hook, types)?,
        Program::FExit(program) => program.load(hook, types)?,
        Program::KProbe(program) => program.load()?,
        _ => return Err(Refusal::Kind(name)),
    }
    Ok(())
}

/// Loads programs at the same time: the kernel takes a tenth of a second to look at each of the long ones. One that it refuses is
/// told of when it is loaded by itself.
pub(super) fn load_together(
    ebpf: &mut Ebpf,
    wanted: &[(&'static str, &'static str)],
    types: &Btf,
    faults: &Faults,
) {
    std::thread::scope(|scope| {
        for (name, program) in ebpf.programs_mut() {
            let hook = wanted.iter().find(|(one, _)| *one == name).map(|(_, hook)| *hook);
            if let Some(hook) = hook.filter(|_| !faults.has(Kind::Program, name)) {
                scope.spawn(move || match program {
                    Program::BtfTracePoint(program) => drop(program.load(hook, types)),
                    Program::FExit(program) => drop(program.load(hook, types)),
                    _ => {}
                });
            }
        }
    });
}

/// Takes a program out again.
pub(super) fn unload(ebpf: &mut Ebpf, name: &'static str) {
    if let Some(program) = ebpf.program_mut(name) {
        take_out(program);
    }
}

/// Takes all programs out: off their hooks too.
pub(super) fn unload_all(ebpf: &mut Ebpf) {
    for (_, program) in ebpf.programs_mut() {
        take_out(program);
    }
}

fn take_out(program: &mut Program) {
    // One that was never loaded on this kernel is where it should be.
    match program {
        Program::BtfTracePoint(program) => drop(program.unload()),
        Program::FExit(program) => drop(program.unload()),
        Program::KProbe(program) => drop(program.unload()),
        _ => {}
    }
}

/// Attaches a loaded program.
pub(super) fn attach(ebpf: &mut Ebpf, name: &'static str, hook: &'static str) -> Result<(), Refusal> {
    // The program keeps its links.
    match find(ebpf, name)? {
        Program::BtfTracePoint(program) => program.attach().map(|_| ())?,
        Program::FExit(program) => program.attach().map(|_| ())?,
        Program::KProbe(program) => program.attach(hook, 0).map(|_| ())?,
        _ => return Err(Refusal::Kind(name)),
    }
    Ok(())
}

/// Attaches a loaded program and takes it off again at once.
pub(super) fn attach_once(ebpf: &mut Ebpf, name: &'static str, hook: &'static str) -> Result<(), Refusal> {
    match find(ebpf, name)? {
        Program::FExit(program) => {
            let link = program.attach()?;
            program.detach(link)?;
        }
        Program::KProbe(program) => {
            let link = program.attach(hook, 0)?;
            program.detach(link)?;
        }
        _ => return Err(Refusal::Kind(name)),
    }
    Ok(())
}

/// Runs of a loaded program that the kernel left out, because the program was running on that processor already: what passed
/// its hook then was not seen, of whatever process it was. Zero on kernels that do not tell (before 5.12).
pub(super) fn skipped(ebpf: &Ebpf, name: &str) -> u64 {
    let Some(program) = ebpf.program(name) else { return 0 };
    let fd = match program {
        Program::BtfTracePoint(program) => program.fd(),
        Program::FExit(program) => program.fd(),
        Program::KProbe(program) => program.fd(),
        _ => return 0,
    };
    fd.map_or(0, |fd| told(fd.as_fd(), "recursion_misses:").unwrap_or(0))
}

/// A number that the kernel tells of an open program.
pub(super) fn told(program: BorrowedFd<'_>, key: &str) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    number(&info, key)
}

fn number(info: &str, key: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}

/// Instructions that the verifier looked at before it took a loaded program; none on kernels that do not tell.
pub(super) fn verified(ebpf: &Ebpf, name: &str) -> Option<u32> {
    ebpf.program(name)?.info().ok()?.verified_instruction_count()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn misses_are_read_where_the_kernel_tells() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t17\nverified_insns:\t1262\n";
        assert_eq!(number(info, "recursion_misses:"), Some(17));
        assert_eq!(number(info, "verified_insns:"), Some(1262));
        assert_eq!(number("pos:\t0\nprog_type:\t26\n", "recursion_misses:"), None);
    }
}
