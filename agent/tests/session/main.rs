//! Connections and their exchanges: hand-made records go in, signals, exchanges, verdicts and accounts come out.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's own data: a miss is a bug of the test"
)]

mod endings;
mod exchanges;
mod plain;
mod properties;
mod rest;
mod stage;
