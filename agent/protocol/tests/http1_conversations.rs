//! Generated HTTP/1 conversations: what was generated is what is read, however it is cut into pieces.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use common::{Driver, Q, R, Step, line};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use spanwise_protocol::http1::Connection;
use spanwise_protocol::{Flow, Head, Parser, What};

#[derive(Clone, Debug)]
enum Framed {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, bool),
}

impl Framed {
    fn len(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Length(body) => body.len() as u64,
            Self::Chunked(chunks, _) => chunks.iter().map(|chunk| chunk.len() as u64).sum(),
        }
    }

    fn write(&self, head: String) -> Vec<u8> {
        let mut out = head.into_bytes();
        match self {
            Self::None => out.extend(b"\r\n"),
            Self::Length(body) => {
                out.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                out.extend(body);
            }
            Self::Chunked(chunks, trailer) => {
                out.extend(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    out.extend(format!("{:x};ext\r\n", chunk.len()).bytes());
                    out.extend(chunk);
                    out.extend(b"\r\n");
                }
                out.extend(if *trailer { &b"0\r\nSum: 1\r\n\r\n"[..] } else { b"0\r\n\r\n" });
            }
        }
        out
    }
}

fn framed() -> impl Strategy<Value = Framed> {
    let body = || vec(any::<u8>(), 1..60);
    prop_oneof![
        Just(Framed::None),
        body().prop_map(Framed::Length),
        (vec(body(), 0..4), any::<bool>()).prop_map(|(chunks, trailer)| Framed::Chunked(chunks, trailer)),
    ]
}

#[derive(Clone, Debug)]
struct Turn {
    method: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    request: Framed,
    status: u16,
    interim: bool,
    response: Framed,
}

impl Turn {
    fn request_bytes(&self) -> Vec<u8> {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let mut head = format!("{} {}{query} HTTP/1.1\r\n", self.method, self.path);
        for (key, value) in &self.headers {
            head += &format!("{key}: {value}\r\n");
        }
        self.request.write(head)
    }

    fn response_bytes(&self) -> Vec<u8> {
        let interim = if self.interim { "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" } else { "" };
        let mut head = format!("{interim}HTTP/1.1 {} Reason phrase\r\n", self.status);
        for (key, value) in &self.headers {
            head += &format!("{key}: {value}\r\n");
        }
        match (&self.response, self.method.as_str(), self.status) {
            // What the length would have been is told, the body is not sent.
            (Framed::Length(body), "HEAD", _) | (Framed::Length(body), _, 204 | 304) => {
                format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes()
            }
            (_, "HEAD", _) | (_, _, 204 | 304) => format!("{head}\r\n").into_bytes(),
            (Framed::None, _, _) => format!("{head}Content-Length: 0\r\n\r\n").into_bytes(),
            (framed, _, _) => framed.write(head),
        }
    }

    fn response_len(&self) -> u64 {
        if self.method == "HEAD" || matches!(self.status, 204 | 304) { 0 } else { self.response.len() }
    }
}

fn turn() -> impl Strategy<Value = Turn> {
    let method = prop_oneof!["GET|HEAD|POST|PUT|DELETE|PATCH", "[A-Z][A-Z!#$%&'*+.^_`|~-]{0,10}"]
        .prop_filter("tunnels are another matter", |method| method != "CONNECT");
    let header = ("X-[a-z]{0,12}", "[ -~]{0,30}");
    let status = prop_oneof![Just(204u16), Just(304), 200u16..600];
    (
        method,
        "/[a-z0-9/%._-]{0,30}",
        option::of("[a-z0-9=&?/]{0,20}"),
        vec(header, 0..5),
        framed(),
        status,
        any::<bool>(),
        framed(),
    )
        .prop_map(|(method, path, query, headers, request, status, interim, response)| Turn {
            method,
            path,
            query,
            headers,
            request,
            status,
            interim,
            response,
        })
}

/// Cuts bytes into pieces of the given lengths, again and again.
fn pieces(flow: Flow, bytes: &[u8], cuts: &[usize]) -> Vec<Step> {
    let (mut at, mut steps) = (0, Vec::new());
    for cut in cuts.iter().cycle() {
        if at >= bytes.len() {
            break;
        }
        let end = (at + cut).min(bytes.len());
        steps.push(Step::Bytes(flow, bytes[at..end].to_vec(), at == 0));
        at = end;
    }
    steps
}

/// The conversation as steps: one turn after the other, or all requests and then all responses.
fn script(turns: &[Turn], pipelined: bool, cuts: &[usize]) -> Vec<Step> {
    let requests: Vec<_> = turns.iter().map(Turn::request_bytes).collect();
    let responses: Vec<_> = turns.iter().map(Turn::response_bytes).collect();
    if pipelined {
        return [pieces(Q, &requests.concat(), cuts), pieces(R, &responses.concat(), cuts)].concat();
    }
    requests
        .iter()
        .zip(&responses)
        .flat_map(|(q, r)| [pieces(Q, q, cuts), pieces(R, r, cuts)].concat())
        .collect()
}

