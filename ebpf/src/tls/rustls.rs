//! rustls: each record is encrypted before it is sent, and decrypted after it was received, outside the socket's calls and often
//! at another address than the one before.
//!
//! Comes in: the begin and the end of each encryption and decryption of a record (`MessageEncrypter::encrypt`,
//! `MessageDecrypter::decrypt`), and every transfer of the process. Goes out: its plaintext.
//!
//! A cipher belongs to a connection if the authentication tag of a record (its last bytes) came out of it and passed the
//! socket, or the other way round. It stays so while the numbers of its records go on without a gap: another one at the same
//! address begins with zero. Rust lays out structs as it likes, so what is read of them must agree with the length of the record.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use spanwise_common::config::proc;
use spanwise_common::conn::known;
use spanwise_common::counters as count;
use spanwise_common::event::{Direction, Join, Kind, flags, library};

use super::maps::{Address, CIPHERS, CRYPTING, Cipher, Crypting, OBJECTS, Object, TAGS, Tag, Tagged};
use super::object::{self, bit};
use super::plain::{OF_CONNECTION, RECEIVED, UNREAD, by, chunk_of};
use super::wire;
use crate::conn::Stream;
use crate::emit::{Transfer, counters, header, output_plain};
use crate::maps::{CONNS, PROCS, SCRATCH};
use crate::read::{user_bytes, word};
use crate::uprobe::{Hit, hit};

/// Flag of a map update: only what is there already (`BPF_EXIST`).
const EXISTING: u64 = 2;
/// Bytes of a record's header.
const HEADER: u64 = 5;
/// Longest plaintext of a record.
const LONGEST: u64 = 1 << 14;
/// Bytes of an authentication tag.
const SEAL: u64 = 16;
/// What TLS 1.3 adds: the type of the record, and the tag.
const ADDED_13: u64 = 1 + SEAL;
/// What AES-GCM adds in TLS 1.2: half of its nonce, and the tag.
const ADDED_GCM_12: u64 = 8 + SEAL;
/// Type of records with data of the application.
const APPLICATION: u64 = 23;
/// As rustls numbers them in its own types: data of the application, TLS 1.2.
const OWN_APPLICATION: u64 = 3;
const OWN_TLS_12: u64 = 4;
/// Pieces of one record's plaintext that are read.
const PIECES: u64 = 4;

/// A record is about to be encrypted.
#[uprobe]
pub fn rustls_encrypt(ctx: ProbeContext) -> u32 {
    let _ = begins(&ctx, false);
    0
}

/// It is encrypted.
#[uprobe]
pub fn rustls_encrypted(ctx: ProbeContext) -> u32 {
    let _ = encrypted(&ctx);
    0
}

/// A record is about to be decrypted.
#[uprobe]
pub fn rustls_decrypt(ctx: ProbeContext) -> u32 {
    let _ = begins(&ctx, true);
    0
}

/// It is decrypted.
#[uprobe]
pub fn rustls_decrypted(ctx: ProbeContext) -> u32 {
    let _ = decrypted(&ctx);
    0
}

/// The hit. From the first one on the transfers of the process are looked at; the agent would say so a little later.
#[inline(always)]
fn hooked(context: &ProbeContext) -> Option<Hit<'_>> {
    let hit = hit(context)?;
    if hit.bits & proc::RUSTLS == 0 {
        let _ = PROCS.insert(&((hit.id >> 32) as u32), &(hit.bits | proc::TLS | proc::RUSTLS), EXISTING);
    }
    Some(hit)
}

#[inline(always)]
fn begins(ctx: &ProbeContext, decrypts: bool) -> Option<()> {
    let hit = hooked(ctx)?;
    let mut now = Crypting {
        cipher: hit.value(0)?,
        number: hit.value(2)?,
        // SAFETY: no arguments.
        at_ns: unsafe { bpf_ktime_get_boot_ns() },
        len: 0,
        at: 0,
        tag: 0,
        message: [0; 5],
    };
    // SAFETY: five words of room.
    if !unsafe { user_bytes((&raw mut now.message).cast(), 40, hit.value(1)?) } {
        return None;
    }
    if decrypts {
        opaque(&mut now)?;
    }
    let _ = CRYPTING.insert(&hit.id, &now, 0);
    Some(())
}

