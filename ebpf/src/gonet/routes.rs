//! The pattern that a server of `net/http` matched a request with, without a probe.
//!
//! Comes in: an answer that begins, on the goroutine that serves its connection. Goes out: a `Route` record that stands in the ring
//! before the answer. The goroutine keeps its `conn` at a known place of its stack; that it is the right one, and the answer's
//! response the current one, is known by pointers that lead back, and by the connection below being the one that is written to.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use spanwise_common::conn::Serving;
use spanwise_common::counters as count;
use spanwise_common::event::{Kind, Route};
use spanwise_common::golang::{Routes, Way, fixed, way as bit};
use spanwise_common::limits::{MAX_PAYLOAD, MAX_ROUTE};
use spanwise_common::offsets::MISSING;

use super::conn::descriptor_below;
use super::maps::GO_ROUTES;
use super::routers;
use crate::emit::{counters, header};
use crate::golang;
use crate::maps::{CONNS, EVENTS, SCRATCH, Scratch};
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
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: eight of its bytes.
    let first = unsafe { scratch.payload.as_ptr().cast::<u64>().read() };
    if scratch.data.captured < SHORTEST || !is_answer(first) || !scratch.call.is_transfer() {
        return 0;
    }
    u32::from(of_scratch(scratch).is_some())
}

#[inline(always)]
fn of_scratch(scratch: &Scratch) -> Option<()> {
    let server = scratch.data.task.id;
    if server == 0 {
        return None;
    }
    let told = Told { key: scratch.transfer.key, seq: scratch.data.seq, inside: true };
    // A goroutine serves one connection, and no other ever has its id. So what was found once stays true.
    let known = scratch.serving.server == server;
    if known {
        let (_, request) = current(&scratch.serving.way, scratch.serving.served)?;
        if let Some([text, len]) = pattern(&scratch.serving.way, request) {
            return part(&told, text, len, 0, 1);
        }
        if scratch.serving.way.bits & bit::ROUTER == 0 {
            return None;
        }
    }
    // SAFETY: written before the process's bits say so, and then left alone.
    let routes = unsafe { GO_ROUTES.get(&((scratch.transfer.id >> 32) as u32)) }?;
    let (top, thread) = golang::top_of_found(scratch, scratch.transfer.bits, routes.start)?;
    let mut way = way(routes);
    let mut conn = scratch.serving.served;
    if !known {
        conn = word(top - u64::from(routes.slot))?;
        if descriptor_below(conn + u64::from(routes.transport))? as u32 != scratch.call.di as u32 {
            return None;
        }
        if routers::of_server(routes, conn).is_some() {
            way.bits |= bit::ROUTER;
        }
        remember(told.key, Serving { server, served: conn, way });
    }
    let (response, request) = current(&way, conn)?;
    if let Some([text, len]) = pattern(&way, request) {
        return part(&told, text, len, 0, 1);
    }
    routers::find(&told, routes, &routers::Served { conn, response, request, thread, top })
}

/// Keeps what serves a connection.
#[inline(always)]
fn remember(key: u64, serving: Serving) {
    if let Some(state) = CONNS.get_ptr_mut(&key) {
        // SAFETY: map values stay valid while the program runs.
        unsafe { (*state).serving = serving };
    }
}

/// The offsets are those of members of structs of some hundred bytes; the agent made sure.
#[inline(always)]
fn way(routes: &Routes) -> Way {
    Way {
        current: routes.current as u16,
        request: routes.request as u16,
        pattern: routes.pattern as u16,
        bits: if routes.indirect != 0 { bit::POINTER } else { 0 },
    }
}

/// The response that is under way on a connection, and its request.
#[inline(always)]
fn current(way: &Way, conn: u64) -> Option<(u64, u64)> {
    let response = word(conn + u64::from(way.current))?;
    if response == 0 {
        return None;
    }
    let [its, next] = pair(response + fixed::FIRST)?;
    if its != conn {
        return None;
    }
    let request = if way.request == 8 { next } else { word(response + u64::from(way.request))? };
    Some((response, request))
}

/// Where the pattern is that `net/http` matched a request with, and its length; none if it has none.
#[inline(always)]
fn pattern(way: &Way, request: u64) -> Option<[u64; 2]> {
    if way.pattern == NO_PATTERN {
        return None;
    }
    let mut at = request + u64::from(way.pattern);
    if way.bits & bit::POINTER != 0 {
        at = word(at)?;
    }
    pair(at).filter(|[_, len]| *len != 0)
}

/// `offsets::MISSING` in sixteen bits.
const NO_PATTERN: u16 = MISSING as u16;

/// Plaintext that is given to crypto/tls: where it is, the connection's object in the program, what it is known by, and the position.
#[inline(always)]
pub fn of_plaintext(buffer: u64, pointer: u64, object: u64, seq: u32, bits: u32) {
    if word(buffer).is_some_and(is_answer) {
        tell_route(object, seq, bits, pointer);
    }
}

/// What is told of a request.
pub struct Told {
    /// The connection.
    pub key: u64,
    /// Position of the answer.
    pub seq: u32,
    /// The answer's record is under construction in the scratch, and has room for a pattern of one part.
    pub inside: bool,
}

/// Plaintext that is given to a `tls.Conn` begins an answer. A global function: the verifier looks at it once, and not for every way
/// to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_route(key: u64, seq: u32, bits: u32, below: u64) -> u32 {
    u32::from(of_sealed(&Told { key, seq, inside: false }, bits, below).is_some())
}

#[inline(always)]
fn of_sealed(told: &Told, bits: u32, below: u64) -> Option<()> {
    // SAFETY: as in `of_scratch`.
    let routes = unsafe { GO_ROUTES.get(&((bpf_get_current_pid_tgid() >> 32) as u32)) }?;
    let (top, thread) = golang::top_of_stack(bits, routes.start)?;
    let conn = word(top - u64::from(routes.slot))?;
    let way = way(routes);
    let (response, request) = current(&way, conn)?;
    if word(conn + u64::from(routes.transport) + 8)? != below {
        return None;
    }
    if let Some([text, len]) = pattern(&way, request) {
        return part(told, text, len, 0, 1);
    }
    routers::find(told, routes, &routers::Served { conn, response, request, thread, top })
}

/// Two words of user memory.
#[inline(always)]
pub fn pair(address: u64) -> Option<[u64; 2]> {
    // Not zeroed before: that would be a call.
    let mut pair = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: as many bytes as the array has; the helper writes them all.
    unsafe { user_bytes(pair.as_mut_ptr().cast(), 16, address).then(|| pair.assume_init()) }
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
    if told.inside && parts == 1 {
        return (put_route(text, len as u32) != 0).then_some(());
    }
    let place = u64::from(told.seq) | u64::from(part) << 32 | u64::from(parts) << 40;
    (tell_part(told.key, place, text, len as u32) != 0).then_some(())
}

/// Puts a pattern behind the payload of the record in the scratch. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put_route(text: u64, len: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let scratch = unsafe { &mut *scratch };
    let at = masked(scratch.data.captured, MAX_PAYLOAD as u32 - 1);
    let len = masked(len, LARGE as u32 - 1);
    // SAFETY: the masks keep both together within the payload, which is twice as long.
    if !unsafe { user_bytes(scratch.payload.as_mut_ptr().add(at as usize), len, text) } {
        return 0;
    }
    scratch.data.route = len as u8;
    scratch.data.header.size += len;
    1
}

/// Tells a part by a record of its own: `place` is the position, the part and how many there are. A global function: the verifier looks at it once.
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
