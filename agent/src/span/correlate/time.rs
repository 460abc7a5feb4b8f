//! Ends and deadlines: what is decided because nothing more can come, or because it waited long enough.

use super::Correlator;
use super::arena::Id;
use super::node::{Model, Parent};
use super::process::Process;
use crate::session::{Exchange, Side};
use crate::span::ParentSource;

/// Steps up a chain of parents before it counts as endless.
const DEPTH: usize = 64;
/// Threads unused for so long are forgotten, and how often that is looked at.
const SWEEP_NS: u64 = 5_000_000_000;
/// Undecided calls of a process above which they are looked at less often.
const MANY: usize = 1_024;
const RARELY_NS: u64 = 100_000_000;

/// The client's end of an encrypted exchange is waited for so many times as long as another's.
const SEALED_PATIENCE: u64 = 8;

impl Correlator {
    pub(super) fn ended(&mut self, mut exchange: Box<Exchange>) {
        let Some(id) = self.keys.get(&exchange.key.0).copied() else {
            self.counters.unknown += 1;
            self.decide_unknown(exchange);
            return;
        };
        if let Some(context) = exchange.request.context.take() {
            self.context(id, context.clone());
            exchange.request.context = Some(context);
        }
        let (side, message, ended_ns) = (exchange.side, exchange.message, exchange.ended_ns);
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.exchange.is_some() {
            // A second end of one exchange: goes out as it is rather than not at all.
            self.counters.unknown += 1;
            self.decide_unknown(exchange);
            return;
        }
        if node.answer.first_ns != 0 {
            node.ended_ns = ended_ns;
        }
        node.exchange = Some(exchange);
        let undecided = node.parent == Parent::Open;
        self.held += 1;
        match side {
            Side::Server => {
                self.close(id, ended_ns);
                if undecided && self.lonely.is(side, message) {
                    self.conclude_request(id);
                } else if undecided {
                    // Plaintext is told when its library's call ends, which another thread may hold up for some slices of time.
                    let sealed = self.nodes.get(id).is_some_and(|node| node.conn.tls.is_some());
                    let wait_ns = self.settings.peer_wait_ns * if sealed { SEALED_PATIENCE } else { 1 };
                    self.peer_waits.push_back((self.now_ns.saturating_add(wait_ns), id));
                }
            }
            Side::Client if undecided => {
                self.confirm_unanswered(id);
                if self.nodes.get(id).is_some_and(|node| node.orphan) {
                    self.decide_orphan(id);
                }
            }
            Side::Client => {}
        }
        self.emit(id, false);
        if self.waits(id) {
            if self.holds.len() > 2 * self.held + 1_024 {
                let nodes = &self.nodes;
                self.holds.retain(|(_, id)| nodes.get(*id).is_some_and(|node| node.exchange.is_some()));
            }
            self.holds.push_back((self.now_ns.saturating_add(self.settings.hold_ns), id));
        }
        while self.held > self.settings.max_held {
            let Some((_, oldest)) = self.holds.pop_front() else { break };
            if self.waits(oldest) {
                self.counters.held_too_many += 1;
                self.force(oldest);
            }
        }
    }

    /// It has ended and did not go out.
    fn waits(&self, id: Id) -> bool {
        self.nodes.get(id).is_some_and(|node| node.exchange.is_some())
    }

