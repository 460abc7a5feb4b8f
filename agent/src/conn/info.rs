//! What is known of a connection, and how a message on it is named.

use std::net::SocketAddr;

/// One end of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Endpoint {
    /// TCP. IPv4-mapped IPv6 addresses are given as IPv4.
    Inet(SocketAddr),
    /// Unix stream socket.
    Unix,
}

/// First data sequence numbers of a TCP connection's two directions, as the kernel's counters give them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SeqNames {
    /// Of the bytes this side sends. One too small on the side that opened the connection (its SYN counts).
    pub own: u32,
    /// Of the bytes the peer sends.
    pub peer: u32,
}

/// A connection as one process sees it. Shared by every exchange on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnInfo {
    /// Identity on this host: the kernel's socket cookie, unique since boot; each end has its own.
    pub cookie: u64,
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Sequence numbers that name the connection the same way at both ends (TCP only).
    pub names: Option<SeqNames>,
    /// Kernel socket of this end (unix join only, never exported).
    pub sock: u64,
    /// Kernel socket of the other end (unix join only, never exported), zero where unknown.
    pub peer_sock: u64,
    /// Network namespace inode, zero where unknown.
    pub netns: u32,
}

/// Names a request the same way at both ends of a TCP connection: the connection by the first data sequence
/// numbers of its two directions, the message by the position of its first byte in the request direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct MessageName {
    /// First data sequence number of the request direction.
    pub request_base: u32,
    /// First data sequence number of the response direction.
    pub response_base: u32,
    /// Position of the request's first byte in the request direction, modulo 2^32.
    pub position: u32,
}
