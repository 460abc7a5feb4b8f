//! The server's direction: answers begin with their first message, and end when the server is ready.

use super::half::At;
use super::wire;
use super::{Connection, Sink, emit};
use crate::message::{Answer, Flow, Head};
use crate::parser::{LostReason, What};

const FLOW: Flow = Flow::Response;
/// An error that does not say which.
const OTHER: &str = "_OTHER";
/// The same, as it is kept.
const UNKNOWN: [u8; 5] = [0; 5];
/// The transaction has failed.
const FAILED: u8 = b'E';

impl Connection {
    /// What the server says next begins like this.
    pub(super) fn begin_answers(&mut self, at: At) {
        if self.response.at != At::Closed {
            self.response.rest(at);
        }
    }

    /// The one byte that answers a wish for encryption. Gives how many bytes that took.
    pub(super) fn encryption(&mut self, rest: &[u8], at: usize, sink: Sink<'_>) -> usize {
        match rest.first() {
            Some(b'N') => {
                self.response.rest(At::Header);
                1
            }
            // An old server does not know what that is.
            Some(b'E') => {
                self.starting = true;
                self.response.rest(At::Header);
                0
            }
            answer => {
                self.encrypted = answer == Some(&b'S');
                self.switched = true;
                self.group = None;
                // Nobody has asked for anything yet; what looked like that was nothing.
                self.give_up(LostReason::Switched, at, sink);
                rest.len()
            }
        }
    }

    /// The first byte of a message.
    pub(super) fn response_begins(&mut self, kind: u8, at: usize, sink: Sink<'_>) {
        // Those come whenever the server likes.
        if self.starting || matches!(kind, b'N' | b'A' | b'S') {
            return;
        }
        self.answer_begins(at, sink);
    }

    fn answer_begins(&mut self, at: usize, sink: Sink<'_>) {
        match self.queue.front_mut() {
            Some(front) if front.begun => {}
            Some(front) => {
                front.begun = true;
                if !front.ghost {
                    emit(sink, front.exchange, FLOW, at, What::Begin);
                }
            }
            None if !self.unpaired => {
                self.unpaired = true;
                emit(sink, 0, FLOW, at, What::HalfSeen);
            }
            None => {}
        }
    }

    /// A message is complete.
    pub(super) fn response_message(&mut self, kind: u8, body: &[u8], at: usize, sink: Sink<'_>) {
        match kind {
            b'E' => {
                if let Some(front) = self.queue.front_mut().filter(|front| front.error.is_none()) {
                    front.error = Some(wire::sqlstate(body).unwrap_or(UNKNOWN));
                }
            }
            b'Z' => self.server_is_ready(body.first().copied().unwrap_or_default(), at, sink),
            // Both sides send from here on, for as long as they like: as a call it is over.
            b'W' => self.finish_stream(at, sink),
            _ => {}
        }
    }

    fn server_is_ready(&mut self, status: u8, at: usize, sink: Sink<'_>) {
        let before = std::mem::replace(&mut self.status, status);
        self.unpaired = false;
        if std::mem::take(&mut self.starting) {
            return;
        }
        if let Some(front) = self.queue.front_mut().filter(|front| front.sent || front.begun) {
            // An error that was not captured shows in what it did.
            if front.cut && front.error.is_none() && status == FAILED && !matches!(before, 0 | FAILED) {
                front.error = Some(UNKNOWN);
            }
            if !front.sent && !self.end_unseen_group(sink) {
                // It answers something that was not seen.
                self.doubt = true;
                return;
            }
            self.finish_answer(at, sink);
        }
        self.ready |= self.queue.is_empty();
    }

