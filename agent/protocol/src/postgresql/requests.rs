//! The client's direction: calls begin, and end with a Sync or as a simple query does.

use std::sync::Arc;

use super::half::At;
use super::pending::Pending;
use super::statement::{Group, Statement};
use super::wire::{self, Opening, text};
use super::{Connection, MAX_NAMESPACE, Sink, emit};
use crate::message::{Flow, Head};
use crate::parser::{LostReason, What};

const FLOW: Flow = Flow::Request;

impl Connection {
    /// The first bytes after the server said something.
    pub(super) fn request_turns(&mut self, sink: Sink<'_>) {
        // Who waits for each answer has read the last one to its end.
        if !self.pipelined && self.response.at == At::Lost && self.group.is_none() {
            while let Some(front) = self.queue.front_mut() {
                if !(front.sent && front.begun) {
                    break;
                }
                self.finish_answer(0, sink);
            }
        }
        if self.request.at == At::Lost && self.group.is_some() {
            self.lose_group(0, sink);
        }
        if self.doubt && self.queue.is_empty() && (self.ready || !self.pipelined) {
            self.doubt = false;
        }
    }

    /// A packet without a type.
    pub(super) fn opening(&mut self, body: &[u8]) {
        match wire::opening(body) {
            Some(Opening::Encryption) => {
                self.request.rest(At::Opening);
                self.begin_answers(At::Encryption);
            }
            Some(Opening::Startup(rest)) => {
                self.starting = true;
                self.request.rest(At::Header);
                self.begin_answers(At::Header);
                let value = |wanted: &[u8]| {
                    let found = wire::parameters(rest).find(|(name, _)| *name == wanted);
                    found
                        .map(|(_, value)| value)
                        .filter(|value| !value.is_empty() && value.len() <= MAX_NAMESPACE)
                };
                // The database is named as the user if it is not named.
                let name = value(b"database").or_else(|| value(b"user"));
                self.namespace = name.and_then(|name| str::from_utf8(name).ok()).map(Into::into);
            }
            Some(Opening::Cancel) | None => self.request.rest(At::Lost),
        }
    }

    /// The first byte of a message.
    pub(super) fn request_begins(&mut self, kind: u8, at: usize, sink: Sink<'_>) {
        let copied = std::mem::replace(&mut self.copied, matches!(kind, b'c' | b'f'));
        match kind {
            b'Q' | b'F' | b'P' | b'B' | b'E' | b'D' | b'C' if self.group.is_none() => self.begin(at, sink),
            // It ends what has no call of its own: the server says that it is ready, and nobody asked for more.
            b'S' if self.group.is_none() && !copied => {
                self.push(Pending { ghost: true, sent: true, ..Pending::default() }, sink);
            }
            _ => {}
        }
    }

    fn begin(&mut self, at: usize, sink: Sink<'_>) {
        let exchange = self.next;
        self.next = self.next.wrapping_add(1);
        self.group = Some(Group::default());
        emit(sink, exchange, FLOW, at, What::Begin);
        self.push(Pending { exchange, after_gap: self.doubt, ..Pending::default() }, sink);
    }

    fn push(&mut self, pending: Pending, sink: Sink<'_>) {
        if self.queue.is_full() {
            // Those that wait are given up, all at once: no answer can be given to one of them any more.
            self.flush(LostReason::Overflow, 0, sink);
            self.doubt = true;
        }
        self.queue.push(pending);
        self.pipelined |= self.queue.len() > 1;
        self.ready = false;
    }

    /// A message is complete.
    pub(super) fn request_message(&mut self, kind: u8, body: &[u8], at: usize, sink: Sink<'_>) {
        self.understand(kind, body);
        if matches!(kind, b'Q' | b'F' | b'S') {
            self.end_group(at, sink);
        }
    }

    /// What a message of the call says, as far as it came.
    fn understand(&mut self, kind: u8, body: &[u8]) {
        let Some(group) = &mut self.group else { return };
        match kind {
            b'Q' => {
                let (query, whole) = until_zero(body);
                group.execute(Some(Arc::new(Statement::read(query, !whole))));
                // It gives a name to a statement by means of SQL.
                if group.forgets() {
                    self.names.forget();
                }
            }
            b'F' => group.execute(Some(Arc::new(Statement::named("CALL")))),
            b'P' => {
                let Some((name, rest)) = text(body) else {
                    // Whose name it takes is not known.
                    self.names.forget();
                    return group.parse(None);
                };
                let (query, whole) = until_zero(rest);
                let statement = Arc::new(Statement::read(query, !whole));
                group.parse(Some(&statement));
                self.names.parse(name, Some(&statement));
            }
            b'B' => {
                let names = text(body).and_then(|(portal, rest)| Some((portal, text(rest)?.0)));
                let statement = names.and_then(|(portal, statement)| self.names.bind(portal, statement));
                if names.is_none() {
                    self.names.forget_portals();
                }
                group.bind(statement);
            }
            b'E' => {
                let statement = text(body).and_then(|(portal, _)| self.names.of_portal(portal));
                group.execute(statement);
            }
            b'D' => {
                let name = body.strip_prefix(b"S").and_then(text).map(|(name, _)| name);
                group.describe(name.and_then(|name| self.names.of_name(name)));
            }
            b'C' => {
                group.close();
                if let Some((&kind, rest)) = body.split_first()
                    && let Some((name, _)) = text(rest)
                {
                    self.names.close(kind, name);
                }
            }
            _ => {}
        }
    }

