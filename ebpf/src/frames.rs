//! Frames of HTTP/2: a transfer in, the frames in it out, without the bodies that they carry.
//!
//! A walk over the bytes of a transfer, frame by frame. What is no DATA is copied, and of DATA the frame header and the
//! first bytes (a length of gRPC, say). The payload that results is a list of pieces: how many bytes follow, how many
//! are left out behind them, then the bytes. Where the direction stands within a frame is kept for its next transfer (`follow`).
//!
//! A walk that goes wrong costs bodies that are copied or heads that are not, never more: user space follows the frames
//! itself.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use spanwise_common::conn::State;
use spanwise_common::counters as count;
use spanwise_common::event::{Data, Kind, PIECE, flags};
use spanwise_common::limits::{MAX_PAYLOAD, MAX_SMALL_BODY};

use crate::conn::Stream;
use crate::emit::{Transfer, counters, header, output};
use crate::follow::{claim, followed, seed};
use crate::golang;
use crate::maps::{CONNS, SCRATCH, Scratch, Stride};
use crate::read::{masked, user_bytes};
use crate::user::{Place, place_transfer};

/// Steps of a walk for one record: a segment, a frame header and a payload take one each.
const STEPS: u32 = 96;
/// Records that one transfer may take.
const ROUNDS: u32 = 8;
/// Bytes of the payload that pieces may fill.
const ROOM: u32 = MAX_PAYLOAD as u32 - 1;
/// Transfers up to this length are copied as they are, where nothing speaks against it.
pub const PLAIN: u32 = 4096;
/// Bytes kept of a body that is not small: the length before a message.
pub const BODY_HEAD: u32 = 5;
/// Length of a frame header.
pub const HEADER: u32 = 9;
/// What a client sends before its first frame begins so.
const PREFACE: u64 = u64::from_ne_bytes(*b"PRI * HT");
/// The rest of that, behind what is as long as a frame header.
const PREFACE_REST: u32 = 24 - HEADER;

/// Number of segments where there is no list of them.
const SINGLE: u32 = Place::SINGLE as u32;

/// Bit of `lost`: the transfer was not read as frames.
pub const UNREAD: u32 = 1;
/// Bit of `lost`: nothing of what follows can be read.
pub const HALT: u32 = 2;

pub const BODY: u8 = 0;
/// Highest type that the protocol itself defines.
pub const CONTINUATION: u8 = 9;
/// Longest frame, other than of DATA, that is taken for one.
pub const LONGEST: u32 = 16 * 1024;

/// Ships the frames of the transfer in the scratch, which begins at `seq`. Bit 0 tells that it starts a burst, bit 1 that something
/// before it was not seen. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ship_transfer(seq: u32, bits: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // In place: a copy would take too much of the stack. Nothing here writes to it.
    // SAFETY: per-CPU scratch.
    let t = unsafe { &(*scratch).transfer };
    let Some(state) = CONNS.get_ptr_mut(&t.key) else { return 0 };
    // SAFETY: map values stay valid while the program runs.
    u32::from(ship(t, unsafe { &mut *state }, seq, bits & 1 != 0, bits & 2 != 0).is_some())
}

