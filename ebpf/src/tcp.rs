//! TCP beside the transfers: a connection goes towards its end; bytes leave a socket by `splice`.
//!
//! match-proto: inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
//! match-proto: tcp_rcv_space_adjust(struct sock *sk)

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::event::{Close, Direction, Kind, flags, plane};

use crate::conn::{self, Seqs, Stream, inode_key};
use crate::emit::{Transfer, header, output_plain, transfer};
use crate::maps::{CONNS, PROCS};
use crate::offsets::{OFF_SK_COOKIE, OFF_SK_SHUTDOWN};
use crate::read::direct;
use crate::user::{Call, nr};

/// Both directions, as the kernel notes them before it sends a FIN.
const SHUT_BOTH: u8 = 3;

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
    // Whoever keeps a connection by its cookie has made the socket have one, so it need only be read. The helper that makes
    // one may be called from here since Linux 5.12 only.
    // SAFETY: `sk` is a trusted sock pointer for the verifier.
    let mut key = unsafe { direct::<u64>(sk, &OFF_SK_COOKIE) }.unwrap_or(0);
    // Plane `syscall` knows sockets by inode.
    // SAFETY: only asked whether it is there.
    if unsafe { CONNS.get(&key) }.is_none() {
        key = inode_key(sk as u64)?;
        unsafe { CONNS.get(&key) }?;
    }
    if new == TCP_CLOSE {
        let _ = CONNS.remove(&key);
    }
    let mut record = Close {
        header: header(Kind::CLOSE, size_of::<Close>(), bpf_get_current_pid_tgid()),
        cookie: key,
        old_state: old as u32,
        new_state: new as u32,
        received: 0,
        pad: 0,
    };
    if let Some(seqs) = conn::probed_seqs(sk as u64) {
        record.received = seqs.copied;
        record.header.flags = flags::HAS_RECEIVED;
    }
    // `close` and `shutdown(SHUT_WR)` lead to the same state.
    // SAFETY: `sk` is a trusted sock pointer for the verifier.
    if new == TCP_FIN_WAIT1 && unsafe { direct::<u8>(sk, &OFF_SK_SHUTDOWN) } == Some(SHUT_BOTH) {
        record.header.flags |= flags::GIVEN_UP;
    }
    output_plain(&record);
    Some(())
}

/// `splice` reads below the hook of the receives. This one fires for every receive of every process, so it is attached
/// only once a transfer was seen that nothing else explains; the number of the system call is looked at before anything else.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn tcp_splice(ctx: BtfTracePointContext) -> i32 {
    let _ = spliced(&ctx);
    0
}

#[inline(always)]
fn spliced(ctx: &BtfTracePointContext) -> Option<()> {
    let call = Call::current()?;
    if call.nr != nr::SPLICE {
        return None;
    }
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // SAFETY: copied at once.
    let bits = *unsafe { PROCS.get(&tgid) }?;
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: `sk` is a trusted sock pointer for the verifier.
    let key = unsafe { bpf_get_socket_cookie(sk as *mut core::ffi::c_void) };
    let copied = conn::probed_seqs(sk as u64)?.copied;
    // SAFETY: copied at once. A connection whose first bytes are spliced has no state yet: nothing to compare with.
    let before = unsafe { CONNS.get(&key) }?.received;
    let moved = copied.wrapping_sub(before);
    if moved == 0 || moved > 1 << 30 || before == 0 {
        return None;
    }
    let t = Transfer {
        key,
        sock: sk as u64,
        stream: Stream::Tcp,
        seqs: Seqs { write: 0, copied },
        moved,
        direction: Direction::RECV,
        id,
        bits,
        plane: plane::SOCK,
    };
    transfer(&t, None)
}
