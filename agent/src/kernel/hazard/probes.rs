//! Trials with probes of user code, on code of the agent's own.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::child::{Child, End};
use super::code::{Code, NOTHING};
use super::raw::{Map, Program};
use super::trial::Trial;

/// Opens a probe at the first instruction after `offset`, for one process.
fn perf_probe(code: &Code, offset: u64, pid: libc::pid_t) -> io::Result<OwnedFd> {
    let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    let kind: u32 = kind.trim().parse().map_err(io::Error::other)?;
    let path = code.path();
    // Words of 8 bytes of `struct perf_event_attr`, first version with `config2`: type and size, config, period, sample and
    // read format, flags, wake-up and breakpoint type, path, offset.
    let attributes: [u64; 9] = [u64::from(kind) | 72 << 32, 0, 0, 0, 0, 0, 0, path.as_ptr() as u64, offset];
    // SAFETY: attributes and path are alive during the call; the size is in the attributes.
    #[expect(unsafe_code, reason = "system call")]
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), pid, -1, -1, 8 /* close on exec */)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    #[expect(unsafe_code, reason = "kernel boundary")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Whether perf events may probe user code at all.
pub(super) fn perf() -> io::Result<Trial> {
    let code = Code::new(NOTHING)?;
    perf_probe(&code, 0, std::process::id() as libc::pid_t).map(|_| Trial::Sound)
}

/// Where the five-byte nop is in [`RED_ZONE`].
const NOP5: usize = 5;
/// Keeps the argument below the stack pointer, has a five-byte nop, and gives back what is below the stack pointer.
const RED_ZONE: &[u8] = &[
    0x48, 0x89, 0x7c, 0x24, 0xf8, // mov %rdi,-8(%rsp)
    0x0f, 0x1f, 0x44, 0x00, 0x00, // nopl 0(%rax,%rax)
    0x48, 0x8b, 0x44, 0x24, 0xf8, // mov -8(%rsp),%rax
    0xc3, // ret
];
const NUMBER: u64 = 0x5350_414e_5749_5345;
const UNHARMED: u8 = 0;
const HARMED: u8 = 1;
const NOT_OPTIMISED: u8 = 2;

/// Whether a probe on a five-byte nop leaves alone what a function keeps below its stack pointer.
pub(super) fn nop5() -> io::Result<Trial> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Trial::Absent);
    }
    let code = Code::new(RED_ZONE)?;
    if code.run(NUMBER) != NUMBER {
        return Err(io::Error::other("the function of the trial is wrong without a probe"));
    }
    let (go_read, go_write) = io::pipe()?;
    let reading = go_read.as_raw_fd();
    let child = Child::start(|| {
        let mut byte = 0_u8;
        // SAFETY: reads at most one byte into a live one.
        #[expect(unsafe_code, reason = "system call")]
        let got = unsafe { libc::read(reading, (&raw mut byte).cast(), 1) };
        if got != 1 {
            return 255;
        }
        for _ in 0..100 {
            if code.run(NUMBER) != NUMBER {
                return HARMED;
            }
        }
        // A trap is one byte; a jump to the faster way is not a trap.
        if code.byte(NOP5) == 0xcc { NOT_OPTIMISED } else { UNHARMED }
    })?;
    let probe = perf_probe(&code, NOP5 as u64, child.pid())?;
    io::Write::write_all(&mut &go_write, b"g")?;
    let end = child.wait()?;
    drop(probe);
    match end {
        End::Code(code) if code == i32::from(UNHARMED) => Ok(Trial::Sound),
        End::Code(code) if code == i32::from(NOT_OPTIMISED) => Ok(Trial::Absent),
        End::Code(code) if code == i32::from(HARMED) => Ok(Trial::Harmful),
        // It jumped to nowhere.
        End::Signal(libc::SIGSEGV | libc::SIGILL | libc::SIGBUS | libc::SIGTRAP) => Ok(Trial::Harmful),
        other => Err(io::Error::other(format!("the trial ended in an unknown way ({other:?})"))),
    }
}

/// Whether the kernel's pid filter of uprobe.multi lets through every thread of the process.
pub(super) fn multi() -> io::Result<Trial> {
    let code = Code::new(NOTHING)?;
    let count = Map::array(1)?;
    let program = match Program::counts(&count) {
        // Kernels before 6.6 do not know the kind of attachment.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Trial::Absent),
        program => program?,
    };
    let link = match program.attach(&code.path(), 0, std::process::id()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            return Ok(Trial::Absent);
        }
        link => link?,
    };
    let ran = std::thread::scope(|scope| scope.spawn(|| code.run(0)).join());
    ran.map_err(|_| io::Error::other("the thread of the trial ended early"))?;
    let hits = count.lookup(0)?;
    drop(link);
    Ok(if hits == 1 { Trial::Sound } else { Trial::Harmful })
}
