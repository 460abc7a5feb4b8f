//! Transfers inside a call on an object: they join the object to the connection, and tell where its TLS records begin and end.
//!
//! The headers of records are in clear: type, version, length. A chunk of plaintext is named by the end of the record that
//! carried it, a position that both ends of the connection see alike.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs};
use spanwise_common::config::feature;
use spanwise_common::conn::{Info, known};
use spanwise_common::event::Direction;

use super::maps::{CALLS, Object};
use super::object::{self, bit};
use crate::conn::Stream;
use crate::emit::Transfer;
use crate::maps::{CONNS, SCRATCH};
use crate::offsets::{OFF_REGS_SP, OFF_REGS_SS, OFF_TASK_STACK, has};
use crate::read::{direct, probed, user_bytes, word};
use crate::user::{Call, STACK_SIZE, nr};

/// Bytes of a record's header.
const HEADER: u32 = 5;
/// Longest record: 2^14 bytes and what ciphers may add.
const LONGEST: u32 = (1 << 14) + 2048;
/// A call's own stack is not deeper than this: another stack (of a fibre) lies elsewhere.
const DEEPEST: u64 = 1 << 20;

/// The stack pointer of the user's side.
#[inline(always)]
fn user_sp() -> Option<u64> {
    // SAFETY: typed loads of members, or helper reads of any address.
    unsafe {
        if has(feature::TASK_REGS) {
            let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8;
            return direct::<u64>(regs, &OFF_REGS_SP);
        }
        let stack = probed::<u64>(bpf_get_current_task(), &OFF_TASK_STACK)?;
        probed::<u64>(stack + STACK_SIZE - 8 - u64::from(OFF_REGS_SS.load()), &OFF_REGS_SP)
    }
}

/// Address of the transfer's first bytes, and how many lie there in one piece at least.
#[inline(always)]
pub fn first_bytes(call: &Call, moved: u32) -> Option<(u64, u32)> {
    let segments = match call.nr {
        nr::READ | nr::WRITE | nr::SENDTO | nr::RECVFROM => return Some((call.si, moved)),
        nr::READV | nr::WRITEV | nr::PREADV2 | nr::PWRITEV2 => call.si,
        nr::SENDMSG | nr::RECVMSG => word(call.si + 16)?,
        _ => return None,
    };
    let base = word(segments)?;
    let len = word(segments + 8)?;
    Some((base, if len < u64::from(moved) { len as u32 } else { moved }))
}

/// Type and length of the record that begins at an address of user memory, if it is one.
#[inline(always)]
pub fn record_at(address: u64) -> Option<(u8, u32)> {
    let mut head = [0u8; 8];
    // SAFETY: five bytes into eight.
    if !unsafe { user_bytes(head.as_mut_ptr(), HEADER, address) } {
        return None;
    }
    let len = u32::from(head[3]) << 8 | u32::from(head[4]);
    let fits = head[0] >= 20 && head[0] <= 24 && head[1] == 3 && head[2] <= 4 && len != 0 && len <= LONGEST;
    fits.then_some((head[0], len))
}

/// The transfer in the scratch, of a process whose TLS library has hooks: if it happens inside a call of the library, it says which
/// connection the call's object has. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn inside_library() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let (t, call) = unsafe { (&(*scratch).transfer, &(*scratch).call) };
    u32::from(look(t, call).is_some())
}

#[inline(always)]
fn look(t: &Transfer, call: &Call) -> Option<()> {
    let under_way = CALLS.get_ptr_mut(&t.id)?;
    // SAFETY: the entry is this thread's own.
    let (live, sp, pointer) = unsafe { ((*under_way).live, (*under_way).sp, (*under_way).object) };
    if live == 0 {
        return None;
    }
    // A call that was left by a jump or a switch of stacks is over, though nobody told.
    let now = user_sp()?;
    if now >= sp || sp - now > DEEPEST {
        return None;
    }
    let (address, together) = first_bytes(call, t.moved)?;
    let object = object::lookup(t.id, pointer)?;
    // Only now: most transfers happen in no call of a library.
    // SAFETY: map values stay valid while the program runs; a race on one connection costs a chunk's name at worst.
    let info = unsafe { &mut (*CONNS.get_ptr_mut(&t.key)?).info };
    if t.direction == Direction::SEND {
        sent(t, object, address, together, info)
    } else {
        received(t, object, address, together, info)
    }
}

/// The object's connection is known. What was seen of its beginning is known of the object too.
#[inline(always)]
fn join(t: &Transfer, object: &mut Object, seq: u32, kind: u8, base: u32, info: &mut Info) {
    object::join(object, t.key, t.id);
    // The first record of its direction; the opener's own numbers are one too small.
    if t.stream == Stream::Tcp && kind == 22 && seq.wrapping_sub(base) <= 1 {
        info.known |= known::TLS_START;
    }
    if info.known & known::TLS_START != 0 && object.sent == 0 && object.received == 0 {
        object.bits |= bit::FROM_START;
    }
}

#[inline(always)]
fn sent(t: &Transfer, object: &mut Object, address: u64, together: u32, info: &mut Info) -> Option<()> {
    if together < HEADER {
        return None;
    }
    let (kind, len) = record_at(address)?;
    let seq = t.seqs.write.wrapping_sub(t.moved);
    join(t, object, seq, kind, info.own_base, info);
    if t.stream == Stream::Tcp && object.bits & bit::SENT_END == 0 {
        object.sent_end = seq.wrapping_add(HEADER).wrapping_add(len);
        object.bits |= bit::SENT_END;
    }
    Some(())
}

#[inline(always)]
fn received(t: &Transfer, object: &mut Object, address: u64, together: u32, info: &mut Info) -> Option<()> {
    let seq = t.seqs.copied.wrapping_sub(t.moved);
    let tcp = t.stream == Stream::Tcp;
    // Where in this transfer the next record is to begin; at its beginning, if that is not known or was passed elsewhere.
    let mut at = 0;
    if tcp && object.cookie == t.key && object.bits & bit::NEXT != 0 {
        let ahead = object.next.wrapping_sub(seq);
        if ahead < 1 << 30 {
            if ahead >= t.moved {
                return None; // more of a record that began before
            }
            at = ahead;
            if ahead != 0 {
                // The rest of a record and then another: a library that reads so far has both.
                object.bits |= bit::MIXED;
            }
        }
    }
    if at + HEADER > together {
        object.bits &= !bit::NEXT;
        return None;
    }
    let Some((kind, len)) = record_at(address + u64::from(at)) else {
        object.bits &= !bit::NEXT;
        return None;
    };
    join(t, object, seq.wrapping_add(at), kind, info.peer_base, info);
    if t.moved - at > HEADER {
        object.bits |= bit::AHEAD;
    }
    at += HEADER + len;
    object.records = object.records.wrapping_add(1);
    object.next = seq.wrapping_add(at);
    object.bits |= bit::NEXT;
    if !tcp || at < t.moved {
        // More records follow in this transfer. None of them is looked at: which one a chunk is of would not be known.
        object.bits &= !bit::NEXT;
        object.bits |= bit::MIXED;
    }
    Some(())
}
