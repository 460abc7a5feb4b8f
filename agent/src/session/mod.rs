//! [4] Drives the parsers and pairs requests with responses.
//!
//! Comes in: half-streams. Goes out: [`Signal`]s while exchanges go on, an [`Exchange`] when one ends, and
//! verdicts for the kernel side.

mod account;
mod connection;
mod exchange;
mod table;

pub use crate::conn::Side;
pub use account::Account;
pub use exchange::{Edge, Exchange, ExchangeKey, Outcome, Signal, Task};
pub use table::{Output, Sessions, Who};
