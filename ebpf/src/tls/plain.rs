//! From a chunk of plaintext to a record: position, name, budget, ring.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use spanwise_common::conn::verdict;
use spanwise_common::counters as count;
use spanwise_common::event::{Direction, Kind, Plain, Task, flags};
use spanwise_common::limits::{BUDGET_FRAMES, MAX_PAYLOAD, TAIL};
use spanwise_common::tls::call;

use super::maps::{Address, LibraryCall, OBJECTS, Object};
use super::object::{self, bit};
use crate::emit::{Counters, counters, header};
use crate::golang;
use crate::maps::EVENTS;
use crate::read::{masked, user_bytes, word};

/// All that came in was given out.
#[inline(always)]
pub fn drained(object: &mut Object) {
    object.bits &= !bit::MIXED;
}

/// Sequence number behind the record that the chunk came in, if that is certain.
#[inline(always)]
fn name(object: &mut Object, direction: Direction) -> Option<u32> {
    if direction == Direction::SEND {
        let known = object.bits & bit::SENT_END != 0;
        object.bits &= !bit::SENT_END;
        return known.then_some(object.sent_end);
    }
    // Libraries that read no further than the record that they are after give out the last one that came.
    let fresh = core::mem::replace(&mut object.records, 0);
    if object.bits & bit::AHEAD != 0 && fresh > 1 {
        object.bits |= bit::MIXED;
    }
    (fresh > 0 && object.bits & (bit::NEXT | bit::MIXED) == bit::NEXT).then_some(object.next)
}

/// Accounts for a chunk of plaintext and ships what its budget allows.
#[inline(always)]
pub fn chunk(
    object: &mut Object,
    under_way: &LibraryCall,
    moved: u32,
    direction: Direction,
    id: u64,
    task: Task,
) -> Option<()> {
    let counters = counters()?;
    counters[count::PLAIN_SEEN as usize] += 1;
    counters[count::PLAIN_BYTES as usize] += u64::from(moved);
    let cipher = name(object, direction);
    let position = if direction == Direction::SEND { &mut object.sent } else { &mut object.received };
    let seq = *position;
    *position = seq.wrapping_add(moved);
    if object.cookie == 0 && object.bits & bit::AWAITED == 0 {
        counters[count::PLAIN_UNJOINED as usize] += 1;
        return None;
    }
    let starts = object.last != direction.0;
    if starts {
        object.last = direction.0;
        object.bursts = object.bursts.wrapping_add(1);
        if object.verdict == verdict::UNKNOWN
            || object.burst >= object.budget_recv.min(object.budget_send)
            || object.bursts.is_multiple_of(64)
        {
            object::refresh_verdict(object);
        }
    }
    if starts || object.verdict == verdict::HTTP2 {
        object.burst = 0;
    }
    if object.verdict == verdict::IGNORE {
        counters[count::PLAIN_IGNORED as usize] += 1;
        return None;
    }
    if object.verdict == verdict::UNKNOWN && moved >= 24 {
        recognise(object, under_way);
    }
    let budget = if object.verdict == verdict::HTTP2 {
        RECORD as u32
    } else if direction == Direction::SEND {
        object.budget_send
    } else {
        object.budget_recv
    };
    let mut want = budget.saturating_sub(object.burst);
    if want > moved {
        want = moved;
    }
    object.burst = object.burst.saturating_add(moved);
    let chunk = Chunk { moved, direction, id, seq, cipher, starts, task };
    if object.verdict == verdict::HTTP2 && moved > RECORD as u32 {
        return frames(object, under_way, chunk, counters);
    }
    // The ring gives room of sizes that are known beforehand only.
    let sent = if want < SMALL as u32 {
        ship::<SMALL>(object, under_way, &chunk, want)
    } else if want < MAX_PAYLOAD as u32 {
        ship::<MAX_PAYLOAD>(object, under_way, &chunk, want)
    } else {
        ship::<RECORD>(object, under_way, &chunk, want)
    };
    counters[if sent.is_some() { count::PLAIN_SHIPPED } else { count::PLAIN_FULL } as usize] += 1;
    Some(())
}

/// Records that one chunk of frames may take.
const ROUNDS: u32 = 8;

/// What one call was given for several TLS records, of a connection whose frames have heads anywhere.
#[inline(always)]
fn frames(object: &Object, whole: &LibraryCall, mut chunk: Chunk, counters: &mut Counters) -> Option<()> {
    let mut call = *whole;
    let mut left = chunk.moved;
    for round in 1..=ROUNDS {
        let last = left < RECORD as u32 || round == ROUNDS;
        chunk.moved = if last { left } else { RECORD as u32 - 1 };
        let want = if last && left < RECORD as u32 { left } else { RECORD as u32 - 1 };
        let sent = ship::<RECORD>(object, &call, &chunk, want);
        counters[if sent.is_some() { count::PLAIN_SHIPPED } else { count::PLAIN_FULL } as usize] += 1;
        if last {
            break;
        }
        // The next one is a record like that of another chunk.
        counters[count::PLAIN_SEEN as usize] += 1;
        call.buffer += u64::from(chunk.moved);
        left = left.wrapping_sub(chunk.moved);
        chunk.seq = chunk.seq.wrapping_add(chunk.moved);
        chunk.cipher = None;
        chunk.starts = false;
    }
    Some(())
}

