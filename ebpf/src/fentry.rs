//! Plane `fentry`: a function of a socket family returned. For kernels without the tracepoints of plane `sock`.
//!
//! The functions are those that a socket's table of operations names: every system call comes through them, whatever the
//! compiler made of the layers above. A program for each, because a program of this kind is bound to its function when it is
//! loaded.
//!
//! match-proto: inet_sendmsg, inet6_sendmsg, unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t size): int
//! match-proto: inet_recvmsg, inet6_recvmsg, unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags): int
//! match-proto: inet_sendpage, unix_stream_sendpage(struct socket *sock, struct page *page, int offset, size_t size, int flags): ssize_t
//! match-proto: tcp_splice_read, unix_stream_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t size, unsigned int flags): ssize_t

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use spanwise_common::event::{Direction, plane};

use crate::complete::{completed, sock_of, traced};

/// `ret` and `flags` are positions: the value returned stands behind the arguments. None for `flags` that are not a receive's.
macro_rules! programs {
    ($($(#[doc = $doc:literal])+ $name:ident = $direction:ident, ret $ret:literal, flags $flags:expr;)*) => {$(
        $(#[doc = $doc])+
        #[fexit]
        pub fn $name(ctx: FExitContext) -> i32 {
            let _ = returned(&ctx, Direction::$direction, $ret, $flags);
            0
        }
    )*};
}

programs! {
    /// `inet_sendmsg`.
    fx_inet_send = SEND, ret 3, flags None;
    /// `inet_recvmsg`.
    fx_inet_recv = RECV, ret 4, flags Some(3);
    /// `inet6_sendmsg`.
    fx_inet6_send = SEND, ret 3, flags None;
    /// `inet6_recvmsg`.
    fx_inet6_recv = RECV, ret 4, flags Some(3);
    /// `unix_stream_sendmsg`.
    fx_unix_send = SEND, ret 3, flags None;
    /// `unix_stream_recvmsg`.
    fx_unix_recv = RECV, ret 4, flags Some(3);
    /// `inet_sendpage`.
    fx_inet_page = SEND, ret 5, flags None;
    /// `unix_stream_sendpage`.
    fx_unix_page = SEND, ret 5, flags None;
    /// `tcp_splice_read`.
    fx_tcp_splice = RECV, ret 5, flags None;
    /// `unix_stream_splice_read`.
    fx_unix_splice = RECV, ret 5, flags None;
}

#[inline(always)]
fn returned(ctx: &FExitContext, direction: Direction, ret: usize, flags: Option<usize>) -> Option<()> {
    let who = traced()?;
    let asked = match flags {
        Some(at) => ctx.arg::<i32>(at),
        None => 0,
    };
    // SAFETY: the socket is a typed pointer for the verifier, and so is the sock it points to.
    unsafe {
        let sk = sock_of::<true>(ctx.arg(0))?;
        completed::<true>(who, sk, ctx.arg(ret), asked, direction, plane::FENTRY)
    }
}
