//! Whole conversations over HTTP/2: what a client and a server say, and what is told of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use common::http2::*;
use common::{Driver, Q, R, Step, burst, gap, hole, line, more};
use spanwise_protocol::http2::Connection;
use spanwise_protocol::message::{Head, RpcSystem};
use spanwise_protocol::{Flow, Input, Parser, What};

fn tell(script: &[Step]) -> Vec<String> {
    common::tell::<Connection>(script)
}

/// The same without positions.
fn told(script: &[Step]) -> Vec<String> {
    tell(script).iter().map(|line| line.split(" @").next().unwrap().to_owned()).collect()
}

fn start() -> [Step; 2] {
    [burst(Q, [PREFACE, &settings()].concat()), burst(R, settings())]
}

fn after_start(steps: &[Step]) -> Vec<Step> {
    [&start()[..], steps].concat()
}

#[test]
fn requests_and_responses_have_their_places() {
    let got = tell(&[
        burst(Q, [PREFACE, &settings(), &headers(BOTH, 1, get("/a?b"))].concat()),
        burst(R, [settings(), headers(END_HEADERS, 1, status("200")), data(END_STREAM, 1, "hello")].concat()),
    ]);
    assert_eq!(
        got,
        [
            "> 1 begin @45",
            "> 1 GET /a?b @107",
            "> 1 end 0 @107",
            "< 1 begin @21",
            "< 1 200 @43",
            "< 1 end 5 @57"
        ]
    );
}

#[test]
fn streams_interleave() {
    let got = told(&after_start(&[
        burst(Q, [headers(END_HEADERS, 1, post("/a", "x")), headers(BOTH, 3, get("/b"))].concat()),
        burst(R, headers(END_HEADERS, 3, status("404"))),
        burst(Q, data(0, 1, "1234")),
        burst(R, data(0, 3, "xy")),
        burst(Q, [data(END_STREAM, 1, "5"), headers(BOTH, 5, get("/c"))].concat()),
        burst(R, [headers(BOTH, 5, status("204")), headers(END_HEADERS, 1, status("200"))].concat()),
        burst(R, [data(END_STREAM, 3, "z"), data(END_STREAM, 1, "")].concat()),
    ]));
    assert_eq!(
        got,
        [
            "> 1 begin",
            "> 1 POST /a",
            "> 3 begin",
            "> 3 GET /b",
            "> 3 end 0",
            "< 3 begin",
            "< 3 404",
            "> 1 end 5",
            "> 5 begin",
            "> 5 GET /c",
            "> 5 end 0",
            "< 5 begin",
            "< 5 204",
            "< 5 end 0",
            "< 1 begin",
            "< 1 200",
            "< 3 end 3",
            "< 1 end 0",
        ]
    );
}

#[test]
fn blocks_go_on_in_continuations_with_padding_and_priority() {
    let whole = get("/long");
    let (one, two) = whole.split_at(3);
    let (two, three) = two.split_at(20);
    let first = [&[4, 0, 0, 0, 0, 16][..], one, &[0; 4]].concat();
    let got = told(&after_start(&[
        burst(
            Q,
            [
                headers(END_STREAM | PADDED | PRIORITY, 1, first),
                frame(9, 0, 1, two),
                frame(9, END_HEADERS, 1, three),
                frame(2, 0, 1, [0; 5]),
            ]
            .concat(),
        ),
        burst(R, headers(END_HEADERS, 1, status("200"))),
        more(R, data(END_STREAM | PADDED, 1, [&[3][..], b"body", &[0; 3]].concat())),
    ]));
    assert_eq!(got, ["> 1 begin", "> 1 GET /long", "> 1 end 0", "< 1 begin", "< 1 200", "< 1 end 4"]);
}

#[test]
fn interim_responses_are_passed_over_and_trailers_end() {
    let got = told(&after_start(&[
        burst(Q, headers(BOTH, 1, get("/"))),
        burst(R, headers(END_HEADERS, 1, status("103"))),
        burst(R, headers(END_HEADERS, 1, status("200"))),
        burst(R, data(0, 1, "abc")),
        burst(R, headers(BOTH, 1, block(&[("checksum", "1")]))),
    ]));
    assert_eq!(got, ["> 1 begin", "> 1 GET /", "> 1 end 0", "< 1 begin", "< 1 200", "< 1 end 3"]);
}

