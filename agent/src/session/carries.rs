//! What a connection carries, and the parser of that.
//!
//! Comes in: the first bytes of a burst, then input for the parser. Goes out: which protocol it is, then the parser's items.

use spanwise_common::event::Direction;
use spanwise_protocol::message::Flow;
use spanwise_protocol::{Detect, Input, Item, Parser, http1, http2, postgresql, redis};

use super::exchange::Task;

/// First bytes of a burst that was too short to tell.
pub(super) struct Prefix {
    pub(super) direction: Direction,
    pub(super) bytes: Vec<u8>,
    pub(super) seq: u32,
    pub(super) at_ns: u64,
    pub(super) task: Task,
    /// Transfers that it came in.
    pub(super) transfers: u64,
}

/// What a connection carries, as far as known.
pub(super) enum Carries {
    /// Not known; bursts seen that were nothing we know.
    Unknown { misses: u8, prefix: Option<Prefix> },
    /// A protocol that is read.
    Known { wire: Wire, request: Direction },
    /// Something else.
    Other,
}

/// The parser of a protocol that is read.
pub(super) enum Wire {
    Http1(Box<http1::Connection>),
    Http2(Box<http2::Connection>),
    PostgreSql(Box<postgresql::Connection>),
    Redis(Box<redis::Connection>),
}

/// Tells by the first bytes of a burst. HTTP/2's preface is made to look like HTTP/1, so it is asked first. Databases come last.
pub(super) fn detect(bytes: &[u8]) -> (Detect, Option<Wire>) {
    let second = http2::Connection::detect(bytes);
    if matches!(second, Detect::Request | Detect::Response) {
        return (second, Some(Wire::Http2(Box::default())));
    }
    let first = http1::Connection::detect(bytes);
    if matches!(first, Detect::Request | Detect::Response) {
        return (first, Some(Wire::Http1(Box::default())));
    }
    let third = postgresql::Connection::detect(bytes);
    if matches!(third, Detect::Request | Detect::Response) {
        return (third, Some(Wire::PostgreSql(Box::default())));
    }
    let fourth = redis::Connection::detect(bytes);
    if matches!(fourth, Detect::Request | Detect::Response) {
        return (fourth, Some(Wire::Redis(Box::default())));
    }
    let open = [first, second, third, fourth].contains(&Detect::More);
    (if open { Detect::More } else { Detect::No }, None)
}

impl Wire {
    /// The next input of one direction.
    pub(super) fn feed(&mut self, flow: Flow, input: Input<'_>, sink: &mut dyn FnMut(Item)) {
        match self {
            Self::Http1(parser) => parser.feed(flow, input, sink),
            Self::Http2(parser) => parser.feed(flow, input, sink),
            Self::PostgreSql(parser) => parser.feed(flow, input, sink),
            Self::Redis(parser) => parser.feed(flow, input, sink),
        }
    }

    /// The capture says where the next frame begins.
    pub(super) fn boundary(&mut self, flow: Flow, ahead: u32, walk: u32) {
        if let Self::Http2(parser) = self {
            parser.boundary(flow, ahead, walk);
        }
    }

    /// Nothing moved for a while.
    pub(super) fn idle(&mut self, sink: &mut dyn FnMut(Item)) {
        match self {
            Self::Http1(parser) => parser.idle(sink),
            Self::Http2(parser) => parser.idle(sink),
            Self::PostgreSql(parser) => parser.idle(sink),
            Self::Redis(parser) => parser.idle(sink),
        }
    }

    /// The connection carries another protocol from here on.
    pub(super) fn is_switched(&self) -> bool {
        match self {
            Self::Http1(parser) => parser.is_switched(),
            Self::Http2(parser) => parser.is_switched(),
            Self::PostgreSql(parser) => parser.is_switched(),
            Self::Redis(parser) => parser.is_switched(),
        }
    }

    /// Both ends agreed to encrypt what follows.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Self::PostgreSql(parser) if parser.is_encrypted())
    }

    /// The next protocol is HTTP/2, by agreement.
    pub(super) fn is_upgraded(&self) -> bool {
        matches!(self, Self::Http1(parser) if parser.is_upgraded())
    }

    /// Becomes the parser of HTTP/2, if that was agreed.
    pub(super) fn upgrade(&mut self) -> Option<http1::Upgraded> {
        let Self::Http1(parser) = self else { return None };
        let upgraded = parser.take_upgraded()?;
        *self = Self::Http2(Box::new(http2::Connection::upgraded()));
        Some(upgraded)
    }

    /// Silence tells the parser something although nothing is under way.
    pub(super) fn needs_silence(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// Exchanges have numbers on the wire and interleave.
    pub(super) fn has_streams(&self) -> bool {
        matches!(self, Self::Http2(_))
    }
}
