//! [5] Exchange -> span: parents, ids, semantic conventions, redaction, clock.

pub mod correlate;
mod model;

pub use model::{Kind, Link, ParentSource, Span, SpanId, Status, TraceId};