#[test]
fn resets_say_who_and_why() {
    let got = told(&after_start(&[
        burst(Q, [headers(BOTH, 1, get("/a")), headers(END_HEADERS, 3, post("/b", "x"))].concat()),
        burst(R, headers(END_HEADERS, 1, status("200"))),
        burst(Q, [data(0, 3, "12"), reset(1, 8)].concat()),
        burst(R, reset(3, 7)),
        // What was on its way is not told.
        burst(R, [data(0, 1, "late"), headers(BOTH, 3, status("200"))].concat()),
        burst(Q, headers(BOTH, 5, get("/c"))),
        burst(R, [headers(BOTH, 5, status("200")), reset(5, 0)].concat()),
    ]));
    assert_eq!(
        got,
        [
            "> 1 begin",
            "> 1 GET /a",
            "> 1 end 0",
            "> 3 begin",
            "> 3 POST /b",
            "< 1 begin",
            "< 1 200",
            "< 1 reset 8 by Request",
            "< 1 aborted 0",
            "> 3 aborted 2",
            "< 3 reset 7 by Response",
            "< 3 aborted 0",
            "> 5 begin",
            "> 5 GET /c",
            "> 5 end 0",
            "< 5 begin",
            "< 5 200",
            "< 5 end 0",
        ]
    );
}

#[test]
fn a_server_that_goes_away_answers_only_what_it_began() {
    let got = told(&after_start(&[
        burst(Q, [headers(BOTH, 1, get("/a")), headers(BOTH, 3, get("/b"))].concat()),
        burst(R, [go_away(1, 11), headers(BOTH, 1, status("200"))].concat()),
        Step::End(Q),
        Step::End(R),
    ]));
    assert_eq!(got[6..], ["< 3 reset 11 by Response", "< 3 aborted 0", "< 1 begin", "< 1 200", "< 1 end 0"]);
}

#[test]
fn what_is_open_at_the_end_is_aborted() {
    let got = told(&after_start(&[
        burst(Q, [headers(BOTH, 1, get("/a")), headers(END_HEADERS, 3, post("/b", "x"))].concat()),
        burst(R, [headers(END_HEADERS, 1, status("200")), data(0, 1, "abc")].concat()),
        Step::End(Q),
        Step::End(R),
    ]));
    assert_eq!(got[7..], ["> 3 aborted 0", "< 1 aborted 3", "< 3 aborted 0"]);
}

#[test]
fn pushed_responses_are_read_and_not_told() {
    let promise = [&2u32.to_be_bytes()[..], &field(0x40, ":path", "/pushed")].concat();
    let mut driver = Driver::<Connection>::default();
    for step in after_start(&[
        burst(Q, headers(BOTH, 1, get("/"))),
        burst(R, [frame(5, END_HEADERS, 1, promise), headers(END_HEADERS, 1, status("200"))].concat()),
        burst(
            R,
            [headers(END_HEADERS, 2, status("200")), data(END_STREAM, 2, "pushed"), data(END_STREAM, 1, "")]
                .concat(),
        ),
    ]) {
        driver.step(&step);
    }
    let got: Vec<String> = driver.items.iter().map(|(at, item)| line(*at, item)).collect();
    assert_eq!(got.len(), 6);
    assert!(got[5].starts_with("< 1 end 0"));
    assert_eq!(driver.parser.stats().pushes, 1);
}

#[test]
fn heads_are_read_in_full() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fields = block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/p.S/M?x=1#f"),
        (":authority", "me:secret@h:8443"),
        ("user-agent", "ua/1"),
        ("content-length", "12"),
        ("cookie", "secret"),
        ("traceparent", parent),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("content-type", "application/grpc+proto"),
        ("grpc-timeout", "250m"),
    ]);
    let mut driver = Driver::<Connection>::default();
    for step in after_start(&[burst(Q, headers(END_HEADERS, 1, fields))]) {
        driver.step(&step);
    }
    let What::Head(Head::Request(request)) = &driver.items[1].1.what else { panic!() };
    assert_eq!((&*request.method, &*request.path, request.query.as_deref()), ("POST", "/p.S/M", Some("x=1")));
    assert_eq!((request.scheme.as_deref(), request.authority.as_deref()), (Some("https"), Some("h:8443")));
    assert_eq!((request.user_agent.as_deref(), request.content_length), (Some("ua/1"), Some(12)));
    let context = request.context.as_ref().unwrap();
    assert_eq!((context.to_traceparent().as_str(), context.state.as_deref()), (parent, Some("a=1,b=2")));
    let rpc = request.rpc.unwrap();
    assert_eq!((rpc.system, rpc.timeout_ns), (RpcSystem::Grpc, Some(250_000_000)));
    assert!(!request.truncated);
}

