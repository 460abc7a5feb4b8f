//! The system calls for probes on user code, without a library.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use aya_obj::generated::{bpf_func_info, bpf_insn};

use super::Point;

const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const BTF_LOAD: libc::c_int = 18;
const LINK_CREATE: libc::c_int = 28;
const KPROBE: u32 = 2;
const PERF_EVENT: u32 = 41;
const UPROBE_MULTI: u32 = 48;
const SLEEPABLE: u32 = 1 << 4;
/// Flag of a multi link: at returns.
const RETURNS: u32 = 1;
/// Bytes of the verifier's log that are asked for when a program is refused.
const LOG: usize = 64 * 1024;
/// Threads that take probes away at once: the kernel waits some ten milliseconds for each.
const CLOSERS: usize = 16;

/// Larger than any command's arguments; the rest is zeros, which every kernel accepts.
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

fn attributes(words: &[(usize, u32)], addresses: &[(usize, u64)]) -> Attributes {
    let mut all = [0_u32; 36];
    let mut put = |at: usize, word: u32| {
        if let Some(place) = all.get_mut(at) {
            *place = word;
        }
    };
    for (at, word) in words {
        put(*at, *word);
    }
    for (at, address) in addresses {
        put(*at, *address as u32);
        put(at + 1, (*address >> 32) as u32);
    }
    all
}

/// Loads the type information of an object.
pub(super) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    bpf_fd(BTF_LOAD, &attributes(&[(4, types.len() as u32)], &[(0, types.as_ptr() as u64)]))
}

/// Which function of a program is of which type: with it the verifier looks at a global function once, and without at every call of it.
pub(super) struct Functions<'a> {
    pub(super) types: &'a OwnedFd,
    pub(super) list: &'a [bpf_func_info],
}

/// Loads a program. The error comes with the end of the verifier's log.
pub(super) fn load(
    name: &str,
    code: &[bpf_insn],
    licence: &CStr,
    sleeps: bool,
    multi: bool,
    functions: Option<&Functions<'_>>,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut short = [0_u8; 16];
    for (to, from) in short.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    let attempt = |log: &mut [u8]| {
        let mut all = attributes(
            &[
                (0, KPROBE),
                (1, code.len() as u32),
                (6, u32::from(!log.is_empty())),
                (7, log.len() as u32),
                (11, if sleeps { SLEEPABLE } else { 0 }),
                (17, if multi { UPROBE_MULTI } else { 0 }),
            ],
            &[(2, code.as_ptr() as u64), (4, licence.as_ptr() as u64)],
        );
        if let Some(functions) = functions {
            let list = functions.list.as_ptr() as u64;
            for (at, word) in [
                (18, functions.types.as_raw_fd() as u32),
                (19, size_of::<bpf_func_info>() as u32),
                (20, list as u32),
                (21, (list >> 32) as u32),
                (22, functions.list.len() as u32),
            ] {
                if let Some(place) = all.get_mut(at) {
                    *place = word;
                }
            }
        }
        if !log.is_empty() {
            for (at, half) in
                [(8, log.as_mut_ptr() as u64 as u32), (9, (log.as_mut_ptr() as u64 >> 32) as u32)]
            {
                if let Some(place) = all.get_mut(at) {
                    *place = half;
                }
            }
        }
        for (at, four) in short.chunks_exact(4).enumerate() {
            if let (Some(place), Ok(four)) = (all.get_mut(12 + at), four.try_into()) {
                *place = u32::from_ne_bytes(four);
            }
        }
        bpf_fd(PROG_LOAD, &all)
    };
    attempt(&mut []).map_err(|error| {
        let mut log = vec![0_u8; LOG];
        // The same again, only for the log.
        drop(attempt(&mut log));
        let text = String::from_utf8_lossy(&log);
        let text = text.trim_end_matches('\0');
        tracing::debug!("program {name} ({error}): {text}");
        let last: Vec<&str> =
            text.lines().rev().filter(|line| !line.starts_with("processed")).take(2).collect();
        (error, last.into_iter().rev().collect::<Vec<_>>().join(" "))
    })
}

/// Sets or removes a value of a map keyed by a number of four bytes.
pub(super) fn set(map: &OwnedFd, key: u32, value: Option<&[u8]>) -> io::Result<()> {
    let map = (0, map.as_raw_fd() as u32);
    let key = (2, &raw const key as u64);
    match value {
        Some(value) => bpf(MAP_UPDATE, &attributes(&[map], &[key, (4, value.as_ptr() as u64)])).map(drop),
        None => match bpf(MAP_DELETE, &attributes(&[map], &[key])) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        },
    }
}

