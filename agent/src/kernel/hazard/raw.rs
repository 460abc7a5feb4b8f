//! The few BPF system calls of the self-tests, without a library: their objects live as long as the values here.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;

const ARRAY: u32 = 2;
const SOCKHASH: u32 = 18;
/// Programs on probes of user code.
const KPROBE: u32 = 2;
const UPROBE_MULTI: u32 = 48;

/// Larger than any of the commands' arguments; the rest is zeros, which every kernel accepts.
type Attributes = [u32; 36];

fn bpf(command: libc::c_int, attributes: &Attributes) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are alive during the call and as long as it says; what they point to, the callers keep alive.
    #[expect(unsafe_code, reason = "system call")]
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

fn bpf_fd(command: libc::c_int, attributes: &Attributes) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    #[expect(unsafe_code, reason = "kernel boundary")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts an address at a place that is even.
fn put<const N: usize>(attributes: &mut [u32; N], at: usize, pointer: u64) {
    for (place, half) in attributes.iter_mut().skip(at).zip([pointer as u32, (pointer >> 32) as u32]) {
        *place = half;
    }
}

fn attributes(words: &[u32]) -> Attributes {
    let mut all = [0; 36];
    for (place, word) in all.iter_mut().zip(words) {
        *place = *word;
    }
    all
}

/// A map of the agent's own.
pub(in crate::kernel) struct Map(OwnedFd);

impl Map {
    /// An array of numbers of 8 bytes.
    pub(in crate::kernel) fn array(entries: u32) -> io::Result<Self> {
        bpf_fd(MAP_CREATE, &attributes(&[ARRAY, 4, 8, entries])).map(Self)
    }

    /// Sockets by a number.
    pub(super) fn sockets() -> io::Result<Self> {
        bpf_fd(MAP_CREATE, &attributes(&[SOCKHASH, 4, 4, 1])).map(Self)
    }

    fn element(&self, key: &u32, value: u64) -> Attributes {
        let mut all = attributes(&[self.0.as_raw_fd() as u32]);
        put(&mut all, 2, std::ptr::from_ref(key) as u64);
        put(&mut all, 4, value);
        all
    }

    /// Sets a number of an array.
    pub(in crate::kernel) fn update(&self, key: u32, value: u64) -> io::Result<()> {
        bpf(MAP_UPDATE, &self.element(&key, &raw const value as u64)).map(drop)
    }

    /// Puts a socket in.
    pub(super) fn insert(&self, key: u32, socket: i32) -> io::Result<()> {
        bpf(MAP_UPDATE, &self.element(&key, &raw const socket as u64)).map(drop)
    }

    /// A number of an array.
    pub(in crate::kernel) fn lookup(&self, key: u32) -> io::Result<u64> {
        let mut value = 0_u64;
        bpf(MAP_LOOKUP, &self.element(&key, &raw mut value as u64))?;
        // SAFETY: a live number, which the kernel wrote behind the compiler's back.
        #[expect(unsafe_code, reason = "kernel boundary")]
        Ok(unsafe { (&raw const value).read_volatile() })
    }
}

/// One instruction: code, destination and source register, offset, constant.
fn instruction(code: u8, to: u8, from: u8, offset: i16, constant: i32) -> u64 {
    u64::from(code)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset as u16) << 16
        | u64::from(constant as u32) << 32
}

/// A loaded program.
pub(super) struct Program(OwnedFd);

impl Program {
    fn load(code: &[u64], attach: u32) -> io::Result<Self> {
        let licence = c"GPL";
        let mut all = attributes(&[KPROBE, code.len() as u32]);
        put(&mut all, 2, code.as_ptr() as u64);
        put(&mut all, 4, licence.as_ptr() as u64);
        // After the log (3 words, kernel version, flags, name of 16 bytes, device).
        if let Some(place) = all.get_mut(17) {
            *place = attach;
        }
        bpf_fd(PROG_LOAD, &all).map(Self)
    }

    /// Reads kernel memory, which it throws away: loads only where that is allowed. Nothing runs it.
    pub(super) fn reads_kernel_memory() -> io::Result<Self> {
        const PROBE_READ_KERNEL: i32 = 113;
        Self::load(
            &[
                instruction(0xb7, 3, 0, 0, 0),
                instruction(0xbf, 1, 10, 0, 0),
                instruction(0x07, 1, 0, 0, -8),
                instruction(0xb7, 2, 0, 0, 8),
                instruction(0x85, 0, 0, 0, PROBE_READ_KERNEL),
                instruction(0xb7, 0, 0, 0, 0),
                instruction(0x95, 0, 0, 0, 0),
            ],
            0,
        )
    }

    /// Adds one to the first number of an array.
    pub(super) fn counts(map: &Map) -> io::Result<Self> {
        /// The constant is a map, of whose first value the address is taken.
        const MAP_VALUE: u8 = 2;
        Self::load(
            &[
                instruction(0x18, 1, MAP_VALUE, 0, map.0.as_raw_fd()),
                0,
                instruction(0xb7, 2, 0, 0, 1),
                instruction(0xdb, 1, 2, 0, 0),
                instruction(0xb7, 0, 0, 0, 0),
                instruction(0x95, 0, 0, 0, 0),
            ],
            UPROBE_MULTI,
        )
    }

    /// Runs it at one place of a file, when a process executes it there. Until the value is dropped.
    pub(super) fn attach(&self, path: &std::ffi::CStr, offset: u64, pid: u32) -> io::Result<OwnedFd> {
        let mut all = attributes(&[self.0.as_raw_fd() as u32, 0, UPROBE_MULTI]);
        put(&mut all, 4, path.as_ptr() as u64);
        put(&mut all, 6, &raw const offset as u64);
        for (place, word) in all.iter_mut().skip(12).zip([1, 0, pid]) {
            *place = word;
        }
        bpf_fd(LINK_CREATE, &all)
    }
}