#[test]
fn a_binary_trace_context_counts_if_there_is_no_other() {
    let binary = "AAAK92UZFs1D3YRI6yEcgDGcAbeta3FpIDMxAgE";
    let other = "00-11111111111111111111111111111111-2222222222222222-00";
    let parent = |fields: &[(&str, &str)]| {
        let mut driver = Driver::<Connection>::default();
        let all = [get("/"), block(fields)].concat();
        for step in after_start(&[burst(Q, headers(BOTH, 1, all))]) {
            driver.step(&step);
        }
        let What::Head(Head::Request(request)) = &driver.items[1].1.what else { panic!() };
        request.context.as_ref().map(|context| context.to_traceparent())
    };
    let from_binary = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(parent(&[("grpc-trace-bin", binary)]).as_deref(), Some(from_binary));
    assert_eq!(parent(&[("grpc-trace-bin", binary), ("traceparent", other)]).as_deref(), Some(other));
    assert_eq!(parent(&[("grpc-trace-bin", "AAAA")]), None);
}

#[test]
fn calls_are_counted_and_have_a_status() {
    let grpc = "application/grpc";
    let got = told(&after_start(&[
        // Unary.
        burst(
            Q,
            [headers(END_HEADERS, 1, post("/s/Unary", grpc)), data(END_STREAM, 1, message(b"ask"))].concat(),
        ),
        burst(
            R,
            [
                headers(END_HEADERS, 1, block(&[(":status", "200"), ("content-type", grpc)])),
                data(0, 1, message(b"answer")),
                headers(BOTH, 1, block(&[("grpc-status", "0")])),
            ]
            .concat(),
        ),
        // Trailers only.
        burst(
            Q,
            [headers(END_HEADERS, 3, post("/s/Fails", grpc)), data(END_STREAM, 3, message(b""))].concat(),
        ),
        burst(
            R,
            headers(BOTH, 3, block(&[(":status", "200"), ("content-type", grpc), ("grpc-status", "5")])),
        ),
        // Streams both ways, messages over frames and frames with many.
        burst(Q, headers(END_HEADERS, 5, post("/s/Chat", grpc))),
        burst(Q, data(0, 5, &[message(b"12345"), message(b"6789")].concat()[..12])),
        burst(R, [headers(END_HEADERS, 5, status("200")), data(0, 5, message(&[0; 100]))].concat()),
        burst(Q, data(END_STREAM, 5, &[message(b"12345"), message(b"6789")].concat()[12..])),
        burst(R, headers(BOTH, 5, block(&[("grpc-status", "13"), ("grpc-message", "no")]))),
    ]));
    assert_eq!(
        got,
        [
            "> 1 begin",
            "> 1 POST /s/Unary",
            "> 1 rpc 1x3",
            "> 1 end 8",
            "< 1 begin",
            "< 1 200",
            "< 1 rpc 1x6 status 0",
            "< 1 end 11",
            "> 3 begin",
            "> 3 POST /s/Fails",
            "> 3 rpc 1x0",
            "> 3 end 5",
            "< 3 begin",
            "< 3 200",
            "< 3 rpc 0x0 status 5",
            "< 3 end 0",
            "> 5 begin",
            "> 5 POST /s/Chat",
            "< 5 begin",
            "< 5 200",
            "> 5 rpc 2x9",
            "> 5 end 19",
            "< 5 rpc 1x100 status 13",
            "< 5 end 105",
        ]
    );
}

#[test]
fn bodies_that_were_not_captured_cost_nothing() {
    let grpc = "application/grpc";
    let ask = data(END_STREAM, 1, message(&[7; 10_000]));
    let got = told(&after_start(&[
        burst(Q, headers(END_HEADERS, 1, post("/a", grpc))),
        more(Q, &ask[..100]),
        hole(Q, ask.len() as u64 - 100, [7; 8]),
        burst(Q, headers(BOTH, 3, get("/b"))),
        burst(R, [&headers(END_HEADERS, 3, status("200"))[..], &data(0, 3, [1; 500])[..50]].concat()),
        hole(R, 459, ""),
        burst(
            R,
            [headers(BOTH, 1, block(&[(":status", "200"), ("grpc-status", "0")])), data(END_STREAM, 3, "")]
                .concat(),
        ),
    ]));
    assert_eq!(
        got,
        [
            "> 1 begin",
            "> 1 POST /a",
            "> 1 rpc 1x10000",
            "> 1 end 10005",
            "> 3 begin",
            "> 3 GET /b",
            "> 3 end 0",
            "< 3 begin",
            "< 3 200",
            "< 1 begin",
            "< 1 200",
            "< 1 rpc 0x0 status 0",
            "< 1 end 0",
            "< 3 end 500",
        ]
    );
}