#[inline(always)]
fn ship(t: &Transfer, state: &mut State, seq: u32, starts: bool, unseen: bool) -> Option<()> {
    // SAFETY: per-CPU scratch.
    let scratch = unsafe { &mut *SCRATCH.get_ptr_mut(0)? };
    let counted = t.stream == Stream::Unix;
    let data = &mut scratch.data;
    data.header = header(Kind::DATA, 0, t.id);
    data.header.flags = (u16::from(starts) * flags::BURST_START)
        | (u16::from(counted) * flags::COUNTED_SEQ)
        | (u16::from(unseen & !counted) * flags::UNSEEN);
    data.cookie = t.key;
    data.seq = seq;
    data.len = t.moved;
    data.direction = t.direction.0;
    data.plane = t.plane;
    data.tail_len = 0;
    data.route = 0;
    let frames = &mut state.frames[usize::from(t.direction.0 & 1)];
    let walk = &raw mut scratch.stride;
    place_transfer();
    let place = scratch.place;
    // SAFETY: `walk` points into this CPU's scratch; volatile keeps it in memory (see `Walk`).
    unsafe {
        write_volatile(&raw mut (*walk).list, place.address);
        write_volatile(&raw mut (*walk).count, place.count as u32);
        write_volatile(&raw mut (*walk).index, 0);
        write_volatile(&raw mut (*walk).avail, 0);
        write_volatile(&raw mut (*walk).at, 0);
        write_volatile(&raw mut (*walk).process, t.bits);
        write_volatile(&raw mut (*walk).moved, t.moved);
        write_volatile(&raw mut (*walk).follows, frames.next.wrapping_sub(seq));
        write_volatile(&raw mut (*walk).keep, frames.keep);
        write_volatile(&raw mut (*walk).skip, frames.skip);
        write_volatile(&raw mut (*walk).have, u32::from(frames.have));
        write_volatile((&raw mut (*walk).head).cast::<u64>(), u64::from_ne_bytes(frames.head));
        let mut number = frames.walk;
        if frames.next != seq || number == 0 {
            // A frame is supposed to begin here. User space finds out whether that is so.
            frames.left = 0;
            frames.part = 0;
            number = bpf_ktime_get_boot_ns() as u32 | 1;
        }
        write_volatile(&raw mut (*walk).walk, number);
        write_volatile(&raw mut (*walk).left, frames.left);
        write_volatile(&raw mut (*walk).part, u32::from(frames.part));
        write_volatile(&raw mut (*walk).first, frames.first);
        write_volatile(&raw mut (*walk).body, u32::from(frames.body));
    }
    frames.next = seq.wrapping_add(t.moved);
    for round in 1..=ROUNDS {
        if ship_frames(u32::from(round == ROUNDS)) == 0 {
            break;
        }
    }
    // SAFETY: as above.
    unsafe {
        frames.keep = read_volatile(&raw const (*walk).keep);
        frames.skip = read_volatile(&raw const (*walk).skip);
        frames.have = read_volatile(&raw const (*walk).have) as u8;
        frames.head = read_volatile((&raw const (*walk).head).cast::<u64>()).to_ne_bytes();
        frames.left = read_volatile(&raw const (*walk).left);
        frames.walk = read_volatile(&raw const (*walk).walk);
        frames.part = read_volatile(&raw const (*walk).part) as u8;
        frames.first = read_volatile(&raw const (*walk).first);
        frames.body = read_volatile(&raw const (*walk).body) as u8;
    }
    Some(())
}

