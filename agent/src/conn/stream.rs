//! One direction of a connection: puts transfers in their place and finds holes.

use spanwise_common::event::{Data, flags};
use spanwise_protocol::Input;

/// Fewer bytes than these before the first transfer are no message that was lost, but a first number that is not exact.
const SHORTEST_LOSS: i32 = 16;

/// Sequence state of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Half {
    expected: Option<u32>,
    /// Where the direction begins, if that is known before anything of it was seen.
    first: Option<u32>,
}

/// How a transfer stands to what came before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It follows, or it is the first.
    Next,
    /// This many bytes are missing before it.
    After(u32),
    /// All of it was seen already.
    Seen,
}

impl Half {
    /// Takes note of where the direction begins: what is missing before its first transfer can be told then.
    pub fn begins_at(&mut self, seq: u32) {
        self.first = Some(seq);
    }

    /// Takes note of a transfer of `len` bytes that begins at `seq`.
    pub fn place(&mut self, seq: u32, len: u32) -> Place {
        let end = seq.wrapping_add(len);
        let place = match self.expected {
            None => match self.first.map(|first| seq.wrapping_sub(first) as i32) {
                Some(ahead) if ahead >= SHORTEST_LOSS => Place::After(ahead as u32),
                _ => Place::Next,
            },
            Some(expected) => match seq.wrapping_sub(expected) as i32 {
                0 => Place::Next,
                ahead if ahead > 0 => Place::After(ahead as u32),
                _ => Place::Seen,
            },
        };
        if place != Place::Seen {
            self.expected = Some(end);
        }
        place
    }
}

/// The parser's inputs for one transfer: what was captured, then what was not, piece by piece. The offset of each is its
/// distance from the first byte of the transfer.
pub fn inputs<'a>(data: &'a Data, payload: &'a [u8]) -> impl Iterator<Item = (u32, Input<'a>)> {
    Inputs { data, rest: payload, at: 0, hole: 0 }
}

/// The bytes from the first of a transfer on, up to the first that were not captured.
pub fn beginning<'a>(data: &Data, payload: &'a [u8]) -> &'a [u8] {
    if data.header.flags & flags::PIECES == 0 {
        payload
    } else {
        piece(payload).map_or(&[], |(kept, ..)| kept)
    }
}

/// Where the next frame begins, in bytes from the first of a transfer, and the walk that says so.
pub fn boundary(data: &Data) -> Option<(u32, u32)> {
    if data.header.flags & flags::AHEAD == 0 {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = data.tail;
    Some((u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])))
}

/// The first piece of a payload, the number of bytes that were left out behind it, and the other pieces.
fn piece(payload: &[u8]) -> Option<(&[u8], u32, &[u8])> {
    let (kept, rest) = payload.split_first_chunk()?;
    let (skipped, rest) = rest.split_first_chunk()?;
    let (bytes, rest) = rest.split_at_checked(u32::from_ne_bytes(*kept) as usize)?;
    Some((bytes, u32::from_ne_bytes(*skipped), rest))
}

struct Inputs<'a> {
    data: &'a Data,
    /// What of the payload was not given yet.
    rest: &'a [u8],
    /// How far the transfer was given.
    at: u32,
    /// Bytes that were left out here.
    hole: u32,
}

impl<'a> Iterator for Inputs<'a> {
    type Item = (u32, Input<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (data, at) = (self.data, self.at);
        let left = data.len.saturating_sub(at);
        if left == 0 {
            return None;
        }
        if self.hole == 0 && !self.rest.is_empty() {
            let bytes = if data.header.flags & flags::PIECES == 0 {
                std::mem::take(&mut self.rest)
            } else {
                // What is no piece ends the list: the rest is a hole.
                let (bytes, skipped, rest) = piece(self.rest).unwrap_or_default();
                (self.hole, self.rest) = (skipped, rest);
                bytes
            };
            self.at = at.saturating_add(bytes.len() as u32);
            if !bytes.is_empty() {
                let burst_start = at == 0 && data.header.flags & flags::BURST_START != 0;
                return Some((at, Input::Bytes { bytes, burst_start }));
            }
            return self.next();
        }
        let len = if self.rest.is_empty() { left } else { self.hole.min(left) };
        self.hole = 0;
        self.at = at.saturating_add(len);
        if len == 0 {
            return None;
        }
        let known = usize::from(data.tail_len).min(data.tail.len()).min(len as usize);
        let tail = data.tail.get(data.tail.len() - known..).unwrap_or_default();
        Some((at, Input::Hole { len: u64::from(len), tail: if len == left { tail } else { &[] } }))
    }
}

