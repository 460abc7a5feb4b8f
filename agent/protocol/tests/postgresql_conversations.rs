//! Conversations with PostgreSQL as they are written down, and generated ones: what was said is what is read, however it is cut.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use common::{Q, R, Step, burst, gap, hole, more, tell};
use proptest::collection::vec;
use proptest::prelude::*;
use spanwise_protocol::postgresql::Connection;
use spanwise_protocol::{Detect, Flow, Parser};

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend(body);
    out
}

fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0bob\0database\0shop\0\0";
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat())
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    let parameter = b"\0\0\0\x01\0\0\0\x06secret\0\0";
    message(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0", parameter].concat())
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn row(len: usize) -> Vec<u8> {
    let column = [&u32::try_from(len).unwrap().to_be_bytes()[..], &vec![b'r'; len]].concat();
    message(b'D', &[&b"\0\x01"[..], &column].concat())
}

fn done() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn error(state: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{state}\0Mno 'secret' here\0\0").as_bytes())
}

/// A connection that is open.
fn opened() -> Vec<Step> {
    let parameter = message(b'S', b"server_version\x0017\0");
    let hello = [message(b'R', b"\0\0\0\0"), parameter, message(b'K', b"\0\0\0\x01\0\0\0\x02"), ready()];
    vec![burst(Q, startup()), burst(R, hello.concat())]
}

fn after_opening(steps: impl IntoIterator<Item = Step>) -> Vec<String> {
    let script: Vec<Step> = opened().into_iter().chain(steps).collect();
    // Positions are left out.
    let lines = tell::<Connection>(&script);
    lines.iter().map(|line| line.rsplit_once(" @").unwrap().0.to_owned()).collect()
}

#[test]
fn a_simple_query() {
    let script = [
        burst(Q, query("select * from orders where name = 'secret'")),
        burst(R, [message(b'T', b"\0\0"), row(7), done(), ready()].concat()),
    ];
    assert_eq!(
        after_opening(script),
        [
            "> 0 begin",
            "> 0 postgresql: SELECT orders [select * from orders where name = ?] in shop",
            "> 0 end 0",
            "< 0 begin",
            "< 0 ok",
            "< 0 end 0",
        ]
    );
}

#[test]
fn positions_are_those_of_the_messages() {
    let lines = tell::<Connection>(&[
        burst(Q, startup()),
        burst(R, ready()),
        burst(Q, query("select 1")),
        burst(R, [done(), ready()].concat()),
    ]);
    let begin = startup().len();
    assert_eq!(lines[0], format!("> 0 begin @{begin}"));
    assert_eq!(lines[2], format!("> 0 end 0 @{}", begin + query("select 1").len()));
    assert_eq!(lines[3], format!("< 0 begin @{}", ready().len()));
    assert_eq!(lines[5], format!("< 0 end 0 @{}", 2 * ready().len() + done().len()));
}

#[test]
fn prepared_statements_are_known_by_their_names() {
    let script = [
        burst(Q, [parse("s1", "update t set a = $1"), message(b'D', b"Ss1\0"), sync()].concat()),
        burst(R, [message(b'1', b""), message(b'n', b""), ready()].concat()),
        burst(Q, [bind("", "s1"), message(b'D', b"P\0"), execute(""), sync()].concat()),
        burst(R, [message(b'2', b""), message(b'n', b""), done(), ready()].concat()),
        burst(Q, [bind("", "other"), execute(""), sync()].concat()),
        burst(R, [error("26000"), ready()].concat()),
    ];
    let lines = after_opening(script);
    assert_eq!(lines[1], "> 0 postgresql: PREPARE UPDATE t [update t set a = $1] in shop");
    assert_eq!(lines[7], "> 1 postgresql: UPDATE t [update t set a = $1] in shop");
    // It was prepared before anybody looked.
    assert_eq!(lines[13], "> 2 postgresql:  in shop");
    assert_eq!(lines[16], "< 2 26000");
}

#[test]
fn what_a_sync_ends_is_one_call() {
    let one = [parse("", "insert into t values ($1)"), bind("", ""), execute("")].concat();
    let script = [
        burst(Q, [parse("", "BEGIN"), bind("", ""), execute(""), one.clone(), sync()].concat()),
        burst(R, [done(), done(), ready()].concat()),
        burst(Q, [one.clone(), one.clone(), one, sync()].concat()),
        burst(R, [done(), done(), done(), ready()].concat()),
    ];
    let lines = after_opening(script);
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[1], "> 0 postgresql: INSERT t [insert into t values ($1)] in shop");
    assert_eq!(lines[7], "> 1 postgresql: BATCH INSERT t [insert into t values ($1)] in shop x3");
}

