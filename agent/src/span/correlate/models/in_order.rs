//! *In order*: each message that a thread read leads to one that it sends, in the order in which they were read. Exact for
//! loops (asyncio, libuv) whose handlers make one call after the other and do nothing else on sockets, even where the
//! answers of several come in one read, or on one connection.
//!
//! A request read, a call sent, its answer read, the next call sent, and so on up to a response: the chain must end with the response
//! of the request at its start. Only then the calls on it are claimed, and how often it does not is the score of the model:
//! a chain that took a wrong turn ends at the right response only by chance, once in as many as requests are open.
//!
//! Two things disturb the order, and are allowed for. Requests may need a turn of the loop more than answers, or one less (aiohttp
//! starts a handler in the turn after the one that read the head): which it is is found by trying. And where it is known what follows
//! the answer to a call (see `steps`), only what was read for that is looked at. Where calls mostly come on the connection of the
//! call before, that decides where the order does not hold.

use std::collections::VecDeque;

use super::super::arena::{Arena, Id};
use super::super::calibrator::Calibrator;
use super::super::hash::Map;
use super::super::node::{Model, Node, Parent};
use super::super::process::Thread;

use super::steps::{Next, REQUEST, Steps};
use crate::conn::ConnInfo;
use crate::session::Side;

/// Messages kept for a thread; above, the oldest is forgotten.
const BOUND: usize = 256;
/// A message that led to nothing for this long, while the loop turned as often, leads to nothing.
const STALE_NS: u64 = 100_000_000;
const STALE_TURNS: u32 = 16;
/// Calls of one chain that are looked at.
const REACH: usize = 64;
/// Calls after which it is looked at whether they come on the connection of the call before, and how many must.
const KEPT_OF: u32 = 64;
const KEPT: u32 = 56;
/// Chains after which it is looked at whether the order should be another, and how many of them must have failed.
const TRIAL: u32 = 64;
const TRIAL_FAILS: u32 = 8;

/// Who is late by a turn of the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Late {
    Nobody,
    Requests,
    Answers,
}

/// A message that a thread has read and that led to nothing yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    read_ns: u64,
    /// The request, or the call that was answered.
    input: Id,
    /// The request at the start of its chain.
    root: Id,
    /// What it leads to.
    next: Next,
    /// The turn of the loop in which it was read, as far as can be told.
    turn: u32,
}

impl Waiting {
    /// When it is due: the turn, and before others of that turn if it was read before them.
    fn due(&self, late: Late) -> (u32, bool) {
        let is_late = match late {
            Late::Nobody => false,
            Late::Requests => self.input == self.root,
            Late::Answers => self.input != self.root,
        };
        (self.turn.wrapping_add(u32::from(is_late)), !is_late)
    }
}

/// Messages of a thread that led to nothing yet.
#[derive(Debug)]
pub(in super::super) struct Inputs {
    waiting: VecDeque<Waiting>,
    turn: u32,
    /// The last thing that the thread did was to read.
    read: bool,
    /// The call that is being sent.
    sending: Option<Id>,
}

/// The score of the model in one process, and what it knows of its order.
#[derive(Debug)]
pub(in super::super) struct Order {
    pub(in super::super) calibrator: Calibrator,
    pub(in super::super) steps: Steps,
    /// A request made a call: before that there is nothing to find out.
    used: bool,
    late: Late,
    tried: u32,
    failed: u32,
    /// Chains until the next look; grows while no order is found.
    trial: u32,
    /// Requests up to this one (as numbered in the process) were open while calls waited for connections.
    unsteady: u64,
    /// The last call was the first one of its connection.
    first: bool,
    kept: Kept,
    responses: u32,
    /// Chains that failed so far: what was concluded before the last one is void.
    pub(in super::super) fails: u32,
}

/// Whether requests keep a connection from one call to the next (or get it again from a pool).
#[derive(Default, Debug)]
struct Kept {
    holds: bool,
    seen: u32,
    agrees: u32,
}

impl Kept {
    /// Several could have led to a call, among them one read on its connection: that is the one in order, or is not. Whether it shall
    /// be preferred, orders being disturbed now and then.
    fn holds(&mut self, agrees: bool) -> bool {
        self.seen += 1;
        self.agrees += u32::from(agrees);
        if self.seen >= KEPT_OF {
            self.holds = self.agrees >= KEPT;
            (self.seen, self.agrees) = (0, 0);
        }
        self.holds
    }
}

impl Inputs {
    pub(in super::super) fn new() -> Self {
        Self { waiting: VecDeque::new(), turn: 0, read: false, sending: None }
    }

    fn reads(&mut self, read_ns: u64, input: Id, root: Id, next: Next) {
        self.read = true;
        if self.waiting.len() >= BOUND {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { read_ns, input, root, next, turn: self.turn });
    }

