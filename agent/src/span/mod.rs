//! [5] Exchange -> span: parents, ids, semantic conventions, redaction, clock.

pub mod correlate;
pub mod ids;
mod model;

pub use model::{Decision, Kind, Link, ParentSource, Span, SpanId, Status, TraceId};
