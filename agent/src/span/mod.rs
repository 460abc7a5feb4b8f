//! Stage 5: exchange -> span: parents, ids, semantic conventions, redaction, clock.

pub mod build;
pub mod clock;
pub mod correlate;
pub mod ids;
mod model;
mod redact;
mod route;
mod semconv;

pub use model::{Common, Decision, Kind, Link, ParentSource, Span, SpanId, Status, TraceId};