#[cfg(test)]
mod tests {
    use spanwise_common::event::{Header, Kind};

    use super::*;

    #[test]
    fn order_gaps_and_repeats() {
        let mut half = Half::default();
        assert_eq!(half.place(u32::MAX - 4, 10), Place::Next);
        assert_eq!(half.place(5, 10), Place::Next);
        assert_eq!(half.place(20, 5), Place::After(5));
        assert_eq!(half.place(20, 5), Place::Seen);
        assert_eq!(half.place(25, 1), Place::Next);
    }

    /// What a transfer of `len` bytes gives: `@offset bytes` and `@offset -length`.
    fn given(bits: u16, len: u32, payload: &[u8], tail: &[u8]) -> Vec<String> {
        let mut data = Data {
            header: Header { kind: Kind::DATA.0, flags: bits, size: 0, at_ns: 7, tgid: 1, tid: 2 },
            cookie: 9,
            task: Default::default(),
            seq: 1,
            len,
            captured: payload.len() as u32,
            direction: 0,
            plane: 1,
            tail_len: tail.len() as u8,
            route: 0,
            tail: [0; 8],
        };
        data.tail[8 - tail.len()..].copy_from_slice(tail);
        inputs(&data, payload)
            .map(|(at, input)| match input {
                Input::Bytes { bytes, burst_start } => {
                    format!(
                        "@{at} {}{}",
                        str::from_utf8(bytes).unwrap(),
                        if burst_start { " starts" } else { "" }
                    )
                }
                Input::Hole { len, tail } => format!("@{at} -{len} {}", str::from_utf8(tail).unwrap()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn piece_of(kept: &[u8], skipped: u32) -> Vec<u8> {
        [&(kept.len() as u32).to_ne_bytes()[..], &skipped.to_ne_bytes(), kept].concat()
    }

    #[test]
    fn transfers_are_bytes_and_what_is_missing() {
        assert_eq!(given(flags::BURST_START, 5, b"hello", b""), ["@0 hello starts"]);
        assert_eq!(given(0, 9, b"hello", b"end"), ["@0 hello", "@5 -4 end"]);
        assert_eq!(given(0, 9, b"", b""), ["@0 -9 "]);
        assert!(given(flags::BURST_START, 0, b"", b"").is_empty());
    }

    #[test]
    fn pieces_are_put_in_their_places() {
        let bits = flags::PIECES | flags::BURST_START;
        let two = [piece_of(b"head", 100), piece_of(b"next", 20)].concat();
        assert_eq!(given(bits, 128, &two, b""), ["@0 head starts", "@4 -100 ", "@104 next", "@108 -20 "]);
        // It begins within a body, and goes on behind the last piece.
        let late = [piece_of(b"", 30), piece_of(b"head", 0)].concat();
        assert_eq!(given(bits, 50, &late, b""), ["@0 -30 ", "@30 head", "@34 -16 "]);
        // Damage ends the list; nothing goes beyond the transfer.
        assert_eq!(given(bits, 60, &two[..10], b""), ["@0 -60 "]);
        assert_eq!(given(bits, 60, &two, b""), ["@0 head starts", "@4 -56 "]);
    }

    #[test]
    fn a_known_beginning() {
        let after = |first: u32, seq| {
            let mut half = Half::default();
            half.begins_at(first);
            half.place(seq, 10)
        };
        assert_eq!(after(u32::MAX, u32::MAX), Place::Next);
        assert_eq!(after(u32::MAX - 1, 98), Place::After(100));
        // One off, or before it: the beginning was not exact.
        assert_eq!(after(100, 101), Place::Next);
        assert_eq!(after(100, 50), Place::Next);
    }
}
