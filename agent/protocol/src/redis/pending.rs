//! The commands that wait for their answers, in order.

use std::collections::VecDeque;

/// Most commands on one connection that are remembered while they wait.
pub(super) const MAX_PENDING: usize = 1024;

/// What is special about the answer of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Kind {
    /// One value.
    #[default]
    Usual,
    /// One value; the database is not known if it is an error.
    Select,
    /// Messages follow: with RESP3 beside the answers, with RESP2 instead of them.
    Subscribe,
    /// Anything may follow.
    Stream,
    /// There may be none.
    Silence,
}

/// A command whose answer is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Its number.
    pub(super) exchange: u32,
    /// Other commands, which were not seen, may stand before it.
    pub(super) after_gap: bool,
    pub(super) kind: Kind,
}

/// First in, first out.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Pending>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.waiting.push_back(pending);
    }

    /// The command that the next answer is of.
    pub(super) fn front(&self) -> Option<Pending> {
        self.waiting.front().copied()
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let pending = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > 32 {
            self.waiting = VecDeque::new();
        }
        pending
    }

    /// The command of this number, if it is the last one and still waits.
    pub(super) fn last_mut(&mut self, exchange: u32) -> Option<&mut Pending> {
        self.waiting.back_mut().filter(|pending| pending.exchange == exchange)
    }

    /// Whether that one is the last.
    pub(super) fn ends_with(&self, exchange: u32) -> bool {
        self.waiting.back().is_some_and(|pending| pending.exchange == exchange)
    }

    /// Takes it out. False if it does not wait any more.
    pub(super) fn remove_last(&mut self, exchange: u32) -> bool {
        let found = self.last_mut(exchange).is_some();
        if found {
            self.waiting.pop_back();
        }
        found
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<Pending>()
    }
}
