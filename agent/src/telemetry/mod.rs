//! Counters of every stage: what came in, what went out, what was dropped and why.
//!
//! Comes in: one [`Stage`] of each stage. Goes out: the table at the end of a run, the same as JSON, and
//! warnings that cannot flood.

mod ledger;
pub mod said;
mod table;
mod throttle;

pub use ledger::{Flow, Stage};
pub use table::{render, to_json};
pub use throttle::Throttle;
