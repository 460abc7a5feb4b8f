//! *First in, first out*: answers read on a thread queue up, and each response takes the oldest. Exact where
//! continuations run in the next turn of the loop, in order (asyncio), as long as each request makes one call.

use super::super::arena::{Arena, Id};
use super::super::node::Node;
use super::super::process::{Score, Thread};
use super::{candidate, weigh};

const SLOT: usize = 1;
/// Answers kept for a thread; above, the oldest is forgotten.
const BOUND: usize = 256;
/// An answer that no response took for this long was the answer to something else.
const STALE_NS: u64 = 100_000_000;

/// The answer to a call is complete.
pub(in super::super) fn read(thread: &mut Thread, call: Id, now_ns: u64) {
    if thread.answers.len() >= BOUND {
        thread.answers.pop_front();
    }
    thread.answers.push_back((now_ns, call));
}

/// Names the call for a response that begins; the call and whether the pair is possible in time.
pub(in super::super) fn name(
    nodes: &mut Arena<Node>,
    thread: &mut Thread,
    score: &mut Score,
    request: Id,
    contested: bool,
    now_ns: u64,
) -> Option<(Id, bool)> {
    let (process, began_ns) = nodes.get(request).map(|node| (node.process, node.began_ns))?;
    while let Some((read_ns, call)) = thread.answers.pop_front() {
        if now_ns.saturating_sub(read_ns) > STALE_NS {
            continue;
        }
        let Some(call_began_ns) = candidate(nodes, call, process).map(|node| node.began_ns) else { continue };
        if let Some(taken) = nodes.get_mut(call).and_then(|node| node.taken.get_mut(SLOT)) {
            *taken = true;
        }
        return Some((call, weigh(score, call_began_ns, began_ns, true, contested)));
    }
    score.calibrator.orphan();
    None
}