/// Where the encrypted bytes of a record are that is about to be decrypted: behind the header that they came with, or in a vector.
#[inline(always)]
fn opaque(now: &mut Crypting) -> Option<()> {
    let [first, second, third, ..] = now.message;
    if let Some((kind, len)) = wire::record_at(first.wrapping_sub(HEADER))
        && u64::from(len) == second
    {
        (now.at, now.len) = (first, second);
        now.message[0] = u64::from(kind);
    } else {
        // Before 0.23: capacity, address, length; then type and version.
        if first < third || third > LONGEST + 2048 {
            return None;
        }
        (now.at, now.len) = (second, third);
        now.message[0] = if is_data(now.message[3]) { APPLICATION } else { 0 };
    }
    if now.len < SEAL {
        return None;
    }
    now.tag = word(now.at + now.len - 8)?;
    Some(())
}

/// Takes the call that ends here.
#[inline(always)]
fn taken(id: u64) -> Option<Crypting> {
    // SAFETY: copied at once.
    let under_way = unsafe { CRYPTING.get(&id) }.copied()?;
    let _ = CRYPTING.remove(&id);
    Some(under_way)
}

/// What is known of a cipher before its record `number`; as new if it is not the one that made the record before.
#[inline(always)]
fn cipher_of(address: &Address, number: u64) -> Option<&'static mut Cipher> {
    if let Some(cipher) = CIPHERS.get_ptr_mut(address) {
        // SAFETY: map values stay valid while the program runs. A cipher is used by one thread at a time.
        let cipher = unsafe { &mut *cipher };
        if number != 0 && cipher.next == number {
            cipher.next = number + 1;
            return Some(cipher);
        }
        let _ = OBJECTS.remove(address);
        *cipher = Cipher { cookie: 0, next: number + 1, end: 0, total: 0, has_end: 0, pad: 0 };
        return Some(cipher);
    }
    let fresh = Cipher { cookie: 0, next: number + 1, end: 0, total: 0, has_end: 0, pad: 0 };
    CIPHERS.insert(address, &fresh, 0).ok()?;
    // SAFETY: as above.
    CIPHERS.get_ptr_mut(address).map(|cipher| unsafe { &mut *cipher })
}

/// Key of the object that stands for a connection.
#[inline(always)]
fn of_connection(id: u64, key: u64) -> Address {
    Address { pointer: key, tgid: (id >> 32) as u32, pad: OF_CONNECTION as u32 }
}

/// The plaintext of a record before it is encrypted.
struct Outgoing {
    /// Bytes.
    len: u64,
    /// Address of the bytes, or of the list of pieces.
    from: u64,
    /// Pieces; zero if it is one.
    pieces: u64,
    /// Bytes of the pieces that are not of this record.
    skip: u64,
}

/// One piece, or a list of pieces and which of their bytes are meant; its type and version follow. In rustls before 0.23: one.
#[inline(always)]
fn outgoing(message: &[u64; 5]) -> (Outgoing, u64) {
    let [first, second, third, fourth, fifth] = *message;
    if first == 0 {
        return (Outgoing { len: third, from: second, pieces: 0, skip: 0 }, fifth);
    }
    if third <= fourth && fourth - third <= LONGEST && second != 0 && second <= 1024 {
        let len = fourth - third;
        return (Outgoing { len, from: first, pieces: second, skip: third }, fifth);
    }
    (Outgoing { len: second, from: first, pieces: 0, skip: 0 }, third)
}

/// Whether a length is that of what encrypting makes of a plaintext; without its header.
#[inline(always)]
fn grew(from: u64, to: u64) -> bool {
    let by = to.wrapping_sub(from);
    by == ADDED_13 || by == SEAL || by == ADDED_GCM_12
}

/// Nothing in a result is what is looked for.
const NOT_FOUND: u32 = 255;
/// The vector begins with room for the header.
const WITH_HEADER: u32 = 8;

