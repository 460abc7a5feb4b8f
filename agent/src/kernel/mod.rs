//! Stage 1: the kernel boundary: load, attach, feature probes, BTF offsets, ring reader. The only unsafe code.
//!
//! Comes in: the BPF object and what this kernel offers. Goes out: records, counters, and a place to say which
//! processes to trace and what of a connection to ship.

pub mod btf;
pub mod clock;
pub mod fault;
pub mod hazard;
pub mod host;
pub mod load;
pub mod mapping;
mod maps;
pub mod object;
pub mod offsets;
pub mod plane;
pub mod priority;
pub mod privilege;
mod probe;
mod programs;
pub mod record;
pub mod recording;
pub mod ring;
pub mod signal;
mod typed;
pub mod uprobe;
pub mod usage;
