//! A socket transfer completed: what planes `sock`, `fentry` and `kprobe` have in common.
//!
//! Comes in: the socket, what the transfer returned and what was asked for. Goes out: a `Transfer`, or a count of why
//! there is none. With `TYPED` the verifier knows what the socket's pointer points to, and members are loaded directly;
//! without, by helper.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf};
use spanwise_common::config::{feature, proc};
use spanwise_common::counters as count;
use spanwise_common::event::Direction;

use crate::conn::{self, Seqs, Stream};
use crate::emit::{Transfer, counters, transfer};
use crate::maps::PROCS;
use crate::offsets::*;
use crate::read::{direct, probed};
use crate::uring;
use crate::user::{Call, nr, vector_ends};

/// Flags of receives of what is not the stream, or not yet: urgent data (MSG_OOB), MSG_PEEK, and reports on what was sent
/// (MSG_ERRQUEUE).
pub const NOT_STREAM: i32 = 1 | 2 | 0x2000;
/// The bytes are dropped and not copied.
pub const MSG_TRUNC: i32 = 0x20;

/// Process and thread, and the bits of the process, if it is traced. The one look-up an untraced process costs.
#[inline(always)]
pub fn traced() -> Option<(u64, u32)> {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // SAFETY: copied at once.
    let bits = *unsafe { PROCS.get(&tgid) }?;
    (bits & proc::TRACE != 0).then_some((id, bits))
}

#[inline(always)]
unsafe fn member<const TYPED: bool, T: Copy>(base: *const u8, offset: &Global<u32>) -> Option<T> {
    // SAFETY: with TYPED the caller's pointer has a type for the verifier; helper reads take any address.
    unsafe { if TYPED { direct::<T>(base, offset) } else { probed::<T>(base as u64, offset) } }
}

/// The sock of a socket.
#[inline(always)]
pub unsafe fn sock_of<const TYPED: bool>(socket: *const u8) -> Option<*const u8> {
    // SAFETY: as the caller says.
    let sk = unsafe { member::<TYPED, *const u8>(socket, &OFF_SOCKET_SK)? };
    (!sk.is_null()).then_some(sk)
}

#[inline(always)]
unsafe fn seqs_of<const TYPED: bool>(sk: *const u8, direction: Direction) -> Option<Seqs> {
    if !TYPED || !has(feature::TCP_CAST) {
        return conn::probed_seqs(sk as u64);
    }
    // SAFETY: the helper takes and returns what the verifier tracks.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk as *mut core::ffi::c_void) as *const u8;
        if tcp.is_null() {
            return None;
        }
        let copied = direct::<u32>(tcp, &OFF_TP_COPIED_SEQ)?;
        let state = direct::<u8>(sk, &OFF_SK_STATE)?;
        let next = direct::<u32>(tcp, &OFF_TP_RCV_NXT)?;
        let copied = conn::without_fin(state, copied, next);
        let write = if direction == Direction::SEND { direct::<u32>(tcp, &OFF_TP_WRITE_SEQ)? } else { 0 };
        Some(Seqs { write, copied })
    }
}

/// Whether the current thread has used io_uring.
#[inline(always)]
fn uses_uring() -> bool {
    // SAFETY: the typed load is of a member of the current task.
    let state = unsafe {
        if has(feature::TASK_REGS) {
            direct::<u64>(bpf_get_current_task_btf() as *const u8, &OFF_TASK_IO_URING)
        } else {
            probed::<u64>(bpf_get_current_task(), &OFF_TASK_IO_URING)
        }
    };
    state.unwrap_or(0) != 0
}

/// A transfer of a traced process completed. `ret` is what it returned, `asked` the flags of a receive.
#[inline(always)]
pub unsafe fn completed<const TYPED: bool>(
    (id, bits): (u64, u32),
    sk: *const u8,
    ret: i32,
    asked: i32,
    direction: Direction,
    plane: u8,
) -> Option<()> {
    // SAFETY: every load is of a member of what `sk` points to.
    let (stream, key) = unsafe {
        let family = member::<TYPED, u16>(sk, &OFF_SK_FAMILY)?;
        let kind = member::<TYPED, u16>(sk, &OFF_SK_TYPE)?;
        let protocol = member::<TYPED, u16>(sk, &OFF_SK_PROTOCOL)?;
        let Some(stream) = conn::stream_of(family, kind, protocol) else {
            counters()?[count::OTHER_SOCKETS as usize] += 1;
            return None;
        };
        (stream, if TYPED { conn::key(sk)? } else { conn::inode_key(sk as u64)? })
    };
    let call = Call::current();
    if ret < 0 || (ret == 0 && direction == Direction::SEND) {
        counters()?[count::EMPTY as usize] += 1;
        if let Some(call) = call
            && (call.nr == nr::SENDMMSG || call.nr == nr::RECVMMSG)
        {
            vector_ends(id);
        }
        return None;
    }
    if direction == Direction::RECV && asked & NOT_STREAM != 0 {
        counters()?[count::PEEKED as usize] += 1;
        return None;
    }
    let call = if direction == Direction::RECV && asked & MSG_TRUNC != 0 { None } else { call };
    // Reading nothing because nothing was asked for is not the end of the stream.
    if ret == 0
        && let Some(call) = call
        && (call.nr == nr::READ || call.nr == nr::RECVFROM)
        && call.dx == 0
    {
        counters()?[count::EMPTY as usize] += 1;
        return None;
    }
    let seqs = match stream {
        // SAFETY: as above.
        Stream::Tcp => unsafe { seqs_of::<TYPED>(sk, direction)? },
        Stream::Unix => Seqs { write: 0, copied: 0 },
    };
    let t = Transfer { key, sock: sk as u64, stream, seqs, moved: ret as u32, direction, id, bits, plane };
    if ret > 0 && uses_uring() {
        // Once a thread has used io_uring, its transfers may run inside any system call: the one that is under
        // way is the cause only if its descriptor is this socket.
        let fd = match call {
            Some(call) if call.is_transfer() || call.nr == nr::SENDFILE => Some(call.di),
            Some(call) if call.nr == nr::SPLICE && direction == Direction::SEND => Some(call.dx),
            Some(call) if call.nr == nr::SPLICE => Some(call.di),
            _ => None,
        };
        // SAFETY: no arguments.
        let task = unsafe { bpf_get_current_task() };
        if fd.and_then(|fd| conn::sock_of_fd(task, fd)) != Some(sk as u64) {
            return if has(feature::URING) { uring::wait_for_completion(&t) } else { transfer(&t, None) };
        }
    }
    transfer(&t, call)
}