/// Walks over what stands in the scratch, and ships what one record can hold; `last`: no other will follow. Not zero if
/// there is more. A global function: the verifier looks at it once, and not for every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ship_frames(last: u32) -> u32 {
    let (Some(scratch), Some(counters)) = (SCRATCH.get_ptr_mut(0), counters()) else { return 0 };
    // SAFETY: per-CPU scratch.
    let scratch = unsafe { &mut *scratch };
    let walk = &raw mut scratch.stride;
    begin(walk);
    let claim = claim(walk);
    ship_steps();
    // SAFETY: as above.
    let (start, at, moved, out, found, more, process) = unsafe {
        end_piece(&raw mut scratch.payload, walk);
        let at = read_volatile(&raw const (*walk).at);
        let moved = read_volatile(&raw const (*walk).moved);
        let found = read_volatile(&raw const (*walk).found) as u16;
        let lost = read_volatile(&raw const (*walk).lost);
        let more = u32::from(at != moved && lost & HALT == 0 && last == 0);
        if more == 0 {
            followed(walk, at == moved && found & flags::FAULT == 0);
        }
        if more == 0 && (at != moved || lost != 0) {
            write_volatile(&raw mut (*walk).keep, 0);
            write_volatile(&raw mut (*walk).skip, 0);
            write_volatile(&raw mut (*walk).have, 0);
        }
        let start = read_volatile(&raw const (*walk).start);
        (
            start,
            at,
            moved,
            read_volatile(&raw const (*walk).out),
            found,
            more,
            read_volatile(&raw const (*walk).process),
        )
    };
    let end = if more == 0 { moved } else { at };
    let data = &mut scratch.data;
    let mut told = 0;
    if claim >> 32 != 0 {
        data.tail = claim.to_ne_bytes();
        told = flags::AHEAD;
    }
    if start != 0 {
        // A record like that of another transfer, which follows the first.
        counters[count::SEEN as usize] += 1;
        data.header.flags &= flags::COUNTED_SEQ;
    }
    if found & flags::FAULT != 0 {
        counters[count::FAULT as usize] += 1;
    }
    let size = size_of::<Data>() as u32 + out;
    data.header.flags |= found | told | (u16::from(at != end) * flags::CUT);
    data.header.size = size;
    golang::task_of_record(data, process);
    data.len = end.wrapping_sub(start);
    data.captured = out;
    let size = masked(size, 2 * MAX_PAYLOAD as u32 - 1);
    if output((scratch as *const Scratch).cast(), size) {
        counters[count::SHIPPED as usize] += 1;
        counters[count::BYTES_SHIPPED as usize] += u64::from(out);
    } else {
        counters[count::RING_FULL as usize] += 1;
        counters[count::RING_FULL_DATA as usize] += 1;
    }
    scratch.data.seq = scratch.data.seq.wrapping_add(end.wrapping_sub(start));
    more
}

/// Prepares the walk of one record.
#[inline(always)]
fn begin(walk: *mut Stride) {
    // SAFETY: the caller's `walk` is in the scratch.
    unsafe {
        let at = read_volatile(&raw const (*walk).at);
        write_volatile(&raw mut (*walk).start, at);
        write_volatile(&raw mut (*walk).mark, 0);
        write_volatile(&raw mut (*walk).out, PIECE);
        write_volatile(&raw mut (*walk).skipped, 0);
        write_volatile(&raw mut (*walk).found, u32::from(flags::PIECES));
        if at != 0 {
            return;
        }
        write_volatile(&raw mut (*walk).lost, 0);
        let moved = read_volatile(&raw const (*walk).moved);
        let count = read_volatile(&raw const (*walk).count);
        if count == SINGLE {
            write_volatile(&raw mut (*walk).base, read_volatile(&raw const (*walk).list));
            write_volatile(&raw mut (*walk).avail, moved);
        }
        if count == 0 {
            write_volatile(&raw mut (*walk).found, u32::from(flags::PIECES | flags::NO_BUFFER));
        }
        if read_volatile(&raw const (*walk).follows) != 0 {
            // What came between was not seen.
            write_volatile(&raw mut (*walk).keep, 0);
            write_volatile(&raw mut (*walk).skip, 0);
            write_volatile(&raw mut (*walk).have, 0);
        }
        seed(walk, moved);
        let within = read_volatile(&raw const (*walk).keep)
            | read_volatile(&raw const (*walk).skip)
            | read_volatile(&raw const (*walk).have);
        if within == 0 && moved <= PLAIN {
            write_volatile(&raw mut (*walk).keep, moved);
            write_volatile(&raw mut (*walk).lost, UNREAD);
        }
    }
}

/// Writes down the piece that is being put together.
#[inline(always)]
unsafe fn end_piece(payload: *mut [u8; MAX_PAYLOAD * 2], walk: *mut Stride) {
    // SAFETY: the caller's `walk` is in the scratch; eight bytes behind a masked offset are in the payload's room.
    unsafe {
        let mark = read_volatile(&raw const (*walk).mark);
        let out = read_volatile(&raw const (*walk).out);
        let skipped = read_volatile(&raw const (*walk).skipped);
        let kept = out.wrapping_sub(mark).wrapping_sub(PIECE);
        let at = payload.cast::<u8>().add(masked(mark, MAX_PAYLOAD as u32 - 1) as usize);
        // Not aligned: what was kept has any length.
        at.cast::<[u8; 8]>().write_unaligned((u64::from(skipped) << 32 | u64::from(kept)).to_ne_bytes());
    }
}

