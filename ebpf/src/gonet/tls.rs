//! crypto/tls: plaintext of each TLS record, before it is encrypted and after it was decrypted.
//!
//! `(*halfConn).encrypt` is called once for each record that is sent, by the goroutine that writes and under the lock of the
//! direction; what it encrypts is sent before anything else can be. So the position behind the record is known before it is
//! sent. `(*halfConn).decrypt` is called when a whole record has been read; what was read beyond it stands in a buffer.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use spanwise_common::config::proc;
use spanwise_common::conn::{known, verdict};
use spanwise_common::counters as count;
use spanwise_common::event::library;
use spanwise_common::golang::Tls;
use spanwise_common::place::Place;

use super::conn::below;
use super::maps::GO_TLS;
use super::routes;
use crate::conn::probed_seqs;
use crate::emit::counters;
use crate::maps::CONNS;
use crate::read::{user_bytes, word};
use crate::tls::maps::Object;
use crate::tls::object::{self, bit};
use crate::tls::plain::{RECEIVED, by, chunk_of};
use crate::uprobe::hit;

/// Type of records with data of the application.
const APPLICATION: u8 = 23;
/// Bytes of a record's header.
const HEADER: u32 = 5;
/// Bytes that a cipher adds at the end of a record, in all suites but the old ones with CBC.
const TAG: u32 = 16;
/// Longest plaintext of a record.
const LONGEST: u64 = 1 << 14;

/// A record is about to be encrypted.
#[uprobe]
pub fn go_encrypt(ctx: ProbeContext) -> u32 {
    let _ = encrypts(&ctx);
    0
}

/// A record was decrypted.
#[uprobe]
pub fn go_decrypt(ctx: ProbeContext) -> u32 {
    let _ = decrypted(&ctx);
    0
}

/// Layout of the process.
#[inline(always)]
fn layout(id: u64) -> Option<&'static Tls> {
    // SAFETY: written before the probes are attached, and then left alone.
    unsafe { GO_TLS.get(&((id >> 32) as u32)) }
}

#[inline(always)]
fn encrypts(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let (id, bits) = (hit.id, hit.bits);
    let layout = layout(id)?;
    let mut head = [0u8; 8];
    // SAFETY: five bytes into eight.
    if !unsafe { user_bytes(head.as_mut_ptr(), HEADER, hit.value(1)?) } {
        return None;
    }
    let moved = u32::from(head[3]) << 8 | u32::from(head[4]);
    if head[0] != APPLICATION || moved == 0 || u64::from(moved) > LONGEST {
        return None;
    }
    let pointer = hit.value(0)?.wrapping_sub(u64::from(layout.out));
    let buffer = hit.value(2)?;
    let (object, sock) = object_of(id, pointer, layout)?;
    object.bits &= !bit::SENT_END;
    if let Some(seqs) = probed_seqs(sock)
        && let Some(added) = added(pointer, layout)
    {
        object.sent_end = seqs.write.wrapping_add(HEADER + moved + added);
        object.bits |= bit::SENT_END;
    }
    if bits & proc::ROUTES != 0 && object.verdict != verdict::IGNORE {
        routes::of_plaintext(buffer, pointer, object.id, object.sent, bits);
    }
    ship(pointer, 0, buffer, moved, bits)
}

/// Bytes that encrypting adds between a record's header and its end, if that is certain.
#[inline(always)]
fn added(pointer: u64, layout: &Tls) -> Option<u32> {
    let version = word(pointer + u64::from(layout.version))? as u16;
    if version == 0x0304 {
        return Some(1 + TAG); // and the type
    }
    match word(pointer + u64::from(layout.suite))? as u16 {
        // AES-GCM writes half of its nonce into each record; ChaCha20-Poly1305 does not.
        0x009c | 0x009d | 0xc02b | 0xc02c | 0xc02f | 0xc030 if version == 0x0303 => Some(8 + TAG),
        0xcca8 | 0xcca9 if version == 0x0303 => Some(TAG),
        _ => None,
    }
}

#[inline(always)]
fn decrypted(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let (id, bits) = (hit.id, hit.bits);
    let layout = layout(id)?;
    let kind = hit.at(Place(hit.own()))? as u8;
    let moved = hit.value(2)?;
    if kind != APPLICATION || moved == 0 || moved > LONGEST {
        return None;
    }
    let pointer = hit.value(0)?;
    let buffer = hit.value(1)?;
    let (object, sock) = object_of(id, pointer, layout)?;
    let raw = pointer + u64::from(layout.raw);
    let (held, taken) = (word(raw + 8)?, word(raw + u64::from(layout.off))?);
    object.bits &= !(bit::NEXT | bit::AHEAD | bit::MIXED);
    if let Some(seqs) = probed_seqs(sock)
        && held >= taken
    {
        object.next = seqs.copied.wrapping_sub((held - taken) as u32);
        object.records = 1;
        object.bits |= bit::NEXT;
    }
    ship(pointer, RECEIVED, buffer, moved as u32, bits)
}

/// What is known of a `tls.Conn`, and the sock below it.
#[inline(always)]
fn object_of(id: u64, pointer: u64, layout: &Tls) -> Option<(&'static mut Object, u64)> {
    let mut found = [0u64; 2];
    if below(pointer + u64::from(layout.conn), &mut found) == 0 {
        let counters = counters()?;
        counters[count::PLAIN_SEEN as usize] += 1;
        counters[count::PLAIN_UNJOINED as usize] += 1;
        return None;
    }
    let [key, sock] = found;
    let Some(object) = object::lookup(id, pointer) else {
        let counters = counters()?;
        counters[count::PLAIN_SEEN as usize] += 1;
        counters[count::PLAIN_CROWDED as usize] += 1;
        return None;
    };
    object::join(object, key, id);
    // SAFETY: copied at once.
    if object.sent == 0
        && object.received == 0
        && let Some(state) = unsafe { CONNS.get(&key) }
        && state.info.known & known::TLS_START != 0
    {
        object.bits |= bit::FROM_START;
    }
    Some((object, sock))
}

#[inline(always)]
fn ship(pointer: u64, how: u64, buffer: u64, moved: u32, bits: u32) -> Option<()> {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    chunk_of(pointer, by(library::GO, bits) | how, buffer, moved, now);
    Some(())
}
