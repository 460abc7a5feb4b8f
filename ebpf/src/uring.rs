//! io_uring: the socket hook sees the transfer, the completion knows the buffer.
//!
//! match-proto: io_uring_complete(struct io_ring_ctx *ctx, void *req, struct io_uring_cqe *cqe)
//! match-proto: io_uring_complete(void *ctx, void *req, u64 user_data, int res, ...) (Linux 6.12 and older)

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::counters as count;
use spanwise_common::event::{Direction, plane};

use crate::conn::{self, Seqs, Stream};
use crate::emit::{Transfer, counters, transfer};
use crate::maps::{PROCS, Pending, URING};
use crate::offsets::*;
use crate::read::probed;
use crate::user::{Call, nr};

const OP_SENDMSG: u8 = 9;
const OP_RECVMSG: u8 = 10;
const OP_SEND: u8 = 26;
const OP_RECV: u8 = 27;

/// Connection and direction.
#[inline(always)]
fn slot(cookie: u64, direction: Direction) -> u64 {
    // The highest bit tells inodes from cookies.
    (cookie & 1 << 63) | cookie << 1 | u64::from(direction.0)
}

/// Whether a transfer of this connection and direction waits for its completion.
#[inline(always)]
pub fn is_waiting(cookie: u64, direction: Direction) -> bool {
    // SAFETY: only asked whether it is there.
    unsafe { URING.get(&slot(cookie, direction)) }.is_some()
}

/// Keeps a transfer until its completion tells where the bytes are. If another one of the connection waits already, both
/// go out without bytes, in order.
#[inline(always)]
pub fn wait_for_completion(t: &Transfer) -> Option<()> {
    let slot = slot(t.key, t.direction);
    let counters = counters()?;
    // SAFETY: copied at once.
    if let Some(old) = unsafe { URING.get(&slot) }.copied() {
        let _ = URING.remove(&slot);
        counters[count::URING_TOLD as usize] += 1;
        // One transfer as long as both: they follow each other in the stream.
        let both = Transfer { moved: old.len.wrapping_add(t.moved), ..*t };
        return transfer(&both, None);
    }
    let seq = if t.direction == Direction::SEND { t.seqs.write } else { t.seqs.copied };
    if URING.insert(&slot, &Pending { key: t.key, seq, len: t.moved, at_ns: 0 }, 0).is_err() {
        return transfer(t, None);
    }
    counters[count::URING_WAITED as usize] += 1;
    Some(())
}

#[btf_tracepoint(function = "io_uring_complete")]
pub fn uring_complete(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: a helper read of any address.
    let _ = completed(ctx.arg(1), || unsafe { probed::<i32>(ctx.arg(2), &OFF_CQE_RES) });
    0
}

#[btf_tracepoint(function = "io_uring_complete")]
pub fn uring_result(ctx: BtfTracePointContext) -> i32 {
    let _ = completed(ctx.arg(1), || Some(ctx.arg(3)));
    0
}

#[inline(always)]
fn completed(request: u64, result: impl FnOnce() -> Option<i32>) -> Option<()> {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // SAFETY: copied at once.
    let bits = *unsafe { PROCS.get(&tgid) }?;
    // SAFETY: helper reads of any address.
    unsafe {
        let direction = match probed::<u8>(request, &OFF_KIOCB_OPCODE)? {
            OP_SEND | OP_SENDMSG => Direction::SEND,
            OP_RECV | OP_RECVMSG => Direction::RECV,
            _ => return None,
        };
        let message = matches!(probed::<u8>(request, &OFF_KIOCB_OPCODE)?, OP_SENDMSG | OP_RECVMSG);
        let file = probed::<u64>(request, &OFF_KIOCB_FILE)?;
        let socket = probed::<u64>(file, &OFF_FILE_PRIVATE)?;
        let sock = probed::<u64>(socket, &OFF_SOCKET_SK)?;
        let mut place = slot(probed::<u64>(sock, &OFF_SK_COOKIE)?, direction);
        let pending = match URING.get(&place) {
            Some(pending) => *pending,
            None => {
                place = slot(conn::inode_key(sock)?, direction);
                *URING.get(&place)?
            }
        };
        let stream = conn::probed_stream(sock)?;
        let _ = URING.remove(&place);
        counters()?[count::URING_TOLD as usize] += 1;
        let t = Transfer {
            key: pending.key,
            sock,
            stream,
            seqs: match stream {
                Stream::Tcp => Seqs { write: pending.seq, copied: pending.seq },
                Stream::Unix => Seqs { write: 0, copied: 0 },
            },
            moved: pending.len,
            direction,
            id,
            bits,
            plane: plane::URING,
        };
        // From here on it goes out, with its bytes or without.
        let (Some(result), Some(buffer)) = (result(), probed::<u64>(request, &OFF_IO_SR_BUF)) else {
            return transfer(&t, None);
        };
        if result <= 0 || result as u32 != pending.len {
            return transfer(&t, None);
        }
        // As if the bytes had been moved by the call of the same name.
        let call = if message {
            Call { nr: nr::SENDMSG, di: 0, si: buffer, dx: 0, r10: 0 }
        } else {
            Call { nr: nr::WRITE, di: 0, si: buffer, dx: 0, r10: 0 }
        };
        transfer(&t, Some(call))
    }
}
