//! *Chain*: what a call's place among others says once one of them has a parent. *Next*: the answer of one call
//! read, then this call sent, with nothing read in between: both have one cause. *Sibling*: two calls sent after
//! the same input. Checked like the others, and by the calls of the chain whose parent is known otherwise.

use super::super::arena::{Arena, Id};
use super::super::calibrator::Calibrator;
use super::super::node::{Model, Node, Parent};
use super::super::process::{Input, Process, Thread};
use super::weigh;
use crate::span::ParentSource;

/// Calls of one chain that are looked at.
const REACH: usize = 64;

/// A call is sent by a thread: ties it to the input before it and to the calls sent since.
pub(in super::super) fn sent(nodes: &mut Arena<Node>, thread: &mut Thread, call: Id) {
    let before = thread.sent;
    thread.sent = call;
    if let Some(node) = nodes.get_mut(before) {
        node.sibling_after = call;
    }
    if let Some(node) = nodes.get_mut(call) {
        node.sibling_before = before;
        if let Input::Answer(input) = thread.input {
            node.input = input;
        }
    }
}

/// A completion model that nothing refutes gives the call itself to another request: neighbours were sent for several requests.
pub(in super::super) fn named_otherwise(process: &Process, call: &Node, request: Id) -> bool {
    let by = |model: Model, score: &Calibrator| {
        let claim = call.claim(model);
        claim.confirmed && claim.request != Id::NONE && claim.request != request && score.stands()
    };
    by(Model::LastIn, &process.last_in.calibrator)
        || by(Model::FirstInFirstOut, process.first_in_first_out.of(call))
}

/// A completion model that speaks gave `call` to `request`, whose response begins now. Claims the rest of the
/// chain for it; `found` gets the calls claimed.
pub(in super::super) fn derive(
    nodes: &mut Arena<Node>,
    process: &mut Process,
    call: Id,
    request: Id,
    contested: bool,
    found: &mut Vec<Id>,
) {
    let Some((request_began_ns, answered_ns)) =
        nodes.get(request).map(|node| (node.began_ns, node.answer.first_ns))
    else {
        return;
    };
    let start = found.len();
    let mut at = call;
    // `found` is the queue: each call claimed is a place to go on from.
    for step in 0..REACH {
        let Some(node) = nodes.get(at) else { break };
        let own = node.process;
        let next = [
            (Model::Next, node.input),
            (Model::Sibling, node.sibling_before),
            (Model::Sibling, node.sibling_after),
        ];
        for (model, other) in next {
            if other == call
                || found.len() >= start + REACH
                || found.iter().skip(start).any(|id| *id == other)
            {
                continue;
            }
            let Some(named) = nodes.get(other) else { continue };
            if named.orphan || named.process != own {
                continue;
            }
            let contradicted = match (named.parent, named.source) {
                // Its own chain says nothing new.
                (_, ParentSource::Chain) => continue,
                (Parent::Node(parent), _) => parent != request,
                _ => named_otherwise(process, named, request),
            };
            let ended = named.answer.last_ns != 0 && named.answer.last_ns <= answered_ns;
            let score = if model == Model::Next { &mut process.next } else { &mut process.sibling };
            if weigh(score, named.began_ns, request_began_ns, ended && !contradicted, contested) {
                found.push(other);
                let open = named.parent == Parent::Open && nodes.get(named.claim(model).request).is_none();
                if open {
                    if let Some(named) = nodes.get_mut(other) {
                        named.set_claim(model, request, true);
                    }
                    if let Some(named) = nodes.get_mut(request) {
                        named.references += 1;
                    }
                }
            }
        }
        let Some(further) = found.get(start + step) else { break };
        at = *further;
    }
}
