//! One direction of a connection: where it stands between and within messages, and the body that is being put together.

use super::wire::HEADER;

/// Bytes of a body that are put together.
pub(super) const MAX_HELD: usize = 8 * 1024;
/// A larger buffer is given back once its message is read.
const KEEP_BUFFER: usize = 512;

/// Where a direction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum At {
    /// Nothing was seen.
    #[default]
    Fresh,
    /// Before a packet without a type, or in the length of one.
    Opening,
    /// One byte answers a wish for encryption.
    Encryption,
    /// Before a message, or in its header.
    Header,
    /// In a body, so many bytes before its end.
    Body(u32),
    /// The boundary between messages is not known.
    Lost,
    /// Closed.
    Closed,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) at: At,
    /// Type and length, as far as they were seen. Packets without a type have zero there.
    header: [u8; HEADER],
    pub(super) have: usize,
    /// The first bytes of the body, as far as they are wanted.
    held: Vec<u8>,
    /// So many are.
    wanted: usize,
    /// Bytes of the body that were wanted are missing.
    cut: bool,
    /// The last bytes since the boundary was lost.
    last: [u8; 8],
}

impl Half {
    /// Type of the message that is being read.
    pub(super) fn kind(&self) -> u8 {
        let [kind, ..] = self.header;
        kind
    }

    /// Begins a message with its type; zero for a packet that has none.
    pub(super) fn begin(&mut self, kind: u8) {
        self.header = [kind, 0, 0, 0, 0];
        self.have = 1;
    }

    /// Takes bytes of the header. Gives how many, and the length once it is whole.
    pub(super) fn take_header(&mut self, bytes: &[u8]) -> (usize, Option<u32>) {
        let mut used = 0;
        for (place, &byte) in self.header.iter_mut().skip(self.have).zip(bytes) {
            *place = byte;
            used += 1;
        }
        self.have += used;
        let [_, len @ ..] = self.header;
        (used, (self.have == HEADER).then(|| u32::from_be_bytes(len)))
    }

    /// Goes into a body, of which so many bytes are wanted.
    pub(super) fn enter(&mut self, len: u32, wanted: usize) {
        self.have = 0;
        self.wanted = wanted.min(MAX_HELD);
        self.cut = false;
        self.held.clear();
        self.at = At::Body(len);
    }

    /// Takes bytes of the body that are wanted.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        if !self.cut {
            let room = self.wanted.saturating_sub(self.held.len());
            self.held.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }

    /// Bytes of the body are missing.
    pub(super) fn miss(&mut self) {
        self.cut |= self.held.len() < self.wanted;
    }

    /// The body, as far as it was wanted and came.
    pub(super) fn take_body(&mut self) -> Vec<u8> {
        self.cut = false;
        std::mem::take(&mut self.held)
    }

    /// Gives the buffer back.
    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEEP_BUFFER {
            buffer.clear();
            self.held = buffer;
        }
    }

    /// How many bytes of the body are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Whether nothing of the body was taken or missed yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.held.is_empty() && !self.cut
    }

    /// Leaves whatever it is in.
    pub(super) fn rest(&mut self, at: At) {
        self.have = 0;
        self.cut = false;
        self.last = [0; 8];
        if self.held.capacity() > KEEP_BUFFER {
            self.held = Vec::new();
        } else {
            self.held.clear();
        }
        self.at = at;
    }

    /// Remembers the last bytes of what is passed over; gives them.
    pub(super) fn note_last(&mut self, bytes: &[u8]) -> &[u8; 8] {
        for &byte in bytes.iter().skip(bytes.len().saturating_sub(8)) {
            self.last.rotate_left(1);
            if let Some(last) = self.last.last_mut() {
                *last = byte;
            }
        }
        &self.last
    }

    /// Bytes of which only the last are known were passed over.
    pub(super) fn note_hole(&mut self, tail: &[u8]) -> &[u8; 8] {
        self.last = [0; 8];
        self.note_last(tail)
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.held.capacity()
    }
}