#[test]
fn a_block_that_was_cut_is_read_as_far_as_it_was_captured() {
    let asks = headers(BOTH, 1, get("/a/long/path"));
    // The path is there, the authority is not.
    let cut = asks.len() - 5;
    let got = told(&after_start(&[
        burst(Q, &asks[..cut]),
        hole(Q, 5, ""),
        burst(Q, headers(BOTH, 3, get("/b"))),
        burst(R, [headers(BOTH, 1, status("200")), headers(BOTH, 3, status("200"))].concat()),
    ]));
    assert_eq!(
        got,
        [
            "> 1 begin",
            "> 1 GET /a/long/path cut",
            "> 1 end 0",
            "> 3 begin",
            "> 3 GET /b",
            "> 3 end 0",
            "< 1 begin",
            "< 1 200",
            "< 1 end 0",
            "< 3 begin",
            "< 3 200",
            "< 3 end 0",
        ]
    );
}

#[test]
fn frames_are_found_again_after_a_hole() {
    let got = told(&after_start(&[
        burst(Q, [headers(BOTH, 1, get("/a")), headers(BOTH, 3, get("/b"))].concat()),
        burst(R, [headers(END_HEADERS, 1, status("200")), data(0, 1, "abc")].concat()),
        // A frame of stream 1, and the head of stream 3.
        hole(R, 100, ""),
        burst(R, [data(0, 1, "defg"), data(END_STREAM, 1, "h"), data(0, 3, "i")].concat()),
        burst(R, data(END_STREAM, 3, "")),
        burst(Q, headers(BOTH, 5, get("/c"))),
        burst(R, headers(BOTH, 5, status("204"))),
    ]));
    assert_eq!(
        got[6..],
        [
            "< 1 begin",
            "< 1 200",
            "< 1 end 8",
            "< 3 begin",
            "< 3 0 cut",
            "< 3 end 1",
            "> 5 begin",
            "> 5 GET /c",
            "> 5 end 0",
            "< 5 begin",
            "< 5 204",
            "< 5 end 0",
        ][..]
    );
}

#[test]
fn requests_whose_end_was_lost_end_with_their_response() {
    let got = told(&after_start(&[
        burst(Q, [headers(END_HEADERS, 1, post("/a", "x")), data(0, 1, "abc")].concat()),
        gap(Q),
        burst(R, headers(BOTH, 1, status("200"))),
    ]));
    assert_eq!(got[2..], ["< 1 begin", "< 1 200", "> 1 end 3", "< 1 end 0"]);
}

#[test]
fn responses_whose_end_was_lost_are_given_up() {
    let got = told(&after_start(&[
        burst(Q, [headers(BOTH, 1, get("/a")), headers(BOTH, 3, get("/b"))].concat()),
        burst(R, headers(END_HEADERS, 1, status("200"))),
        gap(R),
        Step::Idle,
        // The other one may still be answered.
        burst(R, headers(BOTH, 3, status("200"))),
    ]));
    assert_eq!(got[6..], ["< 1 begin", "< 1 200", "< 1 lost gap", "< 3 begin", "< 3 200", "< 3 end 0"]);
}

#[test]
fn a_connection_is_joined_late() {
    let asks = headers(BOTH, 7, [&[0x83, 0x86, 0xc3][..], &field(0x40, "user-agent", "x")].concat());
    assert_eq!(Connection::detect(&asks), spanwise_protocol::Detect::Request);
    let got = told(&[
        burst(Q, &asks),
        // A stream that began before, then the answer.
        burst(R, [data(END_STREAM, 5, "old"), headers(BOTH, 7, [0x88])].concat()),
        burst(Q, headers(BOTH, 9, [&[0x82, 0x87][..], &field(0x40, ":path", "/new"), &[0xbf]].concat())),
        burst(Q, headers(BOTH, 11, [0x82, 0x87, 0xbe, 0xbf])),
    ]);
    assert_eq!(
        got,
        [
            "> 7 begin",
            "> 7 POST  cut",
            "> 7 end 0",
            "< 7 begin",
            "< 7 200",
            "< 7 end 0",
            "> 9 begin",
            "> 9 GET /new",
            "> 9 end 0",
            "> 11 begin",
            "> 11 GET /new",
            "> 11 end 0",
        ]
    );
}

