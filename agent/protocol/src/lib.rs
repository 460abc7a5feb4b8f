//! Pure parsers for captured half-streams.
//!
//! Comes in: bytes of one direction of one connection, in order, with holes announced. Goes out: messages.
//! No clock, no I/O, no logging, no panic, no unbounded state: whatever a parser may know is an argument.
//!
//! A protocol is a module with a type that implements [`Parser`] and a line in [`protocols!`]; the property tests
//! in `tests/` then run over it.
#![forbid(unsafe_code)]

pub mod context;
pub mod http1;
pub mod http2;
pub mod message;
mod parser;
pub mod postgresql;
mod queue;
pub mod redis;
pub mod rpc;
mod sink;
pub mod sql;

pub use message::{Flow, Head};
pub use parser::{Detect, Input, Item, LostReason, Parser, What};

/// Calls the macro named by the argument with every protocol, as `name: Type, ...`.
#[macro_export]
macro_rules! protocols {
    ($callback:ident) => {
        $callback! {
            http1: $crate::http1::Connection,
            http2: $crate::http2::Connection,
            postgresql: $crate::postgresql::Connection,
            redis: $crate::redis::Connection
        }
    };
}
