//! *Thread*: the thread (or task) that read a request made the call, read its answer and wrote the response, and
//! had no other request open in between. Exact where one thread serves one request at a time.
//!
//! No pair of it is impossible in time, so it is checked by counter-evidence: what a process that gives each
//! request its thread never does.

use super::super::arena::{Arena, Id};
use super::super::node::{Model, Node};
use super::super::process::{Process, Thread};

/// Requests nested in their thread, against counter-evidence.
#[derive(Debug, Default)]
pub(in super::super) struct ThreadScore {
    nested: u64,
    against: u64,
    calls: u64,
}

/// One piece of counter-evidence is outweighed by so many requests that kept to their thread.
const OUTWEIGHED_BY: u64 = 1_000;
/// The figures are halved here: programs change.
const WINDOW: u64 = 1 << 16;

impl ThreadScore {
    /// A request was read and its response written by a thread that had no other one open.
    pub(in super::super) fn nested(&mut self) {
        self.nested += 1;
        if self.nested >= WINDOW {
            self.nested /= 2;
            self.against /= 2;
            self.calls /= 2;
        }
    }

    /// Two requests open on a thread, a response written by another thread, and the like.
    pub(in super::super) fn against(&mut self) {
        self.against += 1;
    }

    /// The model decided a call.
    pub(in super::super) fn decided(&mut self) {
        self.calls += 1;
    }

    /// Confidence, if the model may speak.
    pub(in super::super) fn speaks(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "at most 2^16")]
        let confidence = 1.0 - 1.0 / (self.nested + 34) as f64;
        (self.against * OUTWEIGHED_BY <= self.nested).then_some(confidence)
    }

    /// Threads keep to their request, and calls are made on them.
    pub(in super::super) fn disciplined(&self) -> bool {
        self.calls >= 20 && self.speaks().is_some()
    }

    /// Requests seen nested, and counter-evidence.
    pub(in super::super) fn figures(&self) -> (u64, u64) {
        (self.nested, self.against)
    }
}

/// A request begins on a thread, before it is counted there: whether it is alone, or counter-evidence.
pub(in super::super) fn request_begins(
    nodes: &Arena<Node>,
    thread: &Thread,
    request: &Node,
) -> Result<bool, ()> {
    if thread.open.count == 0 {
        return Ok(true);
    }
    // A response whose end is not seen yet, or requests sent ahead on one connection, prove nothing.
    let sole = thread.open.sole().and_then(|id| nodes.get(id));
    match sole {
        Some(other) if other.answer.first_ns != 0 => Ok(true),
        Some(other) if other.conn.cookie == request.conn.cookie => Ok(false),
        _ => Err(()),
    }
}

/// The request for a call that begins on a thread.
pub(in super::super) fn name(nodes: &Arena<Node>, thread: &Thread, call: &Node) -> Option<Id> {
    let request = thread.open.sole()?;
    let named = nodes.get(request)?;
    (!named.closed && named.process == call.process && named.thread == call.thread && named.alone_on_thread)
        .then_some(request)
}

/// The call's answer was read by a thread (none: it ended without one). Gives counter-evidence.
pub(in super::super) fn confirm(
    nodes: &mut Arena<Node>,
    process: &Process,
    call: Id,
    reader: Option<u64>,
) -> bool {
    let Some(node) = nodes.get(call) else { return false };
    let serves = |key: u64| process.threads.get(&key).is_some_and(Thread::serves);
    if let Some(reader) = reader
        && reader != node.thread
        && node.answer.last_ns == 0
    {
        return serves(reader) || serves(node.thread);
    }
    let request = node.claim(Model::Thread).request;
    let Some(named) = nodes.get(request) else { return false };
    let begun = process.threads.get(&node.thread).map(|thread| thread.open.begun);
    let holds = !named.closed && begun == Some(node.thread_begun);
    if let Some(node) = nodes.get_mut(call) {
        node.confirm(Model::Thread, holds);
    }
    false
}