    fn sends(&mut self, now_ns: u64) {
        if std::mem::take(&mut self.read) {
            self.turn = self.turn.wrapping_add(1);
        }
        let stale = |waiting: &Waiting| {
            now_ns.saturating_sub(waiting.read_ns) > STALE_NS
                && self.turn.wrapping_sub(waiting.turn) > STALE_TURNS
        };
        while self.waiting.front().is_some_and(stale) {
            self.waiting.pop_front();
        }
    }

    /// Where the message stands that leads to this.
    fn leads_to(&self, next: Next, late: Late) -> Option<usize> {
        let first = |wanted: Next| {
            let found = self.waiting.iter().enumerate().filter(|(_, waiting)| waiting.next == wanted);
            found.min_by_key(|(_, waiting)| waiting.due(late)).map(|(place, _)| place)
        };
        first(next).or_else(|| first(Next::Any))
    }

    /// Where the answer stands that leads to this and was read on this connection; `None` too if nothing else could lead to it.
    fn on_same(&self, nodes: &Arena<Node>, conn: &ConnInfo, next: Next, late: Late) -> Option<usize> {
        let leads = |waiting: &Waiting| waiting.next == next || waiting.next == Next::Any;
        if self.waiting.iter().filter(|waiting| leads(waiting)).count() < 2 {
            return None;
        }
        let same = |waiting: &Waiting| {
            let read = nodes.get(waiting.input).filter(|node| node.side == Side::Client);
            leads(waiting) && read.is_some_and(|node| std::ptr::eq(&*node.conn, conn))
        };
        let found = self.waiting.iter().enumerate().filter(|(_, waiting)| same(waiting));
        found.min_by_key(|(_, waiting)| waiting.due(late)).map(|(place, _)| place)
    }
}

/// The requests that were read before the process made its first call, of which one makes it.
#[cold]
pub(in super::super) fn catch_up(
    nodes: &mut Arena<Node>,
    threads: &mut Map<u64, Thread>,
    order: &mut Order,
    requests: &VecDeque<Id>,
) {
    for request in requests {
        let Some(node) = nodes.get(*request).filter(|node| node.unanswered()) else { continue };
        let read_ns = node.began_ns;
        // Of a task it would not be looked at.
        if let Some(thread) = threads.get_mut(&node.thread) {
            self::request(nodes, &mut thread.inputs, order, *request, false, read_ns);
        }
    }
}

/// A request is read; `alone`: no other is open in the process.
pub(in super::super) fn request(
    nodes: &mut Arena<Node>,
    inputs: &mut Inputs,
    order: &mut Order,
    request: Id,
    alone: bool,
    now_ns: u64,
) {
    sent(nodes, inputs, order, now_ns);
    if alone {
        // Nothing is left of earlier requests.
        inputs.waiting.clear();
    }
    let next = order.steps.read(REQUEST);
    inputs.reads(now_ns, request, request, next);
}

/// An answer to a call is read; `last`: it is complete.
pub(in super::super) fn answer(
    nodes: &mut Arena<Node>,
    inputs: &mut Inputs,
    order: &mut Order,
    call: Id,
    last: bool,
    now_ns: u64,
) {
    // Some calls are understood by their answers: for where they stand among others that is too late.
    sent(nodes, inputs, order, now_ns);
    let Some(node) = nodes.get(call).filter(|_| last) else { return };
    let next = order.steps.read(node.kind);
    inputs.reads(now_ns, call, node.root, next);
}

/// A call begins; what it asks for is told next, or not before more was sent and read.
pub(in super::super) fn begins(
    nodes: &mut Arena<Node>,
    inputs: &mut Inputs,
    order: &mut Order,
    call: Id,
    now_ns: u64,
) {
    sent(nodes, inputs, order, now_ns);
    inputs.sending = Some(call);
}

/// A call is understood. `begun`: requests so far in the process.
pub(in super::super) fn understood(
    nodes: &mut Arena<Node>,
    inputs: &mut Inputs,
    order: &mut Order,
    call: Id,
    first: bool,
    begun: u64,
    now_ns: u64,
) {
    if std::mem::replace(&mut order.first, first) != first {
        order.unsteady = begun;
    }
    if inputs.sending == Some(call) {
        sent(nodes, inputs, order, now_ns);
    }
}

