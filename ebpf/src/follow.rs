//! Where frames of HTTP/2 begin: a transfer that was walked over, or copied as it is, in; how far it is to the next frame out.
//!
//! Each record says so of its first byte. When records are lost, user space goes on at the next frame that is not lost, and need not
//! guess where it begins. It believes a walk that was right about it before: whoever knows one boundary and all lengths behind it knows
//! all. A walk that cannot go on ends, and another one begins, by another number.

use core::ptr::{read_volatile, write_volatile};

use spanwise_common::event::PIECE;
use spanwise_common::limits::MAX_PAYLOAD;

use crate::frames::{BODY, BODY_HEAD, CONTINUATION, HALT, HEADER, LONGEST, PLAIN, UNREAD, least};
use crate::maps::{SCRATCH, Stride};
use crate::read::masked;

/// Bytes of a frame header that tell length and kind.
const FIRST: u32 = 4;
/// Length of what a client says first.
const PREFACE: u32 = 24;
/// Frames of a transfer that are followed, where it is copied as it is.
const FOLLOWED: u32 = 96;

/// What the record is to say of the next frame: where it begins, and in the upper half the number of the walk. Zero if that is not known.
#[inline(always)]
pub fn claim(walk: *const Stride) -> u64 {
    // SAFETY: the caller's `walk` is in the scratch.
    unsafe {
        let number = u64::from(read_volatile(&raw const (*walk).walk));
        let at = read_volatile(&raw const (*walk).at);
        // What is copied as it is has been walked over when all of it is there.
        if at != 0 && read_volatile(&raw const (*walk).lost) & UNREAD != 0 {
            return 0;
        }
        let (ahead, split) = if at == 0 {
            (read_volatile(&raw const (*walk).left), read_volatile(&raw const (*walk).part))
        } else {
            let keep = read_volatile(&raw const (*walk).keep);
            (
                keep.wrapping_add(read_volatile(&raw const (*walk).skip)),
                read_volatile(&raw const (*walk).have),
            )
        };
        if split != 0 { 0 } else { number << 32 | u64::from(ahead) }
    }
}

/// A long transfer behind one that was copied as it is begins within its last frame.
#[inline(always)]
pub unsafe fn seed(walk: *mut Stride, moved: u32) {
    // SAFETY: the caller's `walk` is in the scratch.
    unsafe {
        let within = read_volatile(&raw const (*walk).keep)
            | read_volatile(&raw const (*walk).skip)
            | read_volatile(&raw const (*walk).have);
        if within != 0 || moved <= PLAIN {
            return;
        }
        let left = read_volatile(&raw const (*walk).left);
        let copied = if read_volatile(&raw const (*walk).body) != 0 { BODY_HEAD } else { LONGEST };
        let keep = least(left, copied);
        write_volatile(&raw mut (*walk).keep, keep);
        write_volatile(&raw mut (*walk).skip, left.wrapping_sub(keep));
        write_volatile(&raw mut (*walk).have, read_volatile(&raw const (*walk).part));
        let first = read_volatile(&raw const (*walk).first);
        write_volatile((&raw mut (*walk).head).cast::<[u8; 4]>(), first);
    }
}

/// Keeps where the transfer ended, `whole` if all of it was looked at.
#[inline(always)]
pub unsafe fn followed(walk: *mut Stride, whole: bool) {
    // SAFETY: the caller's `walk` is in the scratch.
    unsafe {
        let lost = read_volatile(&raw const (*walk).lost);
        let known = if !whole || lost & HALT != 0 {
            false
        } else if lost & UNREAD != 0 {
            // Of a transfer in several records only the last is still there.
            read_volatile(&raw const (*walk).start) == 0
                && follow_frames(read_volatile(&raw const (*walk).moved)) != 0
        } else {
            let have = read_volatile(&raw const (*walk).have);
            let keep = read_volatile(&raw const (*walk).keep);
            let head = read_volatile((&raw const (*walk).head).cast::<[u8; 4]>());
            let within = keep.wrapping_add(read_volatile(&raw const (*walk).skip));
            let begun = have >= FIRST;
            let left = if begun { length_in(head).wrapping_add(HEADER).wrapping_sub(have) } else { within };
            write_volatile(&raw mut (*walk).left, left);
            write_volatile(&raw mut (*walk).part, if begun { 0 } else { have });
            write_volatile(&raw mut (*walk).first, head);
            true
        };
        if !known {
            write_volatile(&raw mut (*walk).walk, 0);
        }
    }
}

/// Length of a frame by the first bytes of its header.
#[inline(always)]
fn length_in(first: [u8; 4]) -> u32 {
    u32::from(first[0]) << 16 | u32::from(first[1]) << 8 | u32::from(first[2])
}

/// Follows the frames of a transfer that was copied as it is; zero if there are too many, or something that is none. On its own, as the steps above are.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn follow_frames(len: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    unsafe { write_volatile(&raw mut (*scratch).stride.at, 0) };
    for _ in 0..FOLLOWED {
        match follow_frame(len) {
            NEXT => {}
            end => return u32::from(end == DONE),
        }
    }
    0
}

/// What [`follow_frame`] came to: the end, a frame, something else.
const DONE: u32 = 0;
const NEXT: u32 = 1;
const NONE: u32 = 2;

/// Goes on to the next frame header, and reads what of it tells length and kind. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn follow_frame(len: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return NONE };
    // SAFETY: per-CPU scratch; offsets into payload and header are masked to what they hold.
    unsafe {
        let walk = &raw mut (*scratch).stride;
        let mut at = read_volatile(&raw const (*walk).at);
        let mut left = read_volatile(&raw const (*walk).left);
        let step = least(left, len.wrapping_sub(at));
        at += step;
        left -= step;
        if at >= len {
            write_volatile(&raw mut (*walk).left, left);
            write_volatile(&raw mut (*walk).at, len);
            return DONE;
        }
        let copied = (&raw const (*scratch).payload).cast::<u8>();
        let place = copied.add(PIECE as usize + masked(at, MAX_PAYLOAD as u32 - 1) as usize);
        let part = read_volatile(&raw const (*walk).part);
        let (taken, first) = if part == 0 && len - at >= FIRST {
            (FIRST, place.cast::<[u8; 4]>().read_unaligned())
        } else {
            let byte = place.read_volatile();
            (&raw mut (*walk).first).cast::<u8>().add(masked(part, FIRST - 1) as usize).write_volatile(byte);
            (1, read_volatile(&raw const (*walk).first))
        };
        write_volatile(&raw mut (*walk).at, at + taken);
        if part + taken < FIRST {
            write_volatile(&raw mut (*walk).part, part + taken);
            write_volatile(&raw mut (*walk).left, 0);
            return NEXT;
        }
        let left = if u32::from_ne_bytes(first) == u32::from_ne_bytes(*b"PRI ") {
            PREFACE - FIRST
        } else {
            // The walk may have begun within a frame: what it would pass over then is believed by whoever walks on.
            if first[3] > CONTINUATION || first[3] != BODY && length_in(first) > LONGEST {
                return NONE;
            }
            length_in(first) + HEADER - FIRST
        };
        write_volatile(&raw mut (*walk).part, 0);
        write_volatile(&raw mut (*walk).left, left);
        write_volatile(&raw mut (*walk).body, u32::from(first[3] == BODY));
    }
    NEXT
}
