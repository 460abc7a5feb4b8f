//! The interface of every parser: what goes in, what comes out, and what an answer means.

use crate::message::{Flow, Head, RpcPart};

/// What the first bytes of a burst look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detect {
    /// The beginning of a request.
    Request,
    /// The beginning of a response.
    Response,
    /// Not this protocol.
    No,
    /// The beginning of something possible, too short to tell.
    More,
}

/// What the capture saw next in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// Captured bytes.
    Bytes {
        /// The bytes.
        bytes: &'a [u8],
        /// They are of the first transfer after the direction changed.
        burst_start: bool,
    },
    /// Bytes that moved but were not captured.
    Hole {
        /// How many.
        len: u64,
        /// The last of them (0 to 8).
        tail: &'a [u8],
    },
    /// An unknown number of bytes was lost.
    Gap,
    /// This direction is closed.
    End,
}

/// Something that was found in the input.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// The how-manieth request on the connection, from 0; a response carries the number of its request. Where the protocol
    /// numbers its streams, the number of the stream.
    pub exchange: u32,
    /// Direction of the message that this item is about. It may be the other one than that of the input: a response
    /// can end a request whose own end could not be seen. `offset` is 0 then, and the message ended with the last
    /// byte seen of its direction.
    pub flow: Flow,
    /// Bytes of this input up to the event: the first byte of the message for [`What::Begin`], else just past the
    /// last byte that belongs to it.
    pub offset: usize,
    /// What was found.
    pub what: What,
}

/// What was found.
///
/// For each direction of an exchange: at most one `Begin`, then at most one `Head`, then at most one of `End`,
/// `Switched`, `Aborted`, `Lost`. An exchange is over with the one of the response, which may come without a `Begin`
/// (no answer was seen), or, if its request's head was never understood, with the one of the request.
///
/// Exchanges of a protocol with streams interleave in any order, and their numbers do not follow each other. A number
/// is used once.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// The first byte of the message (of a response: of its first interim response).
    Begin,
    /// The head is complete, or known to be longer than what was captured.
    Head(Head),
    /// What was seen of a remote procedure call in this direction: just before its end, at most once. Of a response it
    /// may come although the request's head did not tell that it is a call (its fields could not be decoded).
    Rpc(RpcPart),
    /// The stream was reset: about the response, just before its end, at most once.
    Reset {
        /// Error code of the protocol (HTTP/2: RFC 9113, section 7).
        code: u32,
        /// Who reset it: `Request` is the client.
        by: Flow,
    },
    /// The message is complete.
    End {
        /// Bytes of the body. The framing of chunks is not counted where it was seen.
        body: u64,
    },
    /// Both directions carry another protocol from here on; the exchange is over.
    Switched,
    /// The direction closed before the message was complete.
    Aborted {
        /// Bytes of the body that moved.
        body: u64,
    },
    /// The rest of the message cannot be followed.
    Lost(LostReason),
    /// Part of a message whose beginning, or whose request, was not seen. `exchange` means nothing.
    HalfSeen,
    /// Bytes between messages that begin no message; what follows is skipped up to a later burst. `exchange` means
    /// nothing.
    Garbage,
}

/// Why a message cannot be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LostReason {
    /// Bytes were lost.
    Gap,
    /// The bytes break the protocol's grammar.
    Malformed,
    /// The head was not captured, and what it would answer is not clear.
    CutHead,
    /// The head does not tell where the body ends, or contradicts itself.
    Framing,
    /// More requests without an answer than are remembered.
    Overflow,
    /// Another exchange switched the connection to another protocol.
    Switched,
    /// What came in the place of the first answer is of another protocol.
    Foreign,
}

impl LostReason {
    /// The reason as counters and attributes name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Malformed => "malformed",
            Self::CutHead => "cut_head",
            Self::Framing => "framing",
            Self::Overflow => "overflow",
            Self::Switched => "switched",
            Self::Foreign => "foreign",
        }
    }
}

/// A protocol: both directions of one connection.
pub trait Parser: Default {
    /// Name of the protocol.
    const NAME: &'static str;
    /// Bound of [`Parser::state_bytes`].
    const MAX_STATE: usize;
    /// What these first bytes of a burst look like.
    fn detect(bytes: &[u8]) -> Detect;
    /// Takes the next input of one direction; calls `sink` for each thing found, in order.
    fn feed(&mut self, flow: Flow, input: Input<'_>, sink: &mut dyn FnMut(Item));
    /// What the capture says of the bytes that come next: a frame begins `ahead` of them. What one `walk` says is right for as long as
    /// it goes on, or wrong: it is believed once it was right. For protocols of frames.
    fn boundary(&mut self, _flow: Flow, _ahead: u32, _walk: u32) {}
    /// Nothing moved for a while: messages whose end cannot be seen end with their last byte.
    fn idle(&mut self, sink: &mut dyn FnMut(Item));
    /// Exchanges that are not over.
    fn in_flight(&self) -> usize;
    /// The connection carries another protocol; input is ignored.
    fn is_switched(&self) -> bool;
    /// Memory held, in bytes.
    fn state_bytes(&self) -> usize;
}
