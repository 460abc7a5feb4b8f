//! OTLP in JSON, written straight into a buffer.
//!
//! Comes in: a finished [`Span`], the [`Service`] it belongs to. Goes out: text of an
//! `ExportTraceServiceRequest` in parts. Ids are hex, enumerations numbers, 64-bit integers strings.

use super::encode::{flags, kind_number};
use super::{SCOPE_NAME, SCOPE_VERSION};
use crate::attribute::{Attribute, Value};
use crate::process::Service;
use crate::span::{Span, Status};

/// Before the first service of a request.
pub(super) const OPEN: &[u8] = b"{\"resourceSpans\":[";
/// After the last service of a request.
pub(super) const CLOSE: &[u8] = b"]}";
/// After the last span of a service.
pub(super) const CLOSE_SERVICE: &[u8] = b"]}]}";

/// What stands before the spans of one service.
pub(super) fn open_service(out: &mut Vec<u8>, service: &Service) {
    out.extend_from_slice(b"{\"resource\":{");
    attributes(out, &service.attributes);
    out.extend_from_slice(b"},\"scopeSpans\":[{\"scope\":{\"name\":");
    text(out, SCOPE_NAME);
    out.extend_from_slice(b",\"version\":");
    text(out, SCOPE_VERSION);
    out.extend_from_slice(b"},\"spans\":[");
}

/// One span; the comma between spans is the caller's.
///
/// Not inlined: the compiler would write all ids in hexadecimal before it looks whether JSON is wanted.
#[inline(never)]
pub(super) fn span(out: &mut Vec<u8>, span: &Span) {
    out.extend_from_slice(b"{\"traceId\":\"");
    hex(out, &span.trace_id);
    out.extend_from_slice(b"\",\"spanId\":\"");
    hex(out, &span.span_id);
    out.push(b'"');
    if let Some(state) = &span.trace_state {
        out.extend_from_slice(b",\"traceState\":");
        text(out, state);
    }
    if let Some(parent) = &span.parent_span_id {
        out.extend_from_slice(b",\"parentSpanId\":\"");
        hex(out, parent);
        out.push(b'"');
    }
    let flags = flags(span);
    if flags != 0 {
        out.extend_from_slice(b",\"flags\":");
        decimal(out, u64::from(flags));
    }
    out.extend_from_slice(b",\"name\":");
    text(out, &span.name);
    out.extend_from_slice(b",\"kind\":");
    decimal(out, kind_number(span.kind));
    out.extend_from_slice(b",\"startTimeUnixNano\":\"");
    decimal(out, span.start_unix_ns);
    out.extend_from_slice(b"\",\"endTimeUnixNano\":\"");
    decimal(out, span.end_unix_ns);
    out.push(b'"');
    if span.all_attributes().next().is_some() {
        out.push(b',');
        attributes(out, span.all_attributes());
    }
    if !span.links.is_empty() {
        out.extend_from_slice(b",\"links\":[");
        for (index, link) in span.links.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"traceId\":\"");
            hex(out, &link.trace_id);
            out.extend_from_slice(b"\",\"spanId\":\"");
            hex(out, &link.span_id);
            out.push(b'"');
            if !link.attributes.is_empty() {
                out.push(b',');
                attributes(out, &link.attributes);
            }
            out.push(b'}');
        }
        out.push(b']');
    }
    match span.status {
        Status::Unset => out.extend_from_slice(b",\"status\":{}}"),
        Status::Error => out.extend_from_slice(b",\"status\":{\"code\":2}}"),
    }
}

/// `"attributes":[...]`.
fn attributes<'a>(out: &mut Vec<u8>, attributes: impl IntoIterator<Item = &'a Attribute>) {
    out.extend_from_slice(b"\"attributes\":[");
    for (index, (key, value)) in attributes.into_iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"key\":" } else { b"{\"key\":" });
        text(out, key);
        out.extend_from_slice(b",\"value\":{");
        match value {
            Value::Str(value) => {
                out.extend_from_slice(b"\"stringValue\":");
                text(out, value);
            }
            Value::Int(number) => {
                out.extend_from_slice(b"\"intValue\":\"");
                if *number < 0 {
                    out.push(b'-');
                }
                decimal(out, number.unsigned_abs());
                out.push(b'"');
            }
            Value::Double(number) => {
                out.extend_from_slice(b"\"doubleValue\":");
                double(out, *number);
            }
            Value::Bool(true) => out.extend_from_slice(b"\"boolValue\":true"),
            Value::Bool(false) => out.extend_from_slice(b"\"boolValue\":false"),
            Value::StrList(texts) => {
                out.extend_from_slice(b"\"arrayValue\":{\"values\":[");
                for (index, value) in texts.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(b"{\"stringValue\":");
                    text(out, value);
                    out.push(b'}');
                }
                out.extend_from_slice(b"]}");
            }
        }
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
}

/// A JSON string. Most need no escape; those that do go through serde_json.
fn text(out: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    let mark = out.len();
    if !plain && serde_json::to_writer(&mut *out, text).is_ok() {
        return;
    }
    out.truncate(mark);
    out.push(b'"');
    if plain {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}

/// A number, or the text protobuf's JSON mapping has for what JSON cannot write.
fn double(out: &mut Vec<u8>, number: f64) {
    let special: &[u8] = if number.is_nan() {
        b"\"NaN\""
    } else if number == f64::INFINITY {
        b"\"Infinity\""
    } else if number == f64::NEG_INFINITY {
        b"\"-Infinity\""
    } else if serde_json::to_writer(&mut *out, &number).is_ok() {
        return;
    } else {
        b"0"
    };
    out.extend_from_slice(special);
}

/// Lower-case hex.
pub(super) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

/// A number in decimal, without the machinery of `fmt`.
fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut count = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    out.extend(digits.iter().skip(digits.len() - count));
}
