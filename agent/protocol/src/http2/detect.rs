//! The first bytes of a burst in, what they look like out.

use super::chain;
use super::frame::{HEADER, PREFACE};
use crate::parser::Detect;

/// Bytes of the preface that no other protocol sends.
const ENOUGH: usize = 14;

/// What these first bytes look like.
///
/// A connection that is seen from its start begins with the preface. One that is joined late is recognised by frames
/// with the head of a message in them; other frames could be of either direction, and a later burst will tell.
pub(super) fn detect(bytes: &[u8]) -> Detect {
    if bytes.get(..ENOUGH).is_some_and(|start| PREFACE.starts_with(start)) {
        return if bytes.starts_with(PREFACE) || PREFACE.starts_with(bytes) {
            Detect::Request
        } else {
            Detect::No
        };
    }
    if PREFACE.starts_with(bytes) {
        return Detect::More;
    }
    if bytes.len() < HEADER {
        // Lengths beyond the usual begin no burst.
        return if bytes.first().is_none_or(|&b| b == 0) { Detect::More } else { Detect::No };
    }
    match chain::read(bytes, None, &|_| false) {
        Some(chain) if chain.request && !chain.response => Detect::Request,
        Some(chain) if chain.response && !chain.request => Detect::Response,
        Some(chain) if !chain.request => Detect::More,
        _ => Detect::No,
    }
}
