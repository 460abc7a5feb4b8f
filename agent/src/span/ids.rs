//! Ids that both ends of a message compute alike, without telling each other.
//!
//! Comes in: the name of a message. Goes out: span and trace ids. A client's span id, computed by the server's
//! agent from the same name, is the server span's parent; a retry or a second look gives the same ids again.
//! The functions are part of the wire format between agents: a change breaks joins between versions.

use super::model::{SpanId, TraceId};
use crate::conn::MessageName;
use crate::session::Side;

const CLIENT_SPAN: u64 = 0x636c_6965_6e74_0001;
const SERVER_SPAN: u64 = 0x7365_7276_6572_0001;
const TRACE_HIGH: u64 = 0x7472_6163_655f_6869;
const TRACE_LOW: u64 = 0x7472_6163_655f_6c6f;

/// Names a request on a connection whose two ends share no numbers (unix sockets). Known at one end only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Unnamed {
    /// Tells boots (or runs) of hosts apart.
    pub boot: u64,
    /// Socket cookie of this end: unique since boot.
    pub cookie: u64,
    /// First byte of the request: keeps two runs of the agent in one boot apart.
    pub began_ns: u64,
    /// Keeps requests of one transfer apart.
    pub counter: u64,
}

/// Span id of the client's end of a message.
pub fn client_span_id(name: &MessageName) -> SpanId {
    span_id(mix(CLIENT_SPAN, words(name)))
}

/// Span id of the server's end of a message.
pub fn server_span_id(name: &MessageName) -> SpanId {
    span_id(mix(SERVER_SPAN, words(name)))
}

/// Trace id of a trace that begins with this message, at this end of it.
pub fn root_trace_id(name: &MessageName, side: Side) -> TraceId {
    trace_id(side, words(name))
}

/// Span id where the message has no name.
pub fn unnamed_span_id(name: &Unnamed, side: Side) -> SpanId {
    span_id(mix(span_domain(side), unnamed_words(name)))
}

/// Trace id of a trace that begins with a message that has no name.
pub fn unnamed_trace_id(name: &Unnamed, side: Side) -> TraceId {
    trace_id(side, unnamed_words(name))
}

fn span_domain(side: Side) -> u64 {
    match side {
        Side::Client => CLIENT_SPAN,
        Side::Server => SERVER_SPAN,
    }
}

#[inline]
fn words(name: &MessageName) -> [u64; 4] {
    [(u64::from(name.request_base) << 32) | u64::from(name.response_base), u64::from(name.position), 0, 0]
}

fn unnamed_words(name: &Unnamed) -> [u64; 4] {
    [name.boot, name.cookie, name.began_ns, name.counter ^ (1 << 63)]
}

fn span_id(value: u64) -> SpanId {
    // All zero means "no span" on the wire.
    value.max(1).to_be_bytes()
}

#[inline]
fn trace_id(side: Side, words: [u64; 4]) -> TraceId {
    let domain = span_domain(side);
    let words = words.map(spread);
    let high = u128::from(absorb(domain ^ TRACE_HIGH, words));
    let low = u128::from(absorb(domain ^ TRACE_LOW, words));
    ((high << 64) | low).max(1).to_be_bytes()
}

/// Sponge over the words with a bijective 64-bit finalizer (constants of Stafford's variant 13).
#[inline]
fn mix(domain: u64, words: [u64; 4]) -> u64 {
    absorb(domain, words.map(spread))
}

/// Inlined as the rest of this: half of what names and domains give is then known when it is compiled.
#[inline]
fn absorb(domain: u64, spread: [u64; 4]) -> u64 {
    spread.into_iter().fold(scramble(domain), |state, word| scramble(state.rotate_left(23) ^ word))
}

#[inline]
const fn spread(word: u64) -> u64 {
    scramble(word.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

#[inline]
const fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NAME: MessageName =
        MessageName { request_base: 0x0102_0304, response_base: 0xa0b0_c0d0, position: 517 };

    /// Computed from the description of the function by another program.
    #[test]
    fn golden() {
        assert_eq!(u64::from_be_bytes(client_span_id(&NAME)), GOLDEN_CLIENT);
        assert_eq!(u64::from_be_bytes(server_span_id(&NAME)), GOLDEN_SERVER);
        assert_eq!(u128::from_be_bytes(root_trace_id(&NAME, Side::Client)), GOLDEN_TRACE_CLIENT);
        assert_eq!(u128::from_be_bytes(root_trace_id(&NAME, Side::Server)), GOLDEN_TRACE_SERVER);
    }

    #[test]
    fn never_zero() {
        assert_ne!(span_id(0), [0; 8]);
        assert_ne!(client_span_id(&MessageName { request_base: 0, response_base: 0, position: 0 }), [0; 8]);
    }

    #[test]
    fn distinct() {
        let mut seen = HashSet::new();
        for base in 0..40_u32 {
            for position in 0..250_u32 {
                let name = MessageName { request_base: base, response_base: base ^ 1, position };
                assert!(seen.insert(client_span_id(&name)));
                assert!(seen.insert(server_span_id(&name)));
                let name = Unnamed { boot: 1, cookie: base.into(), began_ns: 5, counter: position.into() };
                assert!(seen.insert(unnamed_span_id(&name, Side::Client)));
                assert!(seen.insert(unnamed_span_id(&name, Side::Server)));
            }
        }
        let name = Unnamed { boot: 1, cookie: 2, began_ns: 3, counter: 4 };
        assert_ne!(unnamed_trace_id(&name, Side::Client), unnamed_trace_id(&name, Side::Server));
    }

    const GOLDEN_CLIENT: u64 = 0xd2d1_960b_eed8_7666;
    const GOLDEN_SERVER: u64 = 0xd240_3295_461a_4241;
    const GOLDEN_TRACE_CLIENT: u128 = 0x5794_29ee_efbd_6a51_3ca6_d376_e4e7_ea58;
    const GOLDEN_TRACE_SERVER: u128 = 0x2b54_cb25_78e2_a525_2c41_ef76_7049_a287;
}
