//! From a chunk of plaintext to a record: position, name, budget, ring.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use spanwise_common::conn::verdict;
use spanwise_common::counters as count;
use spanwise_common::event::{Direction, Kind, Plain, Task, flags};
use spanwise_common::limits::{BUDGET_FRAMES, MAX_PAYLOAD, TAIL};

use super::maps::{Address, OBJECTS, Object};
use super::object::{self, bit};
use crate::emit::{counters, header};
use crate::golang;
use crate::maps::EVENTS;
use crate::read::{masked, user_bytes, word};

/// All that came in was given out.
#[inline(always)]
pub fn drained(object: &mut Object) {
    object.bits &= !bit::MIXED;
}

/// Whether the sequence number behind the record that the chunk came in is certain: `sent_end` or `next`.
#[inline(always)]
fn name(object: &mut Object, direction: Direction) -> bool {
    if direction == Direction::SEND {
        let known = object.bits & bit::SENT_END != 0;
        object.bits &= !bit::SENT_END;
        return known;
    }
    // Libraries that read no further than the record that they are after give out the last one that came.
    let fresh = core::mem::replace(&mut object.records, 0);
    if object.bits & bit::AHEAD != 0 && fresh > 1 {
        object.bits |= bit::MIXED;
    }
    fresh > 0 && object.bits & (bit::NEXT | bit::MIXED) == bit::NEXT
}

/// Accounts for a chunk of plaintext and ships what its budget allows.
#[inline(always)]
fn chunk(object: &mut Object, pointer: u64, how: u64, buffer: u64, moved: u32, at_ns: u64) -> Option<()> {
    let direction = direction(how);
    let counters = counters()?;
    counters[count::PLAIN_SEEN as usize] += 1;
    counters[count::PLAIN_BYTES as usize] += u64::from(moved);
    let named = name(object, direction);
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
        recognise(object, buffer);
    }
    let budget = if object.verdict == verdict::HTTP2 {
        RECORD as u32
    } else if direction == Direction::SEND {
        object.budget_send
    } else {
        object.budget_recv
    };
    // What one call was given for several TLS records goes out as several.
    let long = object.verdict == verdict::HTTP2 && moved > RECORD as u32 && how & UNREAD == 0;
    let first = if long { RECORD as u32 - 1 } else { moved };
    let mut want = budget.saturating_sub(object.burst);
    if want > first {
        want = first;
    }
    object.burst = object.burst.saturating_add(moved);
    let mut begins = how | u64::from(want) << WANT_SHIFT;
    if starts {
        begins |= STARTS;
    }
    if named {
        begins |= NAMED;
    }
    ship_chunk(pointer, begins, buffer, at(seq, first), at_ns);
    if long {
        let (next, rest) = (buffer + u64::from(first), moved.wrapping_sub(first));
        let rest = Rest { pointer, how, at_ns, from: next, left: rest, seq: seq.wrapping_add(first) };
        further_records(rest);
    }
    Some(())
}

/// The rest of what one call was given for several TLS records, of a connection whose frames have heads anywhere.
#[inline(always)]
fn further_records(mut rest: Rest) {
    // One after the other, not in a loop: of those before Linux 6.4 the verifier takes some layouts only, and the compiler chooses.
    let over = rest.ship() || rest.ship() || rest.ship() || rest.ship() || rest.ship() || rest.ship();
    if !over {
        rest.ship_all();
    }
}

/// What is left of a chunk.
struct Rest {
    pointer: u64,
    how: u64,
    at_ns: u64,
    from: u64,
    left: u32,
    seq: u32,
}

impl Rest {
    /// Ships a record of it. Whether that was the last.
    #[inline(always)]
    fn ship(&mut self) -> bool {
        if self.left < RECORD as u32 {
            self.ship_all();
            return true;
        }
        let len = RECORD as u32 - 1;
        self.tell(len);
        self.from += u64::from(len);
        self.left = self.left.wrapping_sub(len);
        self.seq = self.seq.wrapping_add(len);
        false
    }

