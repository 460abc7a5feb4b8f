//! State of connections: made at the first transfer, with all that names the connection.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use spanwise_common::config::feature;
use spanwise_common::conn::{Info, State, known, transport, verdict};
use spanwise_common::limits::BUDGET_UNKNOWN;
use spanwise_common::offsets::MISSING;

use crate::maps::{CONNS, SCRATCH, VERDICTS};
use crate::offsets::*;
use crate::read::{probed, probed_bytes};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;

/// Sequence numbers of a TCP socket.
#[derive(Clone, Copy)]
pub struct Seqs {
    /// Next byte the application writes.
    pub write: u32,
    /// Next byte the application reads.
    pub copied: u32,
}

/// What kind of stream a socket is.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// TCP over either IP version.
    Tcp,
    /// Unix.
    Unix,
}

/// Tells stream sockets that we follow from everything else.
#[inline(always)]
pub fn stream_of(family: u16, kind: u16, protocol: u16) -> Option<Stream> {
    if kind != SOCK_STREAM {
        return None;
    }
    match family {
        AF_INET | AF_INET6 if protocol == IPPROTO_TCP => Some(Stream::Tcp),
        AF_UNIX => Some(Stream::Unix),
        _ => None,
    }
}

/// Everything that names the connection of a sock. Runs once for each connection, so it can afford probed reads,
/// which work on every plane.
#[inline(never)]
pub fn describe(sock: u64, out: &mut Info) -> i32 {
    // SAFETY: every read goes through a helper that handles any address.
    unsafe {
        out.sock = sock;
        let family = probed::<u16>(sock, &OFF_SK_FAMILY).unwrap_or(0);
        out.local_port = probed::<u16>(sock, &OFF_SK_NUM).unwrap_or(0);
        out.remote_port = u16::from_be(probed::<u16>(sock, &OFF_SK_DPORT).unwrap_or(0));
        if let Some(net) = probed::<u64>(sock, &OFF_SK_NET) {
            out.netns = probed::<u32>(net, &OFF_NET_INUM).unwrap_or(0);
        }
        match family {
            AF_UNIX => {
                out.transport = transport::UNIX;
                out.local_port = 0;
                out.remote_port = 0;
                out.peer_sock = probed::<u64>(sock, &OFF_UNIX_PEER).unwrap_or(0);
                out.inode = inode_key(sock).unwrap_or(0) as u32;
                return 0;
            }
            AF_INET => {
                out.transport = transport::TCP4;
                let local = probed::<[u8; 4]>(sock, &OFF_SK_RCV_SADDR).unwrap_or([0; 4]);
                let remote = probed::<[u8; 4]>(sock, &OFF_SK_DADDR).unwrap_or([0; 4]);
                out.local[..4].copy_from_slice(&local);
                out.remote[..4].copy_from_slice(&remote);
            }
            _ => {
                out.transport = transport::TCP6;
                probed_bytes(sock, &OFF_SK_V6_RCV_SADDR, &mut out.local);
                probed_bytes(sock, &OFF_SK_V6_DADDR, &mut out.remote);
            }
        }
        // Nobody holds the socket's lock here: what is read in pieces may change in between. Two looks that agree are believed.
        let mut seen = bases(sock);
        for _ in 0..3 {
            let again = bases(sock);
            if again == seen {
                break;
            }
            seen = again;
        }
        if seen != NO_BASES {
            out.own_base = (seen >> 32) as u32;
            out.peer_base = seen as u32;
            out.known |= known::BASES;
        }
    }
    0
}

/// What [`bases`] gives where they cannot be read. As a pair of sequence numbers it would be rare and harmless.
const NO_BASES: u64 = u64::MAX;

/// First sequence numbers of both directions, our own in the upper half and the peer's in the lower. In one word: of an `Option` the
/// compiler reads parts that were never written, which kernels before 6.3 refuse.
#[inline(always)]
unsafe fn bases(sock: u64) -> u64 {
    // SAFETY: helper reads.
    unsafe {
        let (Some(una), Some(acked)) =
            (probed::<u32>(sock, &OFF_TP_SND_UNA), probed::<u64>(sock, &OFF_TP_BYTES_ACKED))
        else {
            return NO_BASES;
        };
        let (Some(next), Some(received)) =
            (probed::<u32>(sock, &OFF_TP_RCV_NXT), probed::<u64>(sock, &OFF_TP_BYTES_RECEIVED))
        else {
            return NO_BASES;
        };
        // A FIN counts in both, as received and as next.
        let (own, peer) = (una.wrapping_sub(acked as u32), next.wrapping_sub(received as u32));
        u64::from(own) << 32 | u64::from(peer)
    }
}

/// The state of a connection, made if it is new. The second value tells whether it was.
#[inline(always)]
pub fn lookup(key: u64, sock: u64) -> Option<(&'static mut State, bool)> {
    // SAFETY: map values stay valid while the program runs; a race on one connection costs a count at worst.
    if let Some(state) = CONNS.get_ptr_mut(&key) {
        return Some((unsafe { &mut *state }, false));
    }
    make_conn(key, sock);
    let state = CONNS.get_ptr_mut(&key)?;
    // SAFETY: as above.
    Some((unsafe { &mut *state }, true))
}

