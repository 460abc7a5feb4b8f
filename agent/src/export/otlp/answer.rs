//! The body of a successful answer: was anything rejected?
//!
//! Comes in: an `ExportTraceServiceResponse`, protobuf or JSON, or whatever a lying endpoint sends. Goes out: a
//! [`Verdict`].

use serde::Deserialize;

use super::super::retry::Verdict;
use super::super::wire::{Field, Fields, Garbled};

/// What an endpoint says is cut to this many characters before it is shown.
const LONGEST_MESSAGE: usize = 300;

/// Text of an endpoint, made fit for a line of a log.
pub(super) fn clean(message: &str) -> String {
    message.chars().take(LONGEST_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn judge(rejected: i64, message: &str) -> Verdict {
    match u64::try_from(rejected) {
        Ok(0) if message.is_empty() => Verdict::Accepted,
        // Zero rejected and a message is a warning; it goes the same way and costs no span.
        Ok(rejected) => Verdict::Partial { rejected, message: clean(message) },
        Err(_) => Verdict::Unclear,
    }
}

/// Judges a protobuf body.
pub(super) fn protobuf(body: &[u8]) -> Verdict {
    match partial_success(body) {
        Ok((rejected, message)) => judge(rejected, &message),
        Err(Garbled) => Verdict::Unclear,
    }
}

fn partial_success(body: &[u8]) -> Result<(i64, String), Garbled> {
    let (mut rejected, mut message) = (0, String::new());
    let mut fields = Fields::of(body);
    while let Some((number, field)) = fields.next()? {
        let (1, Field::Bytes(partial)) = (number, field) else { continue };
        let mut parts = Fields::of(partial);
        while let Some((number, field)) = parts.next()? {
            match (number, field) {
                (1, Field::Uint(count)) => rejected = count as i64,
                (2, Field::Bytes(text)) => message = String::from_utf8_lossy(text).into_owned(),
                _ => {}
            }
        }
    }
    Ok((rejected, message))
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Response {
    partial_success: Option<PartialSuccess>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PartialSuccess {
    rejected_spans: Option<Count>,
    error_message: Option<String>,
}

/// A 64-bit integer is a string in OTLP/JSON; many send a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(i64),
    Text(String),
}

/// Judges a JSON body.
pub(super) fn json(body: &[u8]) -> Verdict {
    let Ok(response) = serde_json::from_slice::<Response>(body) else { return Verdict::Unclear };
    let partial = response.partial_success.unwrap_or_default();
    let rejected = match partial.rejected_spans {
        None => Some(0),
        Some(Count::Number(number)) => Some(number),
        Some(Count::Text(text)) => text.parse().ok(),
    };
    match rejected {
        Some(rejected) => judge(rejected, &partial.error_message.unwrap_or_default()),
        None => Verdict::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };
    use prost::Message;

    use super::*;

    fn partial(rejected: u64, message: &str) -> Verdict {
        Verdict::Partial { rejected, message: message.to_owned() }
    }

    #[test]
    fn protobuf_answers() {
        let encode = |rejected_spans, error_message: &str| {
            let error_message = error_message.to_owned();
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        };
        assert_eq!(protobuf(b""), Verdict::Accepted);
        assert_eq!(protobuf(&encode(0, "")), Verdict::Accepted);
        assert_eq!(protobuf(&encode(3, "too\nold")), partial(3, "too old"));
        assert_eq!(protobuf(&encode(0, "careful")), partial(0, "careful"));
        assert_eq!(protobuf(&encode(-1, "")), Verdict::Unclear);
        assert_eq!(protobuf(b"<html>hello</html>"), Verdict::Unclear);
    }

    #[test]
    fn json_answers() {
        assert_eq!(json(b"{}"), Verdict::Accepted);
        assert_eq!(json(br#"{"partialSuccess":{}}"#), Verdict::Accepted);
        assert_eq!(json(br#"{"partialSuccess":null}"#), Verdict::Accepted);
        let text = br#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"old"}}"#;
        assert_eq!(json(text), partial(2, "old"));
        assert_eq!(json(br#"{"partialSuccess":{"rejectedSpans":2}}"#), partial(2, ""));
        for garbage in [&b""[..], b"OK", b"[1]x", br#"{"partialSuccess":{"rejectedSpans":"many"}}"#] {
            assert_eq!(json(garbage), Verdict::Unclear, "{garbage:?}");
        }
    }
}
