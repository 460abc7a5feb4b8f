//! Calls that are given time, because what names their request is not refuted, only unproven.
//!
//! A model proves itself with some hundred calls, and what it said of those first ones is as good as what it says of later
//! ones. So they wait for it. Comes in: calls that would go without a parent. Goes out: the same, decided as soon as a
//! model that names their request is well above the bar, or when they have waited long enough. Bounded in number and time, and
//! in the life of a process: where nothing has proven itself by then, nobody waits for it any more.

use std::collections::VecDeque;

use super::Correlator;
use super::arena::Id;
use super::calibrator::Calibrator;
use super::node::{Model, Node, Parent};
use super::process::Process;
use crate::session::Side;

/// How often waiting calls are looked at.
const LOOK_NS: u64 = 50_000_000;
/// Models that are scored, at which more than one call is looked at.
const SCORED: [Model; 6] =
    [Model::LastIn, Model::FirstInFirstOut, Model::Sibling, Model::Next, Model::StartOrder, Model::InOrder];

/// Calls of a process that wait.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// By the time at which they have waited long enough.
    calls: VecDeque<(u64, Id)>,
    /// No call is taken after this; zero: none was yet.
    until_ns: u64,
    look_ns: u64,
    /// Scores that were proven at the last look.
    proven: usize,
}

impl Learning {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

impl Process {
    fn score(&self, model: Model, call: &Node) -> Option<&Calibrator> {
        match model {
            Model::LastIn => Some(&self.last_in.calibrator),
            Model::FirstInFirstOut => Some(self.first_in_first_out.of(call)),
            Model::Sibling => Some(&self.sibling.calibrator),
            Model::Next => Some(&self.next.calibrator),
            Model::StartOrder => Some(&self.start_order.calibrator),
            Model::InOrder => Some(&self.in_order.calibrator),
            Model::Thread | Model::Only | Model::Goroutine => None,
        }
    }

    /// Scores that are well above the bar.
    fn proven(&self) -> usize {
        let scores = [
            &self.last_in.calibrator,
            &self.first_in_first_out.plain.calibrator,
            &self.first_in_first_out.mixed,
            &self.sibling.calibrator,
            &self.next.calibrator,
            &self.start_order.calibrator,
            &self.in_order.calibrator,
        ];
        scores.into_iter().filter(|score| score.proven()).count()
    }
}

impl Correlator {
    /// No evidence is left to come for a call: decides it, or lets it wait.
    pub(super) fn conclude_call(&mut self, call: Id) {
        self.decide_call(call, false);
        if !self.lets_wait(call) {
            self.decide_call(call, true);
        }
    }

    fn lets_wait(&mut self, call: Id) -> bool {
        let now_ns = self.now_ns;
        let Some(node) = self.nodes.get(call) else { return false };
        let open = node.parent == Parent::Open && node.side == Side::Client;
        if !open || node.orphan || node.shared_context {
            return false;
        }
        let Some(process) = self.processes.get(node.process) else { return false };
        let until_ns = process.learning.until_ns;
        // Who started whom is known where there are tasks, and proven otherwise.
        if process.lineage.is_some()
            || (until_ns != 0 && now_ns > until_ns)
            || !self.may_be_proven(process, node)
        {
            return false;
        }
        let owner = node.process;
        let full = self.learning >= self.settings.max_learning;
        let Some(process) = self.processes.get_mut(owner) else { return false };
        if until_ns == 0 {
            process.learning.until_ns = now_ns.saturating_add(self.settings.learn_for_ns);
        }
        let oldest = if full { process.learning.calls.pop_front() } else { None };
        if full && oldest.is_none() {
            return false;
        }
        process.learning.calls.push_back((now_ns.saturating_add(self.settings.learn_wait_ns), call));
        self.learning += 1;
        if let Some((_, oldest)) = oldest {
            self.waited(oldest);
        }
        true
    }

    /// A model that may turn out to be right names a request for it.
    fn may_be_proven(&self, process: &Process, call: &Node) -> bool {
        SCORED.into_iter().any(|model| {
            let claim = call.claim(model);
            claim.confirmed
                && self.nodes.get(claim.request).is_some()
                && process.score(model, call).is_some_and(Calibrator::stands)
        })
    }

    /// It has waited long enough.
    fn waited(&mut self, call: Id) {
        self.learning = self.learning.saturating_sub(1);
        self.decide_call(call, true);
    }

    /// Decides the calls for which a model has proven itself by now, and those that waited long enough.
    pub(super) fn look_at_learning(&mut self, process: Id) {
        let now_ns = self.now_ns;
        let Some(learner) = self.processes.get_mut(process) else { return };
        if learner.learning.calls.is_empty() || learner.learning.look_ns > now_ns {
            return;
        }
        learner.learning.look_ns = now_ns.saturating_add(LOOK_NS);
        let proven = learner.proven();
        let grown = proven > std::mem::replace(&mut learner.learning.proven, proven);
        let mut calls = std::mem::take(&mut learner.learning.calls);
        let overdue = calls.partition_point(|(deadline, _)| *deadline <= now_ns);
        for (_, call) in calls.drain(..overdue) {
            self.waited(call);
        }
        if grown || proven > 0 {
            calls.retain(|(_, call)| {
                self.decide_call(*call, false);
                let open = self.nodes.get(*call).is_some_and(|node| node.parent == Parent::Open);
                if !open {
                    self.learning = self.learning.saturating_sub(1);
                    self.counters.learnt += 1;
                }
                open
            });
        }
        if let Some(learner) = self.processes.get_mut(process) {
            learner.learning.calls = calls;
        }
    }

    /// Nothing more will be learnt about a process.
    pub(super) fn learning_ends(&mut self, process: Id) {
        let calls =
            self.processes.get_mut(process).map(|process| std::mem::take(&mut process.learning.calls));
        for (_, call) in calls.unwrap_or_default() {
            self.waited(call);
        }
    }
}
