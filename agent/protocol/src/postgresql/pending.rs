//! A call that waits for the end of its answer.

use crate::queue::Waits;

/// A call whose answer is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Its number.
    pub(super) exchange: u32,
    /// Nobody is told of its answer: a Sync alone, or a call that was told to be over.
    pub(super) ghost: bool,
    /// Other calls, which were not seen, may stand before it.
    pub(super) after_gap: bool,
    /// Nothing more of it will come.
    pub(super) sent: bool,
    /// The answer has begun.
    pub(super) begun: bool,
    /// Bytes of the answer in which an error may stand are missing.
    pub(super) cut: bool,
    /// The first error of the answer, zeros if that does not say which.
    pub(super) error: Option<[u8; 5]>,
}

impl Waits for Pending {
    fn exchange(&self) -> u32 {
        self.exchange
    }

    fn is_ghost(&self) -> bool {
        self.ghost
    }
}