    /// Ships all of it as one record, which may be cut.
    #[inline(always)]
    fn ship_all(&mut self) {
        self.tell(self.left);
    }

    #[inline(always)]
    fn tell(&mut self, len: u32) {
        // It is a record like that of another chunk.
        if let Some(counters) = counters() {
            counters[count::PLAIN_SEEN as usize] += 1;
        }
        let want = if len >= RECORD as u32 { RECORD as u32 - 1 } else { len };
        let how = self.how | u64::from(want) << WANT_SHIFT;
        ship_chunk(self.pointer, how, self.from, at(self.seq, len), self.at_ns);
    }
}

/// Position and length of what is told.
#[inline(always)]
fn at(seq: u32, len: u32) -> u64 {
    u64::from(seq) << 32 | u64::from(len)
}

/// Ships a chunk, or a part of one. A global function: the verifier looks at it once, and not for every way to it. Before Linux 6.13 all
/// functions that call each other have 512 bytes of stack together, so what every size of record needs is here, once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ship_chunk(pointer: u64, how: u64, buffer: u64, place: u64, at_ns: u64) -> u32 {
    let Some(object) = OBJECTS.get_ptr_mut(&address_of(pointer, how)) else { return 0 };
    let want = (how >> WANT_SHIFT) as u32 & 0xffff;
    let chunk = Chunk { how, buffer, moved: place as u32, seq: (place >> 32) as u32, at_ns };
    // SAFETY: map values stay valid while the program runs.
    let object = unsafe { &*object };
    let task = golang::task_here((how >> 32) as u32);
    // With room for a masked offset and a masked length.
    let mut tail = [0u64; 2];
    // Or the compiler calls a function that sets it to zero, which has stack of its own.
    for word in &mut tail {
        // SAFETY: a word of the array.
        unsafe { core::ptr::write_volatile(word, 0) };
    }
    // The ring gives room of sizes that are known beforehand only.
    let sent = if want < SMALL as u32 {
        ship::<SMALL>(object, &chunk, want, &task, &mut tail)
    } else if want < MAX_PAYLOAD as u32 {
        ship::<MAX_PAYLOAD>(object, &chunk, want, &task, &mut tail)
    } else {
        ship::<RECORD>(object, &chunk, want, &task, &mut tail)
    };
    if let Some(counters) = counters() {
        counters[if sent.is_some() { count::PLAIN_SHIPPED } else { count::PLAIN_FULL } as usize] += 1;
    }
    1
}

/// How [`chunk_of`] ships: the key of the object is a connection's; the chunk came in; its bytes are not read.
pub const OF_CONNECTION: u64 = 1;
/// See above.
pub const RECEIVED: u64 = 2;
/// See above.
pub const UNREAD: u64 = 4;
/// The chunk begins a burst; the sequence number behind the record that it came in is certain.
const STARTS: u64 = 8;
/// See above.
const NAMED: u64 = 16;
/// Lowest bit of the bytes wanted, at most those of a TLS record.
const WANT_SHIFT: u32 = 16;

#[inline(always)]
fn direction(how: u64) -> Direction {
    if how & RECEIVED == 0 { Direction::SEND } else { Direction::RECV }
}

/// The library, and the bits of a process whose goroutines are told, in the same word.
#[inline(always)]
pub fn by(library: u8, bits: u32) -> u64 {
    u64::from(library) << 8 | u64::from(bits) << 32
}

/// Accounts for a chunk of the object with this key. A global function: the verifier looks at it once, and not for every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chunk_of(pointer: u64, how: u64, buffer: u64, moved: u32, at_ns: u64) -> u32 {
    let Some(object) = OBJECTS.get_ptr_mut(&address_of(pointer, how)) else { return 0 };
    // SAFETY: map values stay valid while the program runs.
    let _ = chunk(unsafe { &mut *object }, pointer, how, buffer, moved, at_ns);
    0
}

#[inline(always)]
fn address_of(pointer: u64, how: u64) -> Address {
    Address { pointer, tgid: (bpf_get_current_pid_tgid() >> 32) as u32, pad: (how & OF_CONNECTION) as u32 }
}

