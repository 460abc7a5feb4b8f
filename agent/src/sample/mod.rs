//! [6] Sampling: a decision is data, Keep(reason) or Drop(reason).
//!
//! Comes in: a trace id and what came from upstream. Goes out: a [`Decision`], the same on every node for one
//! trace, and the `tracestate` that says with what probability it was made.

mod head;
mod state;

pub use head::{Decision, DropReason, KeepReason, Sampler};
