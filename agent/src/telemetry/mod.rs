//! Counters of every stage: what came in, what went out, what was dropped and why.

mod ledger;

pub use ledger::{Flow, Stage};