#[test]
fn pipelines_are_answered_in_order() {
    let call =
        |name: &str| [parse("", &format!("select {name}()")), bind("", ""), execute(""), sync()].concat();
    let script = [
        burst(Q, [call("a"), sync(), call("b"), call("c")].concat()),
        burst(R, [done(), ready(), ready(), error("42883")].concat()),
        more(R, [ready(), done(), ready()].concat()),
    ];
    let lines = after_opening(script);
    let answers: Vec<&str> = lines.iter().filter(|line| line.starts_with('<')).map(String::as_str).collect();
    assert_eq!(
        answers,
        [
            "< 0 begin",
            "< 0 ok",
            "< 0 end 0",
            "< 1 begin",
            "< 1 42883",
            "< 1 end 0",
            "< 2 begin",
            "< 2 ok",
            "< 2 end 0"
        ]
    );
}

#[test]
fn errors_before_the_sync_comes() {
    let script = [
        burst(Q, [parse("", "selec"), message(b'H', b"")].concat()),
        burst(R, error("42601")),
        burst(Q, sync()),
        burst(R, ready()),
    ];
    let lines = after_opening(script);
    assert_eq!(lines[1..], ["< 0 begin", lines[2].as_str(), "> 0 end 0", "< 0 42601", "< 0 end 0"]);
}

#[test]
fn copies_of_both_ways() {
    let script = [
        burst(Q, query("copy t from stdin")),
        burst(R, message(b'G', b"\0\0\0")),
        burst(Q, [message(b'd', b"secret\n"), message(b'd', b"secret\n"), message(b'c', b"")].concat()),
        burst(R, [message(b'C', b"COPY 2\0"), ready()].concat()),
        burst(Q, query("copy t to stdout")),
        burst(
            R,
            [message(b'H', b"\0\0\0"), message(b'd', b"secret\n"), message(b'c', b""), done(), ready()]
                .concat(),
        ),
        // By the extended protocol a second Sync follows the data.
        burst(Q, [parse("", "copy t from stdin"), bind("", ""), execute(""), sync()].concat()),
        burst(R, message(b'G', b"\0\0\0")),
        burst(Q, [message(b'd', b"secret\n"), message(b'c', b""), sync()].concat()),
        burst(R, [done(), ready()].concat()),
        burst(Q, query("select 1")),
        burst(R, [error("57014"), ready()].concat()),
    ];
    let lines = after_opening(script);
    assert_eq!(lines.len(), 24, "{lines:#?}");
    assert_eq!(lines[22], "< 3 57014");
    assert!(lines.iter().all(|line| !line.contains("secret")));
}

#[test]
fn what_the_server_says_unasked() {
    let script = [
        burst(R, message(b'A', b"\0\0\0\x01channel\0payload\0")),
        burst(Q, query("select 1")),
        burst(R, message(b'N', b"SNOTICE\0C00000\0\0")),
        more(R, [done(), ready()].concat()),
        burst(R, [message(b'S', b"TimeZone\0UTC\0"), message(b'N', b"SNOTICE\0\0")].concat()),
    ];
    let lines = after_opening(script);
    assert_eq!(lines[3..], ["< 0 begin", "< 0 ok", "< 0 end 0"]);
}

#[test]
fn encryption_is_asked_for() {
    let wish = b"\0\0\0\x08\x04\xd2\x16\x2f";
    let script =
        [burst(Q, wish), burst(R, b"N"), burst(Q, startup()), burst(R, ready()), burst(Q, query("select 1"))];
    let lines = tell::<Connection>(&script);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].contains("in shop"));
    let mut parser = Connection::default();
    for step in [burst(Q, wish), burst(R, b"S")] {
        let Step::Bytes(flow, bytes, burst_start) = step else { panic!() };
        parser.feed(flow, spanwise_protocol::Input::Bytes { bytes: &bytes, burst_start }, &mut |_| {});
    }
    assert!(parser.is_switched() && parser.is_encrypted());
}

#[test]
fn long_answers_end_with_their_last_bytes() {
    // Of a burst only the beginning is captured.
    let script = [
        burst(Q, query("select * from t")),
        burst(R, [row(20), row(500)[..100].to_vec()].concat()),
        hole(R, 90_000, b"rrrrrrrr"),
        hole(R, 70_000, b"rrZ\0\0\0\x05I"),
        burst(Q, query("select 2")),
        burst(R, [done(), ready()].concat()),
        burst(Q, query("select 3")),
        burst(R, &row(500)[..100]),
        // The end comes in two pieces.
        hole(R, 9_000, b"\0\0\0\0\0Z\0\0"),
        hole(R, 3, b"\0\x05I"),
    ];
    let lines = after_opening(script);
    assert_eq!(lines[3..6], ["< 0 begin", "< 0 ok cut", "< 0 end 0"]);
    assert_eq!(lines[9..12], ["< 1 begin", "< 1 ok", "< 1 end 0"]);
    assert_eq!(lines[15..], ["< 2 begin", "< 2 ok cut", "< 2 end 0"]);
}

