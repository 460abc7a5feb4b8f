//! W3C Trace Context as read from bytes.

/// `traceparent` and `tracestate` of one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// Trace id, not all zero.
    pub trace_id: [u8; 16],
    /// Parent id, not all zero.
    pub span_id: [u8; 8],
    /// Trace flags (bit 0 sampled, bit 1 random).
    pub flags: u8,
    /// Combined `tracestate`, bounded, only if valid.
    pub state: Option<Box<str>>,
}