    pub(super) fn deadlines(&mut self) {
        while let Some((deadline, id)) = self.peer_waits.front().copied() {
            if deadline > self.now_ns {
                break;
            }
            self.peer_waits.pop_front();
            if let Some(node) = self.nodes.get(id)
                && node.parent == Parent::Open
            {
                self.lonely.alone(node.side, node.message);
                self.conclude_request(id);
            }
        }
        self.look_at_calls();
        while let Some((deadline, id)) = self.holds.front().copied() {
            if deadline > self.now_ns {
                break;
            }
            self.holds.pop_front();
            if self.waits(id) {
                self.counters.held_too_long += 1;
                self.force(id);
            }
        }
        for slot in 0..self.lingers.len() {
            while let Some((deadline, id)) = self.lingers.get(slot).and_then(|queue| queue.front()).copied() {
                if deadline > self.now_ns {
                    break;
                }
                if let Some(queue) = self.lingers.get_mut(slot) {
                    queue.pop_front();
                }
                self.linger_ends(id);
            }
        }
        if self.now_ns.saturating_sub(self.swept_ns) > SWEEP_NS {
            self.swept_ns = self.now_ns;
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let before_ns = self.now_ns.saturating_sub(SWEEP_NS);
        for id in self.tgids.values() {
            if let Some(process) = self.processes.get_mut(*id) {
                process.forget_threads(before_ns);
            }
        }
    }

    /// Calls for which no evidence is left to come: every request that was open when they began has answered.
    fn look_at_calls(&mut self) {
        let mut listed = std::mem::take(&mut self.listed);
        listed.retain(|process| self.look_at_calls_of(*process));
        listed.append(&mut self.listed);
        self.listed = listed;
    }

    /// Whether some are left.
    fn look_at_calls_of(&mut self, id: Id) -> bool {
        let now_ns = self.now_ns;
        self.look_at_learning(id);
        let Some(process) = self.processes.get_mut(id) else { return false };
        if process.look_ns > now_ns {
            return true;
        }
        let oldest_ns = process.oldest_unanswered(&self.nodes).unwrap_or(u64::MAX);
        let mut undecided = std::mem::take(&mut process.undecided);
        undecided.retain(|call| {
            let Some(node) = self.nodes.get(*call) else { return false };
            if node.parent != Parent::Open {
                return false;
            }
            // A thread that makes calls while it writes its response confirms them with the end of it.
            let streams =
                self.nodes.get(node.claim(Model::Thread).request).is_some_and(|request| !request.closed);
            if node.began_ns < oldest_ns && node.exchange.is_some() && !streams {
                self.conclude_call(*call);
                return false;
            }
            true
        });
        let Some(process) = self.processes.get_mut(id) else { return false };
        if undecided.len() > MANY {
            process.look_ns = now_ns.saturating_add(RARELY_NS);
        }
        process.undecided.append(&mut undecided);
        process.listed = !process.undecided.is_empty() || !process.learning.is_empty();
        process.listed
    }

    /// Lets an exchange go out now: fixes the trace of its topmost ancestor, so that it keeps what is decided.
    pub(super) fn force(&mut self, id: Id) {
        let mut at = id;
        for _ in 0..DEPTH {
            let Some(node) = self.nodes.get(at) else { break };
            match (node.parent, node.side) {
                (Parent::Open, Side::Server) => self.conclude_request(at),
                (Parent::Open, Side::Client) => self.decide_call(at, true),
                (Parent::Node(parent), _) if node.trace.is_none() => at = parent,
                _ => break,
            }
        }
        if self.nodes.get(id).is_some_and(|node| node.exchange.is_some() && node.trace.is_none()) {
            self.counters.broken_chains += 1;
            self.uproot(id, ParentSource::Abstained, None);
            self.resolve(id);
        }
        if self.waits(id) {
            // What is left to wait for are links, or the parent of a request whose trace is known.
            if self
                .nodes
                .get(id)
                .is_some_and(|node| node.parent_span.is_none() && matches!(node.parent, Parent::Node(_)))
            {
                self.keep_wire(id);
            }
            self.emit(id, true);
        }
    }

    /// A request with a context, whose client's end has no trace yet: the context alone decides.
    fn keep_wire(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(id)
            && let Some(context) = &node.context
        {
            node.parent_span = Some((context.span_id, None));
            node.remote = true;
            node.source = ParentSource::Wire;
            node.parent = Parent::Wire { remote: true };
        }
    }

    /// Nothing more will be learnt about the calls of a process.
    pub(super) fn forget_process(&mut self, id: Id) {
        let calls =
            self.processes.get_mut(id).map(|process: &mut Process| std::mem::take(&mut process.undecided));
        for call in calls.unwrap_or_default() {
            self.decide_call(call, true);
        }
        self.learning_ends(id);
        self.processes.remove(id);
    }
}
