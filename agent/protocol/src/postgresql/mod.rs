//! PostgreSQL, version 3 of its protocol: both directions of a connection in, calls and their answers out.
//!
//! A call is a simple query, or everything up to a Sync (Parse, Bind, Execute, ...): that is what the server answers as one and ends
//! with ReadyForQuery. Messages are followed by their lengths, and of most bodies nothing is looked at, so holes within them cost
//! nothing. A hole that covers a message's beginning costs the boundary between messages; what ends a call and an answer is
//! known by its bytes, at the end of a transfer.
//!
//! Parameters, rows, passwords and the texts of errors are never kept.

mod detect;
mod half;
mod pending;
mod requests;
mod responses;
mod statement;
mod statements;
mod wire;

use half::{At, Half, MAX_HELD};
use pending::Pending;
use statement::Group;
use statements::Names;
use wire::{is_request, is_response};

use crate::message::Flow;
use crate::parser::{Detect, Input, LostReason, Parser, What};
use crate::queue::Queue;
use crate::sink::{Sink, emit};

/// Longest name of a database that is told.
const MAX_NAMESPACE: usize = 63;

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    request: Half,
    response: Half,
    /// Calls whose answer is not complete.
    queue: Queue<Pending>,
    /// Number of the next call.
    next: u32,
    /// Messages that no Sync followed yet: the last call of the queue.
    group: Option<Group>,
    /// The client has just ended its part of a COPY: the Sync that follows is of the same call.
    copied: bool,
    names: Names,
    namespace: Option<Box<str>>,
    /// From the beginning until the server is ready for the first time nothing is a call.
    starting: bool,
    /// Calls, or ends of answers, may have been missed.
    doubt: bool,
    /// Since then the server said that it is ready, after everything that came.
    ready: bool,
    /// Several calls were under way at once.
    pipelined: bool,
    /// Of answers that belong to no call, the present one was told of.
    unpaired: bool,
    /// Status of the transaction at the end of the last answer; zero if that is not known.
    status: u8,
    encrypted: bool,
    switched: bool,
}

impl Parser for Connection {
    const NAME: &'static str = "postgresql";
    const MAX_STATE: usize = size_of::<Self>()
        + 4 * MAX_HELD
        + Names::MAX_STATE
        + Group::MAX_STATE
        + Queue::<Pending>::MAX_STATE
        + MAX_NAMESPACE;

    fn detect(bytes: &[u8]) -> Detect {
        detect::detect(bytes)
    }

    fn feed(&mut self, flow: Flow, input: Input<'_>, sink: Sink<'_>) {
        if self.switched || self.half(flow).at == At::Closed {
            return;
        }
        match input {
            Input::Bytes { bytes, burst_start } => self.bytes(flow, bytes, burst_start, sink),
            // All of it is known.
            Input::Hole { len, tail } if len == tail.len() as u64 => self.bytes(flow, tail, false, sink),
            Input::Hole { len, tail } => self.hole(flow, len, tail, sink),
            Input::Gap => match flow {
                Flow::Request => self.lose_request(sink),
                Flow::Response => self.lose_response(LostReason::Gap, 0, sink),
            },
            Input::End => match flow {
                Flow::Request => self.end_request(sink),
                Flow::Response => self.end_response(sink),
            },
        }
    }

    /// An answer may pause for as long as the server likes.
    fn idle(&mut self, _: Sink<'_>) {}

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    fn is_switched(&self) -> bool {
        self.switched
    }

    fn state_bytes(&self) -> usize {
        size_of::<Self>()
            + self.request.state_bytes()
            + self.response.state_bytes()
            + self.queue.state_bytes()
            + self.names.state_bytes()
            + self.group.as_ref().map_or(0, Group::state_bytes)
            + self.namespace.as_ref().map_or(0, |name| name.len())
    }
}

impl Connection {
    /// Both ends agreed on TLS: what follows is encrypted.
    pub const fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    fn half(&mut self, flow: Flow) -> &mut Half {
        match flow {
            Flow::Request => &mut self.request,
            Flow::Response => &mut self.response,
        }
    }

