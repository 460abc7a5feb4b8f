//! *Last in*: a response belongs to the call whose answer was the last thing read on its thread. Exact where a
//! handler goes on in the same turn of its loop (libuv, nginx and the like).

use super::super::arena::{Arena, Id};
use super::super::node::Node;
use super::super::process::{Input, Score, Thread};
use super::{candidate, weigh};

const SLOT: usize = 0;

/// Whether a response that began now would find a call.
pub(in super::super) fn available(nodes: &Arena<Node>, thread: &Thread, process: Id) -> bool {
    let Input::Answer(call) = thread.input else { return false };
    candidate(nodes, call, process).is_some_and(|node| node.taken.get(SLOT) == Some(&false))
}

/// Names the call for a response that begins; the call and whether the pair is possible in time.
pub(in super::super) fn name(
    nodes: &mut Arena<Node>,
    thread: &Thread,
    score: &mut Score,
    request: Id,
    contested: bool,
) -> Option<(Id, bool)> {
    let (process, began_ns) = nodes.get(request).map(|node| (node.process, node.began_ns))?;
    let Input::Answer(call) = thread.input else {
        // It answers at once, or nothing on sockets tells why.
        if thread.input != Input::Request(request) {
            score.calibrator.orphan();
        }
        return None;
    };
    let found = candidate(nodes, call, process).filter(|node| node.taken.get(SLOT) == Some(&false));
    let Some(call_began_ns) = found.map(|node| node.began_ns) else {
        score.calibrator.orphan();
        return None;
    };
    if let Some(taken) = nodes.get_mut(call).and_then(|node| node.taken.get_mut(SLOT)) {
        *taken = true;
    }
    Some((call, weigh(score, call_began_ns, began_ns, true, contested)))
}