/// All steps of one record. On its own, so that what follows is looked at once and not for each step that may be the last.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ship_steps() -> u32 {
    for _ in 0..STEPS {
        if ship_step() == 0 {
            return 0;
        }
    }
    1
}

/// One step. Zero at the end, and where the walk can't go on. A global function, so that the verifier looks at one step and not at
/// every way through all of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ship_step() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    u32::from(step(unsafe { &mut *scratch }))
}

#[inline(always)]
fn step(scratch: &mut Scratch) -> bool {
    let walk = &raw mut scratch.stride;
    // SAFETY: `walk` points into this CPU's scratch. Every length and offset is masked to what its buffer holds.
    unsafe {
        let avail = read_volatile(&raw const (*walk).avail);
        if avail == 0 {
            return segment(walk, &raw mut scratch.iov);
        }
        let keep = read_volatile(&raw const (*walk).keep);
        if keep == 0 && read_volatile(&raw const (*walk).skip) != 0 {
            leave_out(walk);
            return true;
        }
        let mut out = read_volatile(&raw const (*walk).out);
        if out >= ROOM - PIECE - HEADER {
            return false;
        }
        let base = read_volatile(&raw const (*walk).base);
        if keep == 0 {
            if read_volatile(&raw const (*walk).skipped) != 0 {
                end_piece(&raw mut scratch.payload, walk);
                write_volatile(&raw mut (*walk).mark, out);
                write_volatile(&raw mut (*walk).skipped, 0);
                out += PIECE;
            }
            let have = read_volatile(&raw const (*walk).have);
            let len = masked(least(HEADER.wrapping_sub(have), avail), 15);
            let place = (&raw mut (*walk).head).cast::<u8>().add(masked(have, 15) as usize);
            let into = scratch.payload.as_mut_ptr().add(masked(out, MAX_PAYLOAD as u32 - 1) as usize);
            if !user_bytes(place, len, base) || !user_bytes(into, len, base) {
                write_volatile(&raw mut (*walk).found, u32::from(flags::PIECES | flags::FAULT));
                write_volatile(&raw mut (*walk).lost, HALT);
                return false;
            }
            write_volatile(&raw mut (*walk).out, out.wrapping_add(len));
            write_volatile(&raw mut (*walk).have, have + len);
            advance(walk, len);
            if have + len >= HEADER {
                frame_header(walk);
            }
            return true;
        }
        let into = scratch.payload.as_mut_ptr().add(masked(out, MAX_PAYLOAD as u32 - 1) as usize);
        let len = masked(least(least(keep, avail), ROOM - out), MAX_PAYLOAD as u32 - 1);
        if !user_bytes(into, len, base) {
            write_volatile(&raw mut (*walk).found, u32::from(flags::PIECES | flags::FAULT));
            write_volatile(&raw mut (*walk).lost, HALT);
            return false;
        }
        write_volatile(&raw mut (*walk).keep, keep.wrapping_sub(len));
        write_volatile(&raw mut (*walk).out, out.wrapping_add(len));
        advance(walk, len);
        if keep == len {
            leave_out(walk);
        }
    }
    true
}

/// Leaves out what is to be left out of the frame, as far as the segment goes.
#[inline(always)]
unsafe fn leave_out(walk: *mut Stride) {
    // SAFETY: as in `step`.
    unsafe {
        let skip = read_volatile(&raw const (*walk).skip);
        let len = least(skip, read_volatile(&raw const (*walk).avail));
        write_volatile(&raw mut (*walk).skip, skip.wrapping_sub(len));
        let skipped = read_volatile(&raw const (*walk).skipped);
        write_volatile(&raw mut (*walk).skipped, skipped.wrapping_add(len));
        advance(walk, len);
    }
}

