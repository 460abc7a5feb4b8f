//! Framing of HTTP/1 messages that were captured whole: each rule of RFC 9112 once.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use common::{Driver, Q, R, Step, burst, more, tell};
use spanwise_protocol::http1::{Connection, Upgraded};
use spanwise_protocol::message::{Request, Response, Version};
use spanwise_protocol::{Flow, Head, Parser, What};

fn said(script: &[Step]) -> Vec<String> {
    tell::<Connection>(script)
}

/// Items of one direction without the positions.
fn short(script: &[Step], flow: Flow) -> Vec<String> {
    let arrow = if flow == Q { "> " } else { "< " };
    said(script)
        .iter()
        .filter_map(|line| line.strip_prefix(arrow))
        .map(|line| line.rsplit_once(" @").unwrap().0.to_owned())
        .collect()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn request(head: &str) -> Request {
    let mut driver = Driver::<Connection>::default();
    driver.step(&burst(Q, head));
    let head = driver.items.iter().find_map(|(_, item)| match &item.what {
        What::Head(Head::Request(request)) => Some(request.clone()),
        _ => None,
    });
    head.unwrap_or_else(|| panic!("no head in {:?}", driver.items))
}

fn response(head: &str) -> Response {
    let mut driver = Driver::<Connection>::default();
    driver.step(&burst(Q, GET));
    driver.step(&burst(R, head));
    let head = driver.items.iter().find_map(|(_, item)| match &item.what {
        What::Head(Head::Response(response)) => Some(response.clone()),
        _ => None,
    });
    head.unwrap_or_else(|| panic!("no head in {:?}", driver.items))
}

/// What is said of a response to a GET.
fn answer(bytes: &str) -> Vec<String> {
    short(&[burst(Q, GET), burst(R, bytes)], R)
}

/// What is said of a request.
fn asked(bytes: &str) -> Vec<String> {
    short(&[burst(Q, bytes)], Q)
}

#[test]
fn a_request_and_its_response() {
    assert_eq!(
        said(&[burst(Q, GET), burst(R, OK)]),
        ["> 0 begin @0", "> 0 GET / @27", "> 0 end 0 @27", "< 0 begin @0", "< 0 200 @38", "< 0 end 2 @40"]
    );
}

#[test]
fn every_field_of_a_request() {
    let request = request(
        "PATCH /a/b?c=d&e HTTP/1.0\r\nhost: example.com:8080\r\nUSER-AGENT:  curl/8 \r\nContent-Length: 5\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
         tracestate: a=1\r\nTraceState: b=2\r\n\r\n",
    );
    assert_eq!(
        (&*request.method, &*request.path, request.query.as_deref()),
        ("PATCH", "/a/b", Some("c=d&e"))
    );
    assert_eq!((request.authority.as_deref(), request.version), (Some("example.com:8080"), Version::Http10));
    assert_eq!((request.user_agent.as_deref(), request.content_length), (Some("curl/8"), Some(5)));
    let context = request.context.unwrap();
    assert_eq!((context.trace_id[0], context.span_id[0], context.flags), (0x0a, 0xb7, 1));
    assert_eq!(context.state.as_deref(), Some("a=1,b=2"));
    assert!(!request.truncated);
}

#[test]
fn context_needs_exactly_one_valid_parent() {
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    assert!(request(&format!("GET / HTTP/1.1\r\n{parent}\r\n")).context.is_some());
    assert!(request(&format!("GET / HTTP/1.1\r\n{parent}{parent}\r\n")).context.is_none());
    assert!(request(&format!("GET / HTTP/1.1\r\n{parent}traceparent: x\r\n\r\n")).context.is_none());
    assert!(request("GET / HTTP/1.1\r\ntracestate: a=1\r\n\r\n").context.is_none());
}

#[test]
fn any_token_is_a_method_and_all_four_targets_are_read() {
    assert_eq!(&*request("X-!#$%&'*+.^_`|~ /a HTTP/1.1\r\n\r\n").method, "X-!#$%&'*+.^_`|~");
    assert_eq!(&*request("OPTIONS * HTTP/1.1\r\n\r\n").path, "*");
    let absolute = request("GET https://u:p@b.c/d?e HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!((absolute.authority.as_deref(), absolute.scheme.as_deref()), (Some("b.c"), Some("https")));
    assert_eq!((&*absolute.path, absolute.query.as_deref()), ("/d", Some("e")));
    let connect = request("CONNECT a:443 HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!((connect.authority.as_deref(), &*connect.path), (Some("a:443"), ""));
}

#[test]
fn texts_are_bounded() {
    let long = "x".repeat(2600);
    let request =
        request(&format!("GET /{long}?{long} HTTP/1.1\r\nHost: {long}\r\nUser-Agent: {long}\r\n\r\n"));
    assert_eq!((request.path.len(), request.query.unwrap().len()), (2048, 2048));
    assert_eq!((request.authority.unwrap().len(), request.user_agent.unwrap().len()), (255, 256));
    assert!(!request.truncated);
}

#[test]
fn folded_lines_are_joined_and_bare_line_feeds_end_lines() {
    let folded = request("GET / HTTP/1.1\r\nUser-Agent: a\r\n b\r\n\tc\r\nHost:\r\n d\r\n\r\n");
    assert_eq!((folded.user_agent.as_deref(), folded.authority.as_deref()), (Some("a b c"), Some("d")));
    assert_eq!(
        said(&[burst(Q, "POST /x HTTP/1.1\nContent-Length: 3\n\nabc")]),
        ["> 0 begin @0", "> 0 POST /x @36", "> 0 end 3 @39"]
    );
    assert_eq!(answer("HTTP/1.1 200\nContent-Length: 1\n\nx"), ["0 begin", "0 200", "0 end 1"]);
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    assert_eq!(
        said(&[burst(Q, format!("\r\n\r\n{GET}\r\n{GET}"))]),
        ["> 0 begin @4", "> 0 GET / @31", "> 0 end 0 @31", "> 1 begin @33", "> 1 GET / @60", "> 1 end 0 @60"]
    );
}

#[test]
fn heads_may_be_split_anywhere() {
    let whole = said(&[burst(Q, GET), burst(R, OK)]);
    for cut in 1..GET.len() {
        let (a, b) = GET.split_at(cut);
        let script = [burst(Q, a), more(Q, b), burst(R, OK)];
        assert_eq!(said(&script), whole, "request split at {cut}");
        assert_eq!(said(&script[..1]), ["> 0 begin @0"], "the first byte begins the request");
    }
    for cut in 1..OK.len() {
        let (a, b) = OK.split_at(cut);
        assert_eq!(said(&[burst(Q, GET), burst(R, a), more(R, b)]), whole, "response split at {cut}");
    }
}

#[test]
fn content_length_frames() {
    assert_eq!(
        asked("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"),
        ["0 begin", "0 POST /", "0 end 5"]
    );
    assert_eq!(asked("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell"), ["0 begin", "0 POST /"]);
    let twice = "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5, 5\r\n\r\nhello";
    assert_eq!(asked(twice), ["0 begin", "0 POST /", "0 end 5"]);
    for bad in ["5\r\nContent-Length: 6", "5, 6", "-1", "+1", "1x", "", "99999999999999999999"] {
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {bad}\r\n\r\n");
        assert_eq!(asked(&head), ["0 begin", "0 POST /", "0 lost framing"], "{bad}");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bad}\r\n\r\n");
        assert_eq!(answer(&head), ["0 begin", "0 200", "0 lost framing"], "{bad}");
    }
}

#[test]
fn a_request_of_unclear_length_may_still_be_answered() {
    let script = [
        burst(Q, "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"),
        burst(R, "HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n"),
    ];
    assert_eq!(short(&script, R), ["0 begin", "0 400", "0 end 0"]);
}

#[test]
fn chunks_are_counted_without_their_framing() {
    let body = "4\r\nwiki\r\n5;a=\"b\";c\r\npedia\r\n0a \r\n in\r\n\r\nchu\r\n0\r\n";
    for end in ["\r\n", "X: y\r\nZ: 0\r\n\r\n"] {
        let all = format!("{body}{end}");
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(
            asked(&format!("{head}{all}{GET}")),
            ["0 begin", "0 POST /", "0 end 19", "1 begin", "1 GET /", "1 end 0"]
        );
        assert_eq!(request(head).content_length, None, "the coding outranks the length");
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n";
        assert_eq!(answer(&format!("{head}{all}")), ["0 begin", "0 200", "0 end 19"]);
    }
    let all = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}\r\n");
    let whole = said(&[burst(Q, &all)]);
    for cut in 1..all.len() {
        assert_eq!(said(&[burst(Q, &all[..cut]), more(Q, &all[cut..])]), whole, "split at {cut}");
    }
}

#[test]
fn broken_chunks_are_lost() {
    for bad in ["x\r\n", "\r\n", "-1\r\n", "11111111111111111\r\n", "1\r\nab\r\n", "1\r\na\rb"] {
        let head = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{bad}");
        assert_eq!(asked(&head), ["0 begin", "0 POST /", "0 lost malformed"], "{bad:?}");
    }
}

#[test]
fn other_codings() {
    assert_eq!(
        asked("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"),
        ["0 begin", "0 POST /", "0 lost framing"]
    );
    let script =
        [burst(Q, GET), burst(R, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"), Step::End(R)];
    assert_eq!(short(&script, R), ["0 begin", "0 200", "0 end 3"]);
}

#[test]
fn some_responses_have_no_body() {
    for status in [204, 304] {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(answer(&head), ["0 begin", &format!("0 {status}"), "0 end 0"]);
    }
    let script =
        [burst(Q, "HEAD / HTTP/1.1\r\n\r\n"), burst(R, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")];
    assert_eq!(short(&script, R), ["0 begin", "0 200", "0 end 0"]);
    assert_eq!(response("HTTP/1.0 304 X\r\nContent-Length: 5\r\n\r\n").content_length, Some(5));
}

#[test]
fn a_body_without_length_ends_with_the_connection() {
    let script =
        [burst(Q, GET), burst(R, "HTTP/1.0 200 OK\r\n\r\nab"), more(R, "cd"), Step::Idle, Step::End(R)];
    assert_eq!(said(&script)[3..], ["< 0 begin @0", "< 0 200 @19", "< 0 end 4 @23"]);
}

#[test]
fn interim_responses_are_passed_over() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n";
    assert_eq!(answer(&format!("{interim}{OK}")), ["0 begin", "0 200", "0 end 2"]);
    let post = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let script = [burst(Q, post), burst(R, "HTTP/1.1 100 Continue\r\n\r\n"), burst(Q, "hi"), burst(R, OK)];
    assert_eq!(
        said(&script),
        ["> 0 begin @0", "> 0 POST / @60", "< 0 begin @0", "> 0 end 2 @62", "< 0 200 @63", "< 0 end 2 @65"]
    );
}

#[test]
fn a_refused_expectation_frees_the_connection() {
    let post = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let refused = "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
    let script = [burst(Q, post), burst(R, refused), burst(Q, GET), burst(R, OK)];
    assert_eq!(short(&script, Q), ["0 begin", "0 POST /", "0 end 0", "1 begin", "1 GET /", "1 end 0"]);
    assert_eq!(short(&script, R), ["0 begin", "0 417", "0 end 0", "1 begin", "1 200", "1 end 2"]);
}

#[test]
fn pipelines_pair_in_order() {
    let head = "HEAD /h HTTP/1.1\r\n\r\n";
    let script = [
        burst(Q, format!("{GET}{head}{GET}")),
        burst(
            R,
            format!(
                "{OK}HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n"
            ),
        ),
    ];
    assert_eq!(
        short(&script, R),
        ["0 begin", "0 200", "0 end 2", "1 begin", "1 200", "1 end 0", "2 begin", "2 404", "2 end 0"]
    );
    let mut driver = Driver::<Connection>::default();
    driver.step(&script[0]);
    assert_eq!(driver.parser.in_flight(), 3);
    driver.step(&script[1]);
    assert_eq!(driver.parser.in_flight(), 0);
}

#[test]
fn an_early_response_leaves_the_request_to_end_by_itself() {
    let script = [
        burst(Q, "POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc"),
        burst(R, "HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n"),
        burst(Q, format!("def{GET}")),
        burst(R, OK),
    ];
    assert_eq!(short(&script, Q), ["0 begin", "0 POST /", "0 end 6", "1 begin", "1 GET /", "1 end 0"]);
    assert_eq!(short(&script, R), ["0 begin", "0 413", "0 end 0", "1 begin", "1 200", "1 end 2"]);
    let mut driver = Driver::<Connection>::default();
    script[..2].iter().for_each(|step| driver.step(step));
    assert_eq!(driver.parser.in_flight(), 1, "the request is still being sent");
}

#[test]
fn upgrades_switch_only_when_asked_for() {
    let ask = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n";
    let script = [burst(Q, ask), burst(R, format!("{switch}\x01\x02")), burst(Q, GET), burst(R, OK)];
    assert_eq!(short(&script, R), ["0 begin", "0 101", "0 switched"]);
    assert_eq!(short(&script, Q).len(), 3, "nothing after the switch");
    let mut driver = Driver::<Connection>::default();
    script.iter().for_each(|step| driver.step(step));
    assert!(driver.parser.is_switched() && driver.parser.in_flight() == 0);
    // The server does not want to.
    assert_eq!(short(&[burst(Q, ask), burst(R, OK)], R), ["0 begin", "0 200", "0 end 2"]);
    // Nobody asked.
    assert_eq!(answer(&format!("{switch}{OK}")), ["0 begin", "0 200", "0 end 2"]);
}

#[test]
fn an_upgrade_to_http2_leaves_the_exchange_open() {
    let ask = "GET /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let script = [burst(Q, GET), burst(R, OK), burst(Q, ask), burst(R, format!("{switch}\0\0\0"))];
    assert_eq!(short(&script, R), ["0 begin", "0 200", "0 end 2", "1 begin"]);
    let mut driver = Driver::<Connection>::default();
    script.iter().for_each(|step| driver.step(step));
    assert!(driver.parser.is_switched() && driver.parser.is_upgraded());
    assert_eq!(driver.parser.take_upgraded(), Some(Upgraded { exchange: 1, offset: switch.len() }));
    assert!(!driver.parser.is_upgraded(), "told once");
}

#[test]
fn tunnels_switch_when_granted() {
    let ask = "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n";
    let script = [burst(Q, ask), burst(R, "HTTP/1.1 200 Established\r\n\r\n"), burst(Q, "\x16\x03\x01")];
    assert_eq!(
        said(&script),
        [
            "> 0 begin @0",
            "> 0 CONNECT  @35",
            "> 0 end 0 @35",
            "< 0 begin @0",
            "< 0 200 @28",
            "< 0 switched @28"
        ]
    );
    let script = [
        burst(Q, ask),
        burst(R, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
        burst(Q, GET),
        burst(R, OK),
    ];
    assert_eq!(short(&script, R), ["0 begin", "0 403", "0 end 0", "1 begin", "1 200", "1 end 2"]);
    // Eager clients send before they are allowed to.
    let script = [burst(Q, ask), more(Q, "\x16\x03\x01"), burst(R, "HTTP/1.1 200 Established\r\n\r\n")];
    assert_eq!(short(&script, Q), ["0 begin", "0 CONNECT ", "0 end 0"]);
}

#[test]
fn requests_behind_a_switch_are_lost() {
    let ask = "GET /ws HTTP/1.1\r\nUpgrade: x\r\n\r\n";
    let script = [burst(Q, format!("{ask}{GET}")), burst(R, "HTTP/1.1 101 S\r\n\r\n")];
    assert_eq!(short(&script, R), ["0 begin", "0 101", "0 switched", "1 lost switched"]);
}

#[test]
fn closing_aborts_what_is_incomplete() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc";
    assert_eq!(
        said(&[burst(Q, post), Step::End(Q), Step::End(R)]),
        ["> 0 begin @0", "> 0 POST / @38", "> 0 aborted 3 @41", "< 0 aborted 0 @0"]
    );
    let script = [
        burst(Q, format!("{GET}{GET}")),
        burst(R, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        Step::End(R),
    ];
    assert_eq!(short(&script, R), ["0 begin", "0 200", "0 aborted 3", "1 aborted 0"]);
    // A client that only closes its own direction is still answered.
    assert_eq!(
        short(&[burst(Q, GET), Step::End(Q), burst(R, OK), Step::End(R)], R),
        ["0 begin", "0 200", "0 end 2"]
    );
    // Half a head.
    assert_eq!(asked("GET /"), ["0 begin"]);
    assert_eq!(short(&[burst(Q, "GET /"), Step::End(Q), Step::End(R)], Q), ["0 begin", "0 aborted 0"]);
    // The response closes first, the request last.
    let script = [Step::End(R), burst(Q, GET), Step::End(Q)];
    assert_eq!(short(&script, R), ["0 aborted 0"]);
}

#[test]
fn malformed_heads_are_lost_and_their_answers_belong_to_nobody() {
    for bad in [
        "GET / HTTP/2.0\r\n",
        "GET /\r\n",
        "GET\r\n",
        "GET  HTTP/1.1\r\n",
        "G\0T / HTTP/1.1\r\n",
        "GET / HTTP/1.1x\r\n",
    ] {
        let script = [
            burst(Q, GET),
            burst(R, OK),
            burst(Q, ""),
            more(Q, bad),
            burst(R, OK),
            burst(Q, GET),
            burst(R, OK),
        ];
        assert_eq!(
            short(&script, Q),
            ["0 begin", "0 GET /", "0 end 0", "1 begin", "1 lost malformed", "2 begin", "2 GET /", "2 end 0"],
            "{bad:?}"
        );
        assert_eq!(short(&script, R)[3..], ["half", "2 begin", "2 200", "2 end 2"], "{bad:?}");
    }
    for bad in ["HTTP/1.1 20 OK\r\n", "HTTP/1.1 0200 OK\r\n", "HTTP/2 200\r\n", "HELLO\r\n"] {
        let script = [burst(Q, GET), burst(R, OK), burst(Q, GET), more(R, bad)];
        assert_eq!(short(&script, R)[3..], ["1 begin", "1 lost malformed"], "{bad:?}");
    }
}

#[test]
fn garbage_between_messages() {
    let script = [
        burst(Q, format!("{GET}\0\x01 binary")),
        burst(R, OK),
        burst(Q, GET),
        burst(R, format!("{OK}x{OK}")),
    ];
    assert_eq!(
        short(&script, Q),
        ["0 begin", "0 GET /", "0 end 0", "garbage", "1 begin", "1 GET /", "1 end 0"]
    );
    assert_eq!(short(&script, R), ["0 begin", "0 200", "0 end 2", "1 begin", "1 200", "1 end 2", "garbage"]);
}

#[test]
fn old_connections_are_joined_at_the_next_request() {
    let script = [
        burst(Q, "rest of a body"),
        burst(R, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        burst(Q, GET),
        burst(R, OK),
    ];
    assert_eq!(short(&script, Q), ["half", "0 begin", "0 GET /", "0 end 0"]);
    assert_eq!(short(&script, R), ["half", "0 begin", "0 200", "0 end 2"]);
    let script = [burst(R, "rest of a body"), more(R, OK), burst(Q, GET), burst(R, OK)];
    assert_eq!(short(&script, R), ["half", "0 begin", "0 200", "0 end 2"]);
}

#[test]
fn the_number_of_waiting_requests_is_bounded() {
    let many = GET.repeat(1500);
    let mut driver = Driver::<Connection>::default();
    driver.step(&burst(Q, &many));
    assert!(driver.parser.in_flight() <= 1024);
    let lost = driver.items.iter().filter(|(_, item)| item.flow == R).count();
    assert_eq!(lost + driver.parser.in_flight(), 1500);
    // Which response is whose is not known any more.
    driver.step(&burst(R, OK));
    assert_eq!(driver.parser.in_flight(), 0);
    // The next quiet turn makes it good.
    driver.items.clear();
    driver.step(&burst(Q, GET));
    driver.step(&burst(R, OK));
    assert_eq!(driver.items.len(), 6);
}
