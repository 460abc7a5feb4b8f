//! HTTP/2 (RFC 9113): both directions of a connection in, the requests and responses of every stream out.

use crate::message::Flow;
use crate::parser::{Detect, Input, Item, Parser};

/// Where items go.
type Sink<'a> = &'a mut dyn FnMut(Item);

/// What the decoder could and could not tell so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Header blocks that were read.
    pub blocks: u64,
    /// Header blocks of which a part was not captured.
    pub cut_blocks: u64,
    /// Fields that were read.
    pub fields: u64,
    /// Of them, fields whose name was not known: it was sent before the connection was seen, or in bytes that were lost.
    pub unknown_names: u64,
    /// Of them, fields whose name was known and whose value was not.
    pub unknown_values: u64,
    /// Times that the boundary between frames was lost.
    pub losses: u64,
    /// Times that it was found again.
    pub resyncs: u64,
    /// Responses that a server announced to push. They are read and not told.
    pub pushes: u64,
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    stats: Stats,
}

impl Connection {
    /// A connection that an HTTP/1 request switched to HTTP/2 (`Upgrade: h2c`, answered by 101). That request is
    /// exchange 1: nothing more is told of it, only its response.
    pub fn upgraded() -> Self {
        Self::default()
    }

    /// What could and could not be told so far.
    pub const fn stats(&self) -> Stats {
        self.stats
    }
}

impl Parser for Connection {
    const NAME: &'static str = "http2";
    const MAX_STATE: usize = size_of::<Self>();

    fn detect(_bytes: &[u8]) -> Detect {
        Detect::No
    }

    fn feed(&mut self, _flow: Flow, _input: Input<'_>, _sink: Sink<'_>) {}

    fn idle(&mut self, _sink: Sink<'_>) {}

    fn in_flight(&self) -> usize {
        0
    }

    fn is_switched(&self) -> bool {
        false
    }

    fn state_bytes(&self) -> usize {
        size_of::<Self>()
    }
}
