//! Plane `sock`: a send or receive on a socket completed. Two hooks see every socket family and every system call.
//!
//! match-proto: sock_send_length(struct sock *sk, int ret, int flags)
//! match-proto: sock_recv_length(struct sock *sk, int ret, int flags)

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task_btf};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::config::proc;
use spanwise_common::counters as count;
use spanwise_common::event::{Direction, plane};

use crate::conn::{self, Seqs, Stream};
use crate::emit::{Transfer, counters, transfer};
use crate::maps::PROCS;
use crate::offsets::*;
use crate::read::direct;
use crate::uring;
use crate::user::{Call, nr, vector_ends};

/// Urgent data, outside the stream.
const MSG_OOB: i32 = 1;
const MSG_PEEK: i32 = 2;
/// The bytes are dropped and not copied.
const MSG_TRUNC: i32 = 0x20;
/// What is read are reports on what was sent, not bytes of the stream.
const MSG_ERRQUEUE: i32 = 0x2000;

#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send(ctx: BtfTracePointContext) -> i32 {
    let _ = completed(&ctx, Direction::SEND);
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv(ctx: BtfTracePointContext) -> i32 {
    let _ = completed(&ctx, Direction::RECV);
    0
}

#[inline(always)]
fn completed(ctx: &BtfTracePointContext, direction: Direction) -> Option<()> {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // SAFETY: copied at once. The one look-up an untraced process costs.
    let bits = *unsafe { PROCS.get(&tgid) }?;
    if bits & proc::TRACE == 0 {
        return None;
    }
    let sk: *const u8 = ctx.arg(0);
    let ret: i32 = ctx.arg(1);
    let asked: i32 = ctx.arg(2);
    // SAFETY: `sk` is a trusted sock pointer for the verifier; every load is of a member.
    unsafe {
        let family = direct::<u16>(sk, &OFF_SK_FAMILY)?;
        let kind = direct::<u16>(sk, &OFF_SK_TYPE)?;
        let protocol = direct::<u16>(sk, &OFF_SK_PROTOCOL)?;
        let Some(stream) = conn::stream_of(family, kind, protocol) else {
            counters()?[count::OTHER_SOCKETS as usize] += 1;
            return None;
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
        if direction == Direction::RECV && asked & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB) != 0 {
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
        let key = bpf_get_socket_cookie(sk as *mut core::ffi::c_void);
        let seqs = match stream {
            Stream::Tcp => {
                let tcp = bpf_skc_to_tcp_sock(sk as *mut core::ffi::c_void) as *const u8;
                if tcp.is_null() {
                    return None;
                }
                let copied = direct::<u32>(tcp, &OFF_TP_COPIED_SEQ)?;
                let state = direct::<u8>(sk, &OFF_SK_STATE)?;
                let next = direct::<u32>(tcp, &OFF_TP_RCV_NXT)?;
                let copied = conn::without_fin(state, copied, next);
                let write = if direction == Direction::SEND {
                    direct::<u32>(tcp, &OFF_TP_WRITE_SEQ)?
                } else {
                    0
                };
                Seqs { write, copied }
            }
            Stream::Unix => Seqs { write: 0, copied: 0 },
        };
        let t = Transfer {
            key,
            sock: sk as u64,
            stream,
            seqs,
            moved: ret as u32,
            direction,
            id,
            plane: plane::SOCK,
        };
        let task = bpf_get_current_task_btf() as *const u8;
        if ret > 0 && direct::<u64>(task, &OFF_TASK_IO_URING).unwrap_or(0) != 0 {
            // Once a thread has used io_uring, its transfers may run inside any system call: the one that is under
            // way is the cause only if its descriptor is this socket.
            let fd = match call {
                Some(call) if call.is_transfer() || call.nr == nr::SENDFILE => Some(call.di),
                Some(call) if call.nr == nr::SPLICE => Some(call.dx),
                _ => None,
            };
            if fd.and_then(|fd| conn::sock_of_fd(task as u64, fd)) != Some(sk as u64) {
                return uring::wait_for_completion(&t);
            }
        }
        transfer(&t, call)
    }
}
