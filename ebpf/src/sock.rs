//! Plane `sock`: a send or receive on a socket completed. Two hooks see every socket family and every system call.
//!
//! match-proto: sock_send_length(struct sock *sk, int ret, int flags)
//! match-proto: sock_recv_length(struct sock *sk, int ret, int flags)

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::event::{Direction, plane};

use crate::complete::{completed, traced};

#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send(ctx: BtfTracePointContext) -> i32 {
    let _ = told(&ctx, Direction::SEND);
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv(ctx: BtfTracePointContext) -> i32 {
    let _ = told(&ctx, Direction::RECV);
    0
}

#[inline(always)]
fn told(ctx: &BtfTracePointContext, direction: Direction) -> Option<()> {
    let who = traced()?;
    // SAFETY: `sk` is a trusted sock pointer for the verifier.
    unsafe { completed::<true>(who, ctx.arg(0), ctx.arg(1), ctx.arg(2), direction, plane::SOCK) }
}
