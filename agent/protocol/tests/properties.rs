//! What holds for every protocol, whatever comes in.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use std::collections::HashMap;

use common::{Driver, Step, side};
use proptest::collection::vec;
use proptest::prelude::*;
use spanwise_protocol::{Detect, Flow, Item, Parser, What, protocols};

/// Bytes that lead deeper into a parser than random ones.
const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "HEAD / HTTP/1.0\n",
    "CONNECT a:1 HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 C\r\n",
    "HTTP/1.1 101 S\r\n",
    "HTTP/1.0 304 N\r\n",
    "HTTP/1.1 500 \r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 70000\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: x\r\n",
    "Content-Type: application/grpc-web+proto\r\n",
    "Content-Type: application/grpc-web-text\r\n",
    "grpc-status: 3\r\n",
    "connect-protocol-version: 1\r\n",
    "\u{0}\0\0\0\x02ab",
    "1a\r\n",
    "AAAAAAJhYg==gAAAABBncnBjLXN0YXR1czogNQ0K",
    "Host: h\r\n",
    " folded\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "ffff\r\n",
    "hello",
    ": ",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    "tracestate: a=1\r\n",
];

/// The same for frames.
const FRAMES: &[&[u8]] = &[
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\0\x04\x01\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0d",
    // GET http / with END_STREAM, on streams 1, 3 and 5.
    b"\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84",
    b"\0\0\x03\x01\x05\0\0\0\x03\x82\x86\x84",
    b"\0\0\x03\x01\x05\0\0\0\x05\x82\x86\x84",
    // POST, the body follows; :authority a is inserted.
    b"\0\0\x06\x01\x04\0\0\0\x07\x83\x86\x84\x41\x01a",
    // A part of a block, padded, with priority; and the rest.
    b"\0\0\x0a\x01\x29\0\0\0\x09\x02\0\0\0\0\x10\x82\x86\0\0",
    b"\0\0\x01\x09\x04\0\0\0\x09\xbe",
    // 200, 100, and trailers.
    b"\0\0\x01\x01\x04\0\0\0\x01\x88",
    b"\0\0\x01\x01\x05\0\0\0\x03\x88",
    b"\0\0\x05\x01\x04\0\0\0\x05\x08\x03100",
    b"\0\0\x0f\x01\x05\0\0\0\x01\x40\x0bgrpc-status\x010",
    b"\0\0\x05\0\0\0\0\0\x01hello",
    b"\0\0\x05\0\x01\0\0\0\x07hello",
    b"\0\0\x08\0\x09\0\0\0\x01\x02hello\0\0",
    b"\0\x40\0\0\x01\0\0\0\x01",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0",
    b"\0\0\x07\x05\x04\0\0\0\x01\0\0\0\x02\x82\x86\x84",
    b"\0\0\x04\x08\0\0\0\0\0\0\0\x10\0",
];

/// The same for RESP.
const VALUES: &[&str] = &[
    "*1\r\n$4\r\nPING\r\n",
    "*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$300\r\n",
    "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n",
    "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n",
    "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n",
    "*1\r\n$7\r\nMONITOR\r\n",
    "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    ">3\r\n+subscribe\r\n+a\r\n:1\r\n",
    ">2\r\n+message\r\n$2\r\nhi\r\n",
    "+OK\r\n",
    "-ERR no\r\n",
    ":5\r\n",
    "$-1\r\n",
    "$5\r\nhello\r\n",
    "$?\r\n;2\r\nab\r\n;0\r\n",
    "*?\r\n:1\r\n.\r\n",
    "%1\r\n+a\r\n*2\r\n:1\r\n_\r\n",
    "|1\r\n+a\r\n:1\r\n",
    "!5\r\nERR x\r\n",
    "=5\r\ntxt:a\r\n",
    "*1\r\n*1\r\n*1\r\n",
    "*0\r\n",
    "*3\r\n$",
];