    fn bytes(&mut self, flow: Flow, bytes: &[u8], burst_start: bool, sink: Sink<'_>) {
        if burst_start && !bytes.is_empty() {
            match flow {
                Flow::Request => self.request_turns(sink),
                Flow::Response => {}
            }
            let half = self.half(flow);
            match half.at {
                At::Fresh if flow == Flow::Request && bytes.first() == Some(&0) => half.rest(At::Opening),
                At::Fresh | At::Lost if is_chain(flow, bytes) => half.rest(At::Header),
                _ => {}
            }
        }
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.switched {
                return;
            }
            let used = match self.half(flow).at {
                At::Fresh | At::Lost => {
                    self.pass_over(flow, rest, false, at + rest.len(), sink);
                    return;
                }
                At::Closed => return,
                At::Encryption => self.encryption(rest, at, sink),
                At::Opening | At::Header => self.header(flow, rest, at, sink),
                At::Body(left) => self.body(flow, rest, left, at, sink),
            };
            at += used;
        }
    }

    /// Bytes of a header. Gives how many.
    fn header(&mut self, flow: Flow, rest: &[u8], at: usize, sink: Sink<'_>) -> usize {
        let opening = self.half(flow).at == At::Opening;
        let mut used = 0;
        if self.half(flow).have == 0 {
            let kind = if opening { 0 } else { rest.first().copied().unwrap_or_default() };
            let known = opening
                || match flow {
                    Flow::Request => is_request_type(kind),
                    Flow::Response => is_response_type(kind),
                };
            if !known {
                self.garbage(flow, at, sink);
                return rest.len();
            }
            self.half(flow).begin(kind);
            if !opening {
                used = 1;
                match flow {
                    Flow::Request => self.request_begins(kind, at, sink),
                    Flow::Response => self.response_begins(kind, at, sink),
                }
            }
        }
        let half = self.half(flow);
        let kind = half.kind();
        let (taken, len) = half.take_header(rest.get(used..).unwrap_or_default());
        used += taken;
        let Some(len) = len else { return used };
        let possible = match flow {
            Flow::Request if opening => (8..=wire::MAX_STARTUP).contains(&len),
            Flow::Request => is_request(kind, len),
            Flow::Response => is_response(kind, len),
        };
        if !possible {
            self.garbage(flow, at + used, sink);
            return rest.len();
        }
        self.half(flow).enter(len.saturating_sub(4), wanted(flow, kind));
        if len == 4 {
            self.message(flow, kind, &[], at + used, sink);
        }
        used
    }

    /// Bytes of a body. Gives how many.
    fn body(&mut self, flow: Flow, rest: &[u8], left: u32, at: usize, sink: Sink<'_>) -> usize {
        let half = self.half(flow);
        let used = rest.len().min(left as usize);
        let bytes = rest.get(..used).unwrap_or(rest);
        let left = left - used as u32;
        let kind = half.kind();
        half.at = At::Body(left);
        if left > 0 {
            half.hold(bytes);
        } else if half.is_untouched() {
            // It is whole where it lies.
            let wanted = half.wanted();
            let body = bytes.get(..wanted).unwrap_or(bytes);
            self.message(flow, kind, body, at + used, sink);
        } else {
            half.hold(bytes);
            let body = half.take_body();
            self.message(flow, kind, &body, at + used, sink);
            self.half(flow).give_back(body);
        }
        used
    }

    /// A message is complete. Of its body there is what was wanted, up to what is missing.
    fn message(&mut self, flow: Flow, kind: u8, body: &[u8], at: usize, sink: Sink<'_>) {
        let half = self.half(flow);
        if kind != 0 {
            half.at = At::Header;
        }
        match flow {
            Flow::Request if kind == 0 => self.opening(body),
            Flow::Request => self.request_message(kind, body, at, sink),
            Flow::Response => self.response_message(kind, body, at, sink),
        }
    }

