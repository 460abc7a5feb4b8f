//! The direction towards the server.

use super::command::{Command, Passed, Progress};
use super::pending::{Kind, Pending};
use super::{Connection, Request, Response, Sink, detect, emit, offset};
use crate::message::{Flow, Head};
use crate::parser::{LostReason, What};

const FLOW: Flow = Flow::Request;

impl Connection {
    pub(super) fn request_bytes(&mut self, bytes: &[u8], burst_start: bool, sink: Sink<'_>) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match &mut self.request {
                Request::Closed => return,
                Request::Lost => {
                    if at > 0 || !burst_start || !detect::may_be_command(bytes) {
                        // Commands may be in what is skipped.
                        self.doubt = true;
                        return;
                    }
                    self.request = Request::Between;
                }
                Request::Between if rest.first() == Some(&b'*') => {
                    self.begin_command(at, burst_start && at == 0, sink);
                }
                Request::Between => {
                    emit(sink, 0, FLOW, at, What::Garbage);
                    self.lose_sync();
                    return;
                }
                Request::Command(command) => match command.bytes(rest) {
                    Progress::More => return,
                    Progress::Done(used) => {
                        at += used;
                        if self.end_command(at, false, sink) {
                            return;
                        }
                    }
                    Progress::Bad(used) => {
                        self.lose_command(at + used, LostReason::Malformed, sink);
                        return;
                    }
                },
            }
        }
    }

    /// The first byte of a command is there; `turn`: the direction changed with it.
    fn begin_command(&mut self, at: usize, turn: bool, sink: Sink<'_>) {
        if turn {
            self.turned(sink);
        }
        if self.queue.is_full() {
            self.flush(0, &What::Lost(LostReason::Overflow), sink);
            self.response = Response::Lost;
            self.doubt = true;
        }
        self.sending = self.next;
        self.next = self.next.wrapping_add(1);
        self.queue.push(Pending { exchange: self.sending, after_gap: self.doubt, kind: Kind::Usual });
        self.request = Request::Command(Box::new(Command::new()));
        emit(sink, self.sending, FLOW, at, What::Begin);
    }

    /// Commands come after answers. A client that waits has all its answers now.
    fn turned(&mut self, sink: Sink<'_>) {
        match self.response {
            Response::Unsure { ended, .. } => {
                // More of that answer is still to come if the last byte seen cannot be its last.
                self.pipelines |= !ended;
                self.doubt |= self.pipelines;
                self.end_unsure(Response::Lost, sink);
            }
            Response::Lost => {
                // Their answers were skipped, or are still to come if the client does not wait.
                self.doubt |= self.pipelines && !self.queue.is_empty();
                self.flush(0, &What::Lost(LostReason::Gap), sink);
            }
            _ => {}
        }
        if !self.queue.is_empty() {
            self.pipelines = true;
        } else if !self.pipelines && !matches!(self.response, Response::Value { .. }) {
            self.doubt = false;
        }
    }

    /// The command is complete, or as much of it as will be seen. True if nothing more is read of the connection.
    fn end_command(&mut self, at: usize, cut: bool, sink: Sink<'_>) -> bool {
        let Request::Command(command) = std::mem::replace(&mut self.request, Request::Between) else {
            return false;
        };
        let kind = command.kind();
        if kind == Kind::Select {
            // RESET and DISCARD come here too, and then it is not known.
            self.namespace = command.database();
        }
        if let Some(pending) = self.queue.last_mut(self.sending) {
            pending.kind = kind;
        }
        let query = command.query(self.namespace.clone(), cut);
        emit(sink, self.sending, FLOW, at, What::Head(Head::Query(query)));
        emit(sink, self.sending, FLOW, at, What::End { body: 0 });
        if kind == Kind::Silence {
            self.switch(0, sink);
        }
        self.switched
    }

    pub(super) fn request_hole(&mut self, len: u64, sink: Sink<'_>) {
        if len == 0 {
            return;
        }
        match &mut self.request {
            Request::Closed => {}
            Request::Lost => self.lose_sync(),
            Request::Between => self.miss_commands(0, sink),
            Request::Command(command) => match command.hole(len) {
                Passed::Inside => {}
                Passed::Done(used) => {
                    if !self.end_command(offset(used), false, sink) && used < len {
                        self.miss_commands(used, sink);
                    }
                }
                Passed::Cut if command.is_named() => {
                    if !self.end_command(offset(len), true, sink) {
                        // Other commands may be in it too.
                        self.lose_sync();
                    }
                }
                Passed::Cut => self.lose_command(offset(len), LostReason::CutHead, sink),
            },
        }
    }

    /// Commands that were not captured.
    fn miss_commands(&mut self, at: u64, sink: Sink<'_>) {
        emit(sink, 0, FLOW, offset(at), What::HalfSeen);
        self.lose_sync();
    }

    pub(super) fn request_gap(&mut self, sink: Sink<'_>) {
        match self.request {
            Request::Closed => return,
            Request::Command(_) => self.lose_command(0, LostReason::Gap, sink),
            Request::Between | Request::Lost => self.lose_sync(),
        }
        self.lose_answers(0, LostReason::Gap, sink);
    }

    pub(super) fn request_end(&mut self, sink: Sink<'_>) {
        if matches!(self.request, Request::Command(_)) {
            self.queue.remove_last(self.sending);
            emit(sink, self.sending, FLOW, 0, What::Aborted { body: 0 });
        }
        self.request = Request::Closed;
        if matches!(self.response, Response::Closed) {
            self.flush(0, &What::Aborted { body: 0 }, sink);
        }
    }

    /// The command that is being read will not be understood: nobody waits for its answer.
    fn lose_command(&mut self, at: usize, reason: LostReason, sink: Sink<'_>) {
        self.queue.remove_last(self.sending);
        emit(sink, self.sending, FLOW, at, What::Lost(reason));
        self.lose_sync();
    }

    fn lose_sync(&mut self) {
        if !matches!(self.request, Request::Closed) {
            self.request = Request::Lost;
        }
        self.doubt = true;
        // A command that selects may have been missed.
        self.namespace = None;
    }
}
