//! ClientHellos: their random number is in clear on the socket and stands in the library's object. Equal numbers join objects that
//! do not read and write their sockets themselves (memory BIOs).

use spanwise_common::conn::{Info, known};
use spanwise_common::event::Direction;
use spanwise_common::place::{own, place};
use spanwise_common::tls::{DIRECT, RANDOM, THROUGH, call};

use super::maps::{HELLOS, Hello, Object, Seen};
use super::object::{self, bit};
use crate::conn::Stream;
use crate::emit::Transfer;
use crate::maps::{CONNS, SCRATCH};
use crate::read::word;

/// Bytes of a ClientHello up to the middle of its random number.
const ENOUGH: u32 = 27;

/// Type of the records that a handshake begins with.
pub const HANDSHAKE: u8 = 22;

/// Takes note of the beginning of a handshake, and of the random number of a ClientHello, in the first bytes of the transfer in the
/// scratch. `captured` of them are this transfer's, `seq` is the position of the first. A global function: the verifier looks at it
/// once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_hello(captured: u32, seq: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let (t, bytes) = unsafe { (&(*scratch).transfer, &(*scratch).payload) };
    let Some(state) = CONNS.get_ptr_mut(&t.key) else { return 0 };
    // SAFETY: map values stay valid while the program runs; a race on one connection costs its name at worst.
    u32::from(note(t, bytes, captured, seq, unsafe { &mut (*state).info }).is_some())
}

#[inline(always)]
fn note(t: &Transfer, bytes: &[u8], captured: u32, seq: u32, info: &mut Info) -> Option<()> {
    // A record of the handshake.
    if captured == 0 || bytes[0] != HANDSHAKE {
        return None;
    }
    let base = if t.direction == Direction::SEND { info.own_base } else { info.peer_base };
    let from_start = t.stream == Stream::Tcp && seq.wrapping_sub(base) <= 1;
    if from_start {
        info.known |= known::TLS_START;
    }
    // Of TLS, with a ClientHello of some version.
    if captured < ENOUGH || bytes[1] != 3 || bytes[5] != 1 || bytes[9] != 3 {
        return None;
    }
    let mut random = [0u64; 2];
    // SAFETY: the caller's buffer has more than 27 bytes.
    unsafe {
        let from = bytes.as_ptr().add(11);
        random[0] = core::ptr::read_unaligned(from.cast());
        random[1] = core::ptr::read_unaligned(from.add(8).cast());
    }
    let hello = Hello { random, tgid: (t.id >> 32) as u32, direction: u32::from(t.direction.0) };
    // SAFETY: copied at once.
    let mut seen = Seen { cookie: t.key, from_start: u64::from(from_start) };
    if let Some(before) = unsafe { HELLOS.get(&hello) }.copied()
        && before.cookie != t.key
    {
        seen.cookie = 0; // the same number on two connections names neither
    }
    let _ = HELLOS.insert(&hello, &seen, 0);
    Some(())
}

/// Joins the object at an address by the number that it holds, and lets go of one that holds another number than the one it was
/// joined by. The cookie says where the number is.
#[inline(never)]
pub fn join(object: &mut Object, pointer: u64, cookie: u64, id: u64) -> i32 {
    let _ = by_random(object, pointer, cookie, id);
    0
}

#[inline(always)]
fn by_random(object: &mut Object, pointer: u64, cookie: u64, id: u64) -> Option<()> {
    if object.cookie != 0 && object.random == 0 {
        return None; // a transfer joined it
    }
    let offset = u64::from(place(cookie, RANDOM).0);
    let through = place(cookie, THROUGH).0;
    if offset == 0 {
        return None;
    }
    let holder = if through == DIRECT { pointer } else { word(pointer + u64::from(through))? };
    let first = word(holder + offset)?;
    if object.cookie != 0 {
        if first == object.random {
            return None;
        }
        object::restart(object, id);
    }
    if first == 0 {
        return None; // before the handshake
    }
    let random = [first, word(holder + offset + 8)?];
    let tgid = (id >> 32) as u32;
    let find = |direction: Direction| {
        let hello = Hello { random, tgid, direction: u32::from(direction.0) };
        // SAFETY: copied at once.
        unsafe { HELLOS.get(&hello) }.copied()
    };
    let (sent, read) = (find(Direction::SEND), find(Direction::RECV));
    let seen = match (sent, read) {
        (Some(seen), None) | (None, Some(seen)) => seen,
        (Some(sent), Some(read)) => {
            // Both ends are in this process: the object must say which of them it is.
            let server = word(pointer + call::server(own(cookie))?)? as u32;
            if server != 0 { read } else { sent }
        }
        (None, None) => return None,
    };
    if seen.cookie == 0 {
        return None;
    }
    object::join(object, seen.cookie, id);
    object.random = first;
    if seen.from_start != 0 {
        object.bits |= bit::FROM_START;
    }
    Some(())
}
