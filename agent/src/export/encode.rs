//! OTLP in protobuf, written straight into a buffer.
//!
//! Comes in: a finished [`Span`], the [`Service`] it belongs to. Goes out: bytes of an
//! `ExportTraceServiceRequest` in parts: what stands before the spans of a service, and each span.

use super::wire::{Room, SHORT_VARINT, bytes_len, head, message, short_varint, tag, varint_len, whole};
use super::{SCOPE_NAME, SCOPE_VERSION};
use crate::attribute::{Attribute, Value};
use crate::process::Service;
use crate::span::{Kind, Span, Status};

/// The bits above the trace flags: it is known whether the parent is remote; it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Field numbers of `opentelemetry.proto.trace.v1.Span`.
mod field {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const LINKS: u32 = 13;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
}

/// OTLP number of a span kind.
pub(super) const fn kind_number(kind: Kind) -> u64 {
    match kind {
        Kind::Server => 2,
        Kind::Client => 3,
    }
}

/// OTLP flags of a span: trace flags, and whether its parent is remote.
pub(super) fn flags(span: &Span) -> u32 {
    let remote = match (span.parent_span_id, span.parent_is_remote) {
        (None, _) => 0,
        (Some(_), false) => HAS_IS_REMOTE,
        (Some(_), true) => HAS_IS_REMOTE | IS_REMOTE,
    };
    u32::from(span.trace_flags) | remote
}

/// The `resource` of a service, the first field of its `ResourceSpans`.
pub(super) fn resource(out: &mut Vec<u8>, scratch: &mut Vec<u8>, service: &Service) {
    message(out, 1, scratch, |room| attributes(room, 1, &service.attributes));
}

/// The `scope`, the first field of `ScopeSpans`.
pub(super) fn scope(out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
    message(out, 1, scratch, |room| {
        room.bytes(1, SCOPE_NAME.as_bytes());
        room.bytes(2, SCOPE_VERSION.as_bytes());
    });
}

/// What stands before the spans of one service in the request, given their length.
pub(super) fn open_service(out: &mut Vec<u8>, resource: &[u8], scope: &[u8], spans: usize) {
    let scope_spans = scope.len() + spans;
    head(out, 1, resource.len() + bytes_len(scope_spans));
    out.extend_from_slice(resource);
    head(out, 2, scope_spans);
    out.extend_from_slice(scope);
}

/// One span, as a field of `ScopeSpans`.
pub(super) fn span(out: &mut Vec<u8>, scratch: &mut Vec<u8>, span: &Span) {
    message(out, 2, scratch, |room| fields(room, span));
}

fn fields(room: &mut Room<'_>, span: &Span) {
    room.known::<28>(|room| {
        room.bytes(field::TRACE_ID, &span.trace_id);
        room.bytes(field::SPAN_ID, &span.span_id);
    });
    if let Some(state) = &span.trace_state {
        room.bytes(field::TRACE_STATE, state.as_bytes());
    }
    if let Some(parent) = &span.parent_span_id {
        room.bytes(field::PARENT_SPAN_ID, parent);
    }
    room.bytes(field::NAME, span.name.as_bytes());
    room.known::<20>(|room| {
        room.uint(field::KIND, kind_number(span.kind));
        room.fixed64(field::START, span.start_unix_ns);
        room.fixed64(field::END, span.end_unix_ns);
    });
    if let Some(common) = &span.common {
        room.put(common.encoded(|list| whole(|room| attributes(room, field::ATTRIBUTES, list))));
    }
    attributes(room, field::ATTRIBUTES, &span.attributes);
    for link in &span.links {
        let ids = bytes_len(link.trace_id.len()) + bytes_len(link.span_id.len());
        let texts = link.attributes.iter().map(|(key, value)| bytes_len(pair_len(key, value_len(value))));
        room.head(field::LINKS, ids + texts.sum::<usize>());
        room.bytes(1, &link.trace_id);
        room.bytes(2, &link.span_id);
        attributes(room, 4, &link.attributes);
    }
    if span.status == Status::Error {
        // Message of one field: the code, which is 2.
        room.head(field::STATUS, 2);
        room.uint(3, 2);
    }
    let flags = flags(span);
    if flags != 0 {
        room.fixed32(field::FLAGS, flags);
    }
}

/// The key of `AnyValue.int_value`: a varint in field 3.
const INT: u8 = 3 << 3;

/// Bytes of a short `int_value`, less two that a text has too.
const MOST_OF_INT: usize = 6 - 2;

/// Key and text that are together no longer than this make a `KeyValue` of less than 128 bytes.
const SHORT: usize = 0x7f - 6;

/// A list of `KeyValue`s as repeated field `number`, which is below 16.
fn attributes(left: &mut Room<'_>, number: u32, attributes: &[Attribute]) {
    // What nothing else can see stays in registers.
    let mut room = left.take();
    for (key, value) in attributes {
        if let Value::Str(text) = value
            && key.len() + text.len() <= SHORT
        {
            // The usual one: every length takes one byte.
            let (key_len, text_len) = (key.len() as u8, text.len() as u8);
            room.put(&[tag(number), key_len + text_len + 6, tag(1), key_len]);
            room.put(key.as_bytes());
            room.put(&[tag(2), text_len + 2, tag(1), text_len]);
            room.put(text.as_bytes());
            continue;
        }
        if let Value::Int(int) = value
            && let Ok(int @ 0..=SHORT_VARINT) = u64::try_from(*int)
            && key.len() <= SHORT - MOST_OF_INT
        {
            // Ports, sizes and statuses: the whole value is one word.
            let (varint, len) = short_varint(int);
            let (key_len, value_len) = (key.len() as u8, len as u8 + 1);
            room.put(&[tag(number), key_len + value_len + 4, tag(1), key_len]);
            room.put(key.as_bytes());
            let [a, b, c, d, e, ..] = varint.to_le_bytes();
            room.put_part(&[tag(2), value_len, INT, a, b, c, d, e], 3 + len);
            continue;
        }
        let len = value_len(value);
        room.heads((number, pair_len(key, len)), (1, key.len()));
        room.put(key.as_bytes());
        match value {
            Value::Str(text) => {
                room.heads((2, len), (1, text.len()));
                room.put(text.as_bytes());
            }
            Value::Bool(truth) => room.known::<4>(|room| {
                room.head(2, 2);
                room.uint(2, u64::from(*truth));
            }),
            Value::Int(number) => {
                room.head(2, len);
                room.uint(3, *number as u64);
            }
            Value::Double(number) => room.known::<11>(|room| {
                room.head(2, 9);
                room.fixed64(4, number.to_bits());
            }),
            Value::StrList(texts) => {
                room.heads((2, len), (5, list_len(texts)));
                for text in texts {
                    room.heads((1, bytes_len(text.len())), (1, text.len()));
                    room.put(text.as_bytes());
                }
            }
        }
    }
    *left = room;
}

/// Length of a `KeyValue` whose value has this length.
fn pair_len(key: &str, value: usize) -> usize {
    bytes_len(key.len()) + bytes_len(value)
}

/// Length of an `AnyValue`.
fn value_len(value: &Value) -> usize {
    match value {
        Value::Str(text) => bytes_len(text.len()),
        // Two's complement, as protobuf's int64 wants it.
        Value::Int(number) => 1 + varint_len(*number as u64),
        Value::Double(_) => 9,
        Value::Bool(_) => 2,
        Value::StrList(texts) => bytes_len(list_len(texts)),
    }
}

fn list_len(texts: &[Box<str>]) -> usize {
    texts.iter().map(|text| bytes_len(bytes_len(text.len()))).sum()
}
