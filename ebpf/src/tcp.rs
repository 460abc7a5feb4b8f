//! A TCP connection goes towards its end.
//!
//! match-proto: inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::event::{Close, Kind};

use crate::conn::inode_key;
use crate::emit::{header, output_plain};
use crate::maps::CONNS;

const TCP_FIN_WAIT1: i32 = 4;
const TCP_CLOSE: i32 = 7;
const TCP_LAST_ACK: i32 = 9;

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_state(ctx: BtfTracePointContext) -> i32 {
    let _ = changed(&ctx);
    0
}

#[inline(always)]
fn changed(ctx: &BtfTracePointContext) -> Option<()> {
    let new: i32 = ctx.arg(2);
    if new != TCP_FIN_WAIT1 && new != TCP_LAST_ACK && new != TCP_CLOSE {
        return None;
    }
    let sk: *const u8 = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    // SAFETY: `sk` is a trusted sock pointer for the verifier.
    let mut key = unsafe { bpf_get_socket_cookie(sk as *mut core::ffi::c_void) };
    // Plane `syscall` knows sockets by inode.
    // SAFETY: only asked whether it is there.
    if unsafe { CONNS.get(&key) }.is_none() {
        key = inode_key(sk as u64)?;
        unsafe { CONNS.get(&key) }?;
    }
    if new == TCP_CLOSE {
        let _ = CONNS.remove(&key);
    }
    let record = Close {
        header: header(Kind::CLOSE, size_of::<Close>(), bpf_get_current_pid_tgid()),
        cookie: key,
        old_state: old as u32,
        new_state: new as u32,
    };
    output_plain(&record);
    Some(())
}
