//! What parsers tell of. Comes in: what was found, and where. Goes out: items, in order.

use crate::message::Flow;
use crate::parser::{Item, What};

/// Takes what was found.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Item);

/// Tells of one thing.
pub(crate) fn emit(sink: Sink<'_>, exchange: u32, flow: Flow, offset: usize, what: What) {
    sink(Item { exchange, flow, offset, what });
}

/// A position within a hole as an offset.
pub(crate) fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
