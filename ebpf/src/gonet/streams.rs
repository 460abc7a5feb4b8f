//! HTTP/2 streams of Go programs whose frames another goroutine reads or writes: who serves them, and who made them.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use spanwise_common::event::{Handoff, Kind, Task, handoff};
use spanwise_common::golang::path;
use spanwise_common::place::place;

use super::conn::below;
use super::maps::{Caller, GO_STREAMS, Stream};
use crate::emit::{header, output_plain};
use crate::golang;
use crate::read::word;
use crate::uprobe::hit;

/// The running goroutine serves a stream. Places: the server's connection, the stream, and in place of the third the offset of
/// the `net.Conn` in the first; the cookie's own bits lead from the stream to its number.
#[uprobe]
pub fn go_serves(ctx: ProbeContext) -> u32 {
    let _ = serves(&ctx);
    0
}

/// The running goroutine makes a request. A child of it writes the head, and names its starter; who started that is told here.
#[uprobe]
pub fn go_h2_call(ctx: ProbeContext) -> u32 {
    let _ = requests(&ctx);
    0
}

/// The running goroutine has made a stream. Places: the client's connection, the stream, and in place of the third the offset of
/// the `net.Conn` in the first; the cookie's own bits lead from the stream to what names it until it is open.
#[uprobe]
pub fn go_calls(ctx: ProbeContext) -> u32 {
    let _ = calls(&ctx);
    0
}

/// A stream is opened. Places: its header; in place of the second and third, the offsets in it of the stream's number, and of what
/// names it.
#[uprobe]
pub fn go_opens(ctx: ProbeContext) -> u32 {
    let _ = opens(&ctx);
    0
}

/// Follows as many pointers as the cookie says; where to read then.
#[inline(always)]
fn follow(from: u64, own: u16) -> Option<u64> {
    let mut at = from;
    let pointers = own >> path::FOLLOW_SHIFT & path::FOLLOW;
    if pointers >= 1 {
        at = word(at)?;
    }
    if pointers >= 2 {
        at = word(at)?;
    }
    Some(at + u64::from(own & path::OFFSET))
}

#[inline(always)]
fn serves(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let (id, bits) = (hit.id, hit.bits);
    let server = hit.value(0)?;
    let number = word(follow(hit.value(1)?, hit.own())?)? as u32;
    let mut found = [0u64; 2];
    if below(server + u64::from(place(hit.cookie, 2).0), &mut found) == 0 {
        return None;
    }
    tell(id, found[0], 0, golang::task(bits), number, handoff::SERVES)
}

#[inline(always)]
fn requests(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let task = golang::task(hit.bits);
    // A child of the program's first goroutine is no news.
    if task.id == 0 || task.parent <= 1 {
        return None;
    }
    handed(hit.id, 0, hit.value(0)?, task, 0, handoff::CALLS)
}

#[inline(always)]
fn calls(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let (id, bits) = (hit.id, hit.bits);
    let client = hit.value(0)?;
    let mut found = [0u64; 2];
    if below(client + u64::from(place(hit.cookie, 2).0), &mut found) == 0 {
        return None;
    }
    let mut pointer = follow(hit.value(1)?, hit.own())?;
    if hit.own() & path::LAST != 0 {
        pointer = word(pointer)?;
    }
    let caller = Caller { cookie: found[0], task: golang::task(bits) };
    let _ = GO_STREAMS.insert(&Stream { pointer, tgid: (id >> 32) as u32, pad: 0 }, &caller, 0);
    Some(())
}

#[inline(always)]
fn opens(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let id = hit.id;
    let frame = hit.value(0)?;
    let number = word(frame + u64::from(place(hit.cookie, 1).0))? as u32;
    let pointer = word(frame + u64::from(place(hit.cookie, 2).0))?;
    let stream = Stream { pointer, tgid: (id >> 32) as u32, pad: 0 };
    // SAFETY: copied at once.
    let caller = *unsafe { GO_STREAMS.get(&stream) }?;
    let _ = GO_STREAMS.remove(&stream);
    tell(id, caller.cookie, pointer, caller.task, number, handoff::CALLS)
}

#[inline(always)]
fn tell(id: u64, cookie: u64, object: u64, task: Task, stream: u32, what: u8) -> Option<()> {
    if task.id == 0 || stream == 0 || stream >> 31 != 0 {
        return None;
    }
    handed(id, cookie, object, task, stream, what)
}

#[inline(always)]
fn handed(id: u64, cookie: u64, object: u64, task: Task, stream: u32, what: u8) -> Option<()> {
    output_plain(&Handoff {
        header: header(Kind::HANDOFF, size_of::<Handoff>(), id),
        cookie,
        object,
        task,
        stream,
        what,
        pad: [0; 3],
    });
    Some(())
}
