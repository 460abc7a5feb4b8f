//! How much the stage does. In: what the governor allows. Out: what is read of which connections.

use spanwise_common::limits::{BUDGET_REQUEST, BUDGET_RESPONSE};

/// Bursts that are no message before a connection is given up as another protocol.
const PATIENCE: u8 = 16;
/// The same while work is being saved. A burst of HTTP begins with a message or goes on with one, so one that began in the middle
/// shows itself within two.
const LITTLE_PATIENCE: u8 = 4;
/// Bytes of a burst towards the server while only heads are read: cookies and context fit.
const HEADS_REQUEST: u32 = 2048;
/// Bytes of a burst towards the client while only heads are read.
const HEADS_RESPONSE: u32 = 512;
/// Connections are told apart by this many classes.
pub const CLASSES: u8 = 64;
/// How long the same classes rest, in nanoseconds.
pub const TURN_NS: u64 = 10_000_000_000;

/// What is done of all that could be. The default is everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effort {
    /// Only heads are shipped.
    pub heads_only: bool,
    /// Connections of other protocols are given up sooner.
    pub impatient: bool,
    /// Classes of connections, of [`CLASSES`], that rest: nothing of them is read until they may go on.
    pub resting: u8,
    /// Memory is short: connections that rest let go of what they have under way at once.
    pub at_once: bool,
    /// New processes are not followed.
    pub no_new_processes: bool,
}

impl Effort {
    pub(super) fn patience(self) -> u8 {
        if self.impatient { LITTLE_PATIENCE } else { PATIENCE }
    }

    /// Bytes of a burst towards the server and towards the client.
    pub(super) fn budgets(self) -> (u32, u32) {
        if self.heads_only { (HEADS_REQUEST, HEADS_RESPONSE) } else { (BUDGET_REQUEST, BUDGET_RESPONSE) }
    }

    /// Whether a connection with this mark rests in this turn. Both ends of a connection have the same mark.
    pub(super) fn rests(self, mark: u32, turn: u64) -> bool {
        if self.resting == 0 {
            return false;
        }
        let mix = |n: u64| (n ^ (n >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = mix(u64::from(mark) ^ mix(turn));
        // The second round keeps the choices of neighbouring turns apart.
        ((mix(mixed ^ (mixed >> 32)) >> 40) % u64::from(CLASSES)) < u64::from(self.resting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_rests_is_what_was_asked_for_and_changes_with_the_turn() {
        for resting in [0, 32, 56, CLASSES] {
            let effort = Effort { resting, ..Effort::default() };
            for turn in [0, 1, 77] {
                let share = (0..64_000_u32).filter(|mark| effort.rests(mark * 977, turn)).count();
                let due = usize::from(resting) * 1_000;
                assert!(share.abs_diff(due) <= 1_500, "{resting} in turn {turn}: {share} of 64000");
            }
        }
        let half = Effort { resting: 32, ..Effort::default() };
        let both = (0..10_000_u32).filter(|mark| half.rests(*mark, 1) && half.rests(*mark, 2)).count();
        assert!((2_000..3_000).contains(&both), "turns choose independently: {both} of 10000 rest in both");
    }
}
