//! One direction of a connection: where it stands, and the head that is being put together.

use super::body::{Body, Progress, Until};
use super::call::Call;
use super::head::{find_end, start_line_is_good};

/// Longest head that is put together.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// A larger buffer is given back once its head is read.
const KEEP_BUFFER: usize = 1024;

/// Where a direction stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum State {
    /// Nothing was seen.
    #[default]
    Fresh,
    /// Skipping up to a burst that begins with a head.
    Lost,
    /// Between messages.
    Between,
    /// In a head.
    Head,
    /// In an interim response whose end cannot be seen.
    Interim,
    /// In a body.
    Body(Body),
    /// Closed.
    Closed,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) state: State,
    /// Bytes of the body so far.
    pub(super) body: u64,
    /// A head that came in pieces.
    head: Vec<u8>,
    /// Beginning of its last line.
    scanned: usize,
    /// The message is of a remote procedure call.
    pub(super) call: Option<Box<Call>>,
}

/// What came of adding to a head.
pub(super) enum Added {
    /// More is needed.
    Partial,
    /// The head is whole after so many bytes of the input.
    Whole(usize),
    /// It is as long as it may get, after so many bytes of the input.
    Full(usize),
    /// The start line, which ends after so many bytes of the input, is none.
    Malformed(usize),
}

impl Half {
    /// Whether a message is being read.
    pub(super) fn in_message(&self) -> bool {
        matches!(self.state, State::Head | State::Interim | State::Body(_))
    }

    /// Whether the end of the message cannot be computed.
    pub(super) fn is_unsure(&self) -> bool {
        matches!(self.state, State::Body(Body::Unsure(..)))
    }

    /// Whether silence may mean that the message is over.
    pub(super) fn may_be_over(&self) -> bool {
        matches!(&self.state, State::Body(body) if body.may_be_over())
    }

    /// Whether a body was announced, and nothing of it came.
    pub(super) fn awaits_body(&self) -> bool {
        self.body == 0 && matches!(self.state, State::Body(Body::Length(_) | Body::Chunked(_)))
    }

    /// Whether no part of a head is held.
    pub(super) fn head_is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// The head, as far as it came.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Adds to the head what may belong to it.
    pub(super) fn add(&mut self, bytes: &[u8], request: bool) -> Added {
        let before = self.head.len();
        let room = MAX_HEAD.saturating_sub(before);
        let new = bytes.get(..room).unwrap_or(bytes);
        self.head.extend_from_slice(new);
        let first_line_open = self.scanned == 0;
        let end = find_end(&self.head, self.scanned);
        let scanned = match end {
            Ok(end) | Err(end) => end,
        };
        if first_line_open && scanned > 0 {
            let line = memchr::memchr(b'\n', &self.head).unwrap_or_default();
            if !start_line_is_good(self.head.get(..line).unwrap_or_default(), request) {
                return Added::Malformed((line + 1).saturating_sub(before));
            }
        }
        self.scanned = scanned;
        match end {
            Ok(end) => {
                self.head.truncate(end);
                Added::Whole(end.saturating_sub(before))
            }
            Err(_) if self.head.len() >= MAX_HEAD => Added::Full(new.len()),
            Err(_) => Added::Partial,
        }
    }

    /// Forgets the head.
    pub(super) fn clear_head(&mut self) {
        self.scanned = 0;
        if self.head.capacity() > KEEP_BUFFER {
            self.head = Vec::new();
        } else {
            self.head.clear();
        }
    }

    /// Leaves the message for a state between messages.
    pub(super) fn rest(&mut self, state: State) {
        self.clear_head();
        self.body = 0;
        self.call = None;
        self.state = state;
    }

    /// Goes on with a body whose end cannot be computed.
    pub(super) fn begin_unsure(&mut self, until: Until) {
        self.clear_head();
        self.state = State::Body(Body::unsure(until));
    }

    /// Takes bytes of the body.
    pub(super) fn body_bytes(&mut self, bytes: &[u8]) -> Progress {
        match &mut self.state {
            State::Body(body) => body.bytes(bytes, &mut self.body, self.call.as_deref_mut()),
            _ => Progress::More,
        }
    }

    /// Takes a hole in the body.
    pub(super) fn body_hole(&mut self, len: u64, tail: &[u8]) -> Progress {
        match &mut self.state {
            State::Body(body) => body.hole(len, tail, &mut self.body, self.call.as_deref_mut()),
            _ => Progress::More,
        }
    }

    /// Memory held beside the struct itself.
    pub(super) fn state_bytes(&self) -> usize {
        self.head.capacity() + self.call.as_ref().map_or(0, |call| call.state_bytes())
    }
}
