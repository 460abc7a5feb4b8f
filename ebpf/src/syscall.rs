//! Plane `syscall`: a system call that can move socket bytes returned. For kernels without the socket tracepoints;
//! every system call of the node passes here, so it does as little as it can before it says no.
//!
//! match-proto: sys_exit(struct pt_regs *regs, long ret)

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task_btf};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::config::proc;
use spanwise_common::counters as count;
use spanwise_common::event::{Direction, plane};

use crate::conn::{self, Seqs, Stream};
use crate::emit::{Transfer, counters, transfer};
use crate::maps::{PROCS, SCRATCH};
use crate::user::{Call, nr};

const MSG_PEEK: u64 = 2;

#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit_io(ctx: BtfTracePointContext) -> i32 {
    let _ = returned(&ctx);
    0
}

/// Direction of a call and which argument is its socket; none for calls that move no socket bytes.
#[inline(always)]
fn direction_of(call: &Call) -> Option<Direction> {
    match call.nr {
        nr::READ | nr::READV | nr::RECVFROM | nr::RECVMSG | nr::RECVMMSG | nr::PREADV2 => Some(Direction::RECV),
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
    let direction = direction_of(&call)?;
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as u64;
    let sock = conn::sock_of_fd(task, call.di)?;
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
    let peek = match call.nr {
        nr::RECVFROM => call.r10 & MSG_PEEK,
        nr::RECVMSG => call.dx & MSG_PEEK,
        nr::RECVMMSG => call.r10 & MSG_PEEK,
        _ => 0,
    };
    if peek != 0 {
        counters()?[count::PEEKED as usize] += 1;
        return None;
    }
    let seqs = match stream {
        Stream::Tcp => conn::probed_seqs(sock)?,
        Stream::Unix => Seqs { write: 0, copied: 0 },
    };
    let key = conn::inode_key(sock)?;
    let t = Transfer {
        key,
        sock,
        stream,
        seqs,
        moved: ret as u32,
        direction,
        id,
        plane: plane::SYSCALL,
    };
    if call.nr == nr::SENDMMSG || call.nr == nr::RECVMMSG {
        return vector(&t, &call, ret as u32);
    }
    transfer(&t, Some(call))
}

/// Messages of a vector that are told one by one; a stream socket has no use for long vectors.
const MAX_VECTOR: u32 = 4;

/// The messages of a vector call: how much each moved stands in user memory. The return value is their number.
#[inline(always)]
fn vector(t: &Transfer, call: &Call, messages: u32) -> Option<()> {
    // SAFETY: per-CPU scratch; volatile keeps the state in memory (see `Scratch`).
    let walk = unsafe { &raw mut (*SCRATCH.get_ptr_mut(0)?).vector };
    unsafe { write_volatile(walk, [0, 0]) };
    for index in 0..MAX_VECTOR {
        if index >= messages {
            break;
        }
        let len = message_len(call.si, index)?;
        // SAFETY: as above.
        unsafe {
            let total = read_volatile(&raw const (*walk)[0]);
            write_volatile(&raw mut (*walk)[0], total.wrapping_add(len));
        }
    }
    for index in 0..MAX_VECTOR {
        if index >= messages {
            break;
        }
        let moved = message_len(call.si, index)?;
        // SAFETY: as above.
        let (total, done) = unsafe {
            let done = read_volatile(&raw const (*walk)[1]).wrapping_add(moved);
            write_volatile(&raw mut (*walk)[1], done);
            (read_volatile(&raw const (*walk)[0]), done)
        };
        if moved == 0 {
            continue;
        }
        let end = if t.direction == Direction::SEND { t.seqs.write } else { t.seqs.copied };
        // Sequence number after this message: the later ones have moved it on.
        let after = end.wrapping_sub(total.wrapping_sub(done));
        let message = Transfer { moved, seqs: Seqs { write: after, copied: after }, ..*t };
        let one = Call { nr: nr::SENDMSG, di: call.di, si: call.si + u64::from(index) * 64, dx: 0, r10: 0 };
        let _ = transfer(&message, Some(one));
    }
    Some(())
}

#[inline(always)]
fn message_len(vector: u64, index: u32) -> Option<u32> {
    let mut len = 0u32;
    // SAFETY: four bytes into four bytes; msg_len is at 56 of a 64-byte mmsghdr.
    let read = unsafe {
        crate::read::user_bytes((&raw mut len).cast(), 4, vector + u64::from(index) * 64 + 56)
    };
    read.then_some(len)
}
