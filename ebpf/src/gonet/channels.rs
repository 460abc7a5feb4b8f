//! Channels of Go programs: which goroutine got a value from which other. Attached only where goroutines that live on make calls
//! that nothing else explains.
//!
//! A value goes straight to a receiver that waits (`runtime.send`), is fetched from a sender that waits (`runtime.recv`), or lies
//! in the channel's buffer for a while: who put it there is kept by the place in the buffer. All of it happens under the channel's
//! lock, so nothing comes in between. Values without a size are no work and are left out.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use spanwise_common::event::{Handoff, Kind, Task, handoff};
use spanwise_common::golang::channel;

use super::maps::{GO_SLOTS, Putter, Stream};
use crate::emit::{header, output_plain};
use crate::golang;
use crate::read::{user_bytes, word};
use crate::uprobe::{Hit, hit};

/// A value passes a channel. Places: the channel and the waiting goroutine's `sudog`; or the type, where it is copied to, and
/// where from. The cookie's own bits say which, and where a channel has its type.
#[uprobe]
pub fn go_channel(ctx: ProbeContext) -> u32 {
    let _ = passes(&ctx);
    0
}

#[inline(always)]
fn passes(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let what = hit.own() >> channel::WHAT_SHIFT;
    match what {
        channel::GIVE | channel::FETCH => meets(&hit, what),
        channel::PUT | channel::TAKE => copies(&hit, what),
        _ => None,
    }
}

/// The goroutine that runs.
#[inline(always)]
fn running(hit: &Hit<'_>) -> Option<Task> {
    let task = golang::task(hit.bits);
    (task.id != 0).then_some(task)
}

/// The other goroutine waits.
#[inline(always)]
fn meets(hit: &Hit<'_>, what: u16) -> Option<()> {
    let at = hit.value(0)?;
    let mut words = [0u64; channel::WORDS];
    // SAFETY: as many bytes as the array has.
    if !unsafe { user_bytes(words.as_mut_ptr().cast(), size_of_val(&words) as u32, at) } {
        return None;
    }
    let size = words[channel::SIZE] & 0xffff;
    if size == 0 {
        return None;
    }
    let task = running(hit)?;
    let offset = u64::from(hit.own() & channel::TYPE);
    let kind = word(at + offset)?;
    // The goroutine is the first member of a `sudog`.
    let other = golang::task_at(word(hit.value(1)?)?, hit.bits)?;
    if what == channel::GIVE {
        return tell(hit.id, task, other.id, kind, 0);
    }
    if words[channel::ROOM] == 0 {
        return tell(hit.id, other, task.id, kind, 0);
    }
    // The buffer is full: its oldest value is taken, and what the other brings lies in its place from now on.
    let next = word(at + offset + u64::from(channel::RECVX))?;
    let slot = slot(hit.id, words[channel::BUFFER].wrapping_add(next.wrapping_mul(size)));
    let (from, age) = holds(&slot);
    put(&slot, other);
    tell(hit.id, from, task.id, kind, age)
}

/// A value is copied into the buffer, or out of it.
#[inline(always)]
fn copies(hit: &Hit<'_>, what: u16) -> Option<()> {
    let kind = hit.value(0)?;
    // A type begins with its size.
    if word(kind)? == 0 {
        return None;
    }
    let task = running(hit)?;
    if what == channel::PUT {
        put(&slot(hit.id, hit.value(1)?), task);
        return Some(());
    }
    let slot = slot(hit.id, hit.value(2)?);
    let (from, age) = holds(&slot);
    let _ = GO_SLOTS.remove(&slot);
    tell(hit.id, from, task.id, kind, age)
}

#[inline(always)]
fn slot(id: u64, pointer: u64) -> Stream {
    Stream { pointer, tgid: (id >> 32) as u32, pad: 0 }
}

#[inline(always)]
fn put(slot: &Stream, task: Task) {
    // SAFETY: no arguments.
    let putter = Putter { task, at_ns: unsafe { bpf_ktime_get_boot_ns() } };
    let _ = GO_SLOTS.insert(slot, &putter, 0);
}

/// Who put what a place holds, and how long ago. Nobody, if that was not seen.
#[inline(always)]
fn holds(slot: &Stream) -> (Task, u32) {
    // SAFETY: copied at once.
    match unsafe { GO_SLOTS.get(slot) } {
        Some(putter) => {
            // SAFETY: no arguments.
            let age = unsafe { bpf_ktime_get_boot_ns() }.wrapping_sub(putter.at_ns) / handoff::AGE_NS;
            (putter.task, if age > u64::from(u32::MAX) { u32::MAX } else { age as u32 })
        }
        None => (Task::default(), 0),
    }
}

#[inline(always)]
fn tell(id: u64, from: Task, to: u64, kind: u64, age: u32) -> Option<()> {
    // What a goroutine put away for itself is no news.
    if from.id == to || to == 0 {
        return None;
    }
    output_plain(&Handoff {
        header: header(Kind::HANDOFF, size_of::<Handoff>(), id),
        cookie: to,
        object: kind,
        task: from,
        stream: age,
        what: handoff::GIVES,
        pad: [0; 3],
    });
    Some(())
}
