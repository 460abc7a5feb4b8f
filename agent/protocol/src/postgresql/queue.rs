//! The calls that wait for the ends of their answers, in order.

use std::collections::VecDeque;

/// Most calls on one connection that are remembered while they wait.
pub(super) const MAX_PENDING: usize = 1024;

/// A call whose answer is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Its number.
    pub(super) exchange: u32,
    /// Nobody is told of its answer: a Sync alone, or a call that was told to be over.
    pub(super) ghost: bool,
    /// Other calls, which were not seen, may stand before it.
    pub(super) after_gap: bool,
    /// Nothing more of it will come.
    pub(super) sent: bool,
    /// The answer has begun.
    pub(super) begun: bool,
    /// Bytes of the answer in which an error may stand are missing.
    pub(super) cut: bool,
    /// The first error of the answer, zeros if that does not say which.
    pub(super) error: Option<[u8; 5]>,
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

    /// Calls that somebody waits for.
    pub(super) fn in_flight(&self) -> usize {
        self.waiting.iter().filter(|pending| !pending.ghost).count()
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.waiting.push_back(pending);
    }

    /// What was taken out comes first again.
    pub(super) fn push_front(&mut self, pending: Pending) {
        self.waiting.push_front(pending);
    }

    /// The call that is answered next.
    pub(super) fn front(&mut self) -> Option<&mut Pending> {
        self.waiting.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let pending = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > 16 {
            self.waiting = VecDeque::new();
        }
        pending
    }

    /// The call that came last.
    pub(super) fn last(&mut self) -> Option<&mut Pending> {
        self.waiting.back_mut()
    }

    pub(super) fn pop_last(&mut self) -> Option<Pending> {
        self.waiting.pop_back()
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<Pending>()
    }
}
