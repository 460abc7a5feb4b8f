//! Export against real sockets and files: OTLP endpoints that work, fail, come late, lie or say nothing, TLS, and
//! OTLP/JSON lines. In every case the accounts balance.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod collector;
mod file;
mod otlp;
mod support;
mod tls;
