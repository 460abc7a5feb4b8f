//! Plaintext that was seen a moment before its connection was known: rustls encrypts first and sends then.
//!
//! Comes in: chunks of objects without a connection. Goes out: the same, in order, when the connection is known; or nothing,
//! when it was not known in time. Chunks of one object are all held or, from the first that has no room, none.

use std::collections::HashMap;

use spanwise_common::event::Plain;

use crate::numbers::Numbers;

/// Objects of which something is held.
const MAX_OBJECTS: usize = 1024;
/// Chunks held of one object, and bytes of all objects.
const MAX_CHUNKS: usize = 16;
const MAX_BYTES: usize = 4 << 20;
/// The write that tells the connection follows at once, unless the socket is full.
const PATIENCE_NS: u64 = 2_000_000_000;

struct Of {
    tgid: u32,
    since_ns: u64,
    chunks: Vec<(Plain, Box<[u8]>)>,
}

/// What is held.
#[derive(Default)]
pub(super) struct Held {
    by_object: HashMap<u64, Of, Numbers>,
    bytes: usize,
}

impl Held {
    /// Holds a chunk. How many chunks were given up, this one or older ones.
    pub(super) fn hold(&mut self, plain: &Plain, payload: &[u8]) -> u64 {
        let now = plain.header.at_ns;
        let full = |held: &Self| {
            held.by_object.len() >= MAX_OBJECTS || held.bytes.saturating_add(payload.len()) > MAX_BYTES
        };
        let mut lost = 0;
        if full(self) {
            lost += self.drop_where(|of| now.saturating_sub(of.since_ns) > PATIENCE_NS);
        }
        if full(self) {
            return lost + 1;
        }
        let of = self.by_object.entry(plain.object).or_insert_with(|| Of {
            tgid: plain.header.tgid,
            since_ns: now,
            chunks: Vec::new(),
        });
        if of.chunks.len() >= MAX_CHUNKS {
            return lost + 1;
        }
        of.chunks.push((*plain, payload.into()));
        self.bytes += payload.len();
        lost
    }

    /// The chunks of an object, whose connection is known now.
    pub(super) fn take(&mut self, object: u64) -> Vec<(Plain, Box<[u8]>)> {
        let Some(of) = self.by_object.remove(&object) else { return Vec::new() };
        self.bytes -= of.bytes();
        of.chunks
    }

    /// A process ended. How many chunks were given up.
    pub(super) fn exit(&mut self, tgid: u32) -> u64 {
        if self.by_object.is_empty() { 0 } else { self.drop_where(|of| of.tgid == tgid) }
    }

    fn drop_where(&mut self, goes: impl Fn(&Of) -> bool) -> u64 {
        let (mut lost, mut bytes) = (0, 0);
        self.by_object.retain(|_, of| {
            if goes(of) {
                lost += of.chunks.len() as u64;
                bytes += of.bytes();
            }
            !goes(of)
        });
        self.bytes -= bytes;
        lost
    }
}

impl Of {
    fn bytes(&self) -> usize {
        self.chunks.iter().map(|(_, payload)| payload.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(object: u64, at_ns: u64, tgid: u32) -> Plain {
        Plain {
            header: spanwise_common::event::Header { kind: 0, flags: 0, size: 0, at_ns, tgid, tid: 0 },
            object,
            cookie: 0,
            task: spanwise_common::event::Task::default(),
            seq: 0,
            len: 0,
            captured: 0,
            cipher: 0,
            direction: 0,
            library: 3,
            tail_len: 0,
            pad: [0; 5],
            tail: [0; 8],
        }
    }

    #[test]
    fn what_is_held_comes_out_in_order_and_once() {
        let mut held = Held::default();
        for byte in 0..3 {
            assert_eq!(held.hold(&plain(7, 1, 5), &[byte]), 0);
        }
        assert_eq!(held.hold(&plain(8, 1, 5), b"x"), 0);
        let bytes: Vec<u8> = held.take(7).iter().map(|(_, payload)| payload[0]).collect();
        assert_eq!(bytes, [0, 1, 2]);
        assert!(held.take(7).is_empty());
        assert_eq!((held.exit(6), held.exit(5), held.bytes), (0, 1, 0));
    }

    #[test]
    fn what_waits_too_long_makes_room_and_is_counted() {
        let mut held = Held::default();
        for object in 0..MAX_OBJECTS as u64 {
            assert_eq!(held.hold(&plain(object, 1, 5), &[0; 64]), 0);
        }
        assert_eq!(held.hold(&plain(9999, 2, 5), b"new"), 1, "no room, and none is old");
        assert_eq!(held.hold(&plain(9999, 2 + PATIENCE_NS, 5), b"new"), MAX_OBJECTS as u64);
        assert_eq!(held.take(9999).len(), 1);
        assert_eq!(held.bytes, 0);
        for _ in 0..MAX_CHUNKS {
            assert_eq!(held.hold(&plain(1, 1, 5), b"."), 0);
        }
        assert_eq!(held.hold(&plain(1, 1, 5), b"."), 1, "no more of one object");
    }
}
