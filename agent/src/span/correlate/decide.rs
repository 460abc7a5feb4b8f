//! Weighs what the models say of a call, and decides.

use super::Correlator;
use super::arena::Id;
use super::models::{chain, only};
use super::node::{Model, Node, Parent, Pending};
use super::process::Process;
use crate::session::Side;
use crate::span::ParentSource;

/// Links of a span that abstained.
const LINKS: usize = 4;

/// What the models that may speak say together.
enum Verdict {
    /// None of them names a request.
    Silent,
    /// The best of them; no other contradicts.
    Agreed(Id, Model, f64),
    /// Two name different requests.
    Contradiction,
}

impl Correlator {
    /// Decides a call if a model speaks; on the last chance in any case.
    pub(super) fn decide_call(&mut self, id: Id, last_chance: bool) {
        let Some(node) = self.nodes.get(id) else { return };
        if node.parent != Parent::Open || node.side != Side::Client {
            return;
        }
        if node.orphan {
            if last_chance {
                self.decide_orphan(id);
            }
            return;
        }
        match self.verdict(node) {
            Verdict::Agreed(request, model, confidence) => {
                if model == Model::Thread
                    && let Some(process) = self.processes.get_mut(node.process)
                {
                    process.thread.decided();
                }
                let source = if node.shared_context { ParentSource::Wire } else { model.source() };
                self.decide(id, Parent::Node(request), source, confidence);
            }
            // What the bytes say holds whatever the models say; only the span within the trace is less exact.
            _ if last_chance && node.shared_context => {
                self.decide(id, Parent::Wire { remote: true }, ParentSource::Wire, 1.0);
            }
            Verdict::Contradiction => {
                self.counters.contradictions += 1;
                self.abstain(id, "models contradict each other");
            }
            Verdict::Silent if last_chance => self.abstain(id, "evidence below the bar"),
            Verdict::Silent => {}
        }
    }

    fn verdict(&self, call: &Node) -> Verdict {
        let Some(process) = self.processes.get(call.process) else { return Verdict::Silent };
        let mut best: Option<(Id, Model, f64)> = None;
        // Who started whom outranks what the others conclude from the order of events.
        let claim = call.claim(Model::Goroutine);
        if claim.confirmed
            && let Some(request) = self.nodes.get(claim.request)
            && (!call.shared_context || same_context(call, request))
        {
            return Verdict::Agreed(claim.request, Model::Goroutine, self.goroutine_confidence(call));
        }
        for model in Model::ALL {
            let claim = call.claim(model);
            if !claim.confirmed || claim.request == Id::NONE {
                continue;
            }
            let Some(request) = self.nodes.get(claim.request) else { continue };
            let Some(confidence) = speaks(process, model, call, request) else { continue };
            if call.shared_context && !same_context(call, request) {
                continue;
            }
            match best {
                None => best = Some((claim.request, model, confidence)),
                Some((named, ..)) if named != claim.request => return Verdict::Contradiction,
                Some((.., known)) if confidence > known => best = Some((claim.request, model, confidence)),
                Some(_) => {}
            }
        }
        best.map_or(Verdict::Silent, |(request, model, confidence)| {
            Verdict::Agreed(request, model, confidence)
        })
    }

    /// The response of a request begins or ends: looks at the calls that were claimed for it.
    pub(super) fn decide_calls_of(&mut self, request: Id, ends: bool) {
        let Some(node) = self.nodes.get_mut(request) else { return };
        if node.calls.is_empty() {
            return;
        }
        let mut calls = std::mem::take(&mut node.calls);
        for call in &calls {
            self.decide_call(*call, false);
        }
        if ends {
            calls.clear();
        }
        if let Some(node) = self.nodes.get_mut(request) {
            node.calls = calls;
        }
    }

    /// A call begun while no request was open: its head is known to carry no context.
    pub(super) fn decide_orphan(&mut self, id: Id) {
        if self.nodes.get(id).is_some_and(|node| node.parent == Parent::Open) {
            self.decide(id, Parent::Root, ParentSource::Root, 1.0);
        }
    }

    /// No client's end came for a request.
    pub(super) fn conclude_request(&mut self, id: Id) {
        let Some(node) = self.nodes.get(id) else { return };
        if node.parent != Parent::Open {
            return;
        }
        self.joiner.forget(id, node);
        if node.context.is_some() {
            self.decide(id, Parent::Wire { remote: true }, ParentSource::Wire, 1.0);
        } else {
            self.decide(id, Parent::Root, ParentSource::Root, 1.0);
        }
    }

    fn abstain(&mut self, id: Id, reason: &'static str) {
        self.unexplained(id);
        let mut pending: Vec<Pending> = Vec::new();
        if let Some(node) = self.nodes.get(id) {
            for model in Model::ALL {
                let request = node.claim(model).request;
                let new = pending.iter().all(|known| known.request != request);
                if new && pending.len() < LINKS && self.nodes.get(request).is_some() {
                    pending.push(Pending { request, reason });
                }
            }
        }
        for link in &pending {
            if let Some(request) = self.nodes.get_mut(link.request) {
                request.references += 1;
            }
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.pending = pending;
        }
        self.decide(id, Parent::Root, ParentSource::Abstained, 0.0);
    }

    /// Sets the parent, once; the trace id follows as soon as it can.
    pub(super) fn decide(&mut self, id: Id, parent: Parent, source: ParentSource, confidence: f64) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.parent != Parent::Open {
            return;
        }
        node.parent = parent;
        node.source = source;
        node.confidence = confidence;
        let claims = (node.side == Side::Client).then_some(node.claims);
        // First the trace id: what is released may be gone.
        self.resolve(id);
        for claim in claims.into_iter().flatten() {
            self.release(claim.request);
        }
    }

    /// A claim or link no longer names the exchange.
    pub(super) fn release(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.references = node.references.saturating_sub(1);
            if node.references == 0 && node.emitted {
                self.free(id);
            }
        }
    }
}

fn same_context(call: &Node, request: &Node) -> bool {
    match (&call.context, &request.context) {
        (Some(a), Some(b)) => a.trace_id == b.trace_id && a.span_id == b.span_id,
        _ => false,
    }
}

fn speaks(process: &Process, model: Model, call: &Node, request: &Node) -> Option<f64> {
    match model {
        Model::Thread => {
            let kept = request.kept_thread || (request.unanswered() && still_alone(process, request));
            if kept { process.thread.speaks() } else { None }
        }
        Model::Only => only::speaks(process, call),
        Model::LastIn => process.last_in.calibrator.speaks(),
        Model::FirstInFirstOut => process.first_in_first_out.of(call).speaks(),
        Model::Sibling | Model::Next if chain::named_otherwise(process, call, call.claim(model).request) => {
            None
        }
        Model::Sibling => process.sibling.calibrator.speaks(),
        Model::Next => process.next.calibrator.speaks(),
        Model::StartOrder => process.start_order.calibrator.speaks(),
        // What was concluded before a chain failed is void, even if the model is proven later.
        Model::InOrder if call.failed_before != process.in_order.fails => None,
        Model::InOrder => process.in_order.calibrator.speaks(),
        // Weighed before all others.
        Model::Goroutine => None,
    }
}

/// The response was not written yet, and so far the thread began no other request.
fn still_alone(process: &Process, request: &Node) -> bool {
    let thread = process.threads.get(&request.thread);
    request.alone_on_thread && thread.is_some_and(|thread| thread.open.begun == request.thread_begun)
}
