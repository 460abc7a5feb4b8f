//! The direction towards the client.

use super::command::{Passed, Progress};
use super::pending::{Kind, Pending};
use super::value::Value;
use super::{Connection, Request, Response, Sink, emit, offset};
use crate::message::{Answer, Flow, Head};
use crate::parser::{LostReason, What};

const FLOW: Flow = Flow::Response;

/// First bytes of values.
const fn is_kind(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b':'
            | b'_'
            | b'#'
            | b','
            | b'('
            | b'$'
            | b'='
            | b'!'
            | b'*'
            | b'~'
            | b'>'
            | b'%'
            | b'|'
    )
}

/// What a replica says to its primary now and then. Without answers the primary sends it every command that changes data.
const ACK: &[u8] = b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n";

impl Connection {
    pub(super) fn response_bytes(&mut self, bytes: &[u8], burst_start: bool, sink: Sink<'_>) {
        if burst_start && bytes.starts_with(ACK) && !matches!(self.response, Response::Value { .. }) {
            self.switch(0, sink);
            return;
        }
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let first = rest.first().copied().unwrap_or_default();
            match &mut self.response {
                Response::Closed => return,
                Response::Lost => {
                    let expected = match self.queue.front() {
                        Some(pending) if pending.after_gap && burst_start => {
                            // These may be the answers to commands before it.
                            self.flush(at, &What::Lost(LostReason::Gap), sink);
                            false
                        }
                        front => front.is_some_and(|pending| !pending.after_gap),
                    };
                    if at > 0 || !burst_start || !is_kind(first) || !expected {
                        return;
                    }
                    self.response = Response::Between;
                }
                Response::Unsure { ended, .. } => {
                    *ended = rest.ends_with(b"\r\n");
                    return;
                }
                Response::Between => {
                    if !is_kind(first) {
                        emit(sink, 0, FLOW, at, What::Garbage);
                        self.lose_answers(at, LostReason::Malformed, sink);
                        return;
                    }
                    // Messages that answer nothing come between the answers.
                    let answers = first != b'>';
                    if answers && !self.begin_answer(at, sink) {
                        return;
                    }
                    self.response = Response::Value { value: Box::new(Value::new()), answers };
                }
                Response::Value { value, .. } => match value.bytes(rest) {
                    Progress::More => return,
                    Progress::Done(used) => {
                        at += used;
                        if self.end_value(at, sink) {
                            return;
                        }
                    }
                    Progress::Bad(used) => {
                        self.lose_answers(at + used, LostReason::Malformed, sink);
                        return;
                    }
                },
            }
        }
    }

    /// The first byte of an answer is there. False if its command is not known.
    fn begin_answer(&mut self, at: usize, sink: Sink<'_>) -> bool {
        let reading = matches!(self.request, Request::Command(_));
        match self.queue.front() {
            Some(pending) if pending.after_gap => {
                // It may answer a command that was not seen: better no answer than another's.
                emit(sink, 0, FLOW, at, What::HalfSeen);
                self.lose_answers(at, LostReason::Gap, sink);
                false
            }
            Some(pending) if reading && pending.exchange == self.sending => {
                emit(sink, 0, FLOW, at, What::HalfSeen);
                self.lose_answers(at, LostReason::Malformed, sink);
                false
            }
            Some(pending) => {
                emit(sink, pending.exchange, FLOW, at, What::Begin);
                true
            }
            None => {
                // There are more answers than commands: what was paired before may be wrong, what follows shall not be.
                self.pipelines |= !self.doubt;
                emit(sink, 0, FLOW, at, What::HalfSeen);
                self.lose_answers(at, LostReason::Gap, sink);
                false
            }
        }
    }

    /// A value is complete. True if nothing more is read of the connection.
    fn end_value(&mut self, at: usize, sink: Sink<'_>) -> bool {
        let Response::Value { value, answers } = std::mem::replace(&mut self.response, Response::Between)
        else {
            return false;
        };
        if !answers {
            // With RESP3 subscriptions are confirmed by such messages.
            let waits =
                self.queue.front().filter(|pending| pending.kind == Kind::Subscribe && !pending.after_gap);
            if let Some(pending) = waits
                && value.confirms() == Some(true)
            {
                emit(sink, pending.exchange, FLOW, at, What::Begin);
                self.end_answer(pending, at, Answer::default(), sink);
            }
            return false;
        }
        let Some(pending) = self.queue.front() else { return false };
        let error = value.error();
        let failed = error.is_some();
        self.end_answer(pending, at, Answer { error, truncated: false }, sink);
        match pending.kind {
            Kind::Select if failed => self.namespace = None,
            Kind::Stream if !failed => self.switch(at, sink),
            Kind::Subscribe if !failed && value.subscribes() => self.switch(at, sink),
            _ => {}
        }
        self.switched
    }

    fn end_answer(&mut self, pending: Pending, at: usize, answer: Answer, sink: Sink<'_>) {
        self.queue.pop();
        emit(sink, pending.exchange, FLOW, at, What::Head(Head::Answer(answer)));
        emit(sink, pending.exchange, FLOW, at, What::End { body: 0 });
    }

    /// The answer whose end could not be seen ended with the last byte.
    pub(super) fn end_unsure(&mut self, next: Response, sink: Sink<'_>) {
        if let Response::Unsure { error, .. } = std::mem::replace(&mut self.response, next)
            && let Some(pending) = self.queue.front()
        {
            self.end_answer(pending, 0, Answer { error, truncated: true }, sink);
        }
    }

    pub(super) fn response_hole(&mut self, len: u64, tail: &[u8], sink: Sink<'_>) {
        if len == 0 {
            return;
        }
        match &mut self.response {
            Response::Closed => {}
            Response::Lost => {
                if self.pipelines && !self.queue.is_empty() {
                    self.lose_answers(0, LostReason::Gap, sink);
                }
            }
            Response::Unsure { ended, .. } => *ended = may_end(tail),
            Response::Between => self.miss_answers(0, tail, sink),
            Response::Value { value, answers } => match value.hole(len) {
                Passed::Inside => {}
                Passed::Done(used) => {
                    if !self.end_value(offset(used), sink) && used < len {
                        self.miss_answers(used, tail, sink);
                    }
                }
                Passed::Cut if *answers => {
                    let error = value.error();
                    if self.queue.len() == 1 {
                        self.response = Response::Unsure { ended: may_end(tail), error };
                    } else if let Some(pending) = self.queue.front() {
                        // The answers to the others may be in it.
                        self.end_answer(pending, offset(len), Answer { error, truncated: true }, sink);
                        self.lose_answers(offset(len), LostReason::Gap, sink);
                    }
                }
                Passed::Cut => self.lose_answers(offset(len), LostReason::Gap, sink),
            },
        }
    }

    /// Answers that were not captured. Of a command that waits alone it is the answer.
    fn miss_answers(&mut self, at: u64, tail: &[u8], sink: Sink<'_>) {
        let waits = self.queue.front().filter(|pending| self.queue.len() == 1 && !pending.after_gap);
        if waits.is_some()
            && !matches!(self.request, Request::Command(_))
            && self.begin_answer(offset(at), sink)
        {
            self.response = Response::Unsure { ended: may_end(tail), error: None };
        } else {
            emit(sink, 0, FLOW, offset(at), What::HalfSeen);
            self.lose_answers(offset(at), LostReason::Gap, sink);
        }
    }

    pub(super) fn response_gap(&mut self, sink: Sink<'_>) {
        if !matches!(self.response, Response::Closed) {
            self.lose_answers(0, LostReason::Gap, sink);
        }
    }

    pub(super) fn response_end(&mut self, sink: Sink<'_>) {
        self.end_unsure(Response::Closed, sink);
        self.response = Response::Closed;
        // A command that is still being read is over with its own direction.
        let reading = matches!(self.request, Request::Command(_)) && self.queue.remove_last(self.sending);
        self.flush(0, &What::Aborted { body: 0 }, sink);
        if reading {
            self.request = Request::Closed;
            emit(sink, self.sending, Flow::Request, 0, What::Aborted { body: 0 });
        }
    }

    /// The answers from here on cannot be followed: nobody gets one of them.
    pub(super) fn lose_answers(&mut self, at: usize, reason: LostReason, sink: Sink<'_>) {
        self.flush(at, &What::Lost(reason), sink);
        if !matches!(self.response, Response::Closed) {
            self.response = Response::Lost;
        }
        self.doubt = true;
    }
}

/// Whether the last bytes can be the last ones of an answer. Nothing is known without them.
fn may_end(tail: &[u8]) -> bool {
    tail.is_empty() || tail.ends_with(b"\n")
}
