//! One direction of a connection: where it stands between and within frames, and what is being put together.

use super::fields::{Fields, is_wanted};
use super::frame::{Frame, HEADER};
use super::hpack::Decoder;

/// Bytes of one frame, or of one field, that are put together.
pub(super) const MAX_HELD: usize = 16 * 1024 + 512;
/// A larger buffer is given back once its frame is read.
const KEEP_BUFFER: usize = 1024;

/// Padding of a DATA frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Padding {
    /// The length of it comes next.
    Awaited,
    /// So many bytes at the end of the frame.
    Bytes(u8),
    /// Its length was not captured.
    Unknown,
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum At {
    /// Nothing was seen.
    #[default]
    Fresh,
    /// So many bytes of the preface were seen.
    Preface(usize),
    /// In a frame header, or before one.
    Header,
    /// In a frame that is put together, so many bytes before its end.
    Frame { frame: Frame, left: u32 },
    /// In a DATA frame, so many bytes before its end.
    Data { stream: u32, left: u32, padding: Padding, end: bool },
    /// In a frame that tells nothing, or in the rest of one.
    Skip { left: u32 },
    /// The boundary between frames is not known.
    Lost,
    /// Closed.
    Closed,
}

/// A header block that is being read.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) end_stream: bool,
    /// It is the request that a server promises to answer.
    pub(super) promise: bool,
    pub(super) fields: Fields,
    /// The beginning of a field that goes on.
    pub(super) rest: Vec<u8>,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) at: At,
    pub(super) header: [u8; HEADER],
    /// Bytes of the header that were seen.
    pub(super) have: usize,
    /// A payload that came in pieces.
    pub(super) payload: Vec<u8>,
    pub(super) block: Option<Box<Block>>,
    pub(super) decoder: Decoder,
    /// Everything of this direction was seen.
    pub(super) exact: bool,
    /// The walk of the capture over frames that was right about this direction.
    pub(super) walk: Option<u32>,
    /// The frame that comes next is the first behind a loss: it may go on with a header block that is lost.
    pub(super) resumed: bool,
}

impl Default for Half {
    fn default() -> Self {
        Self {
            at: At::Fresh,
            header: [0; HEADER],
            have: 0,
            payload: Vec::new(),
            block: None,
            decoder: Decoder::unknown(is_wanted),
            exact: false,
            walk: None,
            resumed: false,
        }
    }
}

impl Half {
    /// This direction is seen from its start.
    pub(super) fn start(&mut self) {
        self.decoder = Decoder::fresh(is_wanted);
        self.exact = true;
        self.at = At::Header;
    }

    /// Takes bytes of a frame header, and gives how many, and the header once it is whole.
    pub(super) fn take_header(&mut self, bytes: &[u8]) -> (usize, Option<Frame>) {
        let mut used = 0;
        for (place, &byte) in self.header.iter_mut().skip(self.have).zip(bytes) {
            *place = byte;
            used += 1;
        }
        self.have += used;
        if self.have < HEADER {
            return (used, None);
        }
        self.have = 0;
        (used, Some(Frame::parse(self.header)))
    }

    /// Keeps bytes that are a frame header and nothing else, to be judged by what follows; whether they are.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> bool {
        let Ok(header) = <[u8; HEADER]>::try_from(bytes) else { return false };
        if !Frame::parse(header).is_usual() {
            return false;
        }
        self.header = header;
        self.have = HEADER;
        true
    }

    /// Forgets what is being put together. The boundary between frames is not known from here on.
    pub(super) fn lose(&mut self) {
        self.decoder.lose();
        self.exact = false;
        self.have = 0;
        self.block = None;
        self.clear_payload();
        self.at = At::Lost;
    }

    /// How many bytes the next frame header is ahead, where that is known.
    pub(super) fn ahead(&self) -> Option<u32> {
        match self.at {
            At::Header if self.have == 0 => Some(0),
            At::Frame { left, .. } | At::Data { left, .. } | At::Skip { left } => Some(left),
            _ => None,
        }
    }

    /// Forgets the payload.
    pub(super) fn clear_payload(&mut self) {
        if self.payload.capacity() > KEEP_BUFFER {
            self.payload = Vec::new();
        } else {
            self.payload.clear();
        }
    }

    /// Memory held beside the struct itself.
    pub(super) fn state_bytes(&self) -> usize {
        let block = self
            .block
            .as_ref()
            .map_or(0, |block| size_of::<Block>() + block.fields.state_bytes() + block.rest.capacity());
        self.payload.capacity() + block + self.decoder.state_bytes()
    }

    /// Bound of [`Half::state_bytes`].
    pub(super) const MAX_STATE: usize =
        2 * MAX_HELD + size_of::<Block>() + Fields::MAX_STATE + 4 * MAX_HELD + Decoder::MAX_STATE;
}
