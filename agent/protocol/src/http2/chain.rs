//! Bytes of unknown beginning in, how well they read as a run of frames out: for connections that are joined late, and
//! for finding the boundary between frames again after a loss.

use super::fields::{Fields, is_wanted};
use super::frame::{Frame, HEADER, flag, kind};
use super::hpack::{Decoder, Text};
use crate::message::Flow;

/// What a run of frames is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Chain {
    /// How sure it is that these are frames.
    pub(super) score: u32,
    /// A head of a request is in it.
    pub(super) request: bool,
    /// A head of a response is in it, or the promise of one.
    pub(super) response: bool,
    /// All bytes belong to it, and the last frame may go on behind them.
    pub(super) open: bool,
}

/// Frames that are read before a run is judged.
const MAX_FRAMES: usize = 64;
/// Places within a transfer that are tried.
const MAX_PLACES: usize = 64;
/// Score from which a run that begins where a transfer does is taken for frames.
const AT_START: u32 = 2;
/// The same within a transfer.
const WITHIN: u32 = 3;

/// Reads frames from the beginning of `bytes`. None if they cannot be frames. `flow`: the direction, if it is known;
/// `known`: whether a stream is open.
pub(super) fn read(mut bytes: &[u8], flow: Option<Flow>, known: &dyn Fn(u32) -> bool) -> Option<Chain> {
    let mut chain = Chain::default();
    let mut before: Option<Frame> = None;
    for _ in 0..MAX_FRAMES {
        let Some(frame) = Frame::first(bytes) else { break };
        let continues = before.filter(|f| {
            matches!(f.kind, kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION)
                && !f.has(flag::END_HEADERS)
        });
        let in_order = match continues {
            Some(before) => frame.kind == kind::CONTINUATION && frame.stream == before.stream,
            None => frame.kind != kind::CONTINUATION,
        };
        if !frame.is_usual() || !in_order || !may_send(flow, &frame) {
            return None;
        }
        let (_, rest) = bytes.split_at_checked(HEADER)?;
        let Some((payload, rest)) = rest.split_at_checked(frame.len as usize) else {
            chain.open = true;
            // A stream that is open is not met by chance.
            chain.score += if frame.kind == kind::DATA && known(frame.stream) { 2 } else { 0 };
            return Some(chain);
        };
        chain.score += match frame.kind {
            kind::DATA => 1 + u32::from(known(frame.stream)),
            kind::HEADERS | kind::PUSH_PROMISE => block(&frame, payload, flow, &mut chain)?,
            kind::CONTINUATION => 0,
            _ => 2,
        };
        before = Some(frame);
        bytes = rest;
    }
    chain.open = !bytes.is_empty();
    // It ends where the bytes end: another sign.
    chain.score += u32::from(bytes.is_empty() && before.is_some());
    Some(chain)
}

/// Whether this direction may carry the frame.
fn may_send(flow: Option<Flow>, frame: &Frame) -> bool {
    match flow {
        Some(Flow::Request) => {
            let own = matches!(frame.kind, kind::DATA | kind::HEADERS | kind::CONTINUATION);
            frame.kind != kind::PUSH_PROMISE && (!own || frame.stream % 2 == 1)
        }
        _ => true,
    }
}

/// Reads a header block by itself: fields of the table are unknown, but it must be one.
fn block(frame: &Frame, payload: &[u8], flow: Option<Flow>, chain: &mut Chain) -> Option<u32> {
    let (start, end) = frame.fragment(payload)?;
    let fragment = payload.get(start..end)?;
    let mut fields = Fields::default();
    let mut regular = false;
    let mut good = true;
    let mut names = 0u32;
    Decoder::unknown(|_| true)
        .decode(fragment, true, frame.has(flag::END_HEADERS), &mut |field| {
            if let Text::Known(name) = field.name {
                let pseudo = name.first() == Some(&b':');
                good &= is_name(name) && !(pseudo && regular);
                regular |= !pseudo;
                names += 1;
                if is_wanted(name) {
                    fields.add(field);
                }
            }
            if let Text::Known(value) = field.value {
                good &= !value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'));
            }
        })
        .ok()?;
    let request = fields.has_request() || frame.kind == kind::PUSH_PROMISE;
    let response = fields.status.is_some();
    let wrong_way = match flow {
        Some(Flow::Request) => response,
        Some(Flow::Response) => request && frame.kind != kind::PUSH_PROMISE,
        None => false,
    };
    if !good || wrong_way || request && response {
        return None;
    }
    let pushed = frame.kind == kind::PUSH_PROMISE || frame.stream.is_multiple_of(2);
    if pushed && request && frame.kind == kind::HEADERS {
        return None;
    }
    chain.request |= request && !pushed;
    chain.response |= response || pushed;
    Some(if request || response { 3 } else { u32::from(names > 0) })
}

/// A name as it is sent: lower case.
fn is_name(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b":").unwrap_or(name);
    !rest.is_empty()
        && rest.iter().all(|&b| {
            matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
                | b'^' | b'_' | b'`' | b'|' | b'~')
        })
}

/// Whether bytes of a known direction begin with frames.
pub(super) fn begins(bytes: &[u8], flow: Flow, known: &dyn Fn(u32) -> bool) -> bool {
    read(bytes, Some(flow), known).is_some_and(|chain| chain.score >= AT_START)
}

/// Where frames begin in bytes of a known direction.
pub(super) fn find(bytes: &[u8], flow: Flow, known: &dyn Fn(u32) -> bool) -> Option<usize> {
    let mut places = 0;
    for (at, _) in bytes.windows(HEADER).enumerate() {
        let rest = bytes.get(at..)?;
        let wanted = if at == 0 { AT_START } else { WITHIN };
        // Nearly all positions are ruled out by their first bytes.
        if !Frame::first(rest).is_some_and(|frame| frame.is_usual()) {
            continue;
        }
        if read(rest, Some(flow), known).is_some_and(|chain| chain.score >= wanted) {
            return Some(at);
        }
        places += 1;
        if places == MAX_PLACES {
            break;
        }
    }
    None
}
