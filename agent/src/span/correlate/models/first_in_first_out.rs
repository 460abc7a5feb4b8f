//! *First in, first out*: answers read on a thread queue up, and each response takes the oldest. Exact where
//! continuations run in the next turn of the loop, in order (asyncio), as long as each request makes one call.
//!
//! Where some requests need more turns than others, answers that wait together are overtaken. A pair that took the place of
//! its neighbour is nearly as possible as the right one, so time alone would not tell. What does tell is the turns: where each
//! response is written in the turn after its answer's, the next answer is read only when no other waits. Where one is left
//! behind (Tornado, whose answers take one turn or two), or where calls of several kinds wait together (method, shape
//! of the path, destination), pairs that waited with others keep a score of their own, in which chance is the next in the queue
//! and not a call of some time ago.

use super::super::arena::{Arena, Id};
use super::super::node::Node;
use super::super::process::{Queue, Thread};
use super::{candidate, weigh};

const SLOT: usize = 1;
/// Answers kept for a thread; above, the oldest is forgotten.
const BOUND: usize = 256;
/// An answer that no response took for this long was the answer to something else.
const STALE_NS: u64 = 100_000_000;

/// Answers of the queue that are compared; those further back are not overtaken in the same moment.
const LOOK: usize = 16;

/// Pairs that waited with others, after the last sign that they may be overtaken, until waiting together counts as harmless again.
const UNEVEN: u32 = 4_096;

impl Queue {
    /// Answers that wait together may be overtaken.
    pub(in super::super) fn overtaken(&mut self, may_be: bool) {
        if may_be {
            self.uneven = UNEVEN;
        }
    }
}

/// The answer to a call is complete. Whether the turn before left an answer behind.
pub(in super::super) fn read(thread: &mut Thread, call: Id, now_ns: u64) -> bool {
    let took = std::mem::take(&mut thread.took);
    let left = took && thread.answers.iter().any(|(read_ns, _)| now_ns.saturating_sub(*read_ns) <= STALE_NS);
    if thread.answers.len() >= BOUND {
        thread.answers.pop_front();
    }
    thread.answers.push_back((now_ns, call));
    left
}

/// Names the call for a response that begins; the call and whether the pair is possible in time.
pub(in super::super) fn name(
    nodes: &mut Arena<Node>,
    thread: &mut Thread,
    scores: &mut Queue,
    request: Id,
    contested: bool,
    now_ns: u64,
) -> Option<(Id, bool)> {
    let (process, began_ns) = nodes.get(request).map(|node| (node.process, node.began_ns))?;
    while let Some((read_ns, call)) = thread.answers.pop_front() {
        if now_ns.saturating_sub(read_ns) > STALE_NS {
            continue;
        }
        let found = candidate(nodes, call, process).filter(|node| node.taken.get(SLOT) == Some(&false));
        let Some(call_began_ns) = found.map(|node| node.began_ns) else { continue };
        thread.took = true;
        if let Some(taken) = nodes.get_mut(call).and_then(|node| node.taken.get_mut(SLOT)) {
            *taken = true;
        }
        let mixed = waited_with_others(nodes, thread, scores, process, call, now_ns);
        let Some(next_began_ns) = mixed else {
            return Some((call, weigh(&mut scores.plain, call_began_ns, began_ns, true, contested)));
        };
        let possible = call_began_ns >= began_ns;
        scores.mixed.chance(next_began_ns >= began_ns);
        scores.mixed.pair(possible);
        return Some((call, possible));
    }
    scores.plain.calibrator.orphan();
    None
}

/// Marks answers that wait together though the program's calls are not of one kind. If `call` is marked, now or before:
/// when the next call in the queue began, or itself where there is none.
fn waited_with_others(
    nodes: &mut Arena<Node>,
    thread: &Thread,
    scores: &mut Queue,
    process: Id,
    call: Id,
    now_ns: u64,
) -> Option<u64> {
    let kind = nodes.get(call)?.kind;
    let (mut next, mut found) = (None, false);
    for (read_ns, other) in thread.answers.iter().take(LOOK) {
        let fresh = now_ns.saturating_sub(*read_ns) <= STALE_NS;
        let node = candidate(nodes, *other, process)
            .filter(|node| fresh && node.taken.get(SLOT) == Some(&false))
            .map(|node| (node.began_ns, node.kind));
        if let Some((began_ns, other_kind)) = node {
            next = next.or(Some(began_ns));
            found |= other_kind != kind;
        }
    }
    if found {
        scores.overtaken(true);
    } else if next.is_some() {
        scores.uneven = scores.uneven.saturating_sub(1);
    }
    let uneven = scores.uneven > 0;
    if next.is_some() {
        for (_, other) in thread.answers.iter().take(LOOK) {
            if let Some(node) = nodes.get_mut(*other) {
                node.together = true;
                node.mixed |= uneven;
            }
        }
    }
    let node = nodes.get_mut(call)?;
    node.together |= next.is_some();
    node.mixed |= node.together && uneven;
    node.mixed.then(|| next.unwrap_or(node.began_ns))
}
