//! What holds for every protocol, whatever comes in.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use std::collections::HashMap;

use common::{Driver, Step, side};
use proptest::collection::vec;
use proptest::prelude::*;
use spanwise_protocol::{Flow, Item, Parser, What, protocols};

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

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
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
                for (start, line) in [("GET / HTTP/1.1\r\n", "A: b\r\n"), ("GET /", "x"), ("GET / HTTP/1.1\r\nA: b\r\n", " c\r\n"), ("", "\r\n"), ("", "\0")] {
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
