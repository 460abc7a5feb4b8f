//! What is kept of an exchange from its first byte until its span may go out.

use std::cell::Cell;
use std::rc::Rc;

use spanwise_protocol::context::TraceContext;

use super::arena::Id;
use super::told::Told;
use crate::conn::{ConnInfo, MessageName};
use crate::session::{Exchange, Side};
use crate::span::{Link, ParentSource, SpanId, TraceId};

/// A trace, as far as its spans on this node share it.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    pub(super) flags: u8,
    pub(super) state: Option<Box<str>>,
    /// Flags that came from upstream.
    pub(super) upstream: Option<u8>,
    pub(super) born_ns: u64,
    /// Spans below this root so far.
    pub(super) spans: Cell<u32>,
}

/// What is decided of the parent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Parent {
    /// Not yet decided.
    Open,
    /// None: own trace.
    Root,
    /// The span that the wire context names.
    Wire { remote: bool },
    /// An exchange on this node.
    Node(Id),
}

/// Models that make claims about calls; the order is that of [`Node::claims`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Model {
    Thread,
    Only,
    LastIn,
    FirstInFirstOut,
    Sibling,
    Next,
    StartOrder,
    InOrder,
    Goroutine,
}

impl Model {
    pub(super) const ALL: [Self; 9] = [
        Self::Thread,
        Self::Only,
        Self::LastIn,
        Self::FirstInFirstOut,
        Self::Sibling,
        Self::Next,
        Self::StartOrder,
        Self::InOrder,
        Self::Goroutine,
    ];

    pub(super) fn source(self) -> ParentSource {
        match self {
            Self::Thread => ParentSource::Thread,
            Self::Only => ParentSource::Only,
            Self::LastIn => ParentSource::LastIn,
            Self::FirstInFirstOut => ParentSource::FirstInFirstOut,
            Self::Sibling | Self::Next => ParentSource::Chain,
            Self::StartOrder => ParentSource::StartOrder,
            Self::InOrder => ParentSource::InOrder,
            Self::Goroutine => ParentSource::Goroutine,
        }
    }
}

/// What one model says of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// The request it names.
    pub(super) request: Id,
    /// The model's condition held to the end of the evidence.
    pub(super) confirmed: bool,
}

impl Claim {
    const NONE: Self = Self { request: Id::NONE, confirmed: false };
}

/// A link whose trace id may still be open.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) request: Id,
    pub(super) reason: &'static str,
}

/// Times of the response; zero for none.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Answer {
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: u64,
    pub(super) side: Side,
    pub(super) tgid: u32,
    pub(super) process: Id,
    /// Key of the thread (or task) that began it.
    pub(super) thread: u64,
    /// The task that serves the request, or that makes the call (not the one that moves the bytes); zero for none.
    pub(super) goroutine: u64,
    /// The task that makes the call was named by a hand-off.
    pub(super) handed: bool,
    /// Its parent by task is by what the task was given.
    pub(super) by_job: bool,
    /// Its parent by task is certain, whatever comes.
    pub(super) certain: bool,
    pub(super) began_ns: u64,
    pub(super) answer: Answer,
    pub(super) message: Option<MessageName>,
    pub(super) conn: Rc<ConnInfo>,
    pub(super) context: Option<Box<TraceContext>>,
    /// When it ended with an answer; the largest time until then, and for others.
    pub(super) ended_ns: u64,
    /// Set from its end until it goes out.
    pub(super) exchange: Option<Box<Exchange>>,

    pub(super) span_id: SpanId,
    pub(super) parent: Parent,
    pub(super) source: ParentSource,
    pub(super) confidence: f64,
    /// Known once the chain of parents is; for a request with a wire context from then on.
    pub(super) trace: Option<Rc<Trace>>,
    pub(super) parent_span: Option<(SpanId, Option<u64>)>,
    pub(super) remote: bool,
    pub(super) pending: Vec<Pending>,
    pub(super) links: Vec<Link>,
    /// Those whose trace (or link) waits for this one's trace id.
    pub(super) waiting: Vec<Id>,
    /// Claims and links of others that name this one.
    pub(super) references: u32,
    pub(super) emitted: bool,
    /// Kept after it went out, for the other end to come.
    pub(super) lingering: bool,
    /// The other end of the message, if it was seen.
    pub(super) peer: Id,
    /// What that end has told, for when this one goes out.
    pub(super) told: Option<Box<Told>>,

    /// Requests begun in the process (on the thread) when this began, itself included.
    pub(super) process_begun: u64,
    pub(super) thread_begun: u64,

    // Of a server's end.
    /// No other request was open in the process (on the thread) when it began.
    pub(super) alone: bool,
    pub(super) alone_on_thread: bool,
    /// Its thread began no other before the response, and wrote the response.
    pub(super) kept_thread: bool,
    /// The response is complete (or will never be).
    pub(super) closed: bool,
    /// Calls of which some model says that they may be this request's.
    pub(super) calls: Vec<Id>,

    // Of a client's end.
    /// No request was open in the process when it began.
    pub(super) orphan: bool,
    /// Several open requests carried its wire context in: models choose among them.
    pub(super) shared_context: bool,
    pub(super) claims: [Claim; 9],
    /// The answer was already given to a response by last in, first in first out.
    pub(super) taken: [bool; 2],
    /// What is called, roughly: only where until it is understood. Never zero for a call.
    pub(super) kind: u64,
    /// Its answer waited together with another.
    pub(super) together: bool,
    /// Its answer waited together with one that may overtake it.
    pub(super) mixed: bool,
    /// The call whose answer was the last thing read on the thread before this was sent.
    pub(super) input: Id,
    /// Calls sent after the same input.
    pub(super) sibling_before: Id,
    pub(super) sibling_after: Id,
    /// What it followed from by *in order*, the request or the call answered before; and the request at the start of that chain.
    pub(super) cause: Id,
    pub(super) root: Id,
    /// Chains of the process that had failed when this one was found to hold.
    pub(super) failed_before: u32,
    /// The request that start order named a few calls before.
    pub(super) neighbour: Id,
    /// Index of the destination in the process's table.
    pub(super) destination: usize,
}