#[test]
fn a_program_that_reads_header_and_payload_apart_is_joined_late() {
    let asks = headers(BOTH, 7, [0x83, 0x86, 0xc3]);
    let (header, payload) = asks.split_at(9);
    let got = told(&[
        burst(Q, header),
        more(Q, payload),
        burst(R, headers(BOTH, 7, [0x88])),
        burst(Q, header),
        more(Q, b"and this is not what a header block looks like"),
    ]);
    assert_eq!(got[..6], ["> 7 begin", "> 7 POST  cut", "> 7 end 0", "< 7 begin", "< 7 200", "< 7 end 0"]);
    // Bytes that only look like a header lead nowhere.
    let got = told(&[burst(Q, &asks[9..]), burst(Q, header), more(Q, b"\0\0\0"), burst(Q, &asks)]);
    assert_eq!(got, ["> 7 begin", "> 7 POST  cut", "> 7 end 0"]);
}

#[test]
fn what_is_no_frame_is_garbage_until_frames_come_again() {
    let got = told(&after_start(&[
        burst(Q, [&headers(BOTH, 1, get("/a"))[..], b"\0\0\x01\x08\0\0\0\0\0!"].concat()),
        burst(Q, b"more of it, and more, and more"),
        burst(Q, headers(BOTH, 3, get("/b"))),
    ]));
    assert_eq!(got[3..], ["> garbage", "> 3 begin", "> 3 GET /b", "> 3 end 0"]);
    // A block that is none ends its exchange.
    let got = told(&after_start(&[burst(Q, headers(BOTH, 1, [0x80]))]));
    assert_eq!(got, ["> 1 begin", "> 1 lost malformed", "> garbage"]);
}

#[test]
fn the_first_exchange_of_an_upgrade_has_only_a_response() {
    let mut parser = Connection::upgraded();
    let mut got = Vec::new();
    let mut feed = |flow: Flow, bytes: Vec<u8>| {
        parser.feed(flow, Input::Bytes { bytes: &bytes, burst_start: true }, &mut |item| {
            got.push(line(0, &item));
        });
    };
    feed(R, [settings(), headers(END_HEADERS, 1, status("200")), data(END_STREAM, 1, "a")].concat());
    feed(Q, [PREFACE, &settings(), &headers(BOTH, 3, get("/b"))].concat());
    assert_eq!(
        got,
        ["< 1 begin @0", "< 1 200 @0", "< 1 end 1 @0", "> 3 begin @0", "> 3 GET /b @0", "> 3 end 0 @0"]
    );
}

#[test]
fn what_is_said_does_not_depend_on_how_bytes_are_split() {
    let asks = [
        PREFACE,
        &settings(),
        &headers(END_HEADERS, 1, post("/a", "application/grpc")),
        &data(0, 1, message(b"one")),
        &headers(END_STREAM | PADDED, 3, [&[2][..], &get("/b")[..9], &[0, 0]].concat()),
        &frame(9, END_HEADERS, 3, &get("/b")[9..]),
        &frame(8, 0, 0, [0, 0, 1, 0]),
        &data(END_STREAM, 1, message(b"two")),
    ]
    .concat();
    let answers = [
        settings(),
        headers(END_HEADERS, 1, status("200")),
        data(PADDED, 1, [&[1][..], &message(b"abc"), &[0]].concat()),
        reset(3, 2),
        headers(BOTH, 1, block(&[("grpc-status", "3")])),
        go_away(3, 0),
    ]
    .concat();
    // Where a message begins is known with its whole frame header.
    let without_begin =
        |lines: Vec<String>| lines.into_iter().filter(|l| !l.contains("begin")).collect::<Vec<_>>();
    let whole = without_begin(tell(&[burst(Q, &asks), burst(R, &answers)]));
    assert_eq!(whole.len(), 10, "{whole:#?}");
    for step in 1..60 {
        let steps: Vec<Step> = [(Q, &asks), (R, &answers)]
            .into_iter()
            .flat_map(|(flow, bytes)| bytes.chunks(step).map(move |chunk| more(flow, chunk)))
            .collect();
        assert_eq!(without_begin(tell(&steps)), whole, "{step}");
    }
}

#[test]
fn streams_are_bounded() {
    let mut driver = Driver::<Connection>::default();
    for step in start() {
        driver.step(&step);
    }
    for n in 0..3000 {
        driver.step(&burst(Q, headers(END_HEADERS, 2 * n + 1, get("/"))));
    }
    assert_eq!(driver.parser.in_flight(), 1024);
    let lost = driver.items.iter().filter(|(_, item)| matches!(item.what, What::Lost(_))).count();
    assert_eq!(lost, 2 * (3000 - 1024));
}
