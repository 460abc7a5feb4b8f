//! Heads whose fields are those of the head before: what is said of them is what a parser says that reads every one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use common::{Driver, Q, R, Step};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use spanwise_protocol::http1::Connection;
use spanwise_protocol::{Flow, Item};

/// Start lines and fields of one direction, and what may follow a head.
struct Grammar {
    flow: Flow,
    starts: &'static [&'static str],
    fields: &'static [&'static str],
}

const REQUESTS: Grammar = Grammar {
    flow: Q,
    starts: &[
        "GET / HTTP/1.1\r\n",
        "GET /a?b=1 HTTP/1.1\r\n",
        "POST /p HTTP/1.1\r\n",
        "GET http://other/x HTTP/1.1\r\n",
        "HEAD / HTTP/1.0\r\n",
        "CONNECT a:1 HTTP/1.1\r\n",
    ],
    fields: &[
        "Host: one\r\n",
        "Host: another\r\n",
        "host:\r\n",
        "User-Agent: a/1\r\n",
        "User-Agent: a/12\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Type: application/grpc-web+proto\r\n",
        "Content-Type: application/connect+json\r\n",
        "connect-protocol-version: 1\r\n",
        "connect-timeout-ms: 250\r\n",
        "Upgrade: h2c\r\n",
        "Upgrade: x\r\n",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
        "traceparent: 00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n",
        "tracestate: a=1\r\n",
        "A: b\r\n",
        "A: b\n",
        " folded\r\n",
        "no field\r\n",
    ],
};

const RESPONSES: Grammar = Grammar {
    flow: R,
    starts: &[
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 404 \r\n",
        "HTTP/1.0 200\r\n",
        "HTTP/1.1 304 N\r\n",
        "HTTP/1.1 100 C\r\n",
    ],
    fields: &[
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 7\r\nContent-Length: 8\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Content-Type: application/grpc-web+proto\r\n",
        "Content-Type: text/html\r\n",
        "grpc-status: 3\r\n",
        "grpc-status: 0\r\n",
        "Date: today\r\n",
        " folded\r\n",
    ],
};

/// What ends a head, and what stands behind it: another line is a longer head with the same beginning.
const ENDS: &[&str] = &[
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r\nhello",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
    "\r\n0\r\n\r\n",
    "",
    "X: y\r\n\r\n",
    "\r\n\r\n",
];

/// A few heads of a direction, which the conversation picks from.
fn heads(grammar: &'static Grammar) -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Some are near what is remembered at most, on both sides of it.
    let long = prop_oneof![4 => Just(0), 1 => 440_usize..560];
    let fields = subsequence(grammar.fields, 0..=5).prop_shuffle();
    let head = (select(grammar.starts), fields, long, select(ENDS)).prop_map(|(start, fields, long, end)| {
        let long = if long > 0 { format!("L: {}\r\n", "x".repeat(long)) } else { String::new() };
        [start, &fields.concat(), &long, end].concat().into_bytes()
    });
    vec(head, 1..4)
}

/// A conversation: heads that repeat, sometimes with a byte changed, cut anywhere, with losses in between.
fn conversation() -> impl Strategy<Value = Vec<Step>> {
    let turn = (0_u8..24, any::<Index>(), any::<Index>(), any::<u8>(), any::<bool>());
    (heads(&REQUESTS), heads(&RESPONSES), vec(turn, 4..40)).prop_map(|(requests, responses, turns)| {
        let mut steps = Vec::new();
        for (at, (what, which, cut, byte, burst)) in turns.into_iter().enumerate() {
            let (grammar, heads) =
                if at % 2 == 0 { (&REQUESTS, &requests) } else { (&RESPONSES, &responses) };
            let mut head = which.get(heads).clone();
            let flow = grammar.flow;
            let position = cut.index(head.len() + 1);
            match what {
                0..=13 => steps.push(Step::Bytes(flow, head, true)),
                14..=17 => {
                    let rest = head.split_off(position);
                    steps.push(Step::Bytes(flow, head, true));
                    steps.push(Step::Bytes(flow, rest, burst));
                }
                18 => {
                    if let Some(changed) = head.get_mut(position) {
                        *changed = byte;
                    }
                    steps.push(Step::Bytes(flow, head, true));
                }
                19 => {
                    // Several at once.
                    steps.push(Step::Bytes(flow, head.repeat(usize::from(byte % 8)), true));
                }
                20 => {
                    head.truncate(position);
                    steps.push(Step::Bytes(flow, head, true));
                    steps.push(Step::Hole(flow, u64::from(byte), Vec::new()));
                }
                21 => steps.push(Step::Bytes(flow, head.into_iter().skip(position).collect(), burst)),
                22 => steps.push(if burst { Step::Idle } else { Step::Gap(flow) }),
                _ => steps.extend(
                    head.chunks(1 + usize::from(byte % 16))
                        .map(|part| Step::Bytes(flow, part.to_vec(), burst)),
                ),
            }
        }
        steps
    })
}

fn said(parser: Connection, script: &[Step]) -> Vec<(u64, Item)> {
    let mut driver = Driver::of(parser);
    for step in script {
        driver.step(step);
    }
    driver.items
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn a_memory_changes_nothing(script in conversation()) {
        prop_assert_eq!(said(Connection::default(), &script), said(Connection::without_memory(), &script));
    }
}

/// The same head three times, so that it is remembered; then that, which begins as it does.
fn after_three(head: &str, then: &str) -> Vec<Step> {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let turn = |head: &str| [Step::Bytes(Q, head.into(), true), Step::Bytes(R, answer.into(), true)];
    [head, head, head, then, head].into_iter().flat_map(turn).collect()
}

#[test]
fn what_begins_like_the_last_head_is_read_anew() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
    for then in [
        // Longer, shorter, in another order, with other bytes behind it.
        "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nContent-Length: 2\r\n\r\nhi",
        "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nB: c\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n",
        "POST /x HTTP/1.0\r\nHost: a\r\nB: c\r\n\r\nGET /y HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n",
    ] {
        let script = after_three(head, then);
        let items = said(Connection::default(), &script);
        assert_eq!(items, said(Connection::without_memory(), &script), "{then:?}");
        assert!(items.len() > 12, "{items:?}");
    }
}
