//! OTLP in protobuf, written straight into a buffer.
//!
//! Comes in: a finished [`Span`], the [`Service`] it belongs to. Goes out: bytes of an
//! `ExportTraceServiceRequest` in parts: what stands before the spans of a service, and each span.

use super::wire::{bytes, bytes_len, fixed32, fixed64, head, nested, uint, varint_len};
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
pub(super) fn resource(out: &mut Vec<u8>, service: &Service) {
    nested(out, 1, |out| attributes(out, 1, &service.attributes));
}

/// The `scope`, the first field of `ScopeSpans`.
pub(super) fn scope(out: &mut Vec<u8>) {
    nested(out, 1, |out| {
        bytes(out, 1, SCOPE_NAME.as_bytes());
        bytes(out, 2, SCOPE_VERSION.as_bytes());
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
pub(super) fn span(out: &mut Vec<u8>, span: &Span) {
    nested(out, 2, |out| {
        bytes(out, field::TRACE_ID, &span.trace_id);
        bytes(out, field::SPAN_ID, &span.span_id);
        if let Some(state) = &span.trace_state {
            bytes(out, field::TRACE_STATE, state.as_bytes());
        }
        if let Some(parent) = &span.parent_span_id {
            bytes(out, field::PARENT_SPAN_ID, parent);
        }
        bytes(out, field::NAME, span.name.as_bytes());
        uint(out, field::KIND, kind_number(span.kind));
        fixed64(out, field::START, span.start_unix_ns);
        fixed64(out, field::END, span.end_unix_ns);
        attributes(out, field::ATTRIBUTES, &span.attributes);
        for link in &span.links {
            nested(out, field::LINKS, |out| {
                bytes(out, 1, &link.trace_id);
                bytes(out, 2, &link.span_id);
                attributes(out, 4, &link.attributes);
            });
        }
        if span.status == Status::Error {
            nested(out, field::STATUS, |out| uint(out, 3, 2));
        }
        let flags = flags(span);
        if flags != 0 {
            fixed32(out, field::FLAGS, flags);
        }
    });
}

/// A list of `KeyValue`s as repeated field `number`.
fn attributes(out: &mut Vec<u8>, number: u32, attributes: &[Attribute]) {
    for (key, value) in attributes {
        // Every kind but the list has a length known at once, so nothing has to move.
        let len = match value {
            Value::Str(text) => bytes_len(text.len()),
            // Two's complement, as protobuf's int64 wants it.
            Value::Int(number) => 1 + varint_len(*number as u64),
            Value::Double(_) => 9,
            Value::Bool(_) => 2,
            Value::StrList(texts) => bytes_len(list_len(texts)),
        };
        head(out, number, bytes_len(key.len()) + bytes_len(len));
        bytes(out, 1, key.as_bytes());
        head(out, 2, len);
        match value {
            Value::Str(text) => bytes(out, 1, text.as_bytes()),
            Value::Bool(truth) => uint(out, 2, u64::from(*truth)),
            Value::Int(number) => uint(out, 3, *number as u64),
            Value::Double(number) => fixed64(out, 4, number.to_bits()),
            Value::StrList(texts) => {
                head(out, 5, list_len(texts));
                for text in texts {
                    head(out, 1, bytes_len(text.len()));
                    bytes(out, 1, text.as_bytes());
                }
            }
        }
    }
}

fn list_len(texts: &[Box<str>]) -> usize {
    texts.iter().map(|text| bytes_len(bytes_len(text.len()))).sum()
}
