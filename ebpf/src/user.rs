//! Where the bytes of a transfer are in user memory, and copying the first of them.
//!
//! The number and arguments of the system call stand in the saved user registers, so one piece of code serves
//! every plane that runs inside the call.
//!
//! What reads user memory are global functions, which talk through this CPU's scratch: the verifier looks at each of them once,
//! and not for every way that leads to it.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs};
use spanwise_common::config::feature;
use spanwise_common::event::flags;
use spanwise_common::limits::{MAX_IOVEC, MAX_PAYLOAD, TAIL};

use crate::maps::{SCRATCH, Scratch, VECTORS, Vector};
use crate::offsets::{
    OFF_REGS_CS, OFF_REGS_DI, OFF_REGS_DX, OFF_REGS_ORIG_AX, OFF_REGS_R10, OFF_REGS_SI, OFF_REGS_SS,
    OFF_TASK_STACK, has,
};
use crate::read::{direct, masked, probed, user_bytes};

/// System call numbers (x86-64).
pub mod nr {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDFILE: u64 = 40;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const SPLICE: u64 = 275;
    pub const RECVMMSG: u64 = 299;
    pub const SENDMMSG: u64 = 307;
    pub const PREADV2: u64 = 327;
    pub const PWRITEV2: u64 = 328;
}

/// Code segment of 64-bit user code.
const USER64_CS: u64 = 0x33;
/// Size of a kernel stack on x86-64. Where it is not, the code segment read there is not one.
pub const STACK_SIZE: u64 = 16 * 1024;

/// A system call under way: its number and arguments.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// Number.
    pub nr: u64,
    /// First argument: the file descriptor in every call we know but splice.
    pub di: u64,
    /// Second argument.
    pub si: u64,
    /// Third argument.
    pub dx: u64,
    /// Fourth argument.
    pub r10: u64,
}

/// Number of no system call.
const NONE: u64 = u64::MAX;

/// Where the bytes of a transfer are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Place {
    /// Address of the bytes, or of the list of segments.
    pub address: u64,
    /// Number of segments, `SINGLE` for one stretch of memory, zero if the bytes are out of reach.
    pub count: u64,
}

impl Place {
    /// Number of segments where there is no list of them.
    pub const SINGLE: u64 = u32::MAX as u64;
    const NOWHERE: Self = Self { address: 0, count: 0 };

    #[inline(always)]
    const fn buffer(address: u64) -> Self {
        Self { address, count: Self::SINGLE }
    }

    /// No list has as many segments as stand for none; the kernel takes 1024.
    #[inline(always)]
    const fn segments(address: u64, count: u64) -> Self {
        Self { address, count: count & 0xffff }
    }
}

impl Call {
    /// No call, or one that says nothing about where the bytes are.
    pub const NOTHING: Self = Self { nr: NONE, di: 0, si: 0, dx: 0, r10: 0 };

    /// The system call that the current thread is in; none for kernel threads and 32-bit code.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        if !has(feature::TASK_REGS) {
            return Self::from_stack();
        }
        // SAFETY: both helpers take and return what the verifier tracks; the loads are of `pt_regs` members.
        unsafe {
            let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8;
            Self::from_regs(regs)
        }
    }

    /// The same from the top of the task's kernel stack, where entry code saves the registers.
    #[inline(always)]
    pub fn from_stack() -> Option<Self> {
        // SAFETY: helper reads of any address.
        unsafe {
            let stack = probed::<u64>(bpf_get_current_task(), &OFF_TASK_STACK)?;
            let regs = stack + STACK_SIZE - 8 - u64::from(OFF_REGS_SS.load());
            if probed::<u64>(regs, &OFF_REGS_CS)? & 0xffff != USER64_CS {
                return None;
            }
            Some(Self {
                nr: probed::<u64>(regs, &OFF_REGS_ORIG_AX)?,
                di: probed::<u64>(regs, &OFF_REGS_DI)?,
                si: probed::<u64>(regs, &OFF_REGS_SI)?,
                dx: probed::<u64>(regs, &OFF_REGS_DX)?,
                r10: probed::<u64>(regs, &OFF_REGS_R10)?,
            })
        }
    }

    /// The same from registers that a hook hands over.
    #[inline(always)]
    pub unsafe fn from_regs(regs: *const u8) -> Option<Self> {
        // SAFETY: `regs` is a `pt_regs` pointer for the verifier.
        unsafe {
            if direct::<u64>(regs, &OFF_REGS_CS)? & 0xffff != USER64_CS {
                return None;
            }
            Some(Self {
                nr: direct::<u64>(regs, &OFF_REGS_ORIG_AX)?,
                di: direct::<u64>(regs, &OFF_REGS_DI)?,
                si: direct::<u64>(regs, &OFF_REGS_SI)?,
                dx: direct::<u64>(regs, &OFF_REGS_DX)?,
                r10: direct::<u64>(regs, &OFF_REGS_R10)?,
            })
        }
    }

    /// Whether this is a call that moves bytes of the socket in its first argument.
    #[inline(always)]
    pub fn is_transfer(&self) -> bool {
        matches!(
            self.nr,
            nr::READ
                | nr::WRITE
                | nr::READV
                | nr::WRITEV
                | nr::SENDTO
                | nr::RECVFROM
                | nr::SENDMSG
                | nr::RECVMSG
                | nr::SENDMMSG
                | nr::RECVMMSG
                | nr::PREADV2
                | nr::PWRITEV2
        )
    }

    /// Where the bytes of a transfer of the thread are.
    #[inline(always)]
    fn place(&self, thread: u64) -> Place {
        match self.nr {
            nr::READ | nr::WRITE | nr::SENDTO | nr::RECVFROM => Place::buffer(self.si),
            nr::READV | nr::WRITEV | nr::PREADV2 | nr::PWRITEV2 => Place::segments(self.si, self.dx),
            nr::SENDMSG | nr::RECVMSG => message(self.si),
            nr::SENDMMSG | nr::RECVMMSG => {
                let index = vector_index(self.si, self.dx, thread);
                message(self.si + u64::from(index) * 64)
            }
            _ => Place::NOWHERE,
        }
    }
}

