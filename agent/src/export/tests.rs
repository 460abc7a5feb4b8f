//! What is encoded by hand reads back, by the official types, as the spans that went in.

use std::sync::Arc;

use bytes::Buf;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProtoValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as proto;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::batch::{Batcher, Format};
use super::*;
use crate::attribute::{Attribute, Value};
use crate::process::Service;
use crate::span::{Common, Kind, Link, Status};

fn expected_attributes<'a>(attributes: impl IntoIterator<Item = &'a Attribute>) -> Vec<KeyValue> {
    let text = |text: &str| AnyValue { value: Some(ProtoValue::StringValue(text.to_owned())) };
    let one = |(key, value): &Attribute| {
        let value = match value {
            Value::Str(value) => text(value),
            Value::Int(number) => AnyValue { value: Some(ProtoValue::IntValue(*number)) },
            Value::Double(number) => AnyValue { value: Some(ProtoValue::DoubleValue(*number)) },
            Value::Bool(truth) => AnyValue { value: Some(ProtoValue::BoolValue(*truth)) },
            Value::StrList(texts) => {
                let values = texts.iter().map(|value| text(value)).collect();
                AnyValue { value: Some(ProtoValue::ArrayValue(ArrayValue { values })) }
            }
        };
        KeyValue { key: key.clone().into_owned(), value: Some(value), ..KeyValue::default() }
    };
    attributes.into_iter().map(one).collect()
}

fn expected_span(span: &Span) -> proto::Span {
    let remote = match (span.parent_span_id, span.parent_is_remote) {
        (None, _) => 0,
        (Some(_), false) => 0x100,
        (Some(_), true) => 0x300,
    };
    proto::Span {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        trace_state: span.trace_state.as_deref().unwrap_or_default().to_owned(),
        parent_span_id: span.parent_span_id.map(|id| id.to_vec()).unwrap_or_default(),
        flags: u32::from(span.trace_flags) | remote,
        name: span.name.clone().into_owned(),
        kind: match span.kind {
            Kind::Server => proto::span::SpanKind::Server.into(),
            Kind::Client => proto::span::SpanKind::Client.into(),
        },
        start_time_unix_nano: span.start_unix_ns,
        end_time_unix_nano: span.end_unix_ns,
        attributes: expected_attributes(span.all_attributes()),
        links: span
            .links
            .iter()
            .map(|link| proto::span::Link {
                trace_id: link.trace_id.to_vec(),
                span_id: link.span_id.to_vec(),
                attributes: expected_attributes(&link.attributes),
                ..proto::span::Link::default()
            })
            .collect(),
        status: None,
        ..proto::Span::default()
    }
}

/// The request as the official types have it: one resource for each service, in order of first sight.
fn expected(spans: &[Span]) -> ExportTraceServiceRequest {
    let mut services: Vec<Arc<Service>> = Vec::new();
    for span in spans {
        if services.iter().all(|service| service.id != span.service.id) {
            services.push(span.service.clone());
        }
    }
    let of = |service: &Arc<Service>| proto::ResourceSpans {
        resource: Some(Resource {
            attributes: expected_attributes(&service.attributes),
            ..Resource::default()
        }),
        scope_spans: vec![proto::ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "spanwise".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            spans: spans.iter().filter(|span| span.service.id == service.id).map(expected_span).collect(),
            ..proto::ScopeSpans::default()
        }],
        ..proto::ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: services.iter().map(of).collect() }
}

/// Compares statuses with the model and clears them, because "unset" may be written as absent or as empty.
fn settle_statuses(request: &mut ExportTraceServiceRequest, spans: &[Span]) {
    for resource in &mut request.resource_spans {
        for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            let model = spans.iter().find(|model| expected_span(model).span_id == span.span_id).unwrap();
            let status = span.status.take().unwrap_or_default();
            assert_eq!(status.code, if model.status == Status::Error { 2 } else { 0 });
            assert_eq!(status.message, "");
        }
    }
}