/// The same for PostgreSQL.
const MESSAGES: &[&[u8]] = &[
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"\0\0\0\x10\0\x03\0\0user\0a\0\0",
    b"Q\0\0\0\x0dSELECT 1\0",
    b"P\0\0\0\x11s\0SELECT 1\0\0\0",
    b"P\0\0\0\x0d\0BEGIN\0\0\0",
    b"B\0\0\0\x0d\0s\0\0\0\0\0\0\0",
    b"E\0\0\0\x09\0\0\0\0\0",
    b"D\0\0\0\x07Ss\0",
    b"C\0\0\0\x07Ss\0",
    b"H\0\0\0\x04",
    b"S\0\0\0\x04",
    b"d\0\0\0\x06ab",
    b"c\0\0\0\x04",
    b"X\0\0\0\x04",
    b"R\0\0\0\x08\0\0\0\0",
    b"1\0\0\0\x04",
    b"2\0\0\0\x04",
    b"D\0\0\0\x0b\0\x01\0\0\0\x011",
    b"C\0\0\0\x0dSELECT 1\0",
    b"E\0\0\0\x13SERROR\0C42P01\0\0",
    b"N\0\0\0\x13SERROR\0C42P01\0\0",
    b"G\0\0\0\x07\0\0\0",
    b"W\0\0\0\x07\0\0\0",
    b"Z\0\0\0\x05I",
    b"Z\0\0\0\x05E",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => prop::sample::select(MESSAGES).prop_map(<[u8]>::to_vec),
        8 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        8 => prop::sample::select(FRAMES).prop_map(<[u8]>::to_vec),
        8 => prop::sample::select(VALUES).prop_map(|value| value.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
        1 => vec(prop::sample::select(&b"Aa0 :/\r\n"[..]), 0..8),
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn flow() -> impl Strategy<Value = Flow> {
    prop::sample::select(&[Flow::Request, Flow::Response][..])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (flow(), bytes(), any::<bool>()).prop_map(|(flow, bytes, burst)| Step::Bytes(flow, bytes, burst)),
        3 => (flow(), prop_oneof![0u64..40, 0u64..100_000, Just(u64::MAX)], bytes()).prop_map(|(flow, len, bytes)| {
            let keep = bytes.len().min(8).min(usize::try_from(len).unwrap_or(8));
            Step::Hole(flow, len, bytes[bytes.len() - keep..].to_vec())
        }),
        1 => flow().prop_map(Step::Gap),
        1 => flow().prop_map(Step::End),
        1 => Just(Step::Idle),
    ]
}

/// Checks the grammar of [`What`] over all that a parser said.
fn check(items: &[Item]) -> Result<(), TestCaseError> {
    #[derive(Default, Clone, Copy, PartialEq, PartialOrd, Debug)]
    enum Stage {
        #[default]
        None,
        Begun,
        Head,
        Reset,
        Rpc,
        Over,
    }
    let mut stages: HashMap<u32, [Stage; 2]> = HashMap::new();
    for item in items {
        if matches!(item.what, What::HalfSeen | What::Garbage) {
            continue;
        }
        let request = item.flow == Flow::Request;
        if !stages.contains_key(&item.exchange) {
            prop_assert!(request && item.what == What::Begin, "an exchange begins with {:?}", item);
        }
        let stage = &mut stages.entry(item.exchange).or_default()[side(item.flow)];
        let (allowed, next) = match item.what {
            What::Begin => (*stage == Stage::None, Stage::Begun),
            What::Head(_) => (*stage == Stage::Begun, Stage::Head),
            What::Reset { .. } => (!request && *stage < Stage::Reset, Stage::Reset),
            What::Rpc(_) => (*stage < Stage::Rpc && (!request || *stage == Stage::Head), Stage::Rpc),
            What::End { .. } => (matches!(stage, Stage::Begun | Stage::Head | Stage::Rpc), Stage::Over),
            What::Switched => (*stage == Stage::Head, Stage::Over),
            // A response can be given up before it begins.
            _ => (*stage < Stage::Over && (!request || *stage > Stage::None), Stage::Over),
        };
        prop_assert!(allowed, "{:?} after {:?}", item, stage);
        *stage = next;
    }
    Ok(())
}

fn run<P: Parser>(script: &[Step]) -> Driver<P> {
    let mut driver = Driver::<P>::default();
    for step in script {
        driver.step(step);
    }
    driver
}

macro_rules! suite {
    ($($name:ident: $parser:ty),*) => {$(
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

                #[test]
                fn whatever_comes_in_is_taken(script in vec(step(), 0..24)) {
                    let driver = run::<$parser>(&script);
                    let items: Vec<Item> = driver.items.into_iter().map(|(_, item)| item).collect();
                    check(&items)?;
                }

                #[test]
                fn all_exchanges_are_over_when_both_directions_are(script in vec(step(), 0..24)) {
                    let mut driver = run::<$parser>(&script);
                    driver.step(&Step::End(Flow::Request));
                    driver.step(&Step::End(Flow::Response));
                    prop_assert_eq!(driver.parser.in_flight(), 0);
                    let begun = driver.items.iter().filter(|(_, item)| item.flow == Flow::Request && item.what == What::Begin);
                    for (_, begin) in begun {
                        let over = driver.items.iter().any(|(_, item)| {
                            item.exchange == begin.exchange
                                && matches!(item.what, What::End { .. } | What::Switched | What::Aborted { .. } | What::Lost(_))
                        });
                        prop_assert!(over, "{} never ends", begin.exchange);
                    }
                }

                #[test]
                fn the_first_bytes_are_judged(bytes in vec(any::<u8>(), 0..64), piece in bytes()) {
                    let _ = <$parser>::detect(&bytes);
                    let _ = <$parser>::detect(&piece);
                }
            }

            #[test]
            fn hostile_heads_do_not_grow_the_state() {
                for (start, line) in [("GET / HTTP/1.1\r\n", "A: b\r\n"), ("GET /", "x"), ("GET / HTTP/1.1\r\nA: b\r\n", " c\r\n"), ("", "\r\n"), ("", "\0"), ("*9999\r\n", "$1\r\na\r\n"), ("*1\r\n$4\r\nPING\r\n", "*1\r\n"), ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x01\0\0\0\0\x01", "\0\0\x04\x09\0\0\0\0\x01\0\x01aa")] {
                    let mut driver = Driver::<$parser>::default();
                    driver.step(&Step::Bytes(Flow::Request, start.into(), true));
                    let many = line.repeat(1000);
                    for _ in 0..1000 {
                        driver.step(&Step::Bytes(Flow::Request, many.as_bytes().to_vec(), false));
                        driver.step(&Step::Bytes(Flow::Response, many.as_bytes().to_vec(), false));
                    }
                    assert!(driver.items.len() < 16);
                }
            }
        }
    )*};
}

