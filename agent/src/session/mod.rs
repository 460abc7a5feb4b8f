//! Stage 4: drives the parsers and pairs requests with responses.
//!
//! Comes in: half-streams. Goes out: [`Signal`]s while exchanges go on, an [`Exchange`] when one ends, and
//! verdicts for the kernel side.

mod account;
mod carries;
mod connection;
mod effort;
mod exchange;
mod held;
mod kind;
mod orphan;
mod plain;
mod rest;
mod routes;
mod scene;
mod table;
mod unix;

pub use crate::conn::Side;
pub use account::Account;
pub use effort::{CLASSES, Effort, TURN_NS};
pub use exchange::{DbSeen, Edge, Exchange, ExchangeKey, Outcome, RpcSeen, Signal, Task};
pub use table::{Output, Sessions, Who};