/// Where the vector with the encrypted record is in a result, in words: capacity, address, length. What encrypting adds to the
/// plaintext tells it; from 0.23 on there is room for the header before it. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rustls_sealed(result: u64, plaintext: u64) -> u32 {
    let mut words = [0u64; 6];
    // SAFETY: six words of room.
    if !unsafe { user_bytes((&raw mut words).cast(), 48, result) } {
        return NOT_FOUND;
    }
    let mut at = 0;
    while at < 4 {
        let (capacity, len) = (words[at], words[at + 2]);
        if capacity >= len && capacity < 1 << 20 {
            if grew(plaintext + HEADER, len) {
                return at as u32 | WITH_HEADER;
            }
            if grew(plaintext, len) {
                return at as u32;
            }
        }
        at += 1;
    }
    NOT_FOUND
}

/// Where address and length of the plaintext are in a result, in words: it is where the encrypted bytes were. A global function too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rustls_opened(result: u64, sealed: u64, sealed_len: u64) -> u32 {
    let mut words = [0u64; 6];
    // SAFETY: six words of room.
    if !unsafe { user_bytes((&raw mut words).cast(), 48, result) } {
        return NOT_FOUND;
    }
    let mut at = 0;
    while at < 5 {
        let (address, len) = (words[at], words[at + 1]);
        if address.wrapping_sub(sealed) <= 8 && len <= LONGEST && len + SEAL <= sealed_len {
            return at as u32;
        }
        at += 1;
    }
    NOT_FOUND
}

#[inline(always)]
fn encrypted(ctx: &ProbeContext) -> Option<()> {
    let hit = hooked(ctx)?;
    let id = hit.id;
    let under_way = taken(id)?;
    let (plaintext, about) = outgoing(&under_way.message);
    if plaintext.len > LONGEST {
        return None;
    }
    let result = hit.value(0)?;
    let found = rustls_sealed(result, plaintext.len);
    if found == NOT_FOUND {
        unread(about);
        return None;
    }
    let vector = result + u64::from(found & 7) * 8;
    let len = word(vector + 16)?;
    let end = word(vector + 8)? + len;
    let on_wire = if found & WITH_HEADER != 0 { len } else { len + HEADER };
    let address = Address { pointer: under_way.cipher, tgid: (id >> 32) as u32, pad: 0 };
    let cipher = cipher_of(&address, under_way.number)?;
    cipher.total = cipher.total.wrapping_add(on_wire as u32);
    cipher.end = cipher.end.wrapping_add(on_wire as u32);
    if cipher.cookie == 0 {
        let tag = Tag { tag: word(end - 8)?, tgid: address.tgid, direction: u32::from(Direction::SEND.0) };
        let tagged = Tagged { what: under_way.cipher, end: 0, total: cipher.total };
        let _ = TAGS.insert(&tag, &tagged, 0);
    }
    if !is_data(about) || plaintext.len == 0 {
        return None;
    }
    let of = if cipher.cookie != 0 { of_connection(id, cipher.cookie) } else { address };
    let object = object::lookup_at(&of)?;
    if cipher.cookie != 0 {
        object::join(object, cipher.cookie, id);
        from_start(object);
    } else {
        // The write that follows will say whose it is.
        object.bits |= bit::AWAITED;
    }
    object.bits &= !bit::SENT_END;
    if cipher.has_end != 0 {
        object.sent_end = cipher.end;
        object.bits |= bit::SENT_END;
    }
    ship(&of, &plaintext, under_way.at_ns)
}

/// Whether type and version, as they stand behind a plaintext, say that it is data of the application.
#[inline(always)]
fn is_data(about: u64) -> bool {
    // In one order or the other.
    let type_first = about & 0xff == OWN_APPLICATION && about >> 16 & 0xffff == OWN_TLS_12;
    let version_first = about & 0xffff == OWN_TLS_12 && about >> 32 & 0xff == OWN_APPLICATION;
    type_first || version_first
}

/// A record that was not understood.
#[inline(always)]
fn unread(about: u64) {
    if is_data(about)
        && let Some(counters) = counters()
    {
        counters[count::PLAIN_SEEN as usize] += 1;
        counters[count::PLAIN_UNJOINED as usize] += 1;
    }
}