/// Bytes of most chunks are fewer.
const SMALL: usize = 1024;
/// Bytes of a TLS record. Frames have heads anywhere in it.
const RECORD: usize = 16 * 1024;

/// What begins with the preface of HTTP/2 ships frames from there on: user space would say so too late.
#[inline(always)]
fn recognise(object: &mut Object, buffer: u64) {
    if word(buffer) == Some(u64::from_ne_bytes(*b"PRI * HT")) {
        object.verdict = verdict::HTTP2;
        object.budget_send = BUDGET_FRAMES;
        object.budget_recv = BUDGET_FRAMES;
    }
}

/// A chunk that is shipped.
struct Chunk {
    how: u64,
    buffer: u64,
    moved: u32,
    seq: u32,
    at_ns: u64,
}

/// A record, put together where it is read. A uprobe's program can be preempted by another on the same CPU, so with memory for
/// each CPU its bytes could become those of another connection.
#[repr(C)]
struct Record<const N: usize> {
    plain: Plain,
    payload: [u8; N],
}

#[inline(always)]
fn ship<const N: usize>(
    object: &Object,
    chunk: &Chunk,
    want: u32,
    task: &Task,
    tail: &mut [u64; 2],
) -> Option<()> {
    let mut entry = EVENTS.reserve::<Record<N>>(0)?;
    let record = entry.as_mut_ptr();
    let Chunk { how, buffer, moved, seq, at_ns } = *chunk;
    let direction = direction(how);
    let want = if want >= N as u32 { N as u32 - 1 } else { want };
    let mut bits = 0;
    let mut captured = 0;
    let mut tail_len = 0;
    if how & UNREAD != 0 {
        bits |= flags::NO_BUFFER;
    } else {
        if want > 0 {
            let len = masked(want, N as u32 - 1);
            // SAFETY: `len` is below N by the mask.
            if unsafe { user_bytes((&raw mut (*record).payload).cast(), len, buffer) } {
                captured = len;
            } else {
                bits |= flags::FAULT;
            }
        }
        if captured < moved {
            let last = masked(if moved < TAIL as u32 { moved - 1 } else { TAIL as u32 - 1 }, 7);
            let (len, offset) = (last + 1, masked(TAIL as u32 - 1 - last, 7));
            let from = buffer + u64::from(moved) - u64::from(len);
            // SAFETY: at most 7 + 8 bytes into an array of 16.
            if unsafe { user_bytes(tail.as_mut_ptr().cast::<u8>().add(offset as usize), len, from) } {
                tail_len = len as u8;
            }
        }
    }
    if captured < moved {
        bits |= flags::CUT;
    }
    if how & STARTS != 0 {
        bits |= flags::BURST_START;
    }
    if how & NAMED != 0 {
        bits |= flags::HAS_CIPHER;
    }
    if object.bits & bit::FROM_START != 0 {
        bits |= flags::FROM_START;
    }
    let mut header = header(Kind::PLAIN, 0, bpf_get_current_pid_tgid());
    header.flags = bits;
    header.size = size_of::<Plain>() as u32 + captured;
    // What is given to the library is on its way before the call ends.
    if direction == Direction::SEND {
        header.at_ns = at_ns;
    }
    let plain = Plain {
        header,
        object: object.id,
        cookie: object.cookie,
        task: *task,
        seq,
        len: moved,
        captured,
        cipher: match (how & NAMED, direction) {
            (0, _) => 0,
            (_, Direction::SEND) => object.sent_end,
            _ => object.next,
        },
        direction: direction.0,
        library: (how >> 8) as u8,
        tail_len,
        // SAFETY: five bytes of 16, of the word that stays zero: constants would be a call.
        pad: unsafe { core::ptr::read_volatile(tail.as_ptr().add(1).cast::<[u8; 5]>()) },
        // SAFETY: eight bytes of 16.
        tail: unsafe { core::ptr::read_volatile(tail.as_ptr().cast::<[u8; TAIL]>()) },
    };
    // SAFETY: the record is ours until it is submitted.
    unsafe { (&raw mut (*record).plain).write(plain) };
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    Some(())
}
