//! HTTP/1 of which the capture left out parts: what stays exact, what is inferred, what is given up.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use common::{Q, R, Step, burst, hole, more, tell};
use spanwise_protocol::http1::Connection;

fn said(script: &[Step]) -> Vec<String> {
    tell::<Connection>(script)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
/// What is said of `GET`.
const ASKED: [&str; 3] = ["> 0 begin @0", "> 0 GET / @27", "> 0 end 0 @27"];

#[track_caller]
fn expect(script: &[Step], rest: &[&str]) {
    let lines = said(script);
    assert_eq!(lines[..3], ASKED);
    assert_eq!(lines[3..], *rest);
}

#[test]
fn lengths_are_counted_through_holes() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    let script =
        [burst(Q, GET), burst(R, format!("{head}abcd")), hole(R, 4000, "abcdefgh"), hole(R, 996, "12345678")];
    expect(&script, &["< 0 begin @0", "< 0 200 @41", "< 0 end 5000 @5041"]);
    let post = "POST / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n";
    let script = [burst(Q, post), hole(Q, 5000, "xxxxxxxx"), burst(R, OK), burst(Q, GET)];
    assert_eq!(said(&script)[2], "> 0 end 5000 @5041");
    assert_eq!(said(&script)[6..], ["> 1 begin @5041", "> 1 GET / @5068", "> 1 end 0 @5068"]);
}

#[test]
fn chunks_are_exact_as_long_as_the_hole_stays_inside() {
    let script = [
        burst(Q, GET),
        burst(R, format!("{CHUNKED}400\r\nabcd")),
        hole(R, 1000, "abcdefgh"),
        hole(R, 20, "abcdefgh"),
        more(R, "\r\n3\r\n"),
        hole(R, 4, "abc\r"),
        more(R, "\n5\r\n"),
        hole(R, 7, "hello\r\n"),
        more(R, "0\r\n\r\n"),
    ];
    expect(&script, &["< 0 begin @0", "< 0 200 @47", "< 0 end 1032 @1101"]);
}

#[test]
fn chunks_beyond_a_hole_end_where_a_transfer_ends_like_them() {
    let head = format!("{CHUNKED}400\r\nabcd");
    // One hole with the rest of the chunk and the last one: exact.
    expect(
        &[burst(Q, GET), burst(R, &head), hole(R, 1020 + 7, "x\r\n0\r\n\r\n")],
        &["< 0 begin @0", "< 0 200 @47", "< 0 end 1024 @1083"],
    );
    // The terminator in a transfer of its own, with the line end before it in the other.
    let blind =
        [burst(Q, GET), burst(R, &head), hole(R, 5000, "abcdef\r\n"), hole(R, 5, "0\r\n\r\n"), burst(Q, GET)];
    let lines = said(&blind);
    assert_eq!(lines[3..6], ["< 0 begin @0", "< 0 200 @47", "< 0 end 5009 @5061"]);
    // Captured bytes end it too.
    let bytes = [burst(Q, GET), burst(R, &head), hole(R, 5000, "abcdefgh"), more(R, "ab\r\n0\r\n\r\n")];
    expect(&bytes, &["< 0 begin @0", "< 0 200 @47", "< 0 end 5013 @5065"]);
    // Something that only looks like it does not.
    let open = [burst(Q, GET), burst(R, &head), hole(R, 5000, "ab10\r\n\r\n")];
    expect(&open, &["< 0 begin @0", "< 0 200 @47"]);
}

