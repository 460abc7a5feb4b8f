//! The requests that wait for their responses, in order.

use std::collections::VecDeque;

/// Most requests on one connection that are remembered while they wait.
pub(super) const MAX_PENDING: usize = 1024;

/// A request whose response is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Its number.
    pub(super) exchange: u32,
    /// Other requests, which were not seen, may stand before it.
    pub(super) after_gap: bool,
    /// Its head was never understood: its response is framed, but nobody is told.
    pub(super) ghost: bool,
    /// The method is HEAD: the response has no body.
    pub(super) head: bool,
    /// The method is CONNECT.
    pub(super) connect: bool,
    /// It asked for another protocol, or may have.
    pub(super) upgrade: bool,
    /// It asked for HTTP/2.
    pub(super) h2c: bool,
    /// It is a call of gRPC-Web.
    pub(super) call: bool,
    /// Nothing more of it will come.
    pub(super) sent: bool,
}

/// First in, first out.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Pending>,
}

impl Queue {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_PENDING
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that somebody waits for.
    pub(super) fn in_flight(&self) -> usize {
        self.waiting.iter().filter(|pending| !pending.ghost).count()
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.waiting.push_back(pending);
    }

    /// The request that the next response answers.
    pub(super) fn front(&self) -> Option<Pending> {
        self.waiting.front().copied()
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let pending = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > 16 {
            self.waiting = VecDeque::new();
        }
        pending
    }

    /// Takes the last request out again.
    pub(super) fn pop_last(&mut self) {
        self.waiting.pop_back();
    }

    /// The request of this number, if it is the last one and still waits.
    pub(super) fn last(&self, exchange: u32) -> Option<Pending> {
        self.waiting.back().copied().filter(|pending| pending.exchange == exchange)
    }

    /// The same, to change it.
    pub(super) fn last_mut(&mut self, exchange: u32) -> Option<&mut Pending> {
        self.waiting.back_mut().filter(|pending| pending.exchange == exchange)
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<Pending>()
    }
}
