//! HTTP/1.0 and 1.1 (RFC 9112): both directions of a connection in, requests and their responses out.
//!
//! A head that is whole in the input is read where it lies. Bodies are only counted. Where the capture leaves a hole,
//! framing stays exact as long as lengths tell; otherwise the message ends when a transfer ends as its body must, when
//! the direction turns, or when the connection falls silent.

mod body;
mod call;
mod detect;
mod fields;
mod half;
mod head;
mod memo;
mod pending;
mod requests;
mod responses;
pub(crate) mod text;

use fields::{RequestFields, ResponseFields};
use half::{Half, State};
use memo::Memo;
use pending::Pending;

use crate::message::Flow;
use crate::parser::{Detect, Input, LostReason, Parser, What};
use crate::queue::Queue;
use crate::sink::{Sink, emit, offset};

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    request: Half,
    response: Half,
    /// Requests whose response is not complete.
    queue: Queue<Pending>,
    /// Number of the next request.
    next: u32,
    /// Number of the request that is being read.
    sending: u32,
    /// Requests may have been missed since the last one: the next one stands behind a gap, unless nothing is open.
    doubt: bool,
    switched: bool,
    upgraded: Option<Upgraded>,
    request_fields: Memo<RequestFields>,
    response_fields: Memo<ResponseFields>,
}

/// A request that asked for HTTP/2 got it: its answer comes there, on stream 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upgraded {
    /// Number of the exchange, which is still open.
    pub exchange: u32,
    /// Bytes of the last input that are of HTTP/1; what follows is HTTP/2.
    pub offset: usize,
}

impl Parser for Connection {
    const NAME: &'static str = "http1";
    const MAX_STATE: usize = size_of::<Self>()
        + 2 * (2 * half::MAX_HEAD + call::Call::MAX_STATE + memo::MAX_FIELDS)
        + RequestFields::MAX_STATE
        + Queue::<Pending>::MAX_STATE;

    fn detect(bytes: &[u8]) -> Detect {
        detect::detect(bytes)
    }

    fn feed(&mut self, flow: Flow, input: Input<'_>, sink: Sink<'_>) {
        if self.switched {
            return;
        }
        match (flow, input) {
            (Flow::Request, Input::Bytes { bytes, burst_start }) => {
                self.request_bytes(bytes, burst_start, sink);
            }
            (Flow::Response, Input::Bytes { bytes, burst_start }) => {
                self.response_bytes(bytes, burst_start, sink);
            }
            (Flow::Request, Input::Hole { len, tail }) => self.request_hole(len, tail, sink),
            (Flow::Response, Input::Hole { len, tail }) => self.response_hole(len, tail, sink),
            (Flow::Request, Input::Gap) => self.request_gap(sink),
            (Flow::Response, Input::Gap) => self.response_gap(sink),
            (Flow::Request, Input::End) => self.request_end(sink),
            (Flow::Response, Input::End) => self.response_end(sink),
        }
    }

    fn idle(&mut self, sink: Sink<'_>) {
        if self.request.may_be_over() {
            self.end_request(0, State::Lost, sink);
        }
        if self.response.may_be_over() {
            self.end_response(0, State::Lost, sink);
        }
    }

    fn in_flight(&self) -> usize {
        // A request that is still being sent although its response is complete is not in the queue any more.
        let late = self.request.in_message() && self.queue.last(self.sending).is_none();
        self.queue.in_flight() + usize::from(late)
    }

    fn is_switched(&self) -> bool {
        self.switched
    }

    fn state_bytes(&self) -> usize {
        size_of::<Self>()
            + self.request.state_bytes()
            + self.response.state_bytes()
            + self.request_fields.state_bytes()
            + self.response_fields.state_bytes()
            + self.request_fields.said().state_bytes()
            + self.queue.state_bytes()
    }
}

impl Connection {
    /// One that reads the fields of every head, even if they are those of the head before: what the other says is compared
    /// with what this one says.
    #[doc(hidden)]
    pub fn without_memory() -> Self {
        Self { request_fields: Memo::none(), response_fields: Memo::none(), ..Self::default() }
    }

    /// The connection carries HTTP/2 from here on (`Upgrade: h2c`). Told once.
    pub fn take_upgraded(&mut self) -> Option<Upgraded> {
        self.upgraded.take()
    }

    /// Whether that is to be taken.
    pub const fn is_upgraded(&self) -> bool {
        self.upgraded.is_some()
    }

    /// The exchange goes on in the other protocol; nobody is told of an end.
    fn switch_to_h2c(&mut self, pending: Pending, offset: usize, sink: Sink<'_>) {
        self.upgraded = Some(Upgraded { exchange: pending.exchange, offset });
        self.switch(Pending { ghost: true, ..pending }, offset, sink);
    }

    /// Nothing of either direction is read any more. The exchanges still open were not of this protocol.
    fn switch(&mut self, pending: Pending, offset: usize, sink: Sink<'_>) {
        if !pending.ghost {
            emit(sink, pending.exchange, Flow::Response, offset, What::Switched);
        }
        self.queue.pop();
        self.flush(Flow::Response, offset, &What::Lost(LostReason::Switched), sink);
        self.request.rest(State::Closed);
        self.response.rest(State::Closed);
        self.switched = true;
    }

    /// Gives up every exchange that waits for a response.
    fn flush(&mut self, flow: Flow, offset: usize, what: &What, sink: Sink<'_>) {
        while let Some(pending) = self.queue.pop() {
            if !pending.ghost {
                emit(sink, pending.exchange, flow, offset, what.clone());
            }
        }
    }
}
