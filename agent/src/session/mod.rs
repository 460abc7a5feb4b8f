//! [4] Drives the parsers and pairs requests with responses.
//!
//! Comes in: half-streams. Goes out: [`Signal`]s while exchanges go on, an [`Exchange`] when one ends.

mod exchange;

pub use exchange::{Edge, Exchange, ExchangeKey, Outcome, Side, Signal, Task};