#[test]
fn a_hole_within_one_row_costs_nothing() {
    let row = row(10_000);
    let script = [
        burst(Q, query("select * from t")),
        burst(R, &row[..1000]),
        hole(R, row.len() as u64 - 1000, b"rrrrrrrr"),
        more(R, [error("22012"), ready()].concat()),
    ];
    assert_eq!(after_opening(script)[3..], ["< 0 begin", "< 0 22012", "< 0 end 0"]);
}

#[test]
fn an_error_that_was_not_captured_shows_in_the_transaction() {
    let in_transaction = |status: &[u8]| message(b'Z', status);
    let script = [
        burst(Q, query("begin")),
        burst(R, [done(), in_transaction(b"T")].concat()),
        burst(Q, query("select * from t")),
        burst(R, &row(500)[..100]),
        hole(R, 70_000, b"rrZ\0\0\0\x05E"),
    ];
    assert_eq!(after_opening(script)[9..], ["< 1 begin", "< 1 _OTHER cut", "< 1 end 0"]);
}

#[test]
fn long_statements_are_cut_and_say_so() {
    let text = format!("select a from t where b in ('secret'{})", ", 'secret'".repeat(2000));
    let query = query(&text);
    let script = [
        burst(Q, &query[..4096]),
        hole(Q, query.len() as u64 - 4096, b"secret')"),
        burst(R, [done(), ready()].concat()),
    ];
    let lines = after_opening(script);
    assert!(lines[1].starts_with("> 0 postgresql: SELECT t [select a from t where b in (?"), "{}", lines[1]);
    assert!(lines[1].ends_with(" cut") && !lines[1].contains("secret"), "{}", lines[1]);
    assert_eq!(lines[3..], ["< 0 begin", "< 0 ok", "< 0 end 0"]);
}

#[test]
fn a_group_whose_end_alone_was_seen() {
    let parse = parse("", "insert into t values ($1)");
    let script = [
        burst(Q, [parse, bind("", "")].concat()),
        hole(Q, 50_000, b"\0\0\0S\0\0\0\x04"),
        burst(R, [done(), ready()].concat()),
        burst(Q, query("select 2")),
        burst(R, [done(), ready()].concat()),
    ];
    let lines = after_opening(script);
    assert_eq!(lines[1], "> 0 postgresql: INSERT t [insert into t values ($1)] in shop cut");
    assert_eq!(lines[3..6], ["< 0 begin", "< 0 ok", "< 0 end 0"]);
    assert_eq!(lines[7], "> 1 postgresql: SELECT [select ?] in shop");
    assert_eq!(lines[9..], ["< 1 begin", "< 1 ok", "< 1 end 0"]);
}

#[test]
fn after_a_gap_nothing_is_made_up() {
    let script = [
        burst(Q, [parse("s", "select a from t"), sync()].concat()),
        burst(R, [message(b'1', b""), ready()].concat()),
        burst(Q, query("select 1")),
        gap(R),
        gap(Q),
        burst(Q, [bind("", "s"), execute(""), sync()].concat()),
        burst(R, [done(), ready()].concat()),
    ];
    let lines = after_opening(script);
    assert_eq!(lines[9..10], ["< 1 lost gap"]);
    // The name may have been given to another statement.
    assert_eq!(lines[11], "> 2 postgresql:  in shop");
    assert_eq!(lines[13..], ["< 2 begin", "< 2 ok", "< 2 end 0"]);
}

#[test]
fn connections_end() {
    let script = [
        burst(Q, query("select pg_sleep(100)")),
        burst(R, message(b'N', b"SNOTICE\0\0")),
        Step::End(R),
        Step::End(Q),
    ];
    assert_eq!(after_opening(script)[3..], ["< 0 aborted 0"]);
}

#[test]
fn connections_that_are_older() {
    let call = [parse("", "select a from t"), bind("", ""), execute(""), sync()].concat();
    assert_eq!(Connection::detect(&call), Detect::Request);
    assert_eq!(Connection::detect(&call[..call.len() - 1]), Detect::No);
    assert_eq!(Connection::detect(&[&call[..], b"x"].concat()), Detect::No);
    assert_eq!(Connection::detect(&query("sel 1")), Detect::No);
    let answer = [row(4), done(), ready()].concat();
    assert_eq!(Connection::detect(&answer), Detect::Response);
    assert_eq!(Connection::detect(&ready()), Detect::No);
    let lines = tell::<Connection>(&[burst(R, &answer), burst(Q, &call), burst(R, &answer)]);
    assert_eq!(lines[0], "< half @0");
    assert_eq!(lines[2], format!("> 0 postgresql: SELECT t [select a from t] @{}", call.len()));
    assert!(lines[5].starts_with("< 0 ok"));
}

