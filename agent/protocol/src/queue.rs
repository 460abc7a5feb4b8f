//! What waits for its answer on a connection that answers in order. Comes in: what was asked. Goes out: what the next answer is of.

use std::collections::VecDeque;

/// Most that waits on one connection and is remembered.
pub(crate) const MAX_PENDING: usize = 1024;
/// Room that is kept when nothing waits.
const KEPT: usize = 32;

/// Something that waits for its answer.
pub(crate) trait Waits: Copy {
    /// Number of its exchange.
    fn exchange(&self) -> u32;

    /// Nobody is told of its answer.
    fn is_ghost(&self) -> bool {
        false
    }
}

/// First in, first out.
#[derive(Debug)]
pub(crate) struct Queue<P> {
    waiting: VecDeque<P>,
}

impl<P> Default for Queue<P> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<P: Waits> Queue<P> {
    /// Bound of [`Queue::state_bytes`].
    pub(crate) const MAX_STATE: usize = 2 * MAX_PENDING * size_of::<P>();

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_PENDING
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Those that somebody waits for.
    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.iter().filter(|pending| !pending.is_ghost()).count()
    }

    pub(crate) fn push(&mut self, pending: P) {
        self.waiting.push_back(pending);
    }

    /// What was taken out comes first again.
    pub(crate) fn push_front(&mut self, pending: P) {
        self.waiting.push_front(pending);
    }

    /// What the next answer is of.
    pub(crate) fn front(&self) -> Option<P> {
        self.waiting.front().copied()
    }

    /// The same, to change it.
    pub(crate) fn front_mut(&mut self) -> Option<&mut P> {
        self.waiting.front_mut()
    }

    pub(crate) fn pop(&mut self) -> Option<P> {
        let pending = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            self.waiting = VecDeque::new();
        }
        pending
    }

    /// What came last.
    pub(crate) fn newest(&mut self) -> Option<&mut P> {
        self.waiting.back_mut()
    }

    /// Takes that out again.
    pub(crate) fn pop_last(&mut self) -> Option<P> {
        self.waiting.pop_back()
    }

    /// That of this number, if it came last and still waits.
    pub(crate) fn last(&self, exchange: u32) -> Option<P> {
        self.waiting.back().copied().filter(|pending| pending.exchange() == exchange)
    }

    /// The same, to change it.
    pub(crate) fn last_mut(&mut self, exchange: u32) -> Option<&mut P> {
        self.waiting.back_mut().filter(|pending| pending.exchange() == exchange)
    }

    /// Takes that out again. False if it does not wait any more.
    pub(crate) fn remove_last(&mut self, exchange: u32) -> bool {
        let found = self.last(exchange).is_some();
        if found {
            self.waiting.pop_back();
        }
        found
    }

    pub(crate) fn state_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<P>()
    }
}
