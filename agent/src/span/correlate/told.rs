//! What the other end of a message tells of it: both saw the same bytes.
//!
//! Comes in: an exchange that goes out, and the other end, if it is joined by the name of the message. Goes out: the exchange, with
//! what its end could not read and the other could. Fields are unknown at one end where records of it were lost, or where it was
//! seen later than the other.

use spanwise_protocol::message::{Request, Response};

use super::Correlator;
use super::arena::Id;
use super::node::Node;
use crate::session::{Exchange, Outcome, RpcSeen};

/// What was read of an exchange.
#[derive(Debug)]
pub(super) struct Told {
    request: Request,
    response: Option<Response>,
    rpc: Option<Box<RpcSeen>>,
}

impl Told {
    fn of(exchange: &Exchange) -> Self {
        let Request {
            method,
            path,
            query,
            authority,
            scheme,
            version,
            user_agent,
            rpc,
            content_length,
            truncated,
            ..
        } = &exchange.request;
        Self {
            request: Request {
                method: method.clone(),
                path: path.clone(),
                query: query.clone(),
                authority: authority.clone(),
                scheme: scheme.clone(),
                version: *version,
                user_agent: user_agent.clone(),
                // Parents are decided.
                context: None,
                rpc: *rpc,
                content_length: *content_length,
                truncated: *truncated,
            },
            response: exchange.response.clone(),
            rpc: exchange.rpc.clone(),
        }
    }

    /// Fills what is not known of an exchange.
    fn fill(self, exchange: &mut Exchange) {
        let Self { request: told, response, rpc } = self;
        let own = &mut exchange.request;
        if own.truncated {
            if own.method.is_empty() {
                own.method = told.method;
            }
            if own.path.is_empty() {
                (own.path, own.query) = (told.path, told.query);
            }
            own.authority = own.authority.take().or(told.authority);
            own.scheme = own.scheme.take().or(told.scheme);
            own.user_agent = own.user_agent.take().or(told.user_agent);
            own.rpc = own.rpc.or(told.rpc);
            own.content_length = own.content_length.or(told.content_length);
            own.truncated = told.truncated;
        }
        // An answer that the other end gave or got only in part is told by nobody but whoever had it.
        if exchange.outcome != Outcome::Complete {
            return;
        }
        match (&mut exchange.response, response) {
            (Some(own), Some(told)) if own.truncated && (own.status == 0 || own.status == told.status) => {
                *own = told;
            }
            (own @ None, told) => *own = told,
            _ => {}
        }
        match (&mut exchange.rpc, rpc) {
            (Some(own), Some(told)) => {
                if own.response.status.is_none() {
                    own.response.status = told.response.status;
                }
            }
            (own @ None, told) => *own = told,
            (Some(_), None) => {}
        }
    }
}

/// Whether something is not known that the other end may know.
fn lacks(exchange: &Exchange) -> bool {
    let Exchange { request, response, rpc, outcome, db, .. } = exchange;
    if db.is_some() {
        return false; // neither a head nor a status
    }
    let head = request.truncated && (request.method.is_empty() || request.path.is_empty());
    let unanswered = || match response {
        None => true,
        Some(response) => response.status == 0,
    };
    let status = || request.rpc.is_some() && rpc.as_ref().is_none_or(|seen| seen.response.status.is_none());
    head || *outcome == Outcome::Complete && (unanswered() || status())
}

impl Correlator {
    /// The other end, if it is certain that it is one.
    fn other_end(&self, id: Id) -> Option<(Id, &Node)> {
        let node = self.nodes.get(id)?;
        let other = self.nodes.get(node.peer)?;
        (node.message.is_some() && node.message == other.message).then_some((node.peer, other))
    }

    /// Whether the exchange has ended and lacks something that its other end, which goes on, may know.
    pub(super) fn awaits_other_end(&self, id: Id) -> bool {
        let Some(node) = self.nodes.get(id) else { return false };
        node.told.is_none()
            && node.exchange.as_ref().is_some_and(|exchange| lacks(exchange))
            && self.other_end(id).is_some_and(|(_, other)| !other.emitted && other.exchange.is_none())
    }

    /// An exchange goes out: takes from its other end what it lacks, and leaves there what that may lack. Gives that end if it was
    /// waiting for this.
    pub(super) fn share(&mut self, id: Id, exchange: &mut Exchange) -> Option<Id> {
        let mut told = self.nodes.get_mut(id).and_then(|node| node.told.take());
        let lacking = lacks(exchange);
        let mut waiting = None;
        if let Some((other, node)) = self.other_end(id) {
            let theirs = node.exchange.as_deref();
            // Copied only for an end that can lack something.
            let wanted = !node.emitted && theirs.map_or_else(|| node.conn.texts.is_lacking(), lacks);
            if told.is_none() && lacking {
                told = theirs.map(|exchange| Box::new(Told::of(exchange)));
            }
            waiting = (wanted && theirs.is_some()).then_some(other);
            if wanted && let Some(node) = self.nodes.get_mut(other) {
                node.told = Some(Box::new(Told::of(exchange)));
            }
        }
        if let Some(told) = told.filter(|_| lacking) {
            told.fill(exchange);
            self.counters.told_by_other_end += 1;
        }
        waiting
    }
}
