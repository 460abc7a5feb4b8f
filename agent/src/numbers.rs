//! A hash for small numbers that nobody outside chooses: cookies and process ids in, buckets out.

use std::hash::{BuildHasherDefault, Hasher};

/// Hashes such a number in a few instructions.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

/// For maps whose keys are such numbers.
pub(crate) type Numbers = BuildHasherDefault<NumberHasher>;