fn said(script: &[Step]) -> Driver<Connection> {
    let mut driver = Driver::default();
    script.iter().for_each(|step| driver.step(step));
    driver
}

/// Per direction: how pieces of one interleave with the other is not the parser's to say.
fn lines(driver: &Driver<Connection>, flow: Flow) -> Vec<String> {
    driver.items.iter().filter(|(_, item)| item.flow == flow).map(|(at, item)| line(*at, item)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_sent_is_what_is_read(turns in vec(turn(), 1..6), pipelined in any::<bool>()) {
        let driver = said(&script(&turns, pipelined, &[usize::MAX / 2]));
        prop_assert_eq!(driver.items.len(), 6 * turns.len());
        prop_assert_eq!(driver.parser.in_flight(), 0);
        for (number, turn) in turns.iter().enumerate() {
            let of = |flow| driver.items.iter().map(|(_, item)| item).filter(move |item| item.exchange as usize == number && item.flow == flow).collect::<Vec<_>>();
            let [begin, head, end] = of(Q)[..] else { panic!("{:?}", of(Q)) };
            prop_assert_eq!(&begin.what, &What::Begin);
            let What::Head(Head::Request(request)) = &head.what else { panic!("{head:?}") };
            prop_assert_eq!(&*request.method, &turn.method);
            prop_assert_eq!(&*request.path, &turn.path);
            prop_assert_eq!(request.query.as_deref(), turn.query.as_deref());
            prop_assert_eq!(&end.what, &What::End { body: turn.request.len() });
            let [begin, head, end] = of(R)[..] else { panic!("{:?}", of(R)) };
            prop_assert_eq!(&begin.what, &What::Begin);
            let What::Head(Head::Response(response)) = &head.what else { panic!("{head:?}") };
            prop_assert_eq!(response.status, turn.status);
            prop_assert_eq!(&end.what, &What::End { body: turn.response_len() });
        }
    }

    #[test]
    fn pieces_do_not_matter(turns in vec(turn(), 1..5), pipelined in any::<bool>(), cuts in vec(1usize..40, 1..8)) {
        let whole = said(&script(&turns, pipelined, &[usize::MAX / 2]));
        for cuts in [&cuts[..], &[1]] {
            let split = said(&script(&turns, pipelined, cuts));
            prop_assert_eq!(lines(&split, Q), lines(&whole, Q));
            prop_assert_eq!(lines(&split, R), lines(&whole, R));
        }
    }

    #[test]
    fn pieces_do_not_matter_for_damaged_bytes_either(
        turns in vec(turn(), 1..5), cuts in vec(1usize..40, 1..8), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), of_requests in any::<bool>(),
    ) {
        let mut requests: Vec<u8> = turns.iter().flat_map(Turn::request_bytes).collect();
        let mut responses: Vec<u8> = turns.iter().flat_map(Turn::response_bytes).collect();
        let bytes = if of_requests { &mut requests } else { &mut responses };
        // The first bytes decide whether the burst is one of ours at all, which needs them in one piece.
        let keep = if of_requests { turns[0].request_bytes().iter().position(|&b| b == b'\n').unwrap() + 1 } else { 16 };
        for (at, byte) in &damage {
            if bytes.len() > keep {
                let at = keep + at.index(bytes.len() - keep);
                bytes[at] = *byte;
            }
        }
        let run = |cuts: &[usize]| said(&[pieces(Q, &requests, cuts), pieces(R, &responses, cuts)].concat());
        let whole = run(&[usize::MAX / 2]);
        for cuts in [&cuts[..], &[1]] {
            let split = run(cuts);
            prop_assert_eq!(lines(&split, Q), lines(&whole, Q));
            prop_assert_eq!(lines(&split, R), lines(&whole, R));
        }
    }

    #[test]
    fn a_hole_in_a_body_of_known_length_changes_nothing(body in vec(any::<u8>(), 20..200), from in 0usize..10, len in 1usize..10, tail in 0usize..8) {
        let bytes = Framed::Length(body.clone()).write("HTTP/1.1 200 OK\r\n".into());
        let at = bytes.len() - body.len() + from;
        let get = Step::Bytes(Q, b"GET / HTTP/1.1\r\n\r\n".to_vec(), true);
        let whole = said(&[get.clone(), Step::Bytes(R, bytes.clone(), true)]);
        let tail = tail.min(len);
        let holed = said(&[
            get,
            Step::Bytes(R, bytes[..at].to_vec(), true),
            Step::Hole(R, len as u64, bytes[at + len - tail..at + len].to_vec()),
            Step::Bytes(R, bytes[at + len..].to_vec(), false),
        ]);
        prop_assert_eq!(lines(&holed, R), lines(&whole, R));
    }
}
