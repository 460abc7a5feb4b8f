//! *Start order*: the k-th call belongs to the k-th request, m calls each. Queues and socket pools are fair, so
//! waiting does not change the order. Checked from the other end: a call that ends after the response of its
//! request is impossible.

use std::collections::VecDeque;

use super::super::arena::{Arena, Id};
use super::super::calibrator::Calibrator;
use super::super::node::Node;

/// Unanswered requests kept; above, the oldest is forgotten.
const BOUND: usize = 4_096;
/// Requests over which the number of calls for each is learnt.
const LEARN: u32 = 1_024;
/// More calls a request than this are not told by order.
const MOST: u32 = 16;

/// State of the model in one process. Counts run since the process was last idle: then both orders start anew.
#[derive(Debug)]
pub(in super::super) struct StartOrder {
    /// Requests in the order in which they began; the first ones are taken off when they are answered.
    requests: VecDeque<Id>,
    /// Requests that stood before those.
    base: u64,
    calls: u64,
    /// Calls that requests did not make although they should have.
    skipped: u64,
    /// Calls for each request; zero while that is not a whole number.
    each: u32,
    learnt_requests: u32,
    learnt_calls: u32,
    pub(in super::super) calibrator: Calibrator,
}

impl StartOrder {
    pub(in super::super) fn new(calibrator: Calibrator) -> Self {
        Self {
            requests: VecDeque::new(),
            base: 0,
            calls: 0,
            skipped: 0,
            each: 1,
            learnt_requests: 0,
            learnt_calls: 0,
            calibrator,
        }
    }

    /// A request begins; `idle`: no other is open.
    pub(in super::super) fn request_begins(&mut self, nodes: &Arena<Node>, id: Id, idle: bool) {
        if idle {
            self.requests.clear();
            (self.base, self.calls, self.skipped) = (0, 0, 0);
        }
        self.learnt_requests += 1;
        if self.learnt_requests >= LEARN {
            self.learn();
        }
        let answered = |front: &Id| !nodes.get(*front).is_some_and(Node::unanswered);
        while self.requests.len() >= BOUND || self.requests.front().is_some_and(answered) {
            self.requests.pop_front();
            self.base += 1;
        }
        self.requests.push_back(id);
    }

    fn learn(&mut self) {
        let ratio = f64::from(self.learnt_calls) / f64::from(self.learnt_requests);
        let whole = (0..=MOST).find(|each| (ratio - f64::from(*each)).abs() <= 0.1).unwrap_or(0);
        (self.learnt_requests, self.learnt_calls) = (0, 0);
        if whole != self.each {
            self.each = whole;
            self.skipped = 0;
            self.calibrator.reset();
        }
    }

    /// A call begins: the request it belongs to, and the open one beside that.
    pub(in super::super) fn call_begins(&mut self, nodes: &Arena<Node>) -> Option<(Id, Id)> {
        self.learnt_calls = self.learnt_calls.saturating_add(1);
        self.calls += 1;
        let each = u64::from(self.each);
        loop {
            let number = (self.calls - 1).saturating_add(self.skipped);
            let place = number.checked_div(each)?;
            let index = place.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
            let request = match index {
                Some(index) => Some(*self.requests.get(index)?),
                None => None,
            };
            let Some(request) = request.filter(|request| nodes.get(*request).is_some_and(Node::unanswered))
            else {
                // It was answered with fewer calls than it should have made: on to the next.
                self.skipped += (place + 1).max(self.base) * each - number;
                self.calibrator.pair(false);
                continue;
            };
            // Those that overtake each other stand side by side.
            let beside = |at: Option<usize>| {
                self.requests.get(at?).copied().filter(|id| nodes.get(*id).is_some_and(Node::unanswered))
            };
            let beside = beside(index.map(|index| index + 1))
                .or_else(|| beside(index.and_then(|index| index.checked_sub(1))));
            return Some((request, beside.unwrap_or(Id::NONE)));
        }
    }

    /// The answer to a call is complete: whether the request it was given to is still unanswered.
    pub(in super::super) fn answer_read(
        &mut self,
        nodes: &Arena<Node>,
        request: Id,
        beside: Id,
        contested: bool,
    ) -> bool {
        let waits = |id: Id| nodes.get(id).is_some_and(Node::unanswered);
        let possible = waits(request);
        if contested || !possible {
            if beside != Id::NONE {
                self.calibrator.chance(waits(beside));
            }
            self.calibrator.pair(possible);
        }
        possible
    }
}