/// Segments of a `struct user_msghdr`.
#[inline(always)]
fn message(address: u64) -> Place {
    let mut pair = [0u64; 2];
    // SAFETY: 16 bytes into an array of 16; msg_iov is at 16, msg_iovlen at 24.
    if unsafe { user_bytes(pair.as_mut_ptr().cast(), 16, address + 16) } {
        Place::segments(pair[0], pair[1])
    } else {
        Place::NOWHERE
    }
}

/// Which message of a sendmmsg/recvmmsg vector this transfer is: one hook fires for each message, and a call
/// ends with its last message or with one that failed (which fires too, and resets the count).
#[inline(always)]
fn vector_index(base: u64, count: u64, thread: u64) -> u32 {
    let mut index = 0;
    // SAFETY: the value is copied at once.
    if let Some(known) = unsafe { VECTORS.get(&thread) }
        && known.base == base
    {
        index = known.index;
    }
    let next = index + 1;
    if u64::from(next) >= count {
        let _ = VECTORS.remove(&thread);
    } else {
        let _ = VECTORS.insert(&thread, &Vector { base, index: next, pad: 0 }, 0);
    }
    index
}

/// A failed message of a vector ends the call.
#[inline(always)]
pub fn vector_ends(thread: u64) {
    let _ = VECTORS.remove(&thread);
}

/// Finds where the bytes of the transfer in the scratch are. To be called once for a transfer: it counts the messages of a vector.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn place_transfer() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let scratch = unsafe { &mut *scratch };
    scratch.place = scratch.call.place(scratch.transfer.id);
    1
}

/// Copies the first `want` bytes of the transfer in the scratch from its place into the record, and its last ones if not all were
/// wanted. Returns the bytes captured, and leaves flags in `walk.found`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_transfer(want: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let scratch = unsafe { &mut *scratch };
    let place = scratch.place;
    let moved = scratch.transfer.moved;
    let (captured, found) = match place.count {
        0 => (0, flags::NO_BUFFER),
        Place::SINGLE => capture_buffer(scratch, place.address, moved, want),
        count => capture_segments(scratch, place.address, count, moved, want),
    };
    scratch.walk.found = u32::from(found);
    captured
}

#[inline(always)]
fn capture_buffer(scratch: &mut Scratch, address: u64, moved: u32, want: u32) -> (u32, u16) {
    let mut found = 0;
    let mut captured = 0;
    if want > 0 {
        let len = masked(want, MAX_PAYLOAD as u32 - 1);
        // SAFETY: `len` is below MAX_PAYLOAD by the mask.
        if unsafe { user_bytes(scratch.payload.as_mut_ptr(), len, address) } {
            captured = len;
        } else {
            found |= flags::FAULT;
        }
    }
    if captured < moved {
        let len = masked(if moved < TAIL as u32 { moved } else { TAIL as u32 }, 15);
        let offset = masked(TAIL as u32 - len, 7);
        let from = address + u64::from(moved) - u64::from(len);
        // SAFETY: at most 7 + 15 bytes into an array of 24.
        if unsafe { user_bytes(scratch.tail.as_mut_ptr().add(offset as usize), len, from) } {
            keep_tail(scratch, len);
        }
    }
    (captured, found)
}