/// The call that was begun follows from the oldest message that leads to such a call.
fn sent(nodes: &mut Arena<Node>, inputs: &mut Inputs, order: &mut Order, now_ns: u64) {
    let Some(call) = inputs.sending.take() else { return };
    inputs.sends(now_ns);
    let Some(node) = nodes.get(call) else { return };
    let next = Next::Call(node.kind);
    order.sends(next);
    let mut place = inputs.leads_to(next, order.late);
    if let Some(same) = inputs.on_same(nodes, &node.conn, next, order.late)
        && order.kept.holds(place == Some(same))
    {
        place = Some(same);
    }
    let Some(waiting) = place.and_then(|place| inputs.waiting.remove(place)) else { return };
    let open = nodes.get(waiting.root).is_some_and(Node::unanswered);
    if let Some(node) = nodes.get_mut(call) {
        node.cause = waiting.input;
        node.root = if open { waiting.root } else { Id::NONE };
    }
}

/// A response begins: claims the calls of the chain that ends with it; `found` gets them. `open`: how many requests are open, if
/// this one was not alone.
pub(in super::super) fn closes(
    nodes: &mut Arena<Node>,
    inputs: &mut Inputs,
    order: &mut Order,
    request: Id,
    open: Option<u32>,
    now_ns: u64,
    found: &mut Vec<Id>,
) {
    sent(nodes, inputs, order, now_ns);
    inputs.sends(now_ns);
    let Some(node) = nodes.get(request) else { return };
    let steady = node.process_begun > order.unsteady;
    order.sends(Next::Response);
    // One is taken for each response, whatever it tells: as much goes out as came in. What would lead to the response of a
    // request that was answered by something else is left over from that.
    let left_over = |waiting: &Waiting| {
        waiting.next == Next::Response && !nodes.get(waiting.root).is_some_and(Node::unanswered)
    };
    let of = |inputs: &Inputs, root: Id| inputs.waiting.iter().position(|waiting| waiting.root == root);
    if of(inputs, request).is_some() {
        inputs.waiting.retain(|waiting| waiting.root == request || !left_over(waiting));
    }
    let first = inputs.leads_to(Next::Response, order.late);
    let own = of(inputs, request);
    let end = own.or_else(|| of(inputs, Id::NONE)).or(first).and_then(|place| inputs.waiting.remove(place));
    if own.is_some() && end.is_some_and(|end| end.input == request) {
        // It made no calls, or they went elsewhere; those tell.
        return;
    }
    let closes = own.is_some() && own == first;
    if let (Some(open), true) = (open, steady) {
        order.closed(closes, open);
    }
    let Some(end) = end.filter(|_| closes && steady) else { return };
    let mut at = end.input;
    for _ in 0..REACH {
        if at == request {
            break;
        }
        let Some(node) = nodes.get_mut(at) else { break };
        let next = node.cause;
        if node.parent == Parent::Open && node.claim(Model::InOrder).request == Id::NONE {
            node.set_claim(Model::InOrder, request, true);
            node.failed_before = order.fails;
            found.push(at);
            if let Some(named) = nodes.get_mut(request) {
                named.references += 1;
            }
        }
        at = next;
    }
}

impl Order {
    pub(in super::super) fn new(calibrator: Calibrator) -> Self {
        Self {
            calibrator,
            steps: Steps::default(),
            used: false,
            late: Late::Nobody,
            tried: 0,
            failed: 0,
            trial: TRIAL,
            unsteady: 0,
            first: false,
            kept: Kept::default(),
            responses: 0,
            fails: 0,
        }
    }

    /// Whether requests of the process make calls. What most servers at the end of a chain do is answer, which takes no model.
    pub(in super::super) fn is_used(&self) -> bool {
        self.used
    }

    /// A request makes a call. True for the first.
    pub(in super::super) fn comes_into_use(&mut self) -> bool {
        !std::mem::replace(&mut self.used, true)
    }

    /// Something is sent.
    fn sends(&mut self, to: Next) {
        if self.steps.sent(to) {
            // What was found out of another order says nothing of this one.
            self.calibrator.reset();
        }
    }

    /// The chain of a response began with its request, or did not; so many requests are open.
    fn closed(&mut self, closes: bool, open: u32) {
        self.responses = self.responses.wrapping_add(1);
        self.calibrator.chance(self.responses.is_multiple_of(open.max(2)));
        self.calibrator.pair(closes);
        self.tried += 1;
        self.failed += u32::from(!closes);
        self.fails = self.fails.wrapping_add(u32::from(!closes));
        if self.tried < self.trial {
            return;
        }
        if self.failed * TRIAL >= TRIAL_FAILS * self.trial {
            self.late = match self.late {
                Late::Nobody => Late::Requests,
                Late::Requests => Late::Answers,
                Late::Answers => {
                    self.steps.forget();
                    self.trial = self.trial.saturating_mul(2).min(1 << 16);
                    Late::Nobody
                }
            };
            self.calibrator.reset();
        }
        (self.tried, self.failed) = (0, 0);
    }
}
