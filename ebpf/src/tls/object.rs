//! What is known of the objects of TLS libraries: made at their first call, joined to a connection once, and begun anew when they
//! go on with another one.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use spanwise_common::conn::verdict;
use spanwise_common::counters as count;
use spanwise_common::event::{Close, Join, Kind};
use spanwise_common::limits::BUDGET_UNKNOWN;

use super::maps::{Address, OBJECTS, Object};
use crate::emit::{counters, header, output_plain};
use crate::maps::VERDICTS;

/// Bits of [`Object::bits`].
pub mod bit {
    /// `next` is known.
    pub const NEXT: u32 = 1 << 0;
    /// `sent_end` is known.
    pub const SENT_END: u32 = 1 << 1;
    /// The library reads more from the socket than the record that it is after.
    pub const AHEAD: u32 = 1 << 2;
    /// Several records came in at once: which of them a chunk is of is not known until all is read.
    pub const MIXED: u32 = 1 << 3;
    /// The connection's handshake was seen from its first byte.
    pub const FROM_START: u32 = 1 << 4;
    /// Its connection will be known in a moment: what passes until then is shipped, and waits in user space.
    pub const AWAITED: u32 = 1 << 5;
}

/// An identity that no other object has, and no connection: the two highest bits are set. Two programs on one CPU do not see the
/// same nanosecond.
#[inline(always)]
fn fresh_id() -> u64 {
    // SAFETY: no arguments.
    let (now, cpu) = unsafe { (bpf_ktime_get_boot_ns(), bpf_get_smp_processor_id()) };
    3 << 62 | (now & ((1 << 52) - 1)) << 10 | u64::from(cpu & 0x3ff)
}

/// The address of an object of the current process.
#[inline(always)]
pub fn address(id: u64, pointer: u64) -> Address {
    Address { pointer, tgid: (id >> 32) as u32, pad: 0 }
}

/// What is known of an object, made if it is new.
#[inline(always)]
pub fn lookup(id: u64, pointer: u64) -> Option<&'static mut Object> {
    lookup_at(&address(id, pointer))
}

/// The same by its key.
#[inline(always)]
pub fn lookup_at(address: &Address) -> Option<&'static mut Object> {
    // SAFETY: map values stay valid while the program runs. A library's object is used by one thread at a time in each
    // direction, and the directions have fields of their own.
    if let Some(object) = OBJECTS.get_ptr_mut(address) {
        return Some(unsafe { &mut *object });
    }
    // SAFETY: all-zero is a valid value.
    let mut fresh: Object = unsafe { core::mem::zeroed() };
    begin(&mut fresh);
    OBJECTS.insert(address, &fresh, 0).ok()?;
    let object = OBJECTS.get_ptr_mut(address)?;
    // SAFETY: as above.
    Some(unsafe { &mut *object })
}

/// Everything as before the first call, under a new identity.
#[inline(always)]
fn begin(object: &mut Object) {
    object.id = fresh_id();
    object.cookie = 0;
    object.random = 0;
    object.sent = 0;
    object.received = 0;
    object.burst = 0;
    object.budget_send = BUDGET_UNKNOWN;
    object.budget_recv = BUDGET_UNKNOWN;
    object.bits = 0;
    object.next = 0;
    object.sent_end = 0;
    object.records = 0;
    object.last = 255;
    object.verdict = verdict::UNKNOWN;
    object.bursts = 0;
}

/// Ends what went on under the object's identity.
#[inline(always)]
pub fn end(object: &Object, id: u64) {
    if object.cookie == 0 {
        return; // nobody knows of it
    }
    // As a connection that is gone.
    const TCP_CLOSE: u32 = 7;
    output_plain(&Close {
        header: header(Kind::CLOSE, size_of::<Close>(), id),
        cookie: object.id,
        old_state: 0,
        new_state: TCP_CLOSE,
        received: 0,
        pad: 0,
    });
}

/// The object no longer stands for the connection that it was joined to.
#[inline(always)]
pub fn restart(object: &mut Object, id: u64) {
    end(object, id);
    begin(object);
    if let Some(counters) = counters() {
        counters[count::TLS_MOVED as usize] += 1;
    }
}

/// The object is this connection's. Evidence only: see the module.
#[inline(always)]
pub fn join(object: &mut Object, cookie: u64, id: u64) {
    if object.cookie == cookie {
        return;
    }
    if object.cookie != 0 {
        restart(object, id);
    }
    object.cookie = cookie;
    output_plain(&Join { header: header(Kind::JOIN, size_of::<Join>(), id), object: object.id, cookie });
}

/// Takes over what user space decided.
#[inline(always)]
pub fn refresh_verdict(object: &mut Object) {
    // SAFETY: copied at once.
    if let Some(said) = unsafe { VERDICTS.get(&object.id) } {
        object.verdict = said.verdict as u8;
        object.budget_send = said.budget_send;
        object.budget_recv = said.budget_recv;
    }
}
