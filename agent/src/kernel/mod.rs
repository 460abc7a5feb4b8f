//! [1] The kernel boundary: load, attach, feature probes, BTF offsets, ring reader. The only unsafe code.

pub mod btf;
pub mod offsets;