    fn hole(&mut self, flow: Flow, len: u64, tail: &[u8], sink: Sink<'_>) {
        if len == 0 {
            return;
        }
        let end = usize::try_from(len).unwrap_or(usize::MAX);
        let half = self.half(flow);
        match half.at {
            At::Body(left) if len < u64::from(left) => {
                half.miss();
                half.at = At::Body(left - len as u32);
            }
            At::Body(left) if len == u64::from(left) => {
                half.miss();
                let kind = half.kind();
                let body = half.take_body();
                self.message(flow, kind, &body, end, sink);
                self.half(flow).give_back(body);
            }
            At::Closed => {}
            _ => {
                self.lose_boundary(flow, sink);
                self.pass_over(flow, tail, true, end, sink);
            }
        }
    }

    /// What is missing covers the beginning of a message.
    fn lose_boundary(&mut self, flow: Flow, sink: Sink<'_>) {
        let half = self.half(flow);
        if matches!(half.at, At::Fresh | At::Lost) {
            return;
        }
        match flow {
            Flow::Request => self.cut_request(sink),
            Flow::Response => {
                half.rest(At::Lost);
                self.cut_answer();
            }
        }
    }

    /// Looks for an end in what is passed over.
    fn pass_over(&mut self, flow: Flow, bytes: &[u8], hole: bool, at: usize, sink: Sink<'_>) {
        let half = self.half(flow);
        let last = if hole { half.note_hole(bytes) } else { half.note_last(bytes) };
        match flow {
            Flow::Request if last.ends_with(&wire::SYNC) => {
                half.rest(At::Header);
                self.sync_passed(at, sink);
            }
            Flow::Request => {}
            Flow::Response => match wire::ready(last) {
                Some(status) => {
                    half.rest(At::Header);
                    self.ready_passed(status, at, sink);
                }
                None => self.answer_passes(sink),
            },
        }
    }

    /// What stands here is no message.
    fn garbage(&mut self, flow: Flow, at: usize, sink: Sink<'_>) {
        match flow {
            Flow::Request => self.malformed_request(at, sink),
            Flow::Response => self.lose_response(LostReason::Malformed, at, sink),
        }
        emit(sink, 0, flow, at, What::Garbage);
    }
}

/// Types of messages that clients send.
fn is_request_type(kind: u8) -> bool {
    matches!(
        kind,
        b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'H' | b'S' | b'F' | b'd' | b'c' | b'f' | b'p' | b'X'
    )
}

/// Types of messages that servers send.
fn is_response_type(kind: u8) -> bool {
    matches!(
        kind,
        b'R' | b'K'
            | b'S'
            | b'Z'
            | b'1'
            | b'2'
            | b'3'
            | b't'
            | b'T'
            | b'n'
            | b'D'
            | b'C'
            | b'I'
            | b's'
            | b'E'
            | b'N'
            | b'A'
            | b'G'
            | b'H'
            | b'W'
            | b'd'
            | b'c'
            | b'V'
            | b'v'
    )
}

/// How many bytes of a body are looked at.
fn wanted(flow: Flow, kind: u8) -> usize {
    match (flow, kind) {
        (Flow::Request, 0 | b'Q' | b'P') => MAX_HELD,
        (Flow::Request, b'B') => 2 * (statements::MAX_NAME + 1),
        (Flow::Request, b'E' | b'C' | b'D') => statements::MAX_NAME + 2,
        (Flow::Response, b'E') => 256,
        (Flow::Response, b'Z') => 1,
        _ => 0,
    }
}

/// Whether messages stand in these bytes one after the other, as far as they go.
fn is_chain(flow: Flow, bytes: &[u8]) -> bool {
    let possible = |(kind, len)| match flow {
        Flow::Request => is_request(kind, len),
        Flow::Response => is_response(kind, len),
    };
    let mut messages = wire::Messages::of(bytes);
    let mut first = true;
    loop {
        match messages.header() {
            Some(header) if !possible(header) => return false,
            Some(_) => {}
            // The first header is needed whole: a byte alone says too little.
            None => return !first,
        }
        first = false;
        if messages.next().is_none() {
            return true;
        }
        if messages.rest().is_empty() {
            return true;
        }
    }
}