#[test]
fn an_unseen_end_is_put_where_the_direction_turns_or_silence_falls() {
    let head = format!("{CHUNKED}400\r\nabcd");
    let open = [burst(Q, GET), burst(R, &head), hole(R, 5000, "")];
    for (next, end) in [
        (Step::Idle, "< 0 end 5004 @5056"),
        (burst(Q, GET), "< 0 end 5004 @5056"),
        (Step::End(R), "< 0 end 5004 @5056"),
    ] {
        let mut script = open.to_vec();
        script.push(next);
        assert_eq!(said(&script)[5], end, "{script:?}");
    }
    // The next exchange is in order.
    let mut script = open.to_vec();
    script.extend([burst(Q, GET), burst(R, OK)]);
    assert_eq!(
        said(&script)[6..],
        [
            "> 1 begin @27",
            "> 1 GET / @54",
            "> 1 end 0 @54",
            "< 1 begin @5056",
            "< 1 200 @5094",
            "< 1 end 2 @5096"
        ]
    );
    // So it is after silence, whatever still came of the first.
    let mut script = open.to_vec();
    script.extend([Step::Idle, more(R, "late"), burst(Q, GET), burst(R, OK)]);
    assert_eq!(said(&script)[9..], ["< 1 begin @5060", "< 1 200 @5098", "< 1 end 2 @5100"]);
}

#[test]
fn a_stream_of_events_may_be_silent() {
    let head = format!("{CHUNKED}400\r\nabcd");
    let mut script = vec![burst(Q, GET), burst(R, &head), hole(R, 5000, "data: 1\n"), Step::Idle];
    let silent = said(&script).len();
    script.extend([hole(R, 20, "a: 2\n\n\r\n"), Step::Idle]);
    assert_eq!(said(&script).len(), silent, "silence ended what goes on");
    script.push(hole(R, 5, "0\r\n\r\n"));
    assert_eq!(said(&script).last().map(String::as_str), Some("< 0 end 5029 @5081"));
}

#[test]
fn silence_ends_nothing_that_can_be_known() {
    for (head, moved) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "ab"),
        ("HTTP/1.0 200 OK\r\n\r\n", "ab"),
        (CHUNKED, "3\r\n"),
    ] {
        let lines = said(&[burst(Q, GET), burst(R, format!("{head}{moved}")), Step::Idle]);
        assert_eq!(lines.len(), 5, "{lines:?}");
    }
    assert_eq!(said(&[burst(Q, "GET / HT"), Step::Idle]), ["> 0 begin @0"]);
}

#[test]
fn a_cut_request_ends_with_its_response() {
    let part = "POST /a?b HTTP/1.1\r\nHost: h\r\nX: yyyyyy";
    let script = [burst(Q, part), hole(Q, 9000, "abcdefgh"), burst(R, OK), burst(Q, GET), burst(R, OK)];
    assert_eq!(
        said(&script),
        [
            "> 0 begin @0",
            "> 0 POST /a?b cut @38",
            "< 0 begin @0",
            "> 0 end 9000 @9038",
            "< 0 200 @38",
            "< 0 end 2 @40",
            "> 1 begin @9038",
            "> 1 GET / @9065",
            "> 1 end 0 @9065",
            "< 1 begin @40",
            "< 1 200 @78",
            "< 1 end 2 @80",
        ]
    );
    // An interim response does not end it.
    let script = [
        burst(Q, part),
        hole(Q, 90, "abcdefgh"),
        burst(R, "HTTP/1.1 100 C\r\n\r\n"),
        burst(Q, "body"),
        burst(R, OK),
    ];
    assert_eq!(said(&script)[3..], ["> 0 end 94 @132", "< 0 200 @56", "< 0 end 2 @58"]);
    // Silence does.
    assert_eq!(said(&[burst(Q, part), hole(Q, 90, "abcdefgh"), Step::Idle])[2], "> 0 end 90 @128");
    // A chunked body may show its end.
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: y";
    assert_eq!(said(&[burst(Q, chunked), hole(Q, 90, "a\r\n0\r\n\r\n")])[2], "> 0 end 90 @139");
}

