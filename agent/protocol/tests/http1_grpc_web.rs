//! gRPC-Web and Connect over HTTP/1: calls are seen, counted, and have the status that the body or the head tells.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use common::{Driver, Q, R, Step, burst, hole, more, tell};
use proptest::collection::vec;
use proptest::prelude::*;
use spanwise_protocol::http1::Connection;
use spanwise_protocol::message::{Head, Rpc, RpcSystem};
use spanwise_protocol::{Flow, What};

fn frame(flags: u8, text: &[u8]) -> Vec<u8> {
    [&[flags][..], &(text.len() as u32).to_be_bytes(), text].concat()
}

fn trailers(status: u32) -> Vec<u8> {
    frame(0x80, format!("grpc-status: {status}\r\ngrpc-message: x\r\n").as_bytes())
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= three.len() { letter } else { b'=' });
        }
    }
    out
}

fn chunked(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        out.extend(format!("{:x}\r\n", part.len()).bytes());
        out.extend(part);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n\r\n");
    out
}

fn message(start: &str, kind: &str, parts: &[Vec<u8>], is_chunked: bool) -> Vec<u8> {
    let body = parts.concat();
    let framing = match is_chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", body.len()),
    };
    let mut out = format!("{start}\r\nContent-Type: application/{kind}\r\n{framing}\r\n\r\n").into_bytes();
    out.extend(if is_chunked { chunked(parts) } else { body });
    out
}

const POST: &str = "POST /shop.Orders/Place HTTP/1.1\r\nHost: h\r\ngrpc-timeout: 2S";

fn rpc_of(request: &str) -> Option<Rpc> {
    let mut driver = Driver::<Connection>::default();
    driver.step(&burst(Q, request));
    driver.items.iter().find_map(|(_, item)| match &item.what {
        What::Head(Head::Request(request)) => Some(request.rpc),
        _ => None,
    })?
}

#[test]
fn heads_tell_calls() {
    let of = |fields: &str| rpc_of(&format!("POST /a.B/C HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n"));
    let call = |system, timeout_ns| Some(Rpc { system, timeout_ns });
    assert_eq!(of("content-type: application/grpc-web\r\n"), call(RpcSystem::GrpcWeb, None));
    assert_eq!(
        of("Grpc-Timeout: 5m\r\nContent-Type: application/grpc-web-text+proto\r\n"),
        call(RpcSystem::GrpcWeb, Some(5_000_000))
    );
    assert_eq!(of("Content-Type: application/connect+proto\r\n"), call(RpcSystem::Connect, None));
    assert_eq!(
        of("Content-Type: application/proto\r\nConnect-Protocol-Version: 1\r\nConnect-Timeout-Ms: 20\r\n"),
        call(RpcSystem::Connect, Some(20_000_000))
    );
    for other in [
        "Content-Type: application/grpc\r\n",
        "Content-Type: application/json\r\n",
        "grpc-timeout: 1S\r\n",
        "",
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn the_status_of_a_head_that_is_trailers_too() {
    let script = [
        burst(Q, message(POST, "grpc-web+proto", &[frame(0, b"abc")], false)),
        burst(
            R,
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web+proto\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n",
        ),
    ];
    let told = tell::<Connection>(&script);
    assert!(told.iter().any(|line| line.starts_with("> 0 rpc 1x3 @")), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("< 0 rpc 0x0 status 5 @")), "{told:?}");
}

#[test]
fn what_was_not_captured_is_no_status() {
    let answer = message("HTTP/1.1 200 OK", "grpc-web", &[frame(0, &[7; 5000]), trailers(0)], false);
    let rest = answer.len() - 1000;
    let script = [
        burst(Q, message(POST, "grpc-web", &[frame(0, b"abc")], false)),
        burst(R, &answer[..1000]),
        hole(R, rest as u64, &answer[answer.len() - 8..]),
    ];
    let told = tell::<Connection>(&script);
    assert!(told.iter().any(|line| line.starts_with("< 0 rpc 1x5000 cut @")), "{told:?}");
    // The trailers are there again behind a hole in a message.
    let script = [
        burst(Q, message(POST, "grpc-web", &[frame(0, b"abc")], false)),
        burst(R, &answer[..1000]),
        hole(R, 4000, []),
        more(R, &answer[5000..]),
    ];
    let told = tell::<Connection>(&script);
    assert!(told.iter().any(|line| line.starts_with("< 0 rpc 1x5000 status 0 @")), "{told:?}");
}

#[test]
fn the_answer_to_what_is_no_call_has_no_status() {
    let script = [
        burst(Q, "GET /a.B/C HTTP/1.1\r\n\r\n"),
        burst(R, message("HTTP/1.1 200 OK", "grpc-web", &[trailers(3)], false)),
    ];
    assert!(tell::<Connection>(&script).iter().all(|line| !line.contains("rpc")));
}

/// Cuts bytes into transfers of these lengths.
fn cut(flow: Flow, mut bytes: &[u8], lengths: &[usize]) -> Vec<Step> {
    let mut steps = Vec::new();
    for length in lengths.iter().cycle() {
        let (part, rest) = bytes.split_at((*length).min(bytes.len()));
        steps.push(if steps.is_empty() { burst(flow, part) } else { more(flow, part) });
        bytes = rest;
        if bytes.is_empty() {
            return steps;
        }
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn calls_are_exact_however_they_are_sent(
        calls in vec((vec(vec(any::<u8>(), 0..40), 0..4), vec(vec(any::<u8>(), 0..40), 0..4), 0_u32..17), 1..4),
        text in any::<bool>(),
        chunks in any::<[bool; 2]>(),
        lengths in vec(1_usize..50, 1..6),
    ) {
        let kind = if text { "grpc-web-text+proto" } else { "grpc-web+proto" };
        let encode = |frames: Vec<Vec<u8>>| match text {
            true => frames.iter().map(|frame| base64(frame)).collect(),
            false => frames,
        };
        let mut script = Vec::new();
        let mut expected = Vec::new();
        for (number, (there, back, status)) in calls.iter().enumerate() {
            let frames = |messages: &[Vec<u8>]| messages.iter().map(|text| frame(0, text)).collect::<Vec<_>>();
            let answers = [frames(back), vec![trailers(*status)]].concat();
            script.extend(cut(Q, &message(POST, kind, &encode(frames(there)), chunks[0]), &lengths));
            script.extend(cut(R, &message("HTTP/1.1 200 OK", kind, &encode(answers), chunks[1]), &lengths));
            let bytes = |messages: &[Vec<u8>]| messages.iter().map(Vec::len).sum::<usize>();
            expected.push(format!("> {number} rpc {}x{}", there.len(), bytes(there)));
            expected.push(format!("< {number} rpc {}x{} status {status}", back.len(), bytes(back)));
        }
        let told = tell::<Connection>(&script);
        let calls: Vec<&str> =
            told.iter().filter(|line| line.contains(" rpc ")).filter_map(|line| line.split(" @").next()).collect();
        prop_assert_eq!(calls, expected);
    }
}
