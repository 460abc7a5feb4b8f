//! Stage 3: connections and byte streams.
//!
//! Comes in: records of the kernel side. Goes out: for each connection two ordered half-streams with their gaps.

mod info;
mod stream;
pub mod tls;

pub use info::{Authority, ConnInfo, Endpoint, MessageName, SeqNames, Side, Texts};
pub use stream::{Half, Place, beginning, boundary, inputs};