/// Ways to attach that this kernel has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds {
    pub(super) multi: bool,
}

impl Kinds {
    /// Finds out. `without` is a fault on purpose.
    pub(super) fn try_out(without: bool) -> Self {
        Self { multi: !without && has_multi() }
    }

    pub(super) fn attach(
        self,
        program: &OwnedFd,
        path: &str,
        points: &[Point],
        returns: bool,
    ) -> io::Result<Links> {
        if self.multi {
            return multi(program, path, points, returns).map(|link| Links(vec![link]));
        }
        let kind = perf_kind()?;
        let mut links = Links::default();
        for point in points {
            links.0.extend(perf(program, kind, path, *point, returns)?);
        }
        Ok(links)
    }
}

/// A kernel with such links says of a folder that it is no file; one without does not know the command.
fn has_multi() -> bool {
    // r0 = 0; exit
    let code = [0xb7_u64, 0x95].map(|code| bpf_insn {
        code: code as u8,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    });
    let Ok(program) = load("trial", &code, c"GPL", false, true, None) else { return false };
    let point = Point { offset: 0, cookie: 0 };
    matches!(multi(&program, "/\0", &[point], false), Err(error) if error.raw_os_error() == Some(libc::EBADF))
}

fn multi(program: &OwnedFd, path: &str, points: &[Point], returns: bool) -> io::Result<OwnedFd> {
    let offsets: Vec<u64> = points.iter().map(|point| point.offset).collect();
    let cookies: Vec<u64> = points.iter().map(|point| point.cookie).collect();
    bpf_fd(
        LINK_CREATE,
        &attributes(
            &[
                (0, program.as_raw_fd() as u32),
                (2, UPROBE_MULTI),
                (12, points.len() as u32),
                (13, if returns { RETURNS } else { 0 }),
            ],
            &[(4, path.as_ptr() as u64), (6, offsets.as_ptr() as u64), (10, cookies.as_ptr() as u64)],
        ),
    )
}

/// Number of the kernel's source of such events.
fn perf_kind() -> io::Result<u32> {
    let text = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    text.trim().parse().map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

/// The event, and the link that puts the program on it (Linux 5.15: before, there are no cookies).
fn perf(program: &OwnedFd, kind: u32, path: &str, point: Point, returns: bool) -> io::Result<[OwnedFd; 2]> {
    /// `struct perf_event_attr` as of its fifth size, in words.
    const WORDS: usize = 28;
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    let mut event = [0_u32; WORDS];
    let address = path.as_ptr() as u64;
    let words = [
        (0, kind),
        (1, (WORDS * 4) as u32),
        (2, u32::from(returns)),
        (14, address as u32),
        (15, (address >> 32) as u32),
        (16, point.offset as u32),
        (17, (point.offset >> 32) as u32),
    ];
    for (at, word) in words {
        if let Some(place) = event.get_mut(at) {
            *place = word;
        }
    }
    // SAFETY: attributes and path are alive during the call; the size is as they say.
    #[expect(unsafe_code, reason = "system call")]
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, event.as_ptr(), -1, 0, -1, CLOSE_ON_EXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    #[expect(unsafe_code, reason = "kernel boundary")]
    let event = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    let words = [(0, program.as_raw_fd() as u32), (1, event.as_raw_fd() as u32), (2, PERF_EVENT)];
    let link = bpf_fd(LINK_CREATE, &attributes(&words, &[(4, point.cookie)]))?;
    Ok([link, event])
}

/// Attached probes. They are gone when this is dropped.
#[derive(Debug, Default)]
pub struct Links(Vec<OwnedFd>);

impl Links {
    /// How many descriptors it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is attached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Both as one.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Takes many away at once: for each the kernel waits until nobody is inside, and it can wait for several together.
    pub fn close(self) {
        // A thread that cannot be made drops its part here.
        let mut left = self.0;
        let part = left.len().div_ceil(CLOSERS).max(1);
        std::thread::scope(|scope| {
            while left.len() > part {
                let some = left.split_off(left.len() - part);
                let builder = std::thread::Builder::new().name("detach".into());
                drop(builder.spawn_scoped(scope, move || drop(some)));
            }
            drop(std::mem::take(&mut left));
        });
    }
}
