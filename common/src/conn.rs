//! Connections as the kernel side describes them, and the state it keeps of each.

use crate::golang::Way;

/// Address family and transport of a connection.
pub mod transport {
    /// TCP over IPv4.
    pub const TCP4: u8 = 1;
    /// TCP over IPv6 (v4-mapped addresses included).
    pub const TCP6: u8 = 2;
    /// Unix stream socket.
    pub const UNIX: u8 = 3;
}

/// Bits of [`Info::known`].
pub mod known {
    /// `own_base` and `peer_base` are the first data sequence numbers as the kernel's counters give them.
    pub const BASES: u8 = 1 << 0;
    /// The connection was first seen while it was being opened.
    pub const FROM_START: u8 = 1 << 1;
    /// This process opened it (valid with `FROM_START`).
    pub const OPENER: u8 = 1 << 2;
    /// Its first bytes began a TLS handshake, while the hooks on the process's TLS library were in place.
    pub const TLS_START: u8 = 1 << 3;
}

/// What a connection is and between whom.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Address of the kernel's socket: joins the two ends of a unix connection, never leaves the host.
    pub sock: u64,
    /// Address of the other end's socket (unix only), zero where unknown.
    pub peer_sock: u64,
    /// Sequence number of the first byte this side sent, less one on the side that opened (its SYN counts).
    pub own_base: u32,
    /// Sequence number of the first byte the peer sent.
    pub peer_base: u32,
    /// Local address; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// Remote address; IPv4 in the first four bytes.
    pub remote: [u8; 16],
    /// Local port, host order.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// One of [`transport`].
    pub transport: u8,
    /// Bits of [`known`].
    pub known: u8,
    /// Always zero.
    pub pad: [u8; 2],
    /// Network namespace (inode number), zero where unknown.
    pub netns: u32,
    /// Number of the socket's inode (unix only), zero where unknown.
    pub inode: u32,
}

/// What user space tells the kernel side of a connection.
pub mod verdict {
    /// Nothing is known yet.
    pub const UNKNOWN: u8 = 0;
    /// HTTP/1: budgets per direction apply.
    pub const HTTP1: u8 = 1;
    /// Not a protocol we read, or no longer (upgrade, tunnel): count bytes, ship nothing.
    pub const IGNORE: u8 = 2;
    /// HTTP/2: frames come in every transfer, so budgets are for each transfer and not for a burst.
    pub const HTTP2: u8 = 3;
    /// Encrypted, and its plaintext comes from the library's hooks: count bytes, ship nothing.
    pub const ENCRYPTED: u8 = 4;
}

/// Where one direction of a connection of frames stands.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    /// Sequence number behind the last transfer that was walked over.
    pub next: u32,
    /// Bytes of the current frame to copy.
    pub keep: u32,
    /// Bytes of the current frame to leave out behind them.
    pub skip: u32,
    /// Bytes of a frame header that the last transfer ended in.
    pub have: u8,
    /// Bytes of a frame header that the last transfer ended in, up to four: also where it was copied as it is.
    pub part: u8,
    /// The current frame is of a body.
    pub body: u8,
    /// Always zero.
    pub pad: u8,
    /// What `have` counts.
    pub head: [u8; 8],
    /// Bytes of the current frame behind the last transfer.
    pub left: u32,
    /// Number of the walk that knows `left` and `part`, zero if nothing is known.
    pub walk: u32,
    /// What `part` counts.
    pub first: [u8; 4],
}

/// The goroutine that serves a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// Its id, zero if none was found.
    pub server: u64,
    /// Address of what it keeps of the connection.
    pub served: u64,
    /// Where the request under way and its pattern stand there.
    pub way: Way,
}

/// State of one connection in the kernel side's map; `Info` is there too for the case that its `Open` was lost.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// What the connection is.
    pub info: Info,
    /// Bytes shipped of the current burst.
    pub burst: u32,
    /// Bytes a burst may ship when this process writes, set by user space.
    pub budget_send: u32,
    /// Bytes a burst may ship when this process reads, set by user space.
    pub budget_recv: u32,
    /// Unix only: bytes sent since first seen.
    pub sent: u32,
    /// TCP: sequence number behind the last byte that was seen to be read. Unix: bytes received since first seen.
    pub received: u32,
    /// Direction of the last transfer, 255 before the first.
    pub last: u8,
    /// One of [`verdict`], set by user space.
    pub verdict: u8,
    /// Bursts so far, wrapping: every 64th looks for a new verdict.
    pub bursts: u16,
    /// Where both directions stand, by number, if the connection carries frames.
    pub frames: [Frames; 2],
    /// What is known of the goroutine that serves the connection.
    pub serving: Serving,
    /// Thread that was last seen to read.
    pub reader: u32,
    /// Always zero.
    pub pad: u32,
}

/// What user space writes for a connection: a map of its own, so that neither side overwrites the other's fields.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// One of [`verdict`].
    pub verdict: u32,
    /// Bytes a burst may ship when this process writes.
    pub budget_send: u32,
    /// Bytes a burst may ship when this process reads.
    pub budget_recv: u32,
}

const _: () = assert!(size_of::<Info>() == 72);
const _: () = assert!(size_of::<State>() == 200);