/// The tail stands at the end of its field, however short the transfer was.
#[inline(always)]
fn keep_tail(scratch: &mut Scratch, len: u32) {
    // SAFETY: eight bytes of an array of 24.
    let tail = unsafe { read_volatile((&raw const scratch.tail).cast::<u64>()) };
    scratch.data.tail = tail.to_ne_bytes();
    scratch.data.tail_len = len as u8;
}

#[inline(always)]
fn capture_segments(scratch: &mut Scratch, address: u64, count: u64, moved: u32, want: u32) -> (u32, u16) {
    let mut found = 0;
    let listed = if count > MAX_IOVEC as u64 {
        found |= flags::MORE_SEGMENTS;
        MAX_IOVEC as u32
    } else {
        count as u32
    };
    // A mask alone bounds it, without a comparison: Linux 5.10 does not carry what a comparison found over to the register
    // that the helper is given.
    let bytes = masked(listed * 16, 0x3ff);
    // SAFETY: at most 1023 bytes into an array of 1024.
    if !unsafe { user_bytes(scratch.iov.as_mut_ptr().cast(), bytes, address) } {
        return (0, found | flags::FAULT);
    }
    let walk = &raw mut scratch.walk;
    // SAFETY: `walk` points into this CPU's scratch; volatile keeps it in memory (see `Walk`).
    unsafe {
        write_volatile(&raw mut (*walk).captured, 0);
        write_volatile(&raw mut (*walk).at, 0);
        write_volatile(&raw mut (*walk).found, u32::from(found));
        write_volatile(&raw mut (*walk).moved, moved);
        write_volatile(&raw mut (*walk).want, want);
        let tail_from = if want >= moved {
            moved // all of it is wanted, so no tail is needed
        } else {
            moved.saturating_sub(TAIL as u32)
        };
        write_volatile(&raw mut (*walk).tail_from, tail_from);
    }
    capture_listed(listed);
    // SAFETY: as above.
    unsafe { (read_volatile(&raw const (*walk).captured), read_volatile(&raw const (*walk).found) as u16) }
}

/// All segments of a list. On its own, so that what follows is looked at once and not for each segment that may be the last.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_listed(listed: u32) -> u32 {
    for index in 0..MAX_IOVEC as u32 {
        if index >= listed || capture_segment(index) == 0 {
            return 0;
        }
    }
    1
}

/// One segment: copies what is wanted of it, and what of the transfer's tail lies in it. Zero at the end.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_segment(index: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    u32::from(segment(unsafe { &mut *scratch }, masked(index, MAX_IOVEC as u32 - 1) as usize))
}

#[inline(always)]
fn segment(scratch: &mut Scratch, index: usize) -> bool {
    let walk = &raw mut scratch.walk;
    // SAFETY: `walk` points into this CPU's scratch. Every length and offset is masked to what its buffer holds.
    unsafe {
        let at = read_volatile(&raw const (*walk).at);
        let moved = read_volatile(&raw const (*walk).moved);
        if at >= moved {
            return false;
        }
        let pair = (&raw const scratch.iov).cast::<[u64; 2]>().add(index);
        let base = read_volatile(&raw const (*pair)[0]);
        let length = read_volatile(&raw const (*pair)[1]);
        let left = moved - at;
        let length = if length > u64::from(left) { left } else { length as u32 };
        let captured = read_volatile(&raw const (*walk).captured);
        let want = read_volatile(&raw const (*walk).want);
        if captured < want && captured == at {
            let room = want - captured;
            let take = masked(if room > length { length } else { room }, MAX_PAYLOAD as u32 - 1);
            let offset = masked(captured, MAX_PAYLOAD as u32 - 1);
            if take > 0 {
                if user_bytes(scratch.payload.as_mut_ptr().add(offset as usize), take, base) {
                    write_volatile(&raw mut (*walk).captured, captured + take);
                } else {
                    let found = read_volatile(&raw const (*walk).found);
                    write_volatile(&raw mut (*walk).found, found | u32::from(flags::FAULT));
                }
            }
        }
        let end = at + length;
        let tail_from = read_volatile(&raw const (*walk).tail_from);
        if end > tail_from {
            let from = if at > tail_from { at } else { tail_from };
            let take = masked(end - from, 15);
            let offset = masked(from - tail_from + (TAIL as u32).saturating_sub(moved), 7);
            if take > 0 {
                user_bytes(scratch.tail.as_mut_ptr().add(offset as usize), take, base + u64::from(from - at));
            }
            if end >= moved {
                keep_tail(scratch, if moved < TAIL as u32 { moved } else { TAIL as u32 });
            }
        }
        write_volatile(&raw mut (*walk).at, end);
    }
    true
}
