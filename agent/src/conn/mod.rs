//! [3] Connections and byte streams.
//!
//! Comes in: records of the kernel side. Goes out: for each connection two ordered half-streams with their gaps.

mod info;

pub use info::{ConnInfo, Endpoint, MessageName, SeqNames};
