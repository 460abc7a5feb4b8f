//! A command that waits for its answer.

use crate::queue::Waits;

/// What is special about the answer of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Kind {
    /// One value.
    #[default]
    Usual,
    /// One value; the database is not known if it is an error.
    Select,
    /// Messages follow: with RESP3 beside the answers, with RESP2 instead of them.
    Subscribe,
    /// Anything may follow.
    Stream,
    /// There may be none.
    Silence,
}

/// A command whose answer is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Its number.
    pub(super) exchange: u32,
    /// Other commands, which were not seen, may stand before it.
    pub(super) after_gap: bool,
    pub(super) kind: Kind,
}

impl Waits for Pending {
    fn exchange(&self) -> u32 {
        self.exchange
    }
}