/// A frame header is there.
#[inline(always)]
unsafe fn frame_header(walk: *mut Stride) {
    // SAFETY: as in `step`.
    unsafe {
        let head = read_volatile((&raw const (*walk).head).cast::<u64>());
        let len = ((head & 0xff) << 16 | head & 0xff00 | (head >> 16) & 0xff) as u32;
        let kind = (head >> 24) as u8;
        let reserved = (head >> 40) as u8 & 0x80 != 0;
        write_volatile(&raw mut (*walk).have, 0);
        if kind == BODY && !reserved {
            let keep = if len <= MAX_SMALL_BODY { len } else { BODY_HEAD };
            write_volatile(&raw mut (*walk).keep, keep);
            write_volatile(&raw mut (*walk).skip, len.wrapping_sub(keep));
        } else if head == PREFACE {
            write_volatile(&raw mut (*walk).keep, PREFACE_REST);
        } else if kind <= CONTINUATION && len <= LONGEST && !reserved {
            write_volatile(&raw mut (*walk).keep, len);
        } else {
            // No frame: whatever comes is copied as far as there is room.
            write_volatile(&raw mut (*walk).keep, u32::MAX);
            write_volatile(&raw mut (*walk).lost, HALT);
        }
    }
}

/// The lesser of two numbers, without a branch.
#[inline(always)]
pub fn least(a: u32, b: u32) -> u32 {
    let mut less = u64::from(a);
    // SAFETY: plain arithmetic: the difference, kept only where it is negative, and added back.
    unsafe {
        core::arch::asm!(
            "{r} -= {b}",
            "{t} = {r}",
            "{t} s>>= 63",
            "{r} &= {t}",
            "{r} += {b}",
            r = inout(reg) less,
            b = in(reg) u64::from(b),
            t = out(reg) _,
        );
    }
    less as u32
}

/// Goes to the next segment. False if there is none, or nothing left of the transfer.
#[inline(always)]
unsafe fn segment(walk: *mut Stride, pair: *mut [[u64; 2]; 64]) -> bool {
    // SAFETY: as in `step`; sixteen bytes into the array.
    unsafe {
        let index = read_volatile(&raw const (*walk).index);
        let count = read_volatile(&raw const (*walk).count);
        let left = read_volatile(&raw const (*walk).moved).wrapping_sub(read_volatile(&raw const (*walk).at));
        if index >= count || count == SINGLE || left == 0 {
            let lost = read_volatile(&raw const (*walk).lost);
            write_volatile(&raw mut (*walk).lost, lost | if left == 0 { 0 } else { HALT });
            return false;
        }
        let list = read_volatile(&raw const (*walk).list);
        let got = user_bytes(pair.cast(), 16, list + u64::from(index) * 16);
        let base = read_volatile(&raw const (*pair)[0][0]);
        let len = read_volatile(&raw const (*pair)[0][1]);
        write_volatile(&raw mut (*walk).index, index + 1);
        write_volatile(&raw mut (*walk).base, base);
        // No call moves more than 2 GiB.
        write_volatile(&raw mut (*walk).avail, least(len as u32, left));
        if !got {
            write_volatile(&raw mut (*walk).lost, HALT);
        }
        got
    }
}

/// Goes on by `len` bytes of the segment.
#[inline(always)]
unsafe fn advance(walk: *mut Stride, len: u32) {
    // SAFETY: as in `step`.
    unsafe {
        let base = read_volatile(&raw const (*walk).base);
        let avail = read_volatile(&raw const (*walk).avail);
        let at = read_volatile(&raw const (*walk).at);
        write_volatile(&raw mut (*walk).base, base + u64::from(len));
        write_volatile(&raw mut (*walk).avail, avail.wrapping_sub(len));
        write_volatile(&raw mut (*walk).at, at + len);
    }
}
