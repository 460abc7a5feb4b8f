//! Reads the ring of records: the kernel never wakes us, we look every few milliseconds.

use aya::maps::{MapData, RingBuf};

/// The consumer of the ring.
pub struct Ring {
    inner: RingBuf<MapData>,
}

impl Ring {
    pub(super) fn new(inner: RingBuf<MapData>) -> Self {
        Self { inner }
    }

    /// Hands on up to `most` records in the order in which they were made. Returns how many there were.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut done = 0;
        while done < most {
            let Some(record) = self.inner.next() else { break };
            take(&record);
            done += 1;
        }
        done
    }
}