/// Makes the state of a connection. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn make_conn(key: u64, sock: u64) -> u32 {
    // In the scratch: it is too large for the stack.
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU; all-zero is a valid State.
    let fresh = unsafe { &mut (*scratch).fresh };
    *fresh = unsafe { core::mem::zeroed() };
    describe(sock, &mut fresh.info);
    fresh.budget_send = BUDGET_UNKNOWN;
    fresh.budget_recv = BUDGET_UNKNOWN;
    fresh.last = 255;
    u32::from(CONNS.insert(&key, &*fresh, 0).is_ok())
}

/// Takes over what user space decided on the connection.
#[inline(always)]
pub fn refresh_verdict(key: u64, state: &mut State) {
    // SAFETY: copied at once.
    if let Some(said) = unsafe { VERDICTS.get(&key) } {
        state.verdict = said.verdict as u8;
        state.budget_send = said.budget_send;
        state.budget_recv = said.budget_recv;
    }
}

/// Whether user space wants nothing of this connection.
#[inline(always)]
pub fn is_ignored(state: &State) -> bool {
    state.verdict == verdict::IGNORE
}

/// Sequence numbers by probed reads.
#[inline(always)]
pub fn probed_seqs(sock: u64) -> Option<Seqs> {
    // SAFETY: helper reads.
    unsafe {
        let copied = probed::<u32>(sock, &OFF_TP_COPIED_SEQ)?;
        let state = probed::<u8>(sock, &OFF_SK_STATE)?;
        let next = probed::<u32>(sock, &OFF_TP_RCV_NXT)?;
        Some(Seqs {
            write: probed::<u32>(sock, &OFF_TP_WRITE_SEQ)?,
            copied: without_fin(state, copied, next),
        })
    }
}

/// States in which the peer's FIN has been received: CLOSE_WAIT, LAST_ACK, CLOSING.
#[inline(always)]
pub fn has_fin(state: u8) -> bool {
    matches!(state, 8 | 9 | 11)
}

/// A FIN takes a sequence number of its own. Once the application's reading has passed it, `copied_seq` is one more than
/// the bytes that were read.
#[inline(always)]
pub fn without_fin(state: u8, copied: u32, next: u32) -> u32 {
    if has_fin(state) && copied == next { copied.wrapping_sub(1) } else { copied }
}

/// Identity of a socket in a typed hook: its cookie where that can be had.
#[inline(always)]
pub unsafe fn key(sk: *const u8) -> Option<u64> {
    if has(feature::COOKIE) {
        // SAFETY: the caller's `sk` is a sock pointer for the verifier.
        Some(unsafe { bpf_get_socket_cookie(sk as *mut core::ffi::c_void) })
    } else {
        inode_key(sk as u64)
    }
}

/// Identity of a socket where no cookie can be had: the number of its inode, marked so that it never equals one.
#[inline(always)]
pub fn inode_key(sock: u64) -> Option<u64> {
    let inode = OFF_SOCKET_INODE.load();
    if inode == MISSING {
        return None;
    }
    // SAFETY: helper reads.
    unsafe {
        let socket = probed::<u64>(sock, &OFF_SK_SOCKET)?;
        if socket == 0 {
            return None;
        }
        let number = probed::<u64>(socket + u64::from(inode), &OFF_INODE_INO)?;
        Some((1 << 63) | number)
    }
}

/// Reads `sk_family`, `sk_type` and `sk_protocol` by probed reads.
#[inline(always)]
pub fn probed_stream(sock: u64) -> Option<Stream> {
    // SAFETY: helper reads.
    unsafe {
        let family = probed::<u16>(sock, &OFF_SK_FAMILY)?;
        let kind = probed::<u16>(sock, &OFF_SK_TYPE)?;
        let protocol = probed::<u16>(sock, &OFF_SK_PROTOCOL)?;
        stream_of(family, kind, protocol)
    }
}

/// The sock behind a file descriptor of the current task, by the table of open files.
#[inline(always)]
pub fn sock_of_fd(task: u64, fd: u64) -> Option<u64> {
    // SAFETY: helper reads.
    unsafe {
        let files = probed::<u64>(task, &OFF_TASK_FILES)?;
        let table = probed::<u64>(files, &OFF_FILES_FDT)?;
        let max = probed::<u32>(table, &OFF_FDT_MAX)?;
        if fd >= u64::from(max) {
            return None;
        }
        let list = probed::<u64>(table, &OFF_FDT_FD)?;
        let file = bpf_probe_read_kernel((list + fd * 8) as *const u64).ok()?;
        let socket = probed::<u64>(file, &OFF_FILE_PRIVATE)?;
        // A socket points back at its file; other private data does not.
        if probed::<u64>(socket, &OFF_SOCKET_FILE)? != file {
            return None;
        }
        probed::<u64>(socket, &OFF_SOCKET_SK)
    }
}
