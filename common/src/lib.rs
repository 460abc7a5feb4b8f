//! The contract between the BPF programs and the agent: record layouts, limits, counters, offsets, names.
//!
//! Comes in: nothing. Goes out: plain `repr(C)` structs of integers with explicit padding, whose sizes are
//! asserted at compile time on both sides. A change here is a change of the wire between kernel and user
//! space (and of the recording format), so it bumps [`WIRE_VERSION`].
#![no_std]

pub mod config;
pub mod conn;
pub mod counters;
pub mod event;
pub mod golang;
pub mod limits;
pub mod names;
pub mod offsets;
pub mod place;
pub mod tls;

/// Version of the record layouts; written into recordings and checked when one is replayed.
pub const WIRE_VERSION: u32 = 7;