protocols!(suite);

/// What connections begin with, and what bursts of them look like later.
const FIXTURES: &[(&str, &[u8])] = &[
    ("http1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("http1", b"POST /a?b HTTP/1.0\r\n\r\nhello"),
    ("http1", b"HTTP/1.1 200 OK\r\n\r\n"),
    ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ("http2", b"\0\0\x03\x01\x05\0\0\0\x05\x82\x86\x84"),
    ("http2", b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x05\0\x01\0\0\0\x01hello"),
    // Frames of either direction, and others' bytes.
    ("", b"\0\0\0\x04\0\0\0\0\0"),
    ("", b"\0\0\x04\x08\0\0\0\0\0\0\0\x10\0"),
    ("", b"\0\0\x05\0\0\0\0\0\x01hello"),
    ("redis", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"),
    ("redis", b"*2\r\n$3\r\nget\r\n$100\r\n"),
    ("redis", b"*1\r\n$9\r\nJSON.MGET\r\n"),
    // Answers of its servers.
    ("", b"*2\r\n$3\r\nfoo\r\n$3\r\nbar\r\n"),
    ("", b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n"),
    ("", b"*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"),
    ("", b"$5\r\nhello\r\n"),
    ("", b"-ERR unknown command\r\n"),
    ("", b"+OK\r\n"),
    ("postgresql", b"\x00\x00\x00\x08\x04\xd2\x16\x2f"),
    ("postgresql", b"\x00\x00\x00\x29\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"),
    ("postgresql", b"Q\x00\x00\x00\x0dSELECT 1\x00"),
    ("postgresql", b"P\0\0\0\x10\0SELECT 1\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
    ("postgresql", b"D\0\0\0\x0b\0\x01\0\0\0\x011C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"),
    ("", b"Q\x00\x00\x00\x0dHELLO, W\x00"),
    ("", b"Z\0\0\0\x05I"),
    ("", b"S\0\0\0\x04"),
    ("", b"R\x00\x00\x00\x08\x00\x00\x00\x00"),
    ("", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("", b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("", b"\x4a\x00\x00\x00\x0a8.0.30\x00\x08\x00\x00\x00abcdefgh\x00\xff\xff\xff\x02\x00"),
    ("", b"\x00\x00\x00\x23\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07console\x00\x12apache-kafka-java\x00"),
    ("", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x01"),
    ("", b"AMQP\x00\x00\x09\x01"),
    ("", b"\x01\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x0b\x00\xce"),
    ("", b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id"),
    ("", b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01"),
    ("", b"\x3a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07\x00\x00\x00\x00\x00\x00admin.$cmd\x00"),
    ("", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("", b"220 mail.example.com ESMTP\r\n"),
    ("", &[0; 64]),
    ("", &[0xff; 64]),
];

macro_rules! claims {
    ($($name:ident: $parser:ty),*) => {
        /// Whether a protocol claims these first bytes.
        fn claimed(bytes: &[u8]) -> Vec<&'static str> {
            let all = [$((<$parser>::NAME, <$parser>::detect(bytes))),*];
            all.into_iter().filter(|(_, d)| matches!(d, Detect::Request | Detect::Response)).map(|(name, _)| name).collect()
        }
    };
}

protocols!(claims);

#[test]
fn no_protocol_claims_the_bytes_of_another() {
    for (owner, bytes) in FIXTURES {
        let owners: Vec<&str> = [*owner].into_iter().filter(|owner| !owner.is_empty()).collect();
        assert_eq!(claimed(bytes), owners, "{:?}", String::from_utf8_lossy(bytes));
        for n in 0..bytes.len() {
            let some = claimed(&bytes[..n]);
            assert!(
                some.is_empty() || some == owners,
                "{some:?} claim {:?}",
                String::from_utf8_lossy(&bytes[..n])
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_protocol_claims_anything(bytes in bytes(), noise in vec(any::<u8>(), 0..64)) {
        prop_assert!(claimed(&bytes).len() <= 1);
        prop_assert!(claimed(&noise).is_empty());
    }
}