#[derive(Clone, Debug)]
enum Call {
    Simple,
    Extended,
    Prepared,
    Pair,
}

/// What a call sends, what is answered, and what is told.
fn said(call: &Call, number: usize, fails: bool, rows: usize) -> (Vec<u8>, Vec<u8>, Vec<String>) {
    let answer = if fails { error("23505") } else { [row(3 + rows).repeat(rows), done()].concat() };
    let text = format!("select c{number} from t{number} where x = 'secret'");
    let told = format!("[select c{number} from t{number} where x = ?]");
    let one = [parse("", &text), bind("", ""), execute("")].concat();
    let named = format!("s{number}");
    let (sent, told) = match call {
        Call::Simple => (query(&text), format!("SELECT t{number} {told}")),
        Call::Extended => ([one, sync()].concat(), format!("SELECT t{number} {told}")),
        Call::Prepared => (
            [
                parse(&named, &text),
                bind("p", &named),
                execute("p"),
                message(b'C', format!("S{named}\0").as_bytes()),
                sync(),
            ]
            .concat(),
            format!("SELECT t{number} {told}"),
        ),
        Call::Pair => ([one.clone(), one, sync()].concat(), format!("BATCH SELECT t{number} {told}")),
    };
    let batch = if matches!(call, Call::Pair) { " x2" } else { "" };
    let lines = vec![
        format!("> {number} begin"),
        format!("> {number} postgresql: {told} in shop{batch}"),
        format!("> {number} end 0"),
        format!("< {number} begin"),
        format!("< {number} {}", if fails { "23505" } else { "ok" }),
        format!("< {number} end 0"),
    ];
    (sent, [answer, ready()].concat(), lines)
}

fn cut(flow: Flow, bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Step> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|pair| Step::Bytes(flow, bytes[pair[0]..pair[1]].to_vec(), pair[0] == 0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_was_said_is_what_is_read(
        calls in vec((
            prop::sample::select(&[Call::Simple, Call::Extended, Call::Prepared, Call::Pair][..]),
            any::<bool>(),
            0..4_usize,
            vec(any::<prop::sample::Index>(), 0..5),
            vec(any::<prop::sample::Index>(), 0..5),
        ), 1..8),
        opening in vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let mut steps = cut(Q, &startup(), &opening);
        steps.extend(opened().into_iter().skip(1));
        let mut wanted = Vec::new();
        for (number, (call, fails, rows, of_request, of_response)) in calls.iter().enumerate() {
            let (sent, answered, lines) = said(call, number, *fails, *rows);
            steps.extend(cut(Q, &sent, of_request));
            steps.extend(cut(R, &answered, of_response));
            wanted.extend(lines);
        }
        let lines: Vec<String> =
            tell::<Connection>(&steps).iter().map(|line| line.rsplit_once(" @").unwrap().0.to_owned()).collect();
        prop_assert_eq!(lines, wanted);
    }

    #[test]
    fn pipelines_too(
        calls in vec((prop::sample::select(&[Call::Simple, Call::Extended, Call::Pair][..]), any::<bool>()), 1..8),
        of_request in vec(any::<prop::sample::Index>(), 0..5),
        of_response in vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let (mut sent, mut answered, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (call, fails)) in calls.iter().enumerate() {
            let (bytes, answer, lines) = said(call, number, *fails, 1);
            sent.extend(bytes);
            answered.extend(answer);
            wanted.extend(lines);
        }
        let steps = opened().into_iter().chain(cut(Q, &sent, &of_request)).chain(cut(R, &answered, &of_response));
        let mut lines: Vec<String> = tell::<Connection>(&steps.collect::<Vec<_>>())
            .iter()
            .map(|line| line.rsplit_once(" @").unwrap().0.to_owned())
            .collect();
        lines.sort();
        wanted.sort();
        prop_assert_eq!(lines, wanted);
    }
}

#[test]
fn an_answer_that_began_before_its_call_begins_with_it() {
    let stream = message(b'W', b"\0\0\0");
    let script = [
        burst(R, &stream[..6]),
        burst(Q, query("START_REPLICATION SLOT a LOGICAL 0/0")),
        more(R, &stream[6..]),
    ];
    let said = tell::<Connection>(&script);
    assert_eq!(said[said.len() - 3..], ["< 0 begin @8", "< 0 ok @8", "< 0 end 0 @8"], "{said:?}");
}
