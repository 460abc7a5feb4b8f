//! Calls of library functions. Any process that has the library's file mapped comes here; those that are not traced leave after
//! one look-up.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use spanwise_common::config::proc;
use spanwise_common::counters as count;
use spanwise_common::event::Direction;
use spanwise_common::tls::call;

use super::maps::{CALLS, LibraryCall, OBJECTS};
use super::{hello, object, plain};
use crate::emit::counters;
use crate::maps::PROCS;
use crate::read::word;
use crate::uprobe::{Hit, hit};

/// Flag of a map update: only what is there already (`BPF_EXIST`).
const EXISTING: u64 = 2;
/// Number of the register in machine code.
const STACK_POINTER: u16 = 4;

/// A function that takes or gives plaintext, or makes a handshake, is called.
#[uprobe]
pub fn tls_enter(ctx: ProbeContext) -> u32 {
    let _ = entered(&ctx);
    0
}

/// It returns.
#[uprobe]
pub fn tls_leave(ctx: ProbeContext) -> u32 {
    let _ = left(&ctx);
    0
}

/// An object is freed.
#[uprobe]
pub fn tls_free(ctx: ProbeContext) -> u32 {
    let _ = freed(&ctx);
    0
}

/// An object is made.
#[uprobe]
pub fn tls_new(ctx: ProbeContext) -> u32 {
    let _ = hooked(&ctx);
    0
}

/// The hit. From the first one on the transfers of the process look for calls; the agent would say so a little later.
#[inline(always)]
fn hooked(context: &ProbeContext) -> Option<Hit<'_>> {
    let hit = hit(context)?;
    if hit.bits & proc::TLS == 0 {
        let _ = PROCS.insert(&((hit.id >> 32) as u32), &(hit.bits | proc::TLS), EXISTING);
    }
    Some(hit)
}

#[inline(always)]
fn entered(ctx: &ProbeContext) -> Option<()> {
    let hit = hooked(ctx)?;
    let (id, sp) = (hit.id, hit.register(STACK_POINTER));
    let now = LibraryCall {
        object: hit.value(0)?,
        buffer: hit.value(1).unwrap_or(0),
        count: hit.value(2).unwrap_or(0),
        sp,
        // SAFETY: no arguments.
        at_ns: unsafe { bpf_ktime_get_boot_ns() },
        own: hit.own(),
        live: 1,
        pad: 0,
    };
    let Some(before) = CALLS.get_ptr_mut(&id) else {
        let _ = CALLS.insert(&id, &now, 0);
        return Some(());
    };
    // SAFETY: the entry is this thread's own.
    unsafe {
        if (*before).live != 0 && sp < (*before).sp {
            // A read or write that makes the handshake on the way goes on being one.
            if (*before).object == now.object && now.own & call::HANDSHAKE != 0 {
                return None;
            }
            if (*before).object != now.object {
                counters()?[count::PLAIN_NESTED as usize] += 1;
            }
        }
        *before = now;
    }
    Some(())
}

#[inline(always)]
fn left(ctx: &ProbeContext) -> Option<()> {
    let hit = hooked(ctx)?;
    let id = hit.id;
    let under_way = CALLS.get_ptr_mut(&id)?;
    // SAFETY: the entry is this thread's own.
    let under_way = unsafe { &mut *under_way };
    if under_way.live == 0 || under_way.own != hit.own() {
        return None;
    }
    under_way.live = 0;
    if under_way.own & call::HANDSHAKE != 0 {
        return None;
    }
    let result = hit.value(0)?;
    let result = if under_way.own & call::WIDE != 0 { result as i64 } else { i64::from(result as i32) };
    let direction = if under_way.own & call::RECV != 0 { Direction::RECV } else { Direction::SEND };
    let moved = if result <= 0 {
        0
    } else if under_way.own & call::BY_POINTER != 0 {
        word(under_way.count)? as i64
    } else {
        result
    };
    if moved <= 0 || moved > 1 << 30 {
        if direction == Direction::RECV
            && let Some(object) = OBJECTS.get_ptr_mut(&object::address(id, under_way.object))
        {
            // SAFETY: map values stay valid while the program runs.
            plain::drained(unsafe { &mut *object });
        }
        return None;
    }
    let Some(object) = object::lookup(id, under_way.object) else {
        let counters = counters()?;
        counters[count::PLAIN_SEEN as usize] += 1;
        counters[count::PLAIN_CROWDED as usize] += 1;
        return None;
    };
    if object.cookie == 0 || object.random != 0 {
        hello::join(object, under_way.object, hit.cookie, id);
    }
    let mut how = plain::by(call::library(under_way.own), 0);
    if direction == Direction::RECV {
        how |= plain::RECEIVED;
    }
    if under_way.own & call::NO_BUFFER != 0 {
        how |= plain::UNREAD;
    }
    plain::chunk_of(under_way.object, how, under_way.buffer, moved as u32, under_way.at_ns);
    Some(())
}

#[inline(always)]
fn freed(ctx: &ProbeContext) -> Option<()> {
    let hit = hooked(ctx)?;
    let id = hit.id;
    let address = object::address(id, hit.value(0)?);
    let object = OBJECTS.get_ptr_mut(&address)?;
    // SAFETY: map values stay valid while the program runs.
    object::end(unsafe { &*object }, id);
    let _ = OBJECTS.remove(&address);
    Some(())
}
