//! Connections of which only one end is traced.
//!
//! Comes in: ends that begin, ends for which the other did not come in its time. Goes out: whether it is worth waiting for the
//! other end of the next message. Waiting costs memory, and with it the caches of whatever else runs on the node.

use super::hash::{Map, Seed};
use crate::conn::MessageName;
use crate::session::Side;

/// Messages in a row without their other end after which none is waited for.
const PATIENCE: u8 = 8;
/// Connections remembered; above, all are waited for again.
const BOUND: usize = 16_384;

/// Messages in a row without the other end, by connection: of clients' ends, of servers' ends.
#[derive(Debug)]
pub(super) struct Lonely {
    connections: Map<(u32, u32), [u8; 2]>,
}

impl Lonely {
    pub(super) fn new(seed: Seed) -> Self {
        Self { connections: Map::with_hasher(seed) }
    }

    /// The other end of a message did not come.
    pub(super) fn alone(&mut self, side: Side, message: Option<MessageName>) {
        let Some(name) = message else { return };
        if self.connections.len() >= BOUND {
            self.connections.clear();
        }
        let counts = self.connections.entry(key(name)).or_default();
        if let Some(count) = counts.get_mut(slot(side)) {
            *count = count.saturating_add(1);
        }
    }

    /// An end of a message begins: the connection's other end is not alone, if it was thought to be.
    pub(super) fn begins(&mut self, side: Side, message: Option<MessageName>) {
        let other = 1 - slot(side);
        if let Some(name) = message
            && let Some(counts) = self.connections.get_mut(&key(name))
            && let Some(count) = counts.get_mut(other)
        {
            *count = 0;
        }
    }

    /// Whether the other end of a message will not come, as far as can be told.
    pub(super) fn is(&self, side: Side, message: Option<MessageName>) -> bool {
        message
            .and_then(|name| self.connections.get(&key(name))?.get(slot(side)))
            .is_some_and(|count| *count >= PATIENCE)
    }
}

fn key(name: MessageName) -> (u32, u32) {
    (name.request_base, name.response_base)
}

fn slot(side: Side) -> usize {
    usize::from(side == Side::Server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(request_base: u32, position: u32) -> Option<MessageName> {
        Some(MessageName { request_base, response_base: 7, position })
    }

    #[test]
    fn after_some_messages_alone_until_the_other_end_shows() {
        let mut lonely = Lonely::new(Seed::random());
        for position in 0..u32::from(PATIENCE) {
            assert!(!lonely.is(Side::Server, message(1, position)));
            lonely.alone(Side::Server, message(1, position));
        }
        assert!(lonely.is(Side::Server, message(1, 99)));
        assert!(!lonely.is(Side::Client, message(1, 99)));
        assert!(!lonely.is(Side::Server, message(2, 99)));
        // Another server's end says nothing of a client.
        lonely.begins(Side::Server, message(1, 100));
        assert!(lonely.is(Side::Server, message(1, 100)));
        lonely.begins(Side::Client, message(1, 100));
        assert!(!lonely.is(Side::Server, message(1, 100)));
    }

    #[test]
    fn messages_without_a_name_are_never_alone() {
        let mut lonely = Lonely::new(Seed::random());
        (0..100).for_each(|_| lonely.alone(Side::Client, None));
        assert!(!lonely.is(Side::Client, None));
    }

    #[test]
    fn bounded() {
        let mut lonely = Lonely::new(Seed::random());
        for base in 0..3 * u32::try_from(BOUND).unwrap() {
            lonely.alone(Side::Server, message(base, 0));
        }
        assert!(lonely.connections.len() <= BOUND);
    }
}
