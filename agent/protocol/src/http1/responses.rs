//! The direction towards the client.

use super::body::{Body, Progress, Until};
use super::call::Call;
use super::fields::ResponseFields;
use super::half::{Added, MAX_HEAD, State};
use super::head::{self, Read, ResponseHead};
use super::pending::Pending;
use super::{Connection, Sink, detect, emit, offset};
use crate::message::{Flow, Head, RpcPart};
use crate::parser::{Detect, LostReason, What};

const FLOW: Flow = Flow::Response;

impl Connection {
    pub(super) fn response_bytes(&mut self, bytes: &[u8], burst_start: bool, sink: Sink<'_>) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.response.state {
                State::Closed => return,
                State::Fresh | State::Lost => {
                    let fresh = matches!(self.response.state, State::Fresh);
                    if at > 0 || !(burst_start || fresh) || !looks_like_response(bytes) {
                        if fresh {
                            self.no_response(at, sink);
                        }
                        self.response.state = State::Lost;
                        return;
                    }
                    self.response.state = State::Between;
                    0
                }
                State::Between if rest.first() != Some(&b'H') => {
                    self.no_response(at, sink);
                    return;
                }
                State::Between => {
                    if !self.begin_response(at, sink) {
                        return;
                    }
                    0
                }
                State::Interim if at == 0 && looks_like_response(bytes) => {
                    self.response.state = State::Head;
                    0
                }
                State::Interim => return,
                State::Head => self.response_head(at, rest, sink),
                State::Body(_) => match self.response.body_bytes(rest) {
                    Progress::More => return,
                    Progress::Done(used) => {
                        self.end_response(at + offset(used), State::Between, sink);
                        offset(used)
                    }
                    Progress::Bad(used) => {
                        self.lose_response(at + offset(used), LostReason::Malformed, sink);
                        return;
                    }
                },
            };
        }
    }

    /// Something comes that is no response.
    fn no_response(&mut self, at: usize, sink: Sink<'_>) {
        let what = if self.queue.is_empty() && matches!(self.response.state, State::Fresh) {
            What::HalfSeen
        } else {
            What::Garbage
        };
        emit(sink, 0, FLOW, at, what);
        let first = matches!(self.response.state, State::Fresh) && at == 0 && !self.doubt;
        let reason = if first { LostReason::Foreign } else { LostReason::Malformed };
        self.flush(FLOW, at, &What::Lost(reason), sink);
        self.response.rest(State::Lost);
        self.doubt = true;
    }

    /// The first byte of a response is there. False if its request is not known.
    fn begin_response(&mut self, at: usize, sink: Sink<'_>) -> bool {
        match self.queue.front() {
            Some(pending) if !pending.after_gap => {
                self.response.state = State::Head;
                let what = if pending.ghost { What::HalfSeen } else { What::Begin };
                emit(sink, pending.exchange, FLOW, at, what);
                true
            }
            front => {
                if front.is_some() {
                    // It may answer a request that was not seen: better no answer than another's.
                    self.flush(FLOW, at, &What::Lost(LostReason::Gap), sink);
                    self.doubt = true;
                }
                emit(sink, 0, FLOW, at, What::HalfSeen);
                self.response.rest(State::Lost);
                false
            }
        }
    }

    /// Reads on in a head; gives the bytes used.
    fn response_head(&mut self, at: usize, rest: &[u8], sink: Sink<'_>) -> usize {
        if self.response.head_is_empty() {
            let window = rest.get(..MAX_HEAD).unwrap_or(rest);
            match head::response(window, false, &mut self.response_fields) {
                Read::Whole(head, len) => {
                    self.response_head_done(at + len, head, sink);
                    return len;
                }
                Read::Malformed(len) => {
                    self.lose_response(at + len, LostReason::Malformed, sink);
                    return len;
                }
                Read::Partial => {}
            }
        }
        match self.response.add(rest, false) {
            Added::Partial => rest.len(),
            Added::Whole(used) => {
                match head::response(self.response.head(), false, &mut self.response_fields) {
                    Read::Whole(head, _) => self.response_head_done(at + used, head, sink),
                    Read::Partial | Read::Malformed(_) => {
                        self.lose_response(at + used, LostReason::Malformed, sink);
                    }
                }
                used
            }
            Added::Full(used) => {
                self.cut_response_head(at + used, sink);
                used
            }
            Added::Malformed(used) => {
                self.lose_response(at + used, LostReason::Malformed, sink);
                used
            }
        }
    }

    fn response_head_done(&mut self, at: usize, head: ResponseHead, sink: Sink<'_>) {
        self.response.clear_head();
        let Some(pending) = self.queue.front() else { return };
        let ResponseHead { response, fields: ResponseFields { lengths, content, status: grpc_status } } =
            head;
        let (status, truncated) = (response.status, response.truncated);
        let switched =
            if status == 101 { pending.upgrade } else { pending.connect && matches!(status, 200..=299) };
        if status < 200 && !switched {
            // The final response follows.
            self.response.state = if truncated { State::Interim } else { State::Head };
            return;
        }
        self.settle_request(pending, sink);
        if status == 101 && pending.h2c && !pending.ghost {
            self.switch_to_h2c(pending, at, sink);
            return;
        }
        if !pending.ghost {
            emit(sink, pending.exchange, FLOW, at, What::Head(Head::Response(response)));
        }
        if switched {
            self.switch(pending, at, sink);
            return;
        }
        self.response.call = Call::new(content.filter(|_| pending.call), grpc_status);
        let bodyless = pending.head || matches!(status, 204 | 304);
        if truncated {
            self.response.begin_unsure(match () {
                () if bodyless => Until::HeadEnd,
                () if lengths.chunked => Until::ChunkEnd,
                () => Until::Turn,
            });
        } else if bodyless {
            self.end_response(at, State::Between, sink);
        } else if lengths.chunked {
            self.response.state = State::Body(Body::CHUNKED);
        } else if lengths.bad && !lengths.coded {
            self.lose_response(at, LostReason::Framing, sink);
        } else {
            match lengths.content.filter(|_| !lengths.coded) {
                Some(0) => self.end_response(at, State::Between, sink),
                Some(length) => self.response.state = State::Body(Body::Length(length)),
                None => self.response.state = State::Body(Body::Close),
            }
        }
    }

    /// A final response is there: a request whose own end could not be seen has ended.
    fn settle_request(&mut self, pending: Pending, sink: Sink<'_>) {
        if self.request.is_unsure() && self.sending == pending.exchange {
            self.doubt = true;
            self.end_request(0, State::Lost, sink);
        }
    }

    /// The rest of the head will not come.
    fn cut_response_head(&mut self, at: usize, sink: Sink<'_>) {
        match head::response(self.response.head(), true, &mut self.response_fields) {
            Read::Whole(head, _) => self.response_head_done(at, head, sink),
            // Not even the status came: a response of unknown end.
            Read::Partial | Read::Malformed(_) => self.begin_unseen(sink),
        }
    }

    /// A response of which nothing useful was captured goes on.
    fn begin_unseen(&mut self, sink: Sink<'_>) {
        if let Some(pending) = self.queue.front() {
            self.settle_request(pending, sink);
        }
        self.response.begin_unsure(Until::Turn);
    }

    pub(super) fn response_hole(&mut self, len: u64, tail: &[u8], sink: Sink<'_>) {
        if len == 0 {
            return;
        }
        match self.response.state {
            State::Closed | State::Lost | State::Interim => {}
            State::Fresh | State::Between => self.response_hole_between(0, len, tail, sink),
            State::Head => {
                self.cut_response_head(0, sink);
                // Counted as body, whatever part of it is still head.
                if self.response.body_hole(len, tail) == Progress::Done(len) {
                    self.end_response(offset(len), State::Between, sink);
                }
            }
            State::Body(_) => match self.response.body_hole(len, tail) {
                Progress::More => {}
                Progress::Done(used) => {
                    self.end_response(offset(used), State::Between, sink);
                    if used < len {
                        self.response_hole_between(used, len - used, tail, sink);
                    }
                }
                Progress::Bad(used) => self.lose_response(offset(used), LostReason::Malformed, sink),
            },
        }
    }

    /// A response, or several, of which nothing was captured.
    fn response_hole_between(&mut self, at: u64, len: u64, tail: &[u8], sink: Sink<'_>) {
        if self.queue.len() <= 1 {
            if self.begin_response(offset(at), sink) {
                self.begin_unseen(sink);
                self.response.body_hole(len, tail);
            }
        } else {
            self.flush(FLOW, offset(at), &What::Lost(LostReason::CutHead), sink);
            self.response.rest(State::Lost);
            self.doubt = true;
        }
    }

    pub(super) fn response_gap(&mut self, sink: Sink<'_>) {
        if !matches!(self.response.state, State::Closed) {
            self.lose_response(0, LostReason::Gap, sink);
        }
    }

    pub(super) fn response_end(&mut self, sink: Sink<'_>) {
        match self.response.state {
            State::Body(Body::Close | Body::Unsure(..)) => self.end_response(0, State::Closed, sink),
            _ => {
                let body = self.response.body;
                let part = self.response.call.as_ref().map(|call| call.part());
                if self.response.in_message()
                    && let Some(pending) = self.queue.pop()
                    && !pending.ghost
                {
                    tell_call(pending, 0, part, sink);
                    emit(sink, pending.exchange, FLOW, 0, What::Aborted { body });
                }
                self.response.rest(State::Closed);
            }
        }
        self.flush(FLOW, 0, &What::Aborted { body: 0 }, sink);
    }

    /// The response is complete.
    pub(super) fn end_response(&mut self, at: usize, state: State, sink: Sink<'_>) {
        let body = self.response.body;
        let part = self.response.call.as_ref().map(|call| call.part());
        self.response.rest(state);
        if let Some(pending) = self.queue.pop()
            && !pending.ghost
        {
            tell_call(pending, at, part, sink);
            emit(sink, pending.exchange, FLOW, at, What::End { body });
        }
    }

    /// Responses cannot be followed any more: not the current one, nor those that other requests wait for. A request
    /// that is still being sent may yet be answered.
    fn lose_response(&mut self, at: usize, reason: LostReason, sink: Sink<'_>) {
        let answering = self.response.in_message();
        let open = self
            .queue
            .last(self.sending)
            .filter(|pending| !(pending.sent || answering && self.queue.len() == 1));
        if open.is_some() {
            self.queue.pop_last();
        }
        self.flush(FLOW, at, &What::Lost(reason), sink);
        if let Some(pending) = open {
            self.queue.push(pending);
        }
        self.response.rest(State::Lost);
        self.doubt = true;
    }
}

/// What was seen of a call. Without a status it was not seen to its end.
fn tell_call(pending: Pending, at: usize, part: Option<RpcPart>, sink: Sink<'_>) {
    if let Some(part) = part {
        let part = RpcPart { truncated: part.truncated || part.status.is_none(), ..part };
        emit(sink, pending.exchange, FLOW, at, What::Rpc(part));
    }
}

fn looks_like_response(bytes: &[u8]) -> bool {
    match detect::detect(bytes) {
        Detect::Response => true,
        Detect::More => bytes.first() == Some(&b'H'),
        Detect::Request | Detect::No => false,
    }
}
