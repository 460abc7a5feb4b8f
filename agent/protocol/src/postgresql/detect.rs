//! The first bytes of a burst in, what they look like out.
//!
//! A connection that is seen from its start begins with a packet that no other protocol sends. One that is joined late is
//! recognised by whole messages from the first byte to the last, each exactly what its type says, with a statement or a bound
//! portal among them, and a Sync or a query at the end; of a server's answer, by the end that every answer has.

use super::wire::{Messages, Opening, are_parameters, is_exact, is_response, opening, ready};
use crate::parser::Detect;

pub(super) fn detect(bytes: &[u8]) -> Detect {
    match bytes {
        [0, 0, ..] => beginning(bytes),
        [0] => Detect::More,
        [b'Q' | b'P' | b'B' | b'E' | b'D' | b'C', ..] if are_requests(bytes) => Detect::Request,
        [_, ..] if is_answer(bytes) => Detect::Response,
        _ => Detect::No,
    }
}

fn beginning(bytes: &[u8]) -> Detect {
    let Some((len, body)) = bytes.split_first_chunk::<4>() else { return Detect::More };
    let len = u32::from_be_bytes(*len) as usize;
    let told = body.get(..4).and_then(opening);
    match opening(body) {
        _ if len > bytes.len() => {
            let version = body.first_chunk().is_none_or(|code| u32::from_be_bytes(*code) >> 16 == 3);
            let known = body.len() < 4 || version || told.is_some();
            if known && len < 4096 { Detect::More } else { Detect::No }
        }
        Some(Opening::Startup(rest)) if len == bytes.len() && are_parameters(rest) => Detect::Request,
        Some(Opening::Encryption | Opening::Cancel) if len == bytes.len() => Detect::Request,
        _ => Detect::No,
    }
}

fn are_requests(bytes: &[u8]) -> bool {
    let mut messages = Messages::of(bytes);
    let mut last = 0;
    for (kind, body) in messages.by_ref() {
        // Nothing follows a query.
        if last == b'Q' || !is_exact(kind, body) {
            return false;
        }
        last = kind;
    }
    messages.rest().is_empty() && matches!(last, b'Q' | b'S')
}

fn is_answer(bytes: &[u8]) -> bool {
    let mut messages = Messages::of(bytes);
    // The end alone could be anything's.
    let mut before = 0;
    let mut known = true;
    for (kind, body) in messages.by_ref() {
        known = known && is_response(kind, body.len() as u32 + 4);
        before += usize::from(kind != b'Z');
    }
    known && before > 0 && messages.rest().is_empty() && ready(bytes).is_some()
}
