//! The records that pass a socket, as far as they begin and end in a transfer. Comes in: a transfer. Goes out: the last bytes of each
//! record, and the position behind it.
//!
//! Where the next record begins is remembered; if it was not, the transfer's beginning is taken for the beginning of one. A wrong
//! guess finds bytes that nothing is looked up by.

use spanwise_common::event::Direction;

use super::maps::BOUNDARIES;
use super::records;
use super::rustls::rustls_passed;
use crate::conn::Stream;
use crate::emit::Transfer;
use crate::maps::{Passing, SCRATCH};
use crate::read::word;
use crate::user::{Call, nr};

pub use super::records::record_at;

/// Bytes of a record's header, and of the end of one that is kept.
const HEADER: u32 = 5;
const TAG: u32 = 8;
/// Records and pieces of a transfer that are looked at.
const STEPS: u32 = 8;

/// Goes through the transfer in the scratch. A global function: the verifier looks at it once, and not for every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rustls_moved() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let (t, call) = unsafe { (&(*scratch).transfer, &(*scratch).call) };
    u32::from(records(t, call).is_some())
}

#[inline(always)]
fn records(t: &Transfer, call: &Call) -> Option<()> {
    let (mut address, mut together) = records::first_bytes(call, t.moved)?;
    let send = t.direction == Direction::SEND;
    let first = match t.stream {
        Stream::Tcp if send => t.seqs.write.wrapping_sub(t.moved),
        Stream::Tcp => t.seqs.copied.wrapping_sub(t.moved),
        Stream::Unix => 0,
    };
    // Bytes of the transfer that are done.
    let mut done = 0;
    if !send && t.stream == Stream::Tcp {
        // SAFETY: copied at once.
        if let Some(next) = unsafe { BOUNDARIES.get(&t.key) }.copied() {
            let ahead = next.wrapping_sub(first);
            if ahead < 1 << 20 {
                if ahead > t.moved {
                    return None;
                }
                if ahead >= TAG && ahead <= together {
                    rustls_passed(word(address + u64::from(ahead - TAG))?, next);
                }
                done = ahead;
                address += u64::from(ahead);
                together = together.saturating_sub(ahead);
            }
        }
    }
    // SAFETY: per-CPU scratch.
    let passing = unsafe { &raw mut (*SCRATCH.get_ptr_mut(0)?).passing };
    let list = segments(call).unwrap_or(0);
    // SAFETY: `passing` points into this CPU's scratch.
    unsafe { passing.write(Passing { address, list, first, together, done, piece: 1 }) };
    rustls_pass();
    Some(())
}

/// All steps. On its own, so that the verifier looks at what follows once and not for each step that may be the last.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rustls_pass() -> u32 {
    for _ in 0..STEPS {
        if rustls_step() == 0 {
            return 0;
        }
    }
    1
}

/// One record or piece of the transfer in the scratch. Zero at the end. A global function: the verifier looks at one step.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rustls_step() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let (t, passing) = unsafe { (&(*scratch).transfer, &mut (*scratch).passing) };
    u32::from(step(t, passing).is_some())
}

#[inline(always)]
fn step(t: &Transfer, passing: &mut Passing) -> Option<()> {
    let left = t.moved.checked_sub(passing.done).filter(|left| *left != 0)?;
    if passing.together == 0 {
        if passing.list == 0 {
            return None;
        }
        // The next piece of a list.
        let at = passing.list + u64::from(passing.piece) * 16;
        passing.piece += 1;
        passing.address = word(at)?;
        let len = word(at + 8)?;
        passing.together = if len < u64::from(left) { len as u32 } else { left };
        return Some(());
    }
    let begin = passing.first.wrapping_add(passing.done);
    let together = passing.together;
    let whole = rustls_record(passing.address, together, begin);
    if t.direction != Direction::SEND && whole != 0 && (whole > together || whole >= left) {
        let _ = BOUNDARIES.insert(&t.key, &begin.wrapping_add(whole), 0);
    }
    if whole == 0 || whole > together {
        return None;
    }
    passing.done += whole;
    passing.address += u64::from(whole);
    passing.together = together - whole;
    Some(())
}

/// Length of the record at an address of user memory, where so many bytes are together, and which begins at this position; zero if there
/// is none. If all of it is there, it passed. A global function too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rustls_record(address: u64, together: u32, begin: u32) -> u32 {
    if together < HEADER {
        return 0;
    }
    let Some((_, len)) = record_at(address) else { return 0 };
    let whole = HEADER + len;
    if whole <= together
        && len >= TAG
        && let Some(tag) = word(address + u64::from(whole - TAG))
    {
        rustls_passed(tag, begin.wrapping_add(whole));
    }
    whole
}

/// Address of the list of pieces, if the call has one.
#[inline(always)]
fn segments(call: &Call) -> Option<u64> {
    match call.nr {
        nr::READV | nr::WRITEV | nr::PREADV2 | nr::PWRITEV2 => Some(call.si),
        nr::SENDMSG | nr::RECVMSG => word(call.si + 16),
        _ => None,
    }
}