#[test]
fn even_a_cut_request_line_tells_something() {
    let long = format!("GET /{}", "x".repeat(40));
    let script = [burst(Q, &long), hole(Q, 100, "abcdefgh"), burst(R, OK)];
    assert_eq!(said(&script)[1], format!("> 0 GET /{} cut @45", "x".repeat(40)));
    // Too little: the request is given up, and nobody waits for its response.
    let script = [burst(Q, "GE"), hole(Q, 100, "abcdefgh"), burst(R, OK), burst(Q, GET), burst(R, OK)];
    assert_eq!(said(&script)[..3], ["> 0 begin @0", "> 0 lost cut_head @2", "< half @0"]);
    assert_eq!(said(&script)[6], "< 1 begin @40");
}

#[test]
fn a_cut_response_ends_by_what_is_known_of_it() {
    let part = "HTTP/1.1 200 OK\r\nX: yyyy";
    let cut = [burst(Q, GET), burst(R, part), hole(R, 500, "abcdefgh")];
    expect(&cut, &["< 0 begin @0", "< 0 200 cut @24"]);
    for next in [Step::Idle, burst(Q, GET), Step::End(R)] {
        let mut script = cut.to_vec();
        script.push(next);
        assert_eq!(said(&script)[5], "< 0 end 500 @524");
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y";
    expect(
        &[burst(Q, GET), burst(R, chunked), hole(R, 500, "a\r\n0\r\n\r\n")],
        &["< 0 begin @0", "< 0 200 cut @49", "< 0 end 500 @549"],
    );
    // No body can follow: the end of the head is the end.
    let lines = said(&[burst(Q, "HEAD / HTTP/1.1\r\n\r\n"), burst(R, part), hole(R, 500, "abcd\r\n\r\n")]);
    assert_eq!(lines[5], "< 0 end 500 @524");
    // Not even the status.
    expect(
        &[burst(Q, GET), burst(R, "HTT"), hole(R, 50, ""), Step::Idle],
        &["< 0 begin @0", "< 0 end 50 @53"],
    );
}

#[test]
fn a_cut_interim_response_waits_for_the_final_one() {
    let script = [
        burst(Q, GET),
        burst(R, "HTTP/1.1 103 Early\r\nLink: x"),
        hole(R, 500, "abcdefgh"),
        Step::Idle,
        more(R, OK),
    ];
    expect(&script, &["< 0 begin @0", "< 0 200 @565", "< 0 end 2 @567"]);
}

#[test]
fn very_long_heads_are_cut() {
    let head = format!("POST /p HTTP/1.1\r\n{}", "X: y\r\n".repeat(5000));
    let lines = said(&[burst(Q, &head), burst(R, OK)]);
    assert_eq!(lines[..2], ["> 0 begin @0", "> 0 POST /p cut @16384"]);
    let mut pieces = vec![burst(Q, &head[..1])];
    pieces.extend(head.as_bytes()[1..].chunks(100).map(|piece| more(Q, piece)));
    pieces.push(burst(R, OK));
    assert_eq!(said(&pieces), lines);
}

#[test]
fn a_response_without_captured_bytes_still_answers() {
    let script = [burst(Q, GET), hole(R, 300, "abcdefgh"), burst(Q, GET), burst(R, OK)];
    let lines = said(&script);
    assert_eq!(lines[3..5], ["< 0 begin @0", "< 0 end 300 @300"]);
    assert_eq!(lines[8..], ["< 1 begin @300", "< 1 200 @338", "< 1 end 2 @340"]);
    // With several requests waiting nobody knows whose it is.
    let script = [burst(Q, format!("{GET}{GET}")), hole(R, 300, "abcdefgh")];
    assert_eq!(said(&script)[6..], ["< 0 lost cut_head @0", "< 1 lost cut_head @0"]);
}

#[test]
fn requests_without_captured_bytes_make_later_pairs_doubtful() {
    // A hole between requests of a pipeline: 0 is sure, 1 is not, the next quiet turn is.
    let script =
        [burst(Q, GET), hole(Q, 300, "abcdefgh"), burst(R, OK), more(R, OK), burst(Q, GET), burst(R, OK)];
    let lines = said(&script);
    assert_eq!(
        lines[3..],
        [
            "> half @27",
            "< 0 begin @0",
            "< 0 200 @38",
            "< 0 end 2 @40",
            "< half @40",
            "> 1 begin @327",
            "> 1 GET / @354",
            "> 1 end 0 @354",
            "< 1 begin @80",
            "< 1 200 @118",
            "< 1 end 2 @120",
        ]
    );
    // The line end that some clients send behind a body is nothing.
    let script =
        [burst(Q, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), hole(Q, 7, "abcde\r\n"), burst(R, OK)];
    assert_eq!(said(&script)[2..4], ["> 0 end 5 @43", "< 0 begin @0"]);
}

#[test]
fn a_gap_in_a_request_loses_the_request_not_its_answer() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 500\r\n\r\n";
    let script = [burst(Q, post), Step::Gap(Q), more(Q, "xyz"), burst(R, OK), burst(Q, GET), burst(R, OK)];
    assert_eq!(
        said(&script)[2..],
        [
            "> 0 lost gap @40",
            "< 0 begin @0",
            "< 0 200 @38",
            "< 0 end 2 @40",
            "> 1 begin @43",
            "> 1 GET / @70",
            "> 1 end 0 @70",
            "< 1 begin @40",
            "< 1 200 @78",
            "< 1 end 2 @80",
        ]
    );
}

