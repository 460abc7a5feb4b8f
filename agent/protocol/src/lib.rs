//! Pure parsers for captured half-streams.
//!
//! Comes in: bytes of one direction of one connection, in order, with holes announced. Goes out: messages.
//! No clock, no I/O, no logging, no panic, no unbounded state: whatever a parser may know is an argument.
#![forbid(unsafe_code)]

pub mod context;
pub mod message;
