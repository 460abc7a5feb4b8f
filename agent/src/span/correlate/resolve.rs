//! Trace ids follow parents: a span gets its trace id when its parent has one, and goes out when it has ended.

use std::cell::Cell;
use std::rc::Rc;

use super::Correlator;
use super::arena::Id;
use super::node::{Node, Parent, Trace};
use crate::attribute::Value;
use crate::conn::MessageName;
use crate::session::{Exchange, ExchangeKey, Outcome, Side};
use crate::span::{Decision, Link, ParentSource, TraceId, ids};

/// W3C trace flags of a trace that begins here: sampled until a sampler says otherwise, and its id is random.
const OWN_FLAGS: u8 = 0b11;
/// How long an answered call is kept for its server's end: no longer than the ring may be out of order.
const ANSWERED_LINGER_NS: u64 = 50_000_000;

impl Correlator {
    /// A request carried a context: its trace is known before its parent is.
    pub(super) fn adopt(&mut self, id: Id) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.trace.is_some() {
            return;
        }
        node.trace = from_wire(node);
        self.stack.append(&mut node.waiting);
        self.settle();
    }

    /// The parent is decided, or may have got its trace id.
    pub(super) fn resolve(&mut self, id: Id) {
        self.stack.push(id);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(id) = self.stack.pop() {
            let Some(node) = self.nodes.get(id) else { continue };
            match node.parent {
                Parent::Open => continue,
                Parent::Root if node.trace.is_none() => self.root(id),
                Parent::Wire { remote } => {
                    let span = node.context.as_ref().map(|context| context.span_id);
                    let trace = if node.trace.is_some() { None } else { from_wire(node) };
                    if let Some(node) = self.nodes.get_mut(id) {
                        node.trace = trace.or(node.trace.take());
                        node.parent_span = span.map(|span| (span, None));
                        node.remote = remote;
                    }
                }
                Parent::Node(parent) if node.parent_span.is_none() => {
                    let side = node.side;
                    let Some(above) = self.nodes.get_mut(parent) else {
                        self.counters.broken_chains += 1;
                        self.uproot(id, ParentSource::Root, None);
                        continue;
                    };
                    let Some(trace) = above.trace.clone() else {
                        above.waiting.push(id);
                        continue;
                    };
                    let (span, key) = (above.span_id, above.key);
                    self.inherit(id, side, trace, span, key);
                }
                Parent::Root | Parent::Node(_) => {}
            }
            if let Some(node) = self.nodes.get_mut(id)
                && node.trace.is_some()
                && !node.waiting.is_empty()
            {
                // Those below first: once out, this one may be gone.
                self.stack.push(id);
                self.stack.append(&mut node.waiting);
                continue;
            }
            self.emit(id, false);
        }
    }

    /// The span begins a trace.
    fn root(&mut self, id: Id) {
        let now_ns = self.now_ns;
        let boot = self.settings.boot;
        if let Some(node) = self.nodes.get_mut(id) {
            let id = own_trace_id(node.message, node.side, (boot, node.conn.cookie, node.began_ns, node.key));
            let (state, upstream, spans) = (None, None, Cell::new(1));
            node.trace =
                Some(Rc::new(Trace { id, flags: OWN_FLAGS, state, upstream, born_ns: now_ns, spans }));
            node.parent_span = None;
        }
    }

    /// Makes a root of a span whose parent cannot be used; keeps a link to it where it is known.
    pub(super) fn uproot(&mut self, id: Id, source: ParentSource, link: Option<Link>) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.parent = Parent::Root;
            node.source = source;
            node.trace = None;
            node.links.extend(link);
        }
        self.stack.push(id);
    }

    fn inherit(&mut self, id: Id, side: Side, trace: Rc<Trace>, span: [u8; 8], key: u64) {
        let now_ns = self.now_ns;
        let Some(node) = self.nodes.get_mut(id) else { return };
        // A server's end with a context of its own: the client's end saw the same bytes, so the traces agree,
        // unless it could not read them.
        if let Some(own) = &node.trace
            && own.id != trace.id
        {
            node.links.push(link(trace.id, span, "other trace at the client's end"));
            node.parent = Parent::Wire { remote: true };
            node.source = ParentSource::Wire;
            node.parent_span = node.context.as_ref().map(|context| (context.span_id, None));
            node.remote = true;
            return;
        }
        let full = trace.spans.replace(trace.spans.get().saturating_add(1)) >= self.settings.max_trace_spans;
        let old = now_ns.saturating_sub(trace.born_ns) > self.settings.max_trace_age_ns;
        if full || old {
            self.counters.traces_full += 1;
            let reason = if full { "trace has too many spans" } else { "trace is too old" };
            self.uproot(id, ParentSource::Root, Some(link(trace.id, span, reason)));
            return;
        }
        node.trace = Some(trace);
        node.parent_span = Some((span, Some(key)));
        node.remote = side == Side::Server;
    }

    /// Lets the exchange go out if it has ended and all of its decision is known; `force`: without open links.
    pub(super) fn emit(&mut self, id: Id, force: bool) {
        if !force && self.awaits_other_end(id) {
            return;
        }
        let Some(node) = self.nodes.get_mut(id) else { return };
        let hangs = matches!(node.parent, Parent::Node(_)) && node.parent_span.is_none();
        if node.exchange.is_none() || node.parent == Parent::Open || hangs {
            return;
        }
        let Some(trace) = node.trace.clone() else { return };
        let pending = std::mem::take(&mut node.pending);
        let mut links = std::mem::take(&mut node.links);
        if !force {
            let open = pending
                .iter()
                .map(|link| link.request)
                .find(|request| self.nodes.get(*request).is_some_and(|request| request.trace.is_none()));
            if let Some(request) = open {
                if let Some(request) = self.nodes.get_mut(request) {
                    request.waiting.push(id);
                }
                if let Some(node) = self.nodes.get_mut(id) {
                    (node.pending, node.links) = (pending, links);
                }
                return;
            }
        }
        for waiting in &pending {
            if let Some(request) = self.nodes.get(waiting.request)
                && let Some(trace) = &request.trace
            {
                links.push(link(trace.id, request.span_id, waiting.reason));
            }
            self.release(waiting.request);
        }
        let Some(node) = self.nodes.get_mut(id) else { return };
        let Some(mut exchange) = node.exchange.take() else { return };
        let decision = Decision {
            trace_id: trace.id,
            span_id: node.span_id,
            parent_span_id: node.parent_span.map(|(span, _)| span),
            parent_is_remote: node.remote,
            trace_flags: trace.flags,
            trace_state: trace.state.clone(),
            source: node.source,
            confidence: node.confidence,
            links,
            upstream_flags: trace.upstream,
            parent_key: node.parent_span.and_then(|(_, key)| key).map(ExchangeKey),
        };
        node.emitted = true;
        let key = node.key;
        let waits_for_server = node.side == Side::Client && node.peer == Id::NONE;
        let complete = exchange.outcome == Outcome::Complete;
        let message = node.message;
        let waiting = self.share(id, &mut exchange);
        self.counters.source(decision.source);
        self.held = self.held.saturating_sub(1);
        self.keys.remove(&key);
        self.out.push_back((exchange, decision));
        if waits_for_server && !(complete && self.lonely.is(Side::Client, message)) {
            self.linger(id, complete);
        } else {
            self.free(id);
        }
        if let Some(other) = waiting {
            self.emit(other, false);
        }
    }

    /// Keeps a call that went out for its server's end: that of an answered one can only be late in the ring.
    fn linger(&mut self, id: Id, complete: bool) {
        if self.lingers.iter().map(std::collections::VecDeque::len).sum::<usize>()
            >= self.settings.max_lingering
        {
            self.counters.lingering_crowded += 1;
            let [answered, others] = &mut self.lingers;
            if let Some((_, oldest)) = answered.pop_front().or_else(|| others.pop_front()) {
                self.linger_ends(oldest);
            }
        }
        let (slot, wait_ns) =
            if complete { (0, ANSWERED_LINGER_NS) } else { (1, self.settings.late_server_ns) };
        if let Some(node) = self.nodes.get_mut(id) {
            node.lingering = true;
        }
        let deadline = self.now_ns.saturating_add(wait_ns);
        if let Some(queue) = self.lingers.get_mut(slot) {
            queue.push_back((deadline, id));
        }
    }

    pub(super) fn linger_ends(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.lingering = false;
            if node.peer == Id::NONE {
                self.lonely.alone(node.side, node.message);
            }
            self.free(id);
        }
    }

    /// Forgets an exchange that went out, unless something may still ask for it.
    pub(super) fn free(&mut self, id: Id) {
        let Some(node) = self.nodes.get(id) else { return };
        if !node.emitted || node.references > 0 || node.lingering {
            return;
        }
        if node.peer == Id::NONE {
            self.joiner.forget(id, node);
        }
        self.nodes.remove(id);
    }

    /// Decides an exchange of which nothing is kept.
    pub(super) fn decide_unknown(&mut self, exchange: Box<Exchange>) {
        let (side, key) = (exchange.side, exchange.key.0);
        let span_id = self.span_id(side, key, exchange.began_ns, &exchange.conn, exchange.message);
        let context = exchange.request.context.as_deref();
        let decision = Decision {
            trace_id: context.map_or_else(
                || {
                    let unnamed = (self.settings.boot, exchange.conn.cookie, exchange.began_ns, key);
                    own_trace_id(exchange.message, side, unnamed)
                },
                |context| context.trace_id,
            ),
            span_id,
            parent_span_id: context.map(|context| context.span_id),
            parent_is_remote: context.is_some() && side == Side::Server,
            trace_flags: context.map_or(OWN_FLAGS, |context| context.flags),
            trace_state: context.and_then(|context| context.state.clone()),
            source: if context.is_some() { ParentSource::Wire } else { ParentSource::Abstained },
            confidence: if context.is_some() { 1.0 } else { 0.0 },
            links: Vec::new(),
            upstream_flags: context.map(|context| context.flags),
            parent_key: None,
        };
        self.counters.source(decision.source);
        self.out.push_back((exchange, decision));
    }
}

fn link(trace_id: TraceId, span_id: [u8; 8], reason: &'static str) -> Link {
    Link { trace_id, span_id, attributes: vec![("spanwise.link.reason".into(), Value::Str(reason.into()))] }
}

fn from_wire(node: &Node) -> Option<Rc<Trace>> {
    let context = node.context.as_ref()?;
    Some(Rc::new(Trace {
        id: context.trace_id,
        flags: context.flags,
        state: context.state.clone(),
        upstream: Some(context.flags),
        born_ns: node.began_ns,
        spans: Cell::new(1),
    }))
}

/// `unnamed`: boot, cookie, begin and counter, for a message without a name.
fn own_trace_id(message: Option<MessageName>, side: Side, unnamed: (u64, u64, u64, u64)) -> TraceId {
    let (boot, cookie, began_ns, counter) = unnamed;
    message.map_or_else(
        || ids::unnamed_trace_id(&ids::Unnamed { boot, cookie, began_ns, counter }, side),
        |name| ids::root_trace_id(&name, side),
    )
}
