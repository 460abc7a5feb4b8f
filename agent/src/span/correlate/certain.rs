//! Parents that need no model: the other end of the message on this node, and trace context in the bytes.

use spanwise_protocol::context::TraceContext;

use super::Correlator;
use super::arena::Id;
use super::node::Parent;
use crate::session::Side;
use crate::span::ParentSource;

impl Correlator {
    /// The two ends of one message.
    pub(super) fn joined(&mut self, server: Id, client: Id) {
        let inherited = self.nodes.get(server).and_then(|node| node.context.clone());
        if let Some(node) = self.nodes.get_mut(server) {
            node.peer = client;
        }
        if let Some(node) = self.nodes.get_mut(client) {
            node.peer = server;
        }
        // Both ends saw the same bytes: what one could not read, the other tells.
        if let Some(context) = inherited
            && self
                .nodes
                .get(client)
                .is_some_and(|node| node.context.is_none() && node.parent == Parent::Open)
        {
            self.context(client, context);
        }
        if self.nodes.get(server).is_some_and(|node| node.parent == Parent::Open) {
            self.decide(server, Parent::Node(client), ParentSource::Peer, 1.0);
        }
    }

    /// The head of a request is complete and carried a context.
    pub(super) fn context(&mut self, id: Id, context: Box<TraceContext>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.context.is_some() || (node.side == Side::Client && node.parent != Parent::Open) {
            return;
        }
        let (trace, span) = (context.trace_id, context.span_id);
        node.context = Some(context);
        let (side, process, peer, began_ns) = (node.side, node.process, node.peer, node.began_ns);
        match side {
            Side::Server => {
                if !node.closed
                    && let Some(process) = self.processes.get_mut(process)
                {
                    process.contexts.entry(trace).or_default().push(id);
                }
                let client = self.nodes.get(peer);
                if client.is_some_and(|client| client.context.is_none() && client.parent == Parent::Open)
                    && let Some(context) = self.nodes.get(id).and_then(|node| node.context.clone())
                {
                    self.context(peer, context);
                }
                self.adopt(id);
            }
            Side::Client => {
                let requests = self.processes.get(process).and_then(|process| process.contexts.get(&trace));
                let same = |request: &&Id| {
                    self.nodes.get(**request).is_some_and(|request| {
                        request.began_ns <= began_ns
                            && request.context.as_ref().is_some_and(|context| context.span_id == span)
                    })
                };
                let mut forwarded = requests.into_iter().flatten().filter(same);
                match (forwarded.next().copied(), forwarded.next()) {
                    (Some(_), Some(_)) => {
                        if let Some(node) = self.nodes.get_mut(id) {
                            node.shared_context = true;
                        }
                    }
                    (Some(request), None) => self.decide(id, Parent::Node(request), ParentSource::Wire, 1.0),
                    (None, _) => self.decide(id, Parent::Wire { remote: false }, ParentSource::Wire, 1.0),
                }
            }
        }
    }
}
