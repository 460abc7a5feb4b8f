//! Comes in: a Go program. Goes out: where `runtime.g` keeps what tells goroutines apart.

use std::path::Path;

use crate::binary::{Binary, Unknown};
use crate::bytes::u64_at;

/// Key of the pair that tells where a program began to run.
const AT_ENTRY: u64 = 9;

/// Offsets in `runtime.g` (the struct that R14 points at in Go code) and near it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// What the compiler calls itself.
    pub version: Box<str>,
    /// `g.goid`, 64 bits: unique in the process while it lives.
    pub goid: u32,
    /// `g.parentGoid`, 64 bits: who started it. Go 1.21 and later.
    pub parent_goid: Option<u32>,
    /// `g.gopc`: where it was started.
    pub go_pc: u32,
    /// `g.startpc`: the function it began with.
    pub start_pc: u32,
    /// `g.m`: the thread that runs it.
    pub m: u32,
    /// `m.curg`: the goroutine that a thread runs, also while it is on the thread's own stack.
    pub curg: u32,
    /// `m.g0`: the goroutine that stands for the thread's own stack.
    pub g0: u32,
    /// `g.labels`: labels of the profiler.
    pub labels: u32,
}

impl Runtime {
    /// Offsets of a program.
    pub fn of(binary: &Binary<'_>) -> Result<Self, Unknown> {
        let g = |member| binary.offset("runtime.g", member);
        let m = |member| binary.offset("runtime.m", member);
        Ok(Self {
            version: binary.info.compiler.clone(),
            goid: g("goid")?,
            parent_goid: match g("parentGoid") {
                Ok(offset) => Some(offset),
                Err(Unknown::Missing { .. }) => None,
                Err(other) => return Err(other),
            },
            go_pc: g("gopc")?,
            start_pc: g("startpc")?,
            m: g("m")?,
            curg: m("curg")?,
            g0: m("g0")?,
            labels: g("labels")?,
        })
    }
}

/// What the kernel added to the addresses of a program file (`process` is `/proc/PID`): to be taken off a `startpc` before it is
/// looked up. Nothing if the process is gone.
pub fn load_bias(binary: &Binary<'_>, process: &Path) -> Option<u64> {
    if !binary.movable() {
        return Some(0);
    }
    bias(binary.entry(), &std::fs::read(process.join("auxv")).ok()?)
}

/// The kernel tells a program where it begins to run; the file tells where it would have.
fn bias(entry: u64, auxv: &[u8]) -> Option<u64> {
    let mut pairs = auxv.chunks_exact(16).filter_map(|pair| Some((u64_at(pair, 0)?, u64_at(pair, 8)?)));
    let (_, begun) = pairs.find(|(key, _)| *key == AT_ENTRY)?;
    begun.checked_sub(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_is_the_difference_of_the_entries() {
        let auxv: Vec<u8> =
            [3_u64, 0x5000, 9, 0x55_0000_1200, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bias(0x1200, &auxv), Some(0x55_0000_0000));
        assert_eq!(bias(0x1200, &auxv[..16]), None);
        assert_eq!(bias(u64::MAX, &auxv), None);
    }
}