/// How a node starts.
pub(super) struct Start {
    pub(super) key: u64,
    pub(super) side: Side,
    pub(super) tgid: u32,
    pub(super) process: Id,
    pub(super) thread: u64,
    pub(super) began_ns: u64,
    pub(super) conn: Rc<ConnInfo>,
    pub(super) message: Option<MessageName>,
    pub(super) span_id: SpanId,
}

impl Node {
    pub(super) fn new(start: Start) -> Self {
        Self {
            key: start.key,
            side: start.side,
            tgid: start.tgid,
            process: start.process,
            thread: start.thread,
            goroutine: 0,
            handed: false,
            by_job: false,
            certain: false,
            began_ns: start.began_ns,
            answer: Answer::default(),
            message: start.message,
            conn: start.conn,
            context: None,
            ended_ns: u64::MAX,
            exchange: None,
            span_id: start.span_id,
            parent: Parent::Open,
            source: ParentSource::Root,
            confidence: 1.0,
            trace: None,
            parent_span: None,
            remote: false,
            pending: Vec::new(),
            links: Vec::new(),
            waiting: Vec::new(),
            references: 0,
            emitted: false,
            lingering: false,
            peer: Id::NONE,
            told: None,
            process_begun: 0,
            thread_begun: 0,
            alone: false,
            alone_on_thread: false,
            kept_thread: false,
            closed: false,
            calls: Vec::new(),
            orphan: false,
            shared_context: false,
            claims: [Claim::NONE; 9],
            taken: [false; 2],
            kind: 0,
            together: false,
            mixed: false,
            input: Id::NONE,
            sibling_before: Id::NONE,
            sibling_after: Id::NONE,
            cause: Id::NONE,
            root: Id::NONE,
            failed_before: 0,
            neighbour: Id::NONE,
            destination: 0,
        }
    }

    pub(super) fn claim(&self, model: Model) -> Claim {
        self.claims.get(model as usize).copied().unwrap_or(Claim::NONE)
    }

    pub(super) fn set_claim(&mut self, model: Model, request: Id, confirmed: bool) {
        if let Some(claim) = self.claims.get_mut(model as usize) {
            *claim = Claim { request, confirmed };
        }
    }

    pub(super) fn confirm(&mut self, model: Model, confirmed: bool) {
        if let Some(claim) = self.claims.get_mut(model as usize) {
            claim.confirmed = confirmed;
        }
    }

    /// A request that waits for its response to begin.
    pub(super) fn unanswered(&self) -> bool {
        self.answer.first_ns == 0 && !self.closed
    }
}