    /// The call is complete.
    fn end_group(&mut self, at: usize, sink: Sink<'_>) {
        self.tell_group(at, sink);
        if let Some(pending) = self.queue.newest().filter(|pending| !pending.sent) {
            pending.sent = true;
            emit(sink, pending.exchange, FLOW, at, What::End { body: 0 });
        }
    }

    /// Tells what the call is. False if there is none, or nothing of it was understood.
    fn tell_group(&mut self, at: usize, sink: Sink<'_>) -> bool {
        let Some(group) = self.group.take() else { return false };
        let Some(pending) = self.queue.newest().filter(|pending| !pending.sent) else { return false };
        if !group.is_known() {
            return false;
        }
        let query = group.query(self.namespace.as_deref());
        emit(sink, pending.exchange, FLOW, at, What::Head(Head::Query(query)));
        true
    }

    /// What is missing covers the beginning of a message: what of the present one came is all of it.
    pub(super) fn cut_request(&mut self, sink: Sink<'_>) {
        if matches!(self.request.at, At::Body(_)) && self.request.kind() != 0 {
            let kind = self.request.kind();
            let body = self.request.take_body();
            self.understand(kind, &body);
            self.request.give_back(body);
            if matches!(kind, b'Q' | b'F') {
                self.end_group(0, sink);
            }
        }
        if let Some(group) = &mut self.group {
            group.cut = true;
        }
        // A name is not given to another statement before it was closed, which drivers do not do; the empty name is.
        self.names.forget_unnamed();
        self.doubt = true;
        self.copied = false;
        self.request.rest(At::Lost);
    }

    /// A Sync was seen at the end of a transfer of which not everything was.
    pub(super) fn sync_passed(&mut self, at: usize, sink: Sink<'_>) {
        if self.group.is_some() {
            self.end_group_or_lose(at, sink);
        }
    }

    fn end_group_or_lose(&mut self, at: usize, sink: Sink<'_>) {
        if self.group.as_ref().is_some_and(Group::is_known) {
            self.end_group(at, sink);
            // Between its beginning and this end nothing else fits, as a rule.
            self.doubt = self.pipelined;
        } else {
            self.lose_group(at, sink);
        }
    }

    /// The end of the call cannot be known.
    fn lose_group(&mut self, at: usize, sink: Sink<'_>) {
        let told = self.tell_group(at, sink);
        let Some(pending) = self.queue.newest().filter(|pending| !pending.sent) else { return };
        pending.sent = true;
        emit(sink, pending.exchange, FLOW, at, What::Lost(LostReason::Gap));
        if !told {
            // That was all of the exchange.
            pending.ghost = true;
        }
    }

    /// An unknown number of bytes is missing.
    pub(super) fn lose_request(&mut self, sink: Sink<'_>) {
        self.cut_request(sink);
        self.names.forget();
        self.lose_group(0, sink);
    }

    /// What stands there is no message.
    pub(super) fn malformed_request(&mut self, at: usize, sink: Sink<'_>) {
        self.names.forget();
        self.doubt = true;
        self.request.rest(At::Lost);
        self.lose_group(at, sink);
    }

    /// The client sends no more.
    pub(super) fn end_request(&mut self, sink: Sink<'_>) {
        let known = self.group.as_ref().is_some_and(Group::is_known);
        if let Some(group) = &mut self.group {
            group.cut = true;
        }
        self.tell_group(0, sink);
        if let Some(pending) = self.queue.newest().filter(|pending| !pending.sent) {
            pending.sent = true;
            emit(sink, pending.exchange, FLOW, 0, What::Aborted { body: 0 });
            if !known {
                self.queue.pop_last();
            }
        }
        self.request.rest(At::Closed);
        if self.response.at == At::Closed {
            self.end_response(sink);
        }
    }

    /// The answer to a call whose end was not seen is complete.
    pub(super) fn end_unseen_group(&mut self, sink: Sink<'_>) -> bool {
        if !self.group.as_ref().is_some_and(|group| group.is_known() && group.cut) {
            return false;
        }
        self.end_group(0, sink);
        true
    }
}

/// A text up to its end; and whether the end is there.
fn until_zero(bytes: &[u8]) -> (&[u8], bool) {
    text(bytes).map_or((bytes, false), |(text, _)| (text, true))
}
