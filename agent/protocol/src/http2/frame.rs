//! Frame headers (RFC 9113, sections 4.1 and 6): nine bytes in, what they announce out.

/// What a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame header.
pub(super) const HEADER: usize = 9;
/// Longest frame of a peer that was told of no other limit.
pub(super) const USUAL_MAX: u32 = 16 * 1024;

pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(super) mod flag {
    /// Of DATA and HEADERS.
    pub(crate) const END_STREAM: u8 = 0x01;
    /// Of SETTINGS and PING.
    pub(crate) const ACK: u8 = 0x01;
    pub(crate) const END_HEADERS: u8 = 0x04;
    pub(crate) const PADDED: u8 = 0x08;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// A frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Frame {
    /// Length of the payload.
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// The bit that is to be zero.
    reserved: bool,
}

impl Frame {
    pub(super) fn parse(bytes: [u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let stream = u32::from_be_bytes(stream);
        Self {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: stream & 0x7fff_ffff,
            reserved: stream >> 31 != 0,
        }
    }

    /// The header at the beginning of `bytes`.
    pub(super) fn first(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|bytes| Self::parse(*bytes))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it keeps the rules that hold for its kind. Unknown kinds have none.
    pub(super) fn is_valid(&self) -> bool {
        let padding = u32::from(self.has(flag::PADDED));
        match self.kind {
            kind::DATA => self.stream != 0 && self.len >= padding,
            kind::HEADERS => {
                let priority = if self.has(flag::PRIORITY) { 5 } else { 0 };
                self.stream != 0 && self.len >= padding + priority
            }
            kind::PRIORITY => self.stream != 0 && self.len == 5,
            kind::RST_STREAM => self.stream != 0 && self.len == 4,
            kind::SETTINGS => {
                self.stream == 0 && self.len.is_multiple_of(6) && (self.len == 0 || !self.has(flag::ACK))
            }
            kind::PUSH_PROMISE => self.stream != 0 && self.len >= padding + 4,
            kind::PING => self.stream == 0 && self.len == 8,
            kind::GOAWAY => self.stream == 0 && self.len >= 8,
            kind::WINDOW_UPDATE => self.len == 4,
            kind::CONTINUATION => self.stream != 0,
            _ => true,
        }
    }

    /// Whether it is what one would send: for telling frames from other bytes.
    pub(super) fn is_usual(&self) -> bool {
        let (flags, longest) = match self.kind {
            kind::DATA => (flag::END_STREAM | flag::PADDED, 1 << 24),
            kind::HEADERS => {
                (flag::END_STREAM | flag::END_HEADERS | flag::PADDED | flag::PRIORITY, USUAL_MAX)
            }
            kind::SETTINGS => (flag::ACK, 6 * 32),
            kind::PING => (flag::ACK, 8),
            kind::PUSH_PROMISE => (flag::END_HEADERS | flag::PADDED, USUAL_MAX),
            kind::CONTINUATION => (flag::END_HEADERS, USUAL_MAX),
            kind::GOAWAY => (0, 1024),
            kind::PRIORITY | kind::RST_STREAM | kind::WINDOW_UPDATE => (0, 5),
            _ => return false,
        };
        !self.reserved && self.flags & !flags == 0 && self.len <= longest && self.is_valid()
    }

    /// Where the fragment of a header block lies in the payload, for HEADERS and PUSH_PROMISE (its promised stream
    /// left out). None if padding is longer than the frame.
    pub(super) fn fragment(&self, payload: &[u8]) -> Option<(usize, usize)> {
        let padded = self.has(flag::PADDED) && self.kind != kind::CONTINUATION;
        let padding = if padded { usize::from(*payload.first()?) } else { 0 };
        let start = usize::from(padded)
            + match self.kind {
                kind::HEADERS if self.has(flag::PRIORITY) => 5,
                kind::PUSH_PROMISE => 4,
                _ => 0,
            };
        let end = (self.len as usize).checked_sub(padding)?;
        (start <= end).then_some((start, end))
    }
}
