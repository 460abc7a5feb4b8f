//! A finished span, as every exporter takes it.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use crate::attribute::Attribute;
use crate::process::Service;
use crate::session::ExchangeKey;

/// Trace id, never all zero.
pub type TraceId = [u8; 16];
/// Span id, never all zero.
pub type SpanId = [u8; 8];

/// Role of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Handles a request from elsewhere (OTLP 2).
    Server,
    /// Makes a request (OTLP 3).
    Client,
}

/// Status of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Nothing to say.
    Unset,
    /// The operation failed.
    Error,
}

/// How a span's parent was found; the value of `spanwise.parent.source`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ParentSource {
    /// There is no parent: the request came from outside of what is traced, or the call from no request.
    Root,
    /// Trace context in the bytes.
    Wire,
    /// The same message seen at the other end of the connection on this node.
    Peer,
    /// The request that the goroutine (or one that started it, while it waited for it) was working for.
    Goroutine,
    /// The only request open in the process, from its beginning to its end.
    Only,
    /// The thread was in one request only.
    Thread,
    /// The answer read last on the thread before the response was written.
    LastIn,
    /// Answers and responses of a thread in the same order.
    FirstInFirstOut,
    /// The k-th call belongs to the k-th request.
    StartOrder,
    /// On a chain from the request to its response, each message of it sent in the order in which those before were read.
    InOrder,
    /// The call before it in the same chain has this parent.
    Chain,
    /// Evidence was there, but not enough: a root span with a link.
    Abstained,
}

/// A pointer to another span that is not the parent.
#[derive(Clone, PartialEq, Debug)]
pub struct Link {
    /// Trace of the other span.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
    /// Attributes of the link.
    pub attributes: Vec<Attribute>,
}

/// What the correlator decides of an exchange: where its span hangs, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// Trace.
    pub trace_id: TraceId,
    /// This span.
    pub span_id: SpanId,
    /// Parent; none for a root.
    pub parent_span_id: Option<SpanId>,
    /// The parent is in another process.
    pub parent_is_remote: bool,
    /// W3C trace flags: those from upstream, or sampled and random for a trace that begins here.
    pub trace_flags: u8,
    /// W3C tracestate from upstream.
    pub trace_state: Option<Box<str>>,
    /// How the parent was found.
    pub source: ParentSource,
    /// How sure that is, 0 to 1.
    pub confidence: f64,
    /// Spans that may be the parent, or would be if the trace were not full.
    pub links: Vec<Link>,
    /// W3C flags of the upstream context this trace came from, for the parent-based sampler.
    pub upstream_flags: Option<u8>,
    /// The parent's exchange, where it was seen on this node.
    pub parent_key: Option<ExchangeKey>,
}

/// Attributes of many spans.
#[derive(Debug)]
pub struct Common {
    attributes: Box<[Attribute]>,
    /// The same as OTLP has it, once that was needed.
    encoded: OnceLock<Box<[u8]>>,
}

/// A finished span.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// Trace.
    pub trace_id: TraceId,
    /// Span.
    pub span_id: SpanId,
    /// Parent; none for a root.
    pub parent_span_id: Option<SpanId>,
    /// The parent is in another process (OTLP flags bits 8 and 9).
    pub parent_is_remote: bool,
    /// W3C trace flags (bit 0 sampled, bit 1 random).
    pub trace_flags: u8,
    /// W3C tracestate.
    pub trace_state: Option<Box<str>>,
    /// Low-cardinality name.
    pub name: Cow<'static, str>,
    /// Role.
    pub kind: Kind,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_unix_ns: u64,
    /// Attributes that it shares with others.
    pub common: Option<Arc<Common>>,
    /// The other attributes.
    pub attributes: Vec<Attribute>,
    /// Status.
    pub status: Status,
    /// Links.
    pub links: Vec<Link>,
    /// The service it belongs to.
    pub service: Arc<Service>,
}

// === impl Common ===

impl Common {
    /// These attributes.
    pub fn new(attributes: Vec<Attribute>) -> Self {
        Self { attributes: attributes.into(), encoded: OnceLock::new() }
    }

    /// The attributes.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// The attributes as `encode` writes them, which is always the same.
    pub(crate) fn encoded(&self, encode: impl FnOnce(&[Attribute]) -> Vec<u8>) -> &[u8] {
        self.encoded.get_or_init(|| encode(&self.attributes).into())
    }
}

/// By what it says.
impl PartialEq for Common {
    fn eq(&self, other: &Self) -> bool {
        self.attributes == other.attributes
    }
}

// === impl Span ===

impl Span {
    /// All attributes.
    pub fn all_attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.common.iter().flat_map(|common| common.attributes()).chain(&self.attributes)
    }
}