#[test]
fn a_request_behind_a_gap_is_not_paired_while_others_wait() {
    // Between 0 and 1 there may be another request.
    let script =
        [burst(Q, GET), Step::Gap(Q), burst(Q, GET), burst(R, OK), more(R, OK), burst(Q, GET), burst(R, OK)];
    let lines = said(&script);
    assert_eq!(
        lines[6..11],
        ["< 0 begin @0", "< 0 200 @38", "< 0 end 2 @40", "< 1 lost gap @40", "< half @40"]
    );
    assert_eq!(
        lines[11..],
        [
            "> 2 begin @54",
            "> 2 GET / @81",
            "> 2 end 0 @81",
            "< 2 begin @80",
            "< 2 200 @118",
            "< 2 end 2 @120"
        ]
    );
}

#[test]
fn a_gap_in_a_response_loses_all_that_wait() {
    let script = [
        burst(Q, format!("{GET}{GET}")),
        burst(R, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nab"),
        Step::Gap(R),
        more(R, OK),
        burst(Q, GET),
        burst(R, OK),
    ];
    let lines = said(&script);
    assert_eq!(lines[6..10], ["< 0 begin @0", "< 0 200 @39", "< 0 lost gap @41", "< 1 lost gap @41"]);
    assert_eq!(lines[13..], ["< 2 begin @81", "< 2 200 @119", "< 2 end 2 @121"]);
}

#[test]
fn a_request_still_being_sent_outlives_a_gap_in_the_responses() {
    let script =
        [burst(Q, "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n"), Step::Gap(R), more(Q, "ab"), burst(R, OK)];
    assert_eq!(said(&script)[2..], ["> 0 end 2 @40", "< 0 begin @0", "< 0 200 @38", "< 0 end 2 @40"]);
}

#[test]
fn responses_that_were_skipped_are_not_given_to_later_requests() {
    // The response to 0 comes while its direction is out of step; 1 must not inherit it, nor 0 the one of 1.
    let script =
        [burst(R, "tail of something"), more(Q, GET), more(R, "more of it"), burst(Q, GET), burst(R, OK)];
    let lines = said(&script);
    assert_eq!(lines[0], "< half @0");
    assert_eq!(
        lines[4..],
        [
            "< 0 lost gap @27",
            "> 1 begin @27",
            "> 1 GET / @54",
            "> 1 end 0 @54",
            "< 1 begin @27",
            "< 1 200 @65",
            "< 1 end 2 @67"
        ]
    );
}
