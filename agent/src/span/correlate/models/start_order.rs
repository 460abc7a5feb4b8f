//! *Start order*: the k-th call belongs to the k-th request, m calls each. Queues and socket pools are fair, so
//! waiting does not change the order. Checked from the other end: a call that ends after the response of its
//! request is impossible.

use std::collections::VecDeque;

use super::super::arena::{Arena, Id};
use super::super::calibrator::Calibrator;
use super::super::node::Node;

/// Requests that wait for their calls; above, the oldest is forgotten.
const BOUND: usize = 4_096;
/// Requests over which the number of calls for each is learnt.
const LEARN: u32 = 1_024;
/// More calls a request than this are not told by order.
const MOST: u32 = 16;

/// State of the model in one process.
#[derive(Debug)]
pub(in super::super) struct StartOrder {
    /// Requests and the calls still to come for each.
    queue: VecDeque<(Id, u32)>,
    /// The requests named last.
    named: VecDeque<Id>,
    /// Calls for each request; zero while that is not a whole number.
    each: u32,
    requests: u32,
    calls: u32,
    pub(in super::super) calibrator: Calibrator,
}

impl StartOrder {
    pub(in super::super) fn new(calibrator: Calibrator) -> Self {
        Self { queue: VecDeque::new(), named: VecDeque::new(), each: 1, requests: 0, calls: 0, calibrator }
    }

    /// A request begins; `idle`: no other is open.
    pub(in super::super) fn request_begins(&mut self, id: Id, idle: bool) {
        if idle {
            self.queue.clear();
        }
        self.requests += 1;
        if self.requests >= LEARN {
            self.learn();
        }
        if self.each == 0 {
            return;
        }
        if self.queue.len() >= BOUND {
            self.queue.pop_front();
        }
        self.queue.push_back((id, self.each));
    }

    fn learn(&mut self) {
        let ratio = f64::from(self.calls) / f64::from(self.requests);
        let whole = (0..=MOST).find(|each| (ratio - f64::from(*each)).abs() <= 0.1).unwrap_or(0);
        (self.requests, self.calls) = (0, 0);
        if whole != self.each {
            self.each = whole;
            self.queue.clear();
            self.named.clear();
            self.calibrator.reset();
        }
    }

    /// A call begins: the request it belongs to, and that of a call a few before.
    pub(in super::super) fn call_begins(&mut self, nodes: &Arena<Node>) -> Option<(Id, Id)> {
        self.calls = self.calls.saturating_add(1);
        loop {
            let (request, left) = self.queue.front_mut()?;
            let request = *request;
            if !nodes.get(request).is_some_and(Node::unanswered) {
                // It was answered with fewer calls than it should have made.
                self.queue.pop_front();
                self.calibrator.pair(false);
                continue;
            }
            *left -= 1;
            if *left == 0 {
                self.queue.pop_front();
            }
            self.named.push_back(request);
            let far = (self.named.len() > 3 * self.each as usize).then(|| self.named.pop_front()).flatten();
            return Some((request, far.unwrap_or(Id::NONE)));
        }
    }

    /// The answer to a call is complete: whether the request it was given to is still unanswered.
    pub(in super::super) fn answer_read(&mut self, nodes: &Arena<Node>, request: Id, far: Id, contested: bool) -> bool {
        let waits = |id: Id| nodes.get(id).is_some_and(Node::unanswered);
        let possible = waits(request);
        if contested || !possible {
            if far != Id::NONE {
                self.calibrator.chance(waits(far));
            }
            self.calibrator.pair(possible);
        }
        possible
    }
}