/// Ships plaintext, piece by piece.
#[inline(always)]
fn ship(object: &Address, plaintext: &Outgoing, at_ns: u64) -> Option<()> {
    if plaintext.skip >> 32 != 0 {
        return None;
    }
    let how = by(library::RUSTLS, 0) | u64::from(object.pad);
    rustls_ship(
        object.pointer,
        how | plaintext.pieces << 32,
        plaintext.from,
        plaintext.len | plaintext.skip << 32,
        at_ns,
    );
    Some(())
}

/// The same: above `how` is the number of pieces, above `len` how many bytes of them are left out. A global function: the verifier looks at
/// it once, and not for every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rustls_ship(pointer: u64, how: u64, from: u64, len: u64, at_ns: u64) -> u32 {
    let (pieces, how) = (how >> 32, how & 0xffff_ffff);
    if pieces == 0 {
        chunk_of(pointer, how, from, len as u32, at_ns);
        return 0;
    }
    let mut rest = len;
    let mut index = 0;
    while index < PIECES && index < pieces && rest as u32 != 0 {
        rest = rustls_piece(pointer, how, from + index * 16, rest, at_ns);
        index += 1;
    }
    if rest as u32 != 0 {
        chunk_of(pointer, how | UNREAD, 0, rest as u32, at_ns);
    }
    0
}

/// One piece: of `rest`, the lower half is how many bytes are left of the plaintext, the upper how many are left out before. Returns the
/// rest behind it. It has no stack of its own, which there is little of before Linux 6.13.
#[inline(always)]
fn rustls_piece(pointer: u64, how: u64, piece: u64, rest: u64, at_ns: u64) -> u64 {
    let (left, skip) = (rest & 0xffff_ffff, rest >> 32);
    let (Some(at), Some(len)) = (word(piece), word(piece + 8)) else { return left };
    if skip >= len {
        return left | (skip - len) << 32;
    }
    let here = if len - skip < left { len - skip } else { left };
    chunk_of(pointer, how, at + skip, here as u32, at_ns);
    left - here
}

/// What was seen of the connection's beginning is known of its object too.
#[inline(always)]
fn from_start(object: &mut Object) {
    // SAFETY: copied at once.
    if object.sent == 0
        && object.received == 0
        && let Some(state) = unsafe { CONNS.get(&object.cookie) }
        && state.info.known & known::TLS_START != 0
    {
        object.bits |= bit::FROM_START;
    }
}

#[inline(always)]
fn decrypted(ctx: &ProbeContext) -> Option<()> {
    let hit = hooked(ctx)?;
    let id = hit.id;
    let under_way = taken(id)?;
    let result = hit.value(0)?;
    let found = rustls_opened(result, under_way.at, under_way.len);
    if found == NOT_FOUND {
        return None;
    }
    let (buffer, len) = (word(result + u64::from(found) * 8)?, word(result + u64::from(found) * 8 + 8)?);
    let address = Address { pointer: under_way.cipher, tgid: (id >> 32) as u32, pad: 0 };
    let cipher = cipher_of(&address, under_way.number)?;
    cipher.end = cipher.end.wrapping_add((under_way.len + HEADER) as u32);
    if cipher.cookie == 0 {
        let tag = Tag { tag: under_way.tag, tgid: address.tgid, direction: u32::from(Direction::RECV.0) };
        // SAFETY: copied at once.
        if let Some(seen) = unsafe { TAGS.get(&tag) }.copied() {
            let _ = TAGS.remove(&tag);
            cipher.cookie = seen.what;
            cipher.end = seen.end;
            cipher.has_end = seen.total;
        }
    }
    if len == 0 || len > LONGEST || kind_of(&under_way, buffer, len)? != APPLICATION {
        return None;
    }
    if cipher.cookie == 0 {
        let counters = counters()?;
        counters[count::PLAIN_SEEN as usize] += 1;
        counters[count::PLAIN_UNJOINED as usize] += 1;
        return None;
    }
    let of = of_connection(id, cipher.cookie);
    let object = object::lookup_at(&of)?;
    object::join(object, cipher.cookie, id);
    from_start(object);
    object.bits &= !(bit::NEXT | bit::AHEAD | bit::MIXED);
    if cipher.has_end != 0 {
        object.next = cipher.end;
        object.records = 1;
        object.bits |= bit::NEXT;
    }
    let how = by(library::RUSTLS, 0) | u64::from(of.pad) | RECEIVED;
    chunk_of(of.pointer, how, buffer, len as u32, under_way.at_ns);
    Some(())
}