    /// The answer to the first call is complete.
    pub(super) fn finish_answer(&mut self, at: usize, sink: Sink<'_>) {
        self.unpaired = false;
        let Some(pending) = self.queue.pop() else { return };
        self.ready |= self.queue.is_empty();
        if pending.ghost {
            return;
        }
        let exchange = pending.exchange;
        if pending.after_gap {
            // It may be another's.
            emit(sink, exchange, FLOW, at, What::Lost(LostReason::Gap));
            return;
        }
        if !pending.begun {
            emit(sink, exchange, FLOW, at, What::Begin);
        }
        let error = pending.error.map(|state| match str::from_utf8(&state) {
            Ok(state) if pending.error != Some(UNKNOWN) => state.into(),
            _ => OTHER.into(),
        });
        let answer = Answer { error, truncated: pending.cut };
        emit(sink, exchange, FLOW, at, What::Head(Head::Answer(answer)));
        emit(sink, exchange, FLOW, at, What::End { body: 0 });
    }

    /// The call became a stream in both directions.
    fn finish_stream(&mut self, at: usize, sink: Sink<'_>) {
        if self.queue.front_mut().is_some_and(|front| front.sent && !front.ghost)
            && let Some(pending) = self.queue.pop()
        {
            self.queue.push_front(super::pending::Pending { ghost: true, ..pending });
            if pending.after_gap {
                emit(sink, pending.exchange, FLOW, at, What::Lost(LostReason::Gap));
            } else {
                if !pending.begun {
                    // The message began before the call did.
                    emit(sink, pending.exchange, FLOW, at, What::Begin);
                }
                emit(sink, pending.exchange, FLOW, at, What::Head(Head::Answer(Answer::default())));
                emit(sink, pending.exchange, FLOW, at, What::End { body: 0 });
            }
        }
    }

    /// Part of the present answer was not captured.
    pub(super) fn cut_answer(&mut self) {
        if let Some(front) = self.queue.front_mut() {
            front.cut = true;
        }
    }

    /// Bytes of an answer of which nothing can be told.
    pub(super) fn answer_passes(&mut self, sink: Sink<'_>) {
        if !self.starting && self.queue.front_mut().is_some_and(|front| front.sent) {
            self.answer_begins(0, sink);
            self.cut_answer();
        }
    }

    /// The end of an answer was seen, and not everything before it.
    pub(super) fn ready_passed(&mut self, status: u8, at: usize, sink: Sink<'_>) {
        self.cut_answer();
        if self.queue.len() > 1 {
            // How many answers there were is not known.
            self.flush(LostReason::Gap, at, sink);
            self.doubt = true;
            self.status = status;
            return;
        }
        self.server_is_ready(status, at, sink);
    }

    /// Answers cannot be followed any more: neither the present one nor those that other calls wait for.
    pub(super) fn lose_response(&mut self, reason: LostReason, at: usize, sink: Sink<'_>) {
        self.flush(reason, at, sink);
        self.status = 0;
        self.unpaired = false;
        self.doubt = true;
        self.ready = false;
        self.response.rest(At::Lost);
    }

    /// Gives up the calls that wait for their answers, but for one that is still being sent.
    pub(super) fn flush(&mut self, reason: LostReason, at: usize, sink: Sink<'_>) {
        let open = if self.queue.newest().is_some_and(|last| !last.sent && !last.begun) {
            self.queue.pop_last()
        } else {
            if self.queue.newest().is_some_and(|last| !last.sent) {
                self.group = None;
            }
            None
        };
        self.give_up(reason, at, sink);
        if let Some(open) = open {
            self.queue.push(open);
        }
    }

    fn give_up(&mut self, reason: LostReason, at: usize, sink: Sink<'_>) {
        while let Some(pending) = self.queue.pop() {
            if !pending.ghost {
                emit(sink, pending.exchange, FLOW, at, What::Lost(reason));
            }
        }
    }

    /// The server sends no more.
    pub(super) fn end_response(&mut self, sink: Sink<'_>) {
        self.group = None;
        while let Some(pending) = self.queue.pop() {
            if !pending.ghost {
                emit(sink, pending.exchange, FLOW, 0, What::Aborted { body: 0 });
            }
        }
        self.response.rest(At::Closed);
    }
}
