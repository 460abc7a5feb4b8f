//! Plane `kprobe`: what plane `fentry` does, where the kernel makes no trampolines. The functions are the same.
//!
//! At the return the arguments are gone, so the call waits in a map for it. The kernel has a bounded number of kretprobes for
//! each function; when they are all in use, by threads that wait for bytes, a return is missed. The next call of the
//! thread finds the old one in the map and counts it.

use aya_ebpf::macros::{kprobe, kretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use spanwise_common::counters as count;
use spanwise_common::event::{Direction, plane};

use crate::complete::{completed, sock_of, traced};
use crate::emit::counters;
use crate::maps::{ENTERED, Entered};

/// A function whose first argument is a socket.
#[kprobe]
pub fn kp_enter(ctx: ProbeContext) -> u32 {
    let _ = entered(&ctx, false);
    0
}

/// A function whose fourth argument is the flags of a receive.
#[kprobe]
pub fn kp_enter_recv(ctx: ProbeContext) -> u32 {
    let _ = entered(&ctx, true);
    0
}

/// A function that sends returned.
#[kretprobe]
pub fn kp_sent(ctx: RetProbeContext) -> u32 {
    let _ = returned(&ctx, Direction::SEND);
    0
}

/// A function that receives returned.
#[kretprobe]
pub fn kp_received(ctx: RetProbeContext) -> u32 {
    let _ = returned(&ctx, Direction::RECV);
    0
}

#[inline(always)]
fn entered(ctx: &ProbeContext, receives: bool) -> Option<()> {
    let (id, _) = traced()?;
    let asked = if receives { ctx.arg::<u32>(3)? } else { 0 };
    let call = Entered { socket: ctx.arg::<u64>(0)?, asked, pad: 0 };
    // SAFETY: only asked whether it is there.
    if unsafe { ENTERED.get(&id) }.is_some() {
        counters()?[count::RETURNS_MISSED as usize] += 1;
    }
    if ENTERED.insert(&id, &call, 0).is_err() {
        counters()?[count::CALLS_FULL as usize] += 1;
    }
    Some(())
}

#[inline(always)]
fn returned(ctx: &RetProbeContext, direction: Direction) -> Option<()> {
    let who = traced()?;
    let id = who.0;
    // SAFETY: copied at once.
    let call = *unsafe { ENTERED.get(&id) }?;
    let _ = ENTERED.remove(&id);
    // SAFETY: helper reads of any address.
    unsafe {
        let sk = sock_of::<false>(call.socket as *const u8)?;
        completed::<false>(who, sk, ctx.ret(), call.asked as i32, direction, plane::KPROBE)
    }
}