/// Type of a record that was decrypted: in TLS 1.3 it stands behind the plaintext, and zeroes may follow it.
#[inline(always)]
fn kind_of(under_way: &Crypting, buffer: u64, len: u64) -> Option<u64> {
    let added = under_way.len - len;
    let outer = under_way.message[0];
    if added == SEAL {
        return Some(outer);
    }
    let behind = word(buffer + len)?;
    if added == ADDED_GCM_12 && behind >> 8 != 0 {
        return Some(outer);
    }
    Some(behind & 0xff)
}

/// A record of the transfer in the scratch passed its socket as a whole; `tag` are its last bytes, `end` the position behind it. A
/// global function: the verifier looks at it once, and not for every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rustls_passed(tag: u64, end: u32) -> u32 {
    if let Some(scratch) = SCRATCH.get_ptr_mut(0) {
        // SAFETY: per-CPU scratch.
        passed(unsafe { &(*scratch).transfer }, tag, end);
    }
    0
}

#[inline(always)]
fn passed(t: &Transfer, tag: u64, end: u32) {
    let tgid = (t.id >> 32) as u32;
    let tag = Tag { tag, tgid, direction: u32::from(t.direction.0) };
    let has_end = u32::from(t.stream == Stream::Tcp);
    if t.direction == Direction::RECV {
        let _ = TAGS.insert(&tag, &Tagged { what: t.key, end, total: has_end }, 0);
        return;
    }
    // SAFETY: copied at once.
    let Some(made) = unsafe { TAGS.get(&tag) }.copied() else { return };
    let _ = TAGS.remove(&tag);
    let address = Address { pointer: made.what, tgid, pad: 0 };
    let Some(cipher) = CIPHERS.get_ptr_mut(&address) else { return };
    // SAFETY: map values stay valid while the program runs.
    let cipher = unsafe { &mut *cipher };
    if cipher.cookie == 0 {
        cipher.cookie = t.key;
        cipher.end = end.wrapping_add(cipher.total.wrapping_sub(made.total));
        cipher.has_end = has_end;
        awaited(t, &address);
    }
}

/// What was shipped of a cipher before it was known whose it is becomes the connection's.
#[inline(always)]
fn awaited(t: &Transfer, address: &Address) {
    // SAFETY: copied at once.
    let Some(before) = unsafe { OBJECTS.get(address) }.copied() else { return };
    let _ = OBJECTS.remove(address);
    let of = of_connection(t.id, t.key);
    let mut join =
        Join { header: header(Kind::JOIN, size_of::<Join>(), t.id), object: before.id, cookie: t.key };
    if let Some(object) = OBJECTS.get_ptr_mut(&of) {
        // SAFETY: map values stay valid while the program runs.
        let object = unsafe { &mut *object };
        // The connection's first in this direction; anything else leaves a gap.
        if object.sent == 0 {
            join.header.flags = flags::SAME;
            output_plain(&join);
        }
        object.sent = object.sent.wrapping_add(before.sent);
        return;
    }
    if OBJECTS.insert(&of, &before, 0).is_ok()
        && let Some(object) = OBJECTS.get_ptr_mut(&of)
    {
        // SAFETY: as above.
        let object = unsafe { &mut *object };
        object.cookie = t.key;
        object.bits &= !bit::AWAITED;
        // SAFETY: copied at once.
        if let Some(state) = unsafe { CONNS.get(&t.key) }
            && state.info.known & known::TLS_START != 0
        {
            object.bits |= bit::FROM_START;
            join.header.flags = flags::FROM_START;
        }
        output_plain(&join);
    }
}
