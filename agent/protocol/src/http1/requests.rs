//! The direction towards the server.

use super::body::{Body, Progress, Until};
use super::call::Call;
use super::detect::is_token;
use super::half::{Added, MAX_HEAD, State};
use super::head::{self, Read, RequestHead};
use super::pending::Pending;
use super::{Connection, Sink, detect, emit, offset};
use crate::message::{Flow, Head};
use crate::parser::{Detect, LostReason, What};

const FLOW: Flow = Flow::Request;

impl Connection {
    pub(super) fn request_bytes(&mut self, bytes: &[u8], burst_start: bool, sink: Sink<'_>) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.request.state {
                State::Closed | State::Interim => return,
                State::Fresh | State::Lost => {
                    let fresh = matches!(self.request.state, State::Fresh);
                    if at > 0 || !(burst_start || fresh) || !looks_like_request(bytes) {
                        if fresh {
                            emit(sink, 0, FLOW, at, What::HalfSeen);
                        }
                        self.request.state = State::Lost;
                        return;
                    }
                    self.request.state = State::Between;
                    0
                }
                State::Between => match rest.iter().position(|&b| b != b'\r' && b != b'\n') {
                    None => return,
                    Some(0) if is_token(rest.first().copied().unwrap_or_default()) => {
                        // Empty lines before it do not make it less the beginning of the burst.
                        let first =
                            bytes.get(..at).unwrap_or_default().iter().all(|&b| b == b'\r' || b == b'\n');
                        self.begin_request(at, burst_start && first, sink);
                        0
                    }
                    Some(0) => {
                        emit(sink, 0, FLOW, at, What::Garbage);
                        self.lose_request_sync();
                        return;
                    }
                    Some(blank) => blank,
                },
                State::Head => self.request_head(at, rest, sink),
                State::Body(_) => {
                    if at == 0 && burst_start && self.body_was_given_up(bytes) {
                        self.end_request(0, State::Between, sink);
                        continue;
                    }
                    match self.request.body_bytes(rest) {
                        Progress::More => return,
                        Progress::Done(used) => {
                            self.end_request(at + offset(used), State::Between, sink);
                            offset(used)
                        }
                        Progress::Bad(used) => {
                            self.lose_request(at + offset(used), LostReason::Malformed, sink);
                            return;
                        }
                    }
                }
            };
        }
    }

    /// The response is complete, and what comes now is another request although a body was announced (the client had
    /// asked with 100-continue and was refused), or the end of this one could not be seen.
    fn body_was_given_up(&self, bytes: &[u8]) -> bool {
        let open = self.request.awaits_body() || self.request.is_unsure();
        open && self.queue.last(self.sending).is_none() && detect::detect(bytes) == Detect::Request
    }

    fn begin_request(&mut self, at: usize, burst_start: bool, sink: Sink<'_>) {
        // After a change of direction everything before was answered, unless the client pipelines.
        if burst_start {
            if self.response.is_unsure() {
                self.end_response(0, State::Lost, sink);
            }
            if matches!(self.response.state, State::Lost) {
                // Their responses were among the bytes that were skipped.
                self.flush(Flow::Response, 0, &What::Lost(LostReason::Gap), sink);
            }
        }
        if self.queue.is_full() {
            self.flush(Flow::Response, 0, &What::Lost(LostReason::Overflow), sink);
            self.response.rest(State::Lost);
            self.doubt = true;
        }
        if burst_start && self.queue.is_empty() && !self.response.in_message() {
            self.doubt = false;
        }
        self.sending = self.next;
        self.next = self.next.wrapping_add(1);
        self.queue.push(Pending { exchange: self.sending, after_gap: self.doubt, ..Pending::default() });
        self.request.state = State::Head;
        emit(sink, self.sending, FLOW, at, What::Begin);
    }

    /// Reads on in a head; gives the bytes used.
    fn request_head(&mut self, at: usize, rest: &[u8], sink: Sink<'_>) -> usize {
        if self.request.head_is_empty() {
            let window = rest.get(..MAX_HEAD).unwrap_or(rest);
            match head::request(window, false, &mut self.request_fields) {
                Read::Whole(head, len) => {
                    self.request_head_done(at + len, head, sink);
                    return len;
                }
                Read::Malformed(len) => {
                    self.lose_request(at + len, LostReason::Malformed, sink);
                    return len;
                }
                Read::Partial => {}
            }
        }
        match self.request.add(rest, true) {
            Added::Partial => rest.len(),
            Added::Whole(used) => {
                match head::request(self.request.head(), false, &mut self.request_fields) {
                    Read::Whole(head, _) => self.request_head_done(at + used, head, sink),
                    Read::Partial | Read::Malformed(_) => {
                        self.lose_request(at + used, LostReason::Malformed, sink);
                    }
                }
                used
            }
            Added::Full(used) => {
                self.cut_request_head(at + used, sink);
                used
            }
            Added::Malformed(used) => {
                self.lose_request(at + used, LostReason::Malformed, sink);
                used
            }
        }
    }

    fn request_head_done(&mut self, at: usize, head: RequestHead, sink: Sink<'_>) {
        self.request.clear_head();
        let RequestHead { request, lengths, upgrade, h2c, content } = head;
        self.request.call = Call::new(content, None);
        let connect = &*request.method == "CONNECT";
        let truncated = request.truncated;
        if let Some(pending) = self.queue.last_mut(self.sending) {
            pending.head = &*request.method == "HEAD";
            pending.connect = connect;
            pending.upgrade = upgrade || truncated;
            pending.h2c = h2c;
            pending.call = self.request.call.is_some();
        }
        emit(sink, self.sending, FLOW, at, What::Head(Head::Request(request)));
        if truncated {
            self.doubt = true;
            self.request.begin_unsure(if lengths.chunked { Until::ChunkEnd } else { Until::Turn });
        } else if lengths.chunked {
            self.request.state = State::Body(Body::CHUNKED);
        } else if lengths.coded || lengths.bad {
            // The head was understood, so the response still matters.
            self.request.state = State::Body(Body::Close);
            self.lose_request(at, LostReason::Framing, sink);
        } else {
            match lengths.content {
                // What follows is the tunnel's, unless the answer is no.
                _ if connect => self.end_request(at, State::Lost, sink),
                None | Some(0) => self.end_request(at, State::Between, sink),
                Some(length) => self.request.state = State::Body(Body::Length(length)),
            }
        }
    }

    /// The rest of the head will not come.
    fn cut_request_head(&mut self, at: usize, sink: Sink<'_>) {
        match head::request(self.request.head(), true, &mut self.request_fields) {
            Read::Whole(head, _) => self.request_head_done(at, head, sink),
            Read::Partial | Read::Malformed(_) => self.lose_request(at, LostReason::CutHead, sink),
        }
    }

    pub(super) fn request_hole(&mut self, len: u64, tail: &[u8], sink: Sink<'_>) {
        if len == 0 {
            return;
        }
        match self.request.state {
            State::Closed | State::Lost | State::Interim => {}
            State::Fresh | State::Between => self.request_hole_between(0, len, tail, sink),
            State::Head => {
                self.cut_request_head(0, sink);
                // Counted as body, whatever part of it is still head.
                if self.request.body_hole(len, tail) == Progress::Done(len) {
                    self.end_request(offset(len), State::Between, sink);
                }
            }
            State::Body(_) => match self.request.body_hole(len, tail) {
                Progress::More => {}
                Progress::Done(used) => {
                    self.end_request(offset(used), State::Between, sink);
                    if used < len {
                        self.request_hole_between(used, len - used, tail, sink);
                    }
                }
                Progress::Bad(used) => self.lose_request(offset(used), LostReason::Malformed, sink),
            },
        }
    }

    /// Requests that were not captured at all, or only the empty line that some clients send behind a body.
    fn request_hole_between(&mut self, at: u64, len: u64, tail: &[u8], sink: Sink<'_>) {
        let end = tail.len().checked_sub(offset(len)).and_then(|from| tail.get(from..));
        if end.is_some_and(|end| end.iter().all(|&b| b == b'\r' || b == b'\n')) {
            return;
        }
        emit(sink, 0, FLOW, offset(at), What::HalfSeen);
        self.lose_request_sync();
    }

    pub(super) fn request_gap(&mut self, sink: Sink<'_>) {
        match self.request.state {
            State::Closed => {}
            State::Head | State::Interim | State::Body(_) => self.lose_request(0, LostReason::Gap, sink),
            State::Fresh | State::Lost | State::Between => self.lose_request_sync(),
        }
    }

    pub(super) fn request_end(&mut self, sink: Sink<'_>) {
        match self.request.state {
            State::Body(Body::Unsure(..)) => self.end_request(0, State::Closed, sink),
            State::Body(_) => {
                let body = self.request.body;
                self.tell_request_call(0, sink);
                self.leave_request(State::Closed);
                emit(sink, self.sending, FLOW, 0, What::Aborted { body });
            }
            State::Head | State::Interim => {
                self.abandon();
                self.leave_request(State::Closed);
                emit(sink, self.sending, FLOW, 0, What::Aborted { body: 0 });
            }
            State::Fresh | State::Lost | State::Between | State::Closed => self.request.rest(State::Closed),
        }
        if matches!(self.response.state, State::Closed) {
            self.flush(Flow::Response, 0, &What::Aborted { body: 0 }, sink);
        }
    }

    /// The request is complete.
    pub(super) fn end_request(&mut self, at: usize, state: State, sink: Sink<'_>) {
        let body = self.request.body;
        self.tell_request_call(at, sink);
        self.leave_request(state);
        emit(sink, self.sending, FLOW, at, What::End { body });
    }

    /// What was seen of a call.
    fn tell_request_call(&mut self, at: usize, sink: Sink<'_>) {
        if let Some(call) = self.request.call.take() {
            emit(sink, self.sending, FLOW, at, What::Rpc(call.part()));
        }
    }

    fn lose_request(&mut self, at: usize, reason: LostReason, sink: Sink<'_>) {
        if matches!(self.request.state, State::Head) {
            self.abandon();
        }
        self.leave_request(State::Lost);
        self.doubt = true;
        emit(sink, self.sending, FLOW, at, What::Lost(reason));
    }

    /// The request that is being read had no head: nobody waits for its response.
    fn abandon(&mut self) {
        if let Some(pending) = self.queue.last_mut(self.sending) {
            pending.ghost = true;
        }
    }

    fn leave_request(&mut self, state: State) {
        if let Some(pending) = self.queue.last_mut(self.sending) {
            pending.sent = true;
        }
        self.request.rest(state);
    }

    fn lose_request_sync(&mut self) {
        self.request.rest(State::Lost);
        self.doubt = true;
    }
}

fn looks_like_request(bytes: &[u8]) -> bool {
    matches!(detect::detect(bytes), Detect::Request | Detect::More)
}
