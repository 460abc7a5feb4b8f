//! HTTP/2 (RFC 9113): both directions of a connection in, the requests and responses of every stream out.
//!
//! Frames are followed by their lengths, whatever way they are split, and the bodies of DATA frames are only counted, so
//! holes within them cost nothing. A hole that covers a frame header costs the boundary between frames, which is then
//! looked for (`chain`), and the header table of its direction, of which only what is inserted later is known again
//! (`hpack`). Values of fields are exact or not told.

mod chain;
mod detect;
mod exchange;
mod fields;
mod frame;
mod half;
mod hpack;
mod read;
mod streams;

use half::{At, Half};
use streams::{Stage, Streams};

use crate::message::Flow;
use crate::parser::{Detect, Input, LostReason, Parser};
use crate::sink::{Sink, emit, offset};

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
    /// Times that the boundary between frames was lost.
    pub losses: u64,
    /// Times that it was found: after a loss, or on a connection that was joined late.
    pub resyncs: u64,
    /// Responses that a server announced to push. They are read and not told.
    pub pushes: u64,
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    request: Half,
    response: Half,
    streams: Streams,
    /// Streams that have begun, wrapping.
    begun: u32,
    /// The highest stream of a client that was seen.
    newest: u32,
    /// The connection is seen from its start.
    started: bool,
    stats: Stats,
}

impl Parser for Connection {
    const NAME: &'static str = "http2";
    const MAX_STATE: usize = size_of::<Self>() + 2 * Half::MAX_STATE + Streams::MAX_STATE;

    fn detect(bytes: &[u8]) -> Detect {
        detect::detect(bytes)
    }

    fn feed(&mut self, flow: Flow, input: Input<'_>, sink: Sink<'_>) {
        if matches!(self.half(flow).at, At::Closed) {
            return;
        }
        match input {
            Input::Bytes { bytes, .. } => self.bytes(flow, bytes, sink),
            Input::Hole { len, .. } => self.hole(flow, len, sink),
            Input::Gap => {
                self.lose(flow, LostReason::Gap, 0, sink);
                self.half(flow).at = At::Lost;
            }
            Input::End => {
                self.cut(flow, 0, sink);
                self.close(flow, sink);
                let half = self.half(flow);
                half.lose();
                half.at = At::Closed;
            }
        }
    }

    fn boundary(&mut self, flow: Flow, ahead: u32, walk: u32) {
        let half = self.half(flow);
        match half.ahead() {
            Some(own) => half.walk = (own == ahead).then_some(walk),
            None if half.walk == Some(walk) && matches!(half.at, At::Lost) => self.resume(flow, ahead),
            None => {}
        }
    }

    fn idle(&mut self, sink: Sink<'_>) {
        self.give_up_silent(sink);
    }

    fn in_flight(&self) -> usize {
        self.streams.len()
    }

    fn is_switched(&self) -> bool {
        false
    }

    fn state_bytes(&self) -> usize {
        size_of::<Self>()
            + self.request.state_bytes()
            + self.response.state_bytes()
            + self.streams.state_bytes()
    }
}

impl Connection {
    /// A connection that an HTTP/1 request switched to HTTP/2 (`Upgrade: h2c`, answered by 101), from the byte behind
    /// that answer on. The request is exchange 1: nothing more is told of it, only its response. The client begins
    /// with the preface here too.
    pub fn upgraded() -> Self {
        let mut connection = Self { started: true, newest: 1, ..Self::default() };
        connection.streams.add(1);
        if let Some(stream) = connection.streams.get(1) {
            stream.request.stage = Stage::Over;
        }
        connection
    }

    /// What could and could not be told so far.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    fn half(&mut self, flow: Flow) -> &mut Half {
        match flow {
            Flow::Request => &mut self.request,
            Flow::Response => &mut self.response,
        }
    }
}