fn encode(format: Format, spans: &[Span]) -> Vec<u8> {
    let mut batcher = Batcher::new(format, Limits::default());
    for span in spans {
        batcher.add(span);
    }
    let mut batch = batcher.take().unwrap();
    assert_eq!(batch.spans, spans.len() as u64);
    assert_eq!((batcher.pending(), batcher.input()), (0, spans.len() as u64));
    let len = batch.body.len();
    let bytes = batch.body.copy_to_bytes(len).to_vec();
    assert_eq!(bytes.len(), len);
    bytes
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<String>().prop_map(|text| Value::Str(text.into())),
        any::<i64>().prop_map(Value::Int),
        // Short numbers: the reader of these tests is not exact in the last bit of long ones.
        any::<i32>().prop_map(|number| Value::Double(f64::from(number) / 8.0)),
        any::<bool>().prop_map(Value::Bool),
        vec(any::<String>(), 0..4)
            .prop_map(|texts| Value::StrList(texts.into_iter().map(String::into_boxed_str).collect())),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
    vec((any::<String>().prop_map(Into::into), value()), 0..12)
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    let services = vec(attributes(), 1..4);
    let link = (any::<[u8; 16]>(), any::<[u8; 8]>(), attributes())
        .prop_map(|(trace_id, span_id, attributes)| Link { trace_id, span_id, attributes });
    let ids = (any::<[u8; 16]>(), option::of(any::<[u8; 8]>()), any::<bool>(), any::<u8>(), any::<bool>());
    let rest = (option::of(".{1,300}"), ".{0,200}", any::<(u64, u64)>(), attributes(), any::<bool>());
    let span = (ids, rest, vec(link, 0..3), any::<prop::sample::Index>());
    (services, vec(span, 1..20)).prop_map(|(services, spans)| {
        let services: Vec<_> = services
            .into_iter()
            .enumerate()
            .map(|(id, attributes)| {
                Arc::new(Service { id: id as u32, name: format!("service {id}").into(), attributes })
            })
            .collect();
        let make = |(number, (ids, rest, links, service)): (usize, (_, _, _, prop::sample::Index))| {
            let (trace_id, parent_span_id, parent_is_remote, trace_flags, server) = ids;
            let (state, name, (start_unix_ns, end_unix_ns), mut attributes, failed): (
                Option<String>,
                String,
                _,
                Vec<Attribute>,
                _,
            ) = rest;
            // Some share a part, which may be all or nothing of it.
            let shared = usize::from(trace_flags) % (attributes.len() + 2);
            let common = (shared <= attributes.len()).then(|| {
                let own = attributes.split_off(shared);
                Arc::new(Common::new(std::mem::replace(&mut attributes, own)))
            });
            Span {
                trace_id,
                span_id: (number as u64 + 1).to_be_bytes(),
                parent_span_id,
                parent_is_remote,
                trace_flags,
                trace_state: state.map(String::into_boxed_str),
                name: name.into(),
                kind: if server { Kind::Server } else { Kind::Client },
                start_unix_ns,
                end_unix_ns,
                common,
                attributes,
                status: if failed { Status::Error } else { Status::Unset },
                links,
                service: services[service.index(services.len())].clone(),
            }
        };
        spans.into_iter().enumerate().map(make).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn protobuf_reads_back(spans in spans()) {
        let bytes = encode(Format::Protobuf, &spans);
        let mut read = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
        settle_statuses(&mut read, &spans);
        prop_assert_eq!(read, expected(&spans));
    }

    #[test]
    fn json_reads_back(spans in spans()) {
        let bytes = encode(Format::Json, &spans);
        prop_assert!(!bytes.contains(&b'\n'), "one line");
        let _: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let mut read: ExportTraceServiceRequest = serde_json::from_slice(&bytes).unwrap();
        settle_statuses(&mut read, &spans);
        prop_assert_eq!(read, expected(&spans));
    }
}

fn some_span(service: &Arc<Service>) -> Span {
    Span {
        trace_id: [0x5b; 16],
        span_id: [0xc0; 8],
        parent_span_id: Some([0x0e; 8]),
        parent_is_remote: true,
        trace_flags: 3,
        trace_state: Some("ot=th:8".into()),
        name: "GET /items/{id}".into(),
        kind: Kind::Client,
        start_unix_ns: 1_700_000_000_000_000_001,
        end_unix_ns: 1_700_000_000_000_000_002,
        common: None,
        attributes: vec![
            ("big".into(), Value::Int(i64::MIN)),
            ("not a number".into(), Value::Double(f64::NAN)),
            ("endless".into(), Value::Double(f64::NEG_INFINITY)),
            ("quote".into(), Value::Str("\"\\\n".into())),
        ],
        status: Status::Error,
        links: Vec::new(),
        service: service.clone(),
    }
}

fn some_service(id: u32) -> Arc<Service> {
    let attributes = vec![("service.name".into(), Value::Str(format!("s{id}").into()))];
    Arc::new(Service { id, name: format!("s{id}").into(), attributes })
}

#[test]
fn what_spans_share_is_in_each() {
    let service = some_service(1);
    let list = vec![("host".into(), Value::Str("h".repeat(2000).into())), ("port".into(), Value::Int(80))];
    let common = Some(Arc::new(Common::new(list)));
    let attributes = vec![("path".into(), Value::Str("/".into()))];
    let span = Span { common, attributes, ..some_span(&service) };
    let spans =
        [span.clone(), Span { attributes: Vec::new(), ..span.clone() }, Span { span_id: [1; 8], ..span }];
    for format in [Format::Protobuf, Format::Json] {
        let bytes = encode(format, &spans);
        let mut read = match format {
            Format::Protobuf => ExportTraceServiceRequest::decode(&bytes[..]).unwrap(),
            Format::Json => serde_json::from_slice(&bytes).unwrap(),
        };
        settle_statuses(&mut read, &spans);
        assert_eq!(read, expected(&spans));
        let found = &read.resource_spans[0].scope_spans[0].spans;
        assert_eq!(found.iter().map(|span| span.attributes.len()).collect::<Vec<_>>(), [3, 2, 3]);
    }
}

#[test]
fn texts_of_every_length_around_one_byte_and_two() {
    let service = some_service(1);
    let long = |len: usize| ("key".into(), Value::Str("x".repeat(len).into()));
    let spans = [Span { attributes: (100..140).map(long).collect(), ..some_span(&service) }];
    let mut read = ExportTraceServiceRequest::decode(&encode(Format::Protobuf, &spans)[..]).unwrap();
    settle_statuses(&mut read, &spans);
    assert_eq!(read, expected(&spans));
}

#[test]
fn ints_of_every_length_under_keys_of_every_length() {
    let service = some_service(1);
    let keys = (0..3).chain(100..140).map(|len| "k".repeat(len));
    let ints = [0, 1, 127, 128, 65_535, (1 << 35) - 1, 1 << 35, i64::MAX, -1];
    let pairs = keys.flat_map(|key| ints.map(|int| (key.clone().into(), Value::Int(int))));
    let spans = [Span { attributes: pairs.collect(), ..some_span(&service) }];
    let mut read = ExportTraceServiceRequest::decode(&encode(Format::Protobuf, &spans)[..]).unwrap();
    settle_statuses(&mut read, &spans);
    assert_eq!(read, expected(&spans));
}

#[test]
fn the_json_is_exactly_this() {
    let line = String::from_utf8(encode(Format::Json, &[some_span(&some_service(1))])).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "{}{version}{}",
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s1"}}]},"scopeSpans":[{"scope":{"name":"spanwise","version":""#,
        concat!(
            r#""},"spans":[{"traceId":"5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b","spanId":"c0c0c0c0c0c0c0c0","#,
            r#""traceState":"ot=th:8","parentSpanId":"0e0e0e0e0e0e0e0e","flags":771,"name":"GET /items/{id}","kind":3,"#,
            r#""startTimeUnixNano":"1700000000000000001","endTimeUnixNano":"1700000000000000002","attributes":["#,
            r#"{"key":"big","value":{"intValue":"-9223372036854775808"}},"#,
            r#"{"key":"not a number","value":{"doubleValue":"NaN"}},"#,
            r#"{"key":"endless","value":{"doubleValue":"-Infinity"}},"#,
            r#"{"key":"quote","value":{"stringValue":"\"\\\n"}}],"status":{"code":2}}]}]}]}"#
        )
    );
    assert_eq!(line, expected);
}

#[test]
fn a_batch_is_due_by_spans_by_bytes_and_by_age() {
    let span = some_span(&some_service(1));
    let limits = Limits { batch_spans: 3, ..Limits::default() };
    let mut batcher = Batcher::new(Format::Protobuf, limits);
    assert_eq!([batcher.add(&span), batcher.add(&span), batcher.add(&span)], [false, false, true]);
    let mut batcher = Batcher::new(Format::Protobuf, Limits { batch_bytes: 300, ..limits });
    assert_eq!([batcher.add(&span), batcher.add(&span)], [false, true]);
    let delay = Duration::from_secs(1);
    assert!(batcher.is_old(Instant::now() + delay, delay));
    assert!(!batcher.is_old(Instant::now(), delay));
    assert!(batcher.take().is_some() && batcher.take().is_none());
    assert!(!batcher.is_old(Instant::now() + delay, delay));
}

#[test]
fn services_that_come_and_go_leave_nothing_behind_and_spans_stay_with_their_own() {
    let mut batcher = Batcher::new(Format::Protobuf, Limits::default());
    for round in 0..200u32 {
        // One service stays, others live for one batch.
        let spans =
            [some_span(&some_service(0)), some_span(&some_service(round + 1)), some_span(&some_service(0))];
        for span in &spans {
            batcher.add(span);
        }
        let mut batch = batcher.take().unwrap();
        let mut read = ExportTraceServiceRequest::decode(batch.body.copy_to_bytes(batch.body.len())).unwrap();
        read.resource_spans.sort_by_key(|resource| std::cmp::Reverse(resource.scope_spans[0].spans.len()));
        let counts: Vec<_> = read.resource_spans.iter().map(|one| one.scope_spans[0].spans.len()).collect();
        assert_eq!(counts, [2, 1]);
        let name = |index: usize| read.resource_spans[index].resource.clone().unwrap().attributes;
        assert_eq!(name(0), expected_attributes(&some_service(0).attributes));
        assert_eq!(name(1), expected_attributes(&some_service(round + 1).attributes));
        assert!(batcher.services() <= 20);
    }
}

#[test]
fn a_small_batch_holds_little_even_after_a_large_one() {
    let span = some_span(&some_service(1));
    let mut batcher = Batcher::new(Format::Protobuf, Limits::default());
    while !batcher.add(&span) {}
    assert!(batcher.take().unwrap().held_bytes > 100_000);
    batcher.add(&span);
    assert!(batcher.take().unwrap().held_bytes < 2_000);
}