/// How [`chunk_of`] ships: the key of the object is a connection's; the chunk came in; its bytes are not read.
pub const OF_CONNECTION: u64 = 1;
/// See above.
pub const RECEIVED: u64 = 2;
/// See above.
pub const UNREAD: u64 = 4;

/// The library, and the bits of a process whose goroutines are told, in the same word.
#[inline(always)]
pub fn by(library: u8, bits: u32) -> u64 {
    u64::from(library) << 8 | u64::from(bits) << 32
}

/// The same for the object with this key. A global function: the verifier looks at it once, and not for every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chunk_of(pointer: u64, how: u64, buffer: u64, moved: u32, at_ns: u64) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let address = Address { pointer, tgid: (id >> 32) as u32, pad: (how & OF_CONNECTION) as u32 };
    let Some(object) = OBJECTS.get_ptr_mut(&address) else { return 0 };
    let mut own = ((how >> 8) as u16 & 0xff) << call::LIBRARY_SHIFT;
    if how & UNREAD != 0 {
        own |= call::NO_BUFFER;
    }
    let call = LibraryCall { object: 0, buffer, count: 0, sp: 0, at_ns, own, live: 0, pad: 0 };
    let direction = if how & RECEIVED != 0 { Direction::RECV } else { Direction::SEND };
    let task = golang::task((how >> 32) as u32);
    // SAFETY: map values stay valid while the program runs.
    let _ = chunk(unsafe { &mut *object }, &call, moved, direction, id, task);
    0
}

/// Bytes of most chunks are fewer.
const SMALL: usize = 1024;
/// Bytes of a TLS record. Frames have heads anywhere in it.
const RECORD: usize = 16 * 1024;

/// What begins with the preface of HTTP/2 ships frames from there on: user space would say so too late.
#[inline(always)]
fn recognise(object: &mut Object, under_way: &LibraryCall) {
    if word(under_way.buffer) == Some(u64::from_ne_bytes(*b"PRI * HT")) {
        object.verdict = verdict::HTTP2;
        object.budget_send = BUDGET_FRAMES;
        object.budget_recv = BUDGET_FRAMES;
    }
}

/// Where and when a chunk moved.
struct Chunk {
    moved: u32,
    direction: Direction,
    id: u64,
    seq: u32,
    cipher: Option<u32>,
    starts: bool,
    task: Task,
}

/// A record, put together where it is read. A uprobe's program can be preempted by another on the same CPU, so with memory for
/// each CPU its bytes could become those of another connection.
#[repr(C)]
struct Record<const N: usize> {
    plain: Plain,
    payload: [u8; N],
}

#[inline(always)]
fn ship<const N: usize>(object: &Object, under_way: &LibraryCall, chunk: &Chunk, want: u32) -> Option<()> {
    let mut entry = EVENTS.reserve::<Record<N>>(0)?;
    let record = entry.as_mut_ptr();
    let Chunk { moved, direction, .. } = *chunk;
    let want = if want >= N as u32 { N as u32 - 1 } else { want };
    let mut bits = 0;
    let mut captured = 0;
    // With room for a masked offset and a masked length.
    let mut tail = [0u8; 24];
    let mut tail_len = 0;
    if under_way.own & call::NO_BUFFER != 0 {
        bits |= flags::NO_BUFFER;
    } else {
        if want > 0 {
            let len = masked(want, N as u32 - 1);
            // SAFETY: `len` is below N by the mask.
            if unsafe { user_bytes((&raw mut (*record).payload).cast(), len, under_way.buffer) } {
                captured = len;
            } else {
                bits |= flags::FAULT;
            }
        }
        if captured < moved {
            let len = masked(if moved < TAIL as u32 { moved } else { TAIL as u32 }, 15);
            let offset = masked(TAIL as u32 - len, 7);
            let from = under_way.buffer + u64::from(moved) - u64::from(len);
            // SAFETY: at most 7 + 15 bytes into an array of 24.
            if unsafe { user_bytes(tail.as_mut_ptr().add(offset as usize), len, from) } {
                tail_len = len as u8;
            }
        }
    }
    if captured < moved {
        bits |= flags::CUT;
    }
    if chunk.starts {
        bits |= flags::BURST_START;
    }
    if chunk.cipher.is_some() {
        bits |= flags::HAS_CIPHER;
    }
    if object.bits & bit::FROM_START != 0 {
        bits |= flags::FROM_START;
    }
    let mut header = header(Kind::PLAIN, 0, chunk.id);
    header.flags = bits;
    header.size = size_of::<Plain>() as u32 + captured;
    // What is given to the library is on its way before the call ends.
    if direction == Direction::SEND {
        header.at_ns = under_way.at_ns;
    }
    let plain = Plain {
        header,
        object: object.id,
        cookie: object.cookie,
        task: chunk.task,
        seq: chunk.seq,
        len: moved,
        captured,
        cipher: chunk.cipher.unwrap_or(0),
        direction: direction.0,
        library: call::library(under_way.own),
        tail_len,
        pad: [0; 5],
        // SAFETY: eight bytes of 24.
        tail: unsafe { core::ptr::read_volatile(tail.as_ptr().cast::<[u8; TAIL]>()) },
    };
    // SAFETY: the record is ours until it is submitted.
    unsafe { (&raw mut (*record).plain).write(plain) };
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    Some(())
}
