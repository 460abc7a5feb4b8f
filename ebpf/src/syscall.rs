//! Plane `syscall`: a system call that can move socket bytes returned. For kernels without the socket tracepoints;
//! every system call of the node passes here, so it does as little as it can before it says no.
//!
//! match-proto: sys_exit(struct pt_regs *regs, long ret)

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::config::proc;
use spanwise_common::counters as count;
use spanwise_common::event::{Direction, plane};

use crate::complete::{MSG_TRUNC, NOT_STREAM};
use crate::conn::{self, Seqs, Stream};
use crate::emit::{Transfer, counters, transfer};
use crate::maps::PROCS;
use crate::user::{Call, nr};

#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit_io(ctx: BtfTracePointContext) -> i32 {
    let _ = returned(&ctx);
    0
}

/// Direction of a call and which argument is its socket; none for calls that move no socket bytes.
#[inline(always)]
fn direction_of(call: &Call) -> Option<Direction> {
    match call.nr {
        nr::READ | nr::READV | nr::RECVFROM | nr::RECVMSG | nr::RECVMMSG | nr::PREADV2 => {
            Some(Direction::RECV)
        }
        nr::WRITE | nr::WRITEV | nr::SENDTO | nr::SENDMSG | nr::SENDMMSG | nr::PWRITEV2 | nr::SENDFILE => {
            Some(Direction::SEND)
        }
        _ => None,
    }
}

#[inline(always)]
fn returned(ctx: &BtfTracePointContext) -> Option<()> {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // SAFETY: copied at once.
    let bits = *unsafe { PROCS.get(&tgid) }?;
    if bits & proc::TRACE == 0 {
        return None;
    }
    let regs: *const u8 = ctx.arg(0);
    let ret: i64 = ctx.arg(1);
    // SAFETY: `regs` is a pt_regs pointer for the verifier.
    let call = unsafe { Call::from_regs(regs)? };
    // Only an address is needed, and the helper that gives a typed pointer came with Linux 5.11.
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let (direction, sock) = if call.nr == nr::SPLICE {
        // Between a pipe and something else: either end may be the socket.
        match conn::sock_of_fd(task, call.dx) {
            Some(sock) => (Direction::SEND, sock),
            None => (Direction::RECV, conn::sock_of_fd(task, call.di)?),
        }
    } else {
        (direction_of(&call)?, conn::sock_of_fd(task, call.di)?)
    };
    let Some(stream) = conn::probed_stream(sock) else {
        counters()?[count::OTHER_SOCKETS as usize] += 1;
        return None;
    };
    if ret < 0 || (ret == 0 && direction == Direction::SEND) {
        counters()?[count::EMPTY as usize] += 1;
        return None;
    }
    if ret == 0 && (call.nr == nr::READ || call.nr == nr::RECVFROM) && call.dx == 0 {
        counters()?[count::EMPTY as usize] += 1;
        return None;
    }
    let asked = match call.nr {
        nr::RECVFROM | nr::RECVMMSG => call.r10 as i32,
        nr::RECVMSG => call.dx as i32,
        _ => 0,
    };
    if asked & NOT_STREAM != 0 {
        counters()?[count::PEEKED as usize] += 1;
        return None;
    }
    let seqs = match stream {
        Stream::Tcp => conn::probed_seqs(sock)?,
        Stream::Unix => Seqs { write: 0, copied: 0 },
    };
    let key = conn::inode_key(sock)?;
    let (moved, seqs) = if call.nr == nr::SENDMMSG || call.nr == nr::RECVMMSG {
        first_of_vector(&call, ret as u32, direction, seqs)?
    } else {
        (ret as u32, seqs)
    };
    // A message header stands at the beginning of each entry of a vector.
    let call = match call.nr {
        nr::SENDMMSG | nr::RECVMMSG => Call { nr: nr::SENDMSG, ..call },
        _ => call,
    };
    let t = Transfer { key, sock, stream, seqs, moved, direction, id, bits, plane: plane::SYSCALL };
    transfer(&t, if asked & MSG_TRUNC != 0 { None } else { Some(call) })
}

/// Bytes that the first message of a vector moved, and the sequence numbers after it.
///
/// Only the first message is read on this plane: looking at all of them in one program is more than the verifier
/// takes. The others are missed as a hole in the stream, which user space finds by sequence number.
#[inline(always)]
fn first_of_vector(call: &Call, messages: u32, direction: Direction, seqs: Seqs) -> Option<(u32, Seqs)> {
    let moved = message_len(call.si, 0)?;
    if messages == 1 {
        return Some((moved, seqs));
    }
    let mut later = 0u32;
    for index in 1..MAX_VECTOR {
        if index >= messages {
            break;
        }
        later = later.wrapping_add(message_len(call.si, index)?);
    }
    let end = if direction == Direction::SEND { seqs.write } else { seqs.copied };
    let after = end.wrapping_sub(later);
    Some((moved, Seqs { write: after, copied: after }))
}

/// Messages of a vector whose lengths are looked at.
const MAX_VECTOR: u32 = 8;

#[inline(always)]
fn message_len(vector: u64, index: u32) -> Option<u32> {
    let mut len = 0u32;
    // SAFETY: four bytes into four bytes; msg_len is at 56 of a 64-byte mmsghdr.
    let read =
        unsafe { crate::read::user_bytes((&raw mut len).cast(), 4, vector + u64::from(index) * 64 + 56) };
    read.then_some(len)
}
