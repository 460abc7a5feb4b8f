//! Go programs: plaintext of crypto/tls, and which goroutine works for which HTTP/2 stream, or
//! got its work from which other.
//!
//! Comes in: uprobes at instructions that the agent chose, which are single-fire and cheap. Goes out: `Plain` and `Handoff`
//! records. The connection is read from the program's own structs, down to the file descriptor, and is exact or not given.

pub mod channels;
pub mod conn;
pub mod http1;
pub mod maps;
pub mod routers;
pub mod routes;
pub mod starts;
pub mod streams;
pub mod tls;
