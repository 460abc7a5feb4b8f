//! One file for each model. A model names a request for a call, or a call for a response; it decides nothing.

pub(super) mod chain;
pub(super) mod first_in_first_out;
pub(super) mod in_order;
pub(super) mod last_in;
pub(super) mod only;
mod start_order;
mod steps;
pub(super) mod thread;

pub(super) use start_order::StartOrder;
pub(super) use thread::ThreadScore;

use super::arena::{Arena, Id};
use super::node::Node;
use super::process::Score;
use crate::session::Side;

/// A call that may be named for a response of this process.
fn candidate(nodes: &Arena<Node>, call: Id, process: Id) -> Option<&Node> {
    let node = nodes.get(call)?;
    // A call begun while no request was open is nobody's: it would only shift the others.
    (node.side == Side::Client && node.process == process && !node.orphan).then_some(node)
}

/// Counts a pair that a completion model named; whether it is possible.
///
/// `ends_fit`: what else is known does not exclude it.
fn weigh(
    score: &mut Score,
    call_began_ns: u64,
    request_began_ns: u64,
    ends_fit: bool,
    contested: bool,
) -> bool {
    let possible = ends_fit && call_began_ns >= request_began_ns;
    if contested {
        if let Some(neighbour) = score.neighbours.swap(call_began_ns) {
            score.calibrator.chance(neighbour >= request_began_ns);
        }
        score.calibrator.pair(possible);
    }
    possible
}
