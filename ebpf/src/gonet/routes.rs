//! The pattern that a server of `net/http` matched a request with, without a probe.
//!
//! Comes in: an answer that begins, on the goroutine that serves its connection. Goes out: a `Route` record that stands in the ring
//! before the answer. The goroutine keeps its `conn` at a known place of its stack; that it is the right one, and the answer's
//! response the current one, is known by pointers that lead back, and by the connection below being the one that is written to.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use spanwise_common::counters as count;
use spanwise_common::event::{Kind, Route};
use spanwise_common::golang::fixed;
use spanwise_common::limits::MAX_ROUTE;
use spanwise_common::offsets::MISSING;

use super::conn::descriptor_below;
use super::maps::GO_ROUTES;
use super::routers;
use crate::emit::{counters, header};
use crate::golang;
use crate::maps::{EVENTS, SCRATCH};
use crate::read::{masked, user_bytes, word};

/// What every answer begins with, as far as it is looked at.
const ANSWER: u64 = u64::from_ne_bytes(*b"HTTP/1.\0");
/// Those bytes of a word.
const LOOKED_AT: u64 = u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 255, 0]);
/// Bytes of a response's head that stand in its first transfer at least.
const SHORTEST: u32 = 12;

/// Whether bytes are the beginning of an answer.
#[inline(always)]
fn is_answer(first: u64) -> bool {
    first & LOOKED_AT == ANSWER
}

/// The transfer in the scratch, whose record is ready there, was sent by a program with routes. A global function: the verifier looks
/// at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn route_of_transfer() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let (first, call, t, captured, seq) = unsafe {
        (
            (&raw const (*scratch).payload).cast::<u64>().read(),
            &(*scratch).call,
            &(*scratch).transfer,
            (*scratch).data.captured,
            (*scratch).data.seq,
        )
    };
    if captured < SHORTEST || !is_answer(first) || !call.is_transfer() {
        return 0;
    }
    tell_route(t.key, seq, t.bits, call.di, 0)
}

/// Plaintext that is given to crypto/tls: where it is, the connection's object in the program, how that is known, and the position.
#[inline(always)]
pub fn of_plaintext(buffer: u64, pointer: u64, object: u64, seq: u32, bits: u32) {
    if word(buffer).is_some_and(is_answer) {
        tell_route(object, seq, bits, pointer, 1);
    }
}

/// What is told of a request.
pub struct Told {
    /// The connection.
    pub key: u64,
    /// Position of the answer.
    pub seq: u32,
}

/// An answer begins. `below` is the descriptor that it is written to, or, if `sealed`, the `tls.Conn`. A global function: the
/// verifier looks at it once, and not for every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_route(key: u64, seq: u32, bits: u32, below: u64, sealed: u32) -> u32 {
    u32::from(find(&Told { key, seq }, bits, below, sealed != 0).is_some())
}

#[inline(always)]
fn find(told: &Told, bits: u32, below: u64, sealed: bool) -> Option<()> {
    // SAFETY: written before the process's bits say so, and then left alone.
    let routes = unsafe { GO_ROUTES.get(&((bpf_get_current_pid_tgid() >> 32) as u32)) }?;
    let (top, thread) = golang::top_of_stack(bits, routes.start)?;
    let conn = word(top - u64::from(routes.slot))?;
    let response = word(conn + u64::from(routes.current))?;
    if response == 0 || word(response + fixed::FIRST)? != conn {
        return None;
    }
    let transport = conn + u64::from(routes.transport);
    let same = if sealed {
        word(transport + 8)? == below
    } else {
        descriptor_below(transport)? as u32 == below as u32
    };
    if !same {
        return None;
    }
    let request = word(response + u64::from(routes.request))?;
    let mut pattern = request + u64::from(routes.pattern);
    if routes.pattern == MISSING {
        pattern = 0;
    } else if routes.indirect != 0 {
        pattern = word(pattern)?;
    }
    if pattern != 0
        && let Some([text, len]) = pair(pattern)
        && len != 0
    {
        return part(told, text, len, 0, 1);
    }
    routers::find(told, routes, &routers::Served { conn, response, request, thread, top })
}

/// Two words of user memory.
#[inline(always)]
pub fn pair(address: u64) -> Option<[u64; 2]> {
    let mut pair = [0u64; 2];
    // SAFETY: as many bytes as the array has.
    unsafe { user_bytes(pair.as_mut_ptr().cast(), 16, address) }.then_some(pair)
}

/// Most patterns are shorter.
const SMALL: usize = 64;
/// More than the longest that is told: a length can be masked.
const LARGE: usize = 2 * MAX_ROUTE;

/// Tells one part of a pattern.
#[inline(always)]
pub fn part(told: &Told, text: u64, len: u64, part: u8, parts: u8) -> Option<()> {
    if len > MAX_ROUTE as u64 {
        return None;
    }
    let place = u64::from(told.seq) | u64::from(part) << 32 | u64::from(parts) << 40;
    (tell_part(told.key, place, text, len as u32) != 0).then_some(())
}

/// The same: `place` is the position, the part and how many there are. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_part(key: u64, place: u64, text: u64, len: u32) -> u32 {
    // The ring gives room of sizes that are known beforehand only.
    let told = if len < SMALL as u32 {
        ship::<SMALL>(key, place, text, len)
    } else {
        ship::<LARGE>(key, place, text, len)
    };
    u32::from(told.is_some())
}

#[repr(C)]
struct Record<const N: usize> {
    route: Route,
    text: [u8; N],
}

#[inline(always)]
fn ship<const N: usize>(key: u64, place: u64, text: u64, len: u32) -> Option<()> {
    let counters = counters()?;
    let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else {
        counters[count::RING_FULL as usize] += 1;
        return None;
    };
    let record = entry.as_mut_ptr();
    let len = masked(len, N as u32 - 1);
    // SAFETY: the record is ours until it is submitted, and `len` is below N by the mask.
    let read = unsafe {
        let header = header(Kind::ROUTE, size_of::<Route>() + len as usize, bpf_get_current_pid_tgid());
        let (part, parts) = ((place >> 32) as u8, (place >> 40) as u8);
        let route = Route { header, cookie: key, seq: place as u32, len: len as u16, part, parts };
        (&raw mut (*record).route).write(route);
        user_bytes((&raw mut (*record).text).cast(), len, text)
    };
    if !read {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return None;
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    counters[count::SHIPPED_OTHER as usize] += 1;
    Some(())
}
