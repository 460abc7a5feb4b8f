//! One direction of a connection: puts transfers in their place and finds holes.

use spanwise_common::event::{Data, flags};
use spanwise_protocol::Input;

/// Sequence state of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Half {
    expected: Option<u32>,
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
    /// Takes note of a transfer of `len` bytes that begins at `seq`.
    pub fn place(&mut self, seq: u32, len: u32) -> Place {
        let end = seq.wrapping_add(len);
        let place = match self.expected {
            None => Place::Next,
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

/// The parser's inputs for one transfer: what was captured, then what was not. The offset of each is its distance
/// from the first byte of the transfer.
pub fn inputs<'a>(data: &'a Data, payload: &'a [u8]) -> impl Iterator<Item = (u32, Input<'a>)> {
    let burst_start = data.header.flags & flags::BURST_START != 0;
    let bytes = (!payload.is_empty()).then_some((0, Input::Bytes { bytes: payload, burst_start }));
    let missed = data.len.saturating_sub(data.captured);
    let hole = (missed > 0).then(|| {
        let known = usize::from(data.tail_len).min(data.tail.len()).min(missed as usize);
        let tail = data.tail.get(data.tail.len() - known..).unwrap_or_default();
        (data.captured, Input::Hole { len: u64::from(missed), tail })
    });
    bytes.into_iter().chain(hole)
}

#[cfg(test)]
mod tests {
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
}
