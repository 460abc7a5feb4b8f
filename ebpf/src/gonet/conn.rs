//! From a `net.Conn` of a Go program to the connection: through what is wrapped around it down to the file descriptor.

use aya_ebpf::helpers::bpf_get_current_task;
use spanwise_common::config::feature;
use spanwise_common::golang::fixed;

use crate::conn::{inode_key, probed_stream, sock_of_fd};
use crate::offsets::{OFF_SK_COOKIE, has};
use crate::read::{probed, user_bytes, word};

/// Structs around a connection that are looked through: each begins with the `net.Conn` that it wraps (as `tls.Conn` does).
const WRAPPERS: u32 = 4;
/// Bytes of `internal/poll.FD` that are looked at.
const FD: usize = 56;
/// No process has as many files.
const MOST_FILES: u64 = 1 << 24;

/// Key and sock of the connection below an interface that stands at an address. Of a connection that no hook has seen yet the
/// sock only, and zero: its key is not known.
#[inline(never)]
pub fn below(interface: u64, out: &mut [u64; 2]) -> i32 {
    match find(interface) {
        Some((key, sock)) => {
            *out = [key, sock];
            (key != 0) as i32
        }
        None => 0,
    }
}

#[inline(always)]
fn find(interface: u64) -> Option<(u64, u64)> {
    socket(descriptor_below(interface)?)
}

/// The file descriptor below an interface that stands at an address.
#[inline(always)]
pub fn descriptor_below(interface: u64) -> Option<u64> {
    let mut at = interface;
    for _ in 0..WRAPPERS {
        let data = word(at + 8)?;
        if let Some(fd) = descriptor(data) {
            return Some(fd);
        }
        at = data;
    }
    None
}

/// The file descriptor of a `net.TCPConn` or `net.UnixConn`; none if it is something else.
#[inline(always)]
fn descriptor(data: u64) -> Option<u64> {
    let net_fd = word(data + fixed::FIRST)?;
    let mut fd = [0u64; FD / 8];
    // SAFETY: as many bytes as the array has.
    if !unsafe { user_bytes(fd.as_mut_ptr().cast(), FD as u32, net_fd) } {
        return None;
    }
    let byte = |at: usize| (fd[at / 8] >> (at % 8 * 8)) as u8;
    let number = fd[fixed::SYSFD / 8];
    let is_socket =
        byte(fixed::IS_STREAM) == 1 && byte(fixed::ZERO_READ_IS_EOF) == 1 && byte(fixed::IS_FILE) == 0;
    (number < MOST_FILES && is_socket).then_some(number)
}

/// Key and sock of a descriptor of the current process. A connection that no hook has seen has no cookie yet: its key is zero.
#[inline(always)]
fn socket(fd: u64) -> Option<(u64, u64)> {
    // SAFETY: a helper without arguments, and helper reads.
    unsafe {
        let sock = sock_of_fd(bpf_get_current_task(), fd)?;
        probed_stream(sock)?;
        let key = if has(feature::COOKIE) { probed::<u64>(sock, &OFF_SK_COOKIE)? } else { inode_key(sock)? };
        Some((key, sock))
    }
}
