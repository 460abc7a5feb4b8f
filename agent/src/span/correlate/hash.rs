//! A fast seeded hash for the small keys of the hot path.

use std::hash::{BuildHasher, Hasher};

/// Maps of this stage.
pub(super) type Map<K, V> = std::collections::HashMap<K, V, Seed>;

/// Starts a hash. Part of the keys comes from the network, so the seed must not be guessable from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u64);

impl Seed {
    /// A seed of this process's own randomness.
    pub(super) fn random() -> Self {
        Self(std::hash::RandomState::new().build_hasher().finish() | 1)
    }
}

impl BuildHasher for Seed {
    type Hasher = Mixer;

    #[inline]
    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

/// Multiply and fold, a word at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixer(u64);

impl Mixer {
    #[inline]
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded")]
        let folded = (product >> 64) as u64 ^ product as u64;
        self.0 = folded.rotate_left(29);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
            self.word(word ^ ((chunk.len() as u64) << 59));
        }
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.word(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.word(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn low_and_high_bits_spread() {
        let seed = Seed::random();
        for stride in [1_u64, 64, 1 << 20, 1 << 40] {
            let hashes: Vec<u64> = (0..4096).map(|i| seed.hash_one(i * stride)).collect();
            let low: HashSet<u64> = hashes.iter().map(|h| h & 0xfff).collect();
            let high: HashSet<u64> = hashes.iter().map(|h| h >> 57).collect();
            assert!(low.len() > 2300, "stride {stride}: {} low", low.len());
            assert_eq!(high.len(), 128, "stride {stride}");
        }
    }
}
