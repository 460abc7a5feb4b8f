//! *Only*: exactly one request was open in the process from before the call began until its answer was read, and
//! its response had not begun. Certain, unless the process makes calls outside of requests (see `background`).

use super::super::arena::{Arena, Id};
use super::super::node::{Model, Node};
use super::super::process::Process;

/// The request for a call that begins.
pub(in super::super) fn name(nodes: &Arena<Node>, process: &Process) -> Option<Id> {
    let request = process.open.sole()?;
    nodes.get(request).filter(|node| node.unanswered() && node.tgid == process.tgid).map(|_| request)
}

/// The call's answer was read (or it ended without one).
pub(in super::super) fn confirm(nodes: &mut Arena<Node>, process: &mut Process, call: Id) {
    let Some(node) = nodes.get(call) else { return };
    let request = node.claim(Model::Only).request;
    let Some(named) = nodes.get(request) else { return };
    let holds = named.unanswered() && process.open.begun == node.process_begun;
    if holds {
        process.background.claimed(node.destination);
    }
    if let Some(node) = nodes.get_mut(call) {
        node.confirm(Model::Only, holds);
    }
}

/// Confidence, if the model may speak for this call.
pub(in super::super) fn speaks(process: &Process, call: &Node) -> Option<f64> {
    // Where threads keep to their request, a call from another thread is not this request's.
    let elsewhere = process.thread.disciplined() && !call.claim(Model::Thread).confirmed;
    (!elsewhere && process.background.negligible(call.destination)).then_some(0.95)
}
