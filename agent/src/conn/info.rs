//! What is known of a connection, and how a message on it is named.

use std::cell::OnceCell;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use spanwise_common::conn::{Info, known, transport};

use super::tls::Tls;

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

/// What the spans of a connection have in common, each made when it is first asked for.
#[derive(Clone, Default, Debug)]
pub struct Texts {
    /// Addresses of both ends.
    local: OnceCell<Arc<str>>,
    remote: OnceCell<Arc<str>>,
    /// The first authority that was named on it. The other requests nearly always name the same.
    pub authority: OnceCell<Authority>,
    /// Something of a head on it could not be read.
    lacking: OnceCell<()>,
}

/// An authority taken apart.
#[derive(Clone, Debug)]
pub struct Authority {
    /// As it was sent. One with a user or a password is not kept.
    pub sent: Rc<str>,
    /// Its host.
    pub address: Arc<str>,
    /// Its port, if it names one.
    pub port: Option<u16>,
}

/// A connection as one process sees it. Shared by every exchange on it.
#[derive(Clone, Debug)]
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
    /// Addresses as text.
    pub texts: Texts,
    /// What is known of its encryption, if it is the plaintext of an encrypted connection.
    pub tls: Option<Rc<Tls>>,
}

/// Names a request the same way at both ends of a TCP connection: the connection by the first data sequence
/// numbers of its two directions, the message by the position of its first byte in the request direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct MessageName {
    /// First data sequence number of the request direction.
    pub request_base: u32,
    /// First data sequence number of the response direction.
    pub response_base: u32,
    /// Position of the request's first byte in the request direction, modulo 2^32. Where the protocol numbers its streams: the
    /// number of the stream, with the highest bit set.
    pub position: u32,
}

/// In as few words as there are.
impl Hash for MessageName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.request_base) << 32 | u64::from(self.response_base));
        state.write_u32(self.position);
    }
}

impl MessageName {
    /// The number of the stream, where the protocol numbers its streams. (A request that begins behind the first 2 GiB of its
    /// connection looks the same.)
    pub fn stream(&self) -> Option<u32> {
        (self.position & STREAM != 0).then_some(self.position & !STREAM)
    }
}

/// Which end of the exchange the observed process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Side {
    /// It read the request and writes the response.
    Server,
    /// It wrote the request and reads the response.
    Client,
}

// === impl ConnInfo ===

/// Marks a position that is the number of a stream; those have 31 bits.
const STREAM: u32 = 1 << 31;

fn address(transport: u8, bytes: [u8; 16], port: u16) -> Endpoint {
    let ip = match transport {
        transport::TCP4 => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        transport::TCP6 => Ipv6Addr::from(bytes).to_canonical(),
        _ => return Endpoint::Unix,
    };
    Endpoint::Inet(SocketAddr::new(ip, port))
}

fn written(endpoint: &Endpoint, text: &OnceCell<Arc<str>>) -> Option<Arc<str>> {
    match endpoint {
        Endpoint::Inet(address) => Some(Arc::clone(text.get_or_init(|| address.ip().to_string().into()))),
        Endpoint::Unix => None,
    }
}

impl Texts {
    /// Something of a head could not be read, and the same may come again.
    pub fn note_lacking(&self) {
        let _ = self.lacking.set(());
    }

    /// Whether something of a head could not be read.
    pub fn is_lacking(&self) -> bool {
        self.lacking.get().is_some()
    }
}

impl ConnInfo {
    /// From what the kernel side says.
    pub fn new(cookie: u64, info: &Info) -> Self {
        Self {
            cookie,
            local: address(info.transport, info.local, info.local_port),
            remote: address(info.transport, info.remote, info.remote_port),
            names: (info.known & known::BASES != 0)
                .then_some(SeqNames { own: info.own_base, peer: info.peer_base }),
            sock: info.sock,
            peer_sock: info.peer_sock,
            netns: info.netns,
            texts: Texts::default(),
            tls: None,
        }
    }

    /// The address of this end, without the port.
    pub fn local_address(&self) -> Option<Arc<str>> {
        written(&self.local, &self.texts.local)
    }

    /// The address of the other end, without the port.
    pub fn remote_address(&self) -> Option<Arc<str>> {
        written(&self.remote, &self.texts.remote)
    }

    /// Names the request that begins at sequence number `seq` of the request direction.
    pub fn message(&self, side: Side, seq: u32) -> Option<MessageName> {
        self.named(side, |request_base| seq.wrapping_sub(request_base))
    }

    /// Names the request of a stream, where the protocol numbers its streams: both ends know the number, also on connections
    /// whose beginning neither has seen.
    pub fn stream(&self, side: Side, number: u32) -> Option<MessageName> {
        self.named(side, |_| number | STREAM)
    }

    /// The client opened the connection, so its own first number is one too small as the kernel's counters have it.
    fn named(&self, side: Side, position: impl FnOnce(u32) -> u32) -> Option<MessageName> {
        let names = self.names?;
        let (request_base, response_base) = match side {
            Side::Client => (names.own.wrapping_add(1), names.peer),
            Side::Server => (names.peer, names.own),
        };
        Some(MessageName { request_base, response_base, position: position(request_base) })
    }
}
