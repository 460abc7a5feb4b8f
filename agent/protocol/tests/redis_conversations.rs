//! Conversations with Redis servers: commands get their own answers or none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod common;

use common::{Driver, Q, R, Step, burst, gap, hole, line, more, tell};
use proptest::collection::vec;
use proptest::prelude::*;
use spanwise_protocol::redis::Connection;
use spanwise_protocol::{Flow, Head, Parser, What};

/// A command as clients write it.
fn command(words: &[&str]) -> String {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out
}

/// What was asked and answered, without positions: `GET [GET ?] -> ok`.
fn pairs(script: &[Step]) -> Vec<String> {
    let mut driver = Driver::<Connection>::default();
    for step in script {
        driver.step(step);
    }
    assert!(driver.parser.state_bytes() <= Connection::MAX_STATE);
    let mut out: Vec<(u32, String)> = Vec::new();
    for (_, item) in &driver.items {
        match (&item.what, out.iter_mut().find(|(number, _)| *number == item.exchange)) {
            (What::Begin, None) => out.push((item.exchange, String::new())),
            (What::Head(Head::Query(q)), Some((_, text))) => {
                let namespace = q.namespace.as_ref().map(|n| format!(" in {n}")).unwrap_or_default();
                let cut = if q.truncated { " cut" } else { "" };
                *text += &format!("{}{namespace}{cut}", q.text.as_deref().unwrap_or("?"));
            }
            (What::Head(Head::Answer(a)), Some((_, text))) => {
                let cut = if a.truncated { " cut" } else { "" };
                *text += &format!(" -> {}{cut}", a.error.as_deref().unwrap_or("ok"));
            }
            (What::Lost(reason), Some((_, text))) => *text += &format!(" lost {}", reason.as_str()),
            (What::Aborted { .. }, Some((_, text))) => *text += " aborted",
            _ => {}
        }
    }
    out.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_command_and_its_answer() {
    let set = command(&["SET", "key", "value"]);
    assert_eq!(
        tell::<Connection>(&[burst(Q, &set), burst(R, "+OK\r\n")]),
        [
            "> 0 begin @0",
            "> 0 redis: SET [SET ? ?] @33",
            "> 0 end 0 @33",
            "< 0 begin @0",
            "< 0 ok @5",
            "< 0 end 0 @5"
        ]
    );
}

#[test]
fn names_are_in_capitals_and_arguments_are_not_kept() {
    for (words, text) in [
        (&["get", "secret"][..], "GET ?"),
        (&["client", "setname", "secret"], "CLIENT SETNAME ?"),
        (&["CONFIG", "GET", "secret"], "CONFIG GET ?"),
        (&["COMMAND"], "COMMAND"),
        (&["XGROUP", "CREATE", "secret", "secret", "$"], "XGROUP CREATE ? ? ?"),
        (&["AUTH", "secret", "secret"], "AUTH ? ?"),
        (&["HELLO", "3", "AUTH", "secret", "secret"], "HELLO ? ? ? ?"),
        (&["EVAL", "return 'secret'", "0"], "EVAL ? ?"),
        (&["JSON.GET", "secret"], "JSON.GET ?"),
        (&["MSET", "1", "2", "3", "4", "5", "6", "7", "8", "9", "0"], "MSET ? ? ? ? ? ? ? ? ..."),
        (&["CONFIG", "secret:1"], "CONFIG ?"),
        (&["secret secret", "x"], "?"),
        (&["123", "x"], "?"),
    ] {
        let found = pairs(&[burst(Q, command(words)), burst(R, ":1\r\n")]);
        assert_eq!(found, [format!("{text} -> ok")], "{words:?}");
    }
}

#[test]
fn errors_tell_their_first_word() {
    for (answer, error) in [
        ("-WRONGTYPE Operation against a key\r\n", "WRONGTYPE"),
        ("-ERR unknown command 'secret'\r\n", "ERR"),
        ("-MOVED 3999 127.0.0.1:6381\r\n", "MOVED"),
        ("-secret: no\r\n", "_OTHER"),
        ("-ERR\r\n", "ERR"),
        ("!21\r\nSYNTAX invalid syntax\r\n", "SYNTAX"),
        ("|1\r\n+a\r\n-b\r\n-ERR no\r\n", "ERR"),
        // Within an answer they are parts of it.
        ("*2\r\n-ERR no\r\n:1\r\n", "ok"),
    ] {
        let found = pairs(&[burst(Q, command(&["GET", "a"])), burst(R, answer)]);
        assert_eq!(found, [format!("GET ? -> {error}")], "{answer}");
    }
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let three = command(&["GET", "a"]) + &command(&["INCR", "b"]) + &command(&["PING"]);
    let script = [burst(Q, &three), burst(R, "$-1\r\n-WRONGTYPE x\r\n"), more(R, "+PONG\r\n")];
    assert_eq!(pairs(&script), ["GET ? -> ok", "INCR ? -> WRONGTYPE", "PING -> ok"]);
}

#[test]
fn transactions_are_commands_like_others() {
    let script = [
        burst(
            Q,
            command(&["MULTI"])
                + &command(&["SET", "a", "1"])
                + &command(&["LPUSH", "a", "1"])
                + &command(&["EXEC"]),
        ),
        burst(R, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n-WRONGTYPE x\r\n"),
    ];
    assert_eq!(pairs(&script), ["MULTI -> ok", "SET ? ? -> ok", "LPUSH ? ? -> ok", "EXEC -> ok"]);
}

#[test]
fn the_selected_database_is_known_afterwards() {
    let script = [
        burst(Q, command(&["GET", "a"]) + &command(&["SELECT", "5"]) + &command(&["GET", "a"])),
        burst(R, "$-1\r\n+OK\r\n$-1\r\n"),
        burst(Q, command(&["GET", "a"])),
        burst(R, "$-1\r\n"),
        burst(Q, command(&["SELECT", "99"])),
        burst(R, "-ERR DB index is out of range\r\n"),
        burst(Q, command(&["GET", "a"])),
        burst(R, "$-1\r\n"),
    ];
    assert_eq!(
        pairs(&script),
        [
            "GET ? -> ok",
            "SELECT ? in 5 -> ok",
            "GET ? in 5 -> ok",
            "GET ? in 5 -> ok",
            "SELECT ? in 99 -> ERR",
            "GET ? -> ok"
        ]
    );
}

#[test]
fn every_type_of_answer_has_an_end() {
    for answer in [
        "+OK\r\n",
        ":-5\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5e10\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "=15\r\ntxt:Some string\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n:2\r\n",
        "~2\r\n$1\r\na\r\n$2\r\n\r\n\r\n",
        "*2\r\n*1\r\n*1\r\n:1\r\n%0\r\n",
        "$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n",
        "*?\r\n:1\r\n*?\r\n.\r\n$?\r\n;0\r\n.\r\n",
        "|1\r\n+ttl\r\n:5\r\n*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
        ">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n+OK\r\n",
    ] {
        let script = [
            burst(Q, command(&["GET", "a"]) + &command(&["INCR", "b"])),
            burst(R, format!("{answer}-NEXT x\r\n")),
        ];
        assert_eq!(pairs(&script), ["GET ? -> ok", "INCR ? -> NEXT"], "{answer}");
    }
}

#[test]
fn subscribed_connections_give_no_answers() {
    let message = "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n";
    let script = [
        burst(Q, command(&["SUBSCRIBE", "ch", "ch2"])),
        burst(R, "*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$3\r\nch2\r\n:2\r\n"),
        burst(R, message),
        burst(Q, command(&["PING"])),
        burst(R, message),
    ];
    assert_eq!(pairs(&script), ["SUBSCRIBE ? ? -> ok"]);
    let refused = [
        burst(Q, command(&["SUBSCRIBE", "ch"])),
        burst(R, "-NOPERM no\r\n"),
        burst(Q, command(&["PING"])),
        burst(R, "+PONG\r\n"),
    ];
    assert_eq!(pairs(&refused), ["SUBSCRIBE ? -> NOPERM", "PING -> ok"]);
    for (name, answer) in [("MONITOR", "+OK\r\n"), ("PSYNC", "+FULLRESYNC a 0\r\n")] {
        let script = [burst(Q, command(&[name])), burst(R, answer), burst(R, "+1.5 [0 a] \"GET\"\r\n")];
        assert_eq!(pairs(&script), [format!("{name} -> ok")]);
    }
}

#[test]
fn what_a_primary_sends_to_its_replica_is_left() {
    let ack = command(&["REPLCONF", "ACK", "1234"]);
    let script = [
        burst(Q, command(&["SET", "a", "b"])),
        burst(R, &ack),
        burst(Q, command(&["SET", "a", "b"])),
        burst(R, &ack),
    ];
    assert_eq!(pairs(&script), ["SET ? ? lost switched"]);
    let other_way = [burst(Q, &ack), burst(R, command(&["SET", "a", "b"])), burst(Q, &ack)];
    assert_eq!(pairs(&other_way), ["REPLCONF ? ? lost switched"]);
    assert_eq!(Connection::detect(ack.as_bytes()), spanwise_protocol::Detect::No);
}

#[test]
fn with_resp3_messages_come_beside_answers() {
    let script = [
        burst(Q, command(&["SUBSCRIBE", "ch"])),
        burst(R, ">3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$1\r\nx\r\n>3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"),
        burst(Q, command(&["GET", "a"])),
        burst(R, ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n"),
        more(R, "_\r\n"),
        burst(R, ">2\r\n+invalidate\r\n_\r\n"),
        burst(Q, command(&["INCR", "a"])),
        burst(R, ":1\r\n"),
    ];
    assert_eq!(pairs(&script), ["SUBSCRIBE ? -> ok", "GET ? -> ok", "INCR ? -> ok"]);
}

#[test]
fn a_connection_without_answers_is_left() {
    let script =
        [burst(Q, command(&["CLIENT", "REPLY", "OFF"]) + &command(&["SET", "a", "b"])), burst(R, "+OK\r\n")];
    assert_eq!(pairs(&script), ["CLIENT REPLY ? lost switched"]);
}

#[test]
fn long_values_are_passed_over_by_their_length() {
    let script = [
        burst(Q, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10000\r\nvvvv"),
        hole(Q, 9998, "vvvvvv\r\n"),
        burst(R, "+OK\r\n"),
        burst(Q, command(&["GET", "a"]) + &command(&["INCR", "a"])),
        burst(R, "$10000\r\nvvvv"),
        hole(R, 9990, "vvvvvvvv"),
        more(R, "vvvvvv\r\n-ERR no\r\n"),
        burst(Q, command(&["LRANGE", "a", "0", "-1"])),
        burst(R, "*2\r\n$10000\r\nvvvv"),
        hole(R, 9996, "vvvvvvvv"),
        hole(R, 2, "\r\n"),
        more(R, ":1\r\n"),
        burst(Q, command(&["PING"])),
        burst(R, "+PONG\r\n"),
    ];
    let found = pairs(&script);
    assert_eq!(found, ["SET ? ? -> ok", "GET ? -> ok", "INCR ? -> ERR", "LRANGE ? ? ? -> ok", "PING -> ok"]);
}

#[test]
fn what_lengths_do_not_tell_ends_with_the_turn_or_silence() {
    let cut = [
        burst(Q, command(&["LRANGE", "a", "0", "-1"])),
        burst(R, "*2000\r\n$3\r\nabc\r\n"),
        hole(R, 17_991, "\r\nabc\r\n"),
    ];
    let turn = [&cut[..], &[burst(Q, command(&["PING"])), burst(R, "+PONG\r\n")]].concat();
    assert_eq!(pairs(&turn), ["LRANGE ? ? ? -> ok cut", "PING -> ok"]);
    assert_eq!(pairs(&[&cut[..], &[Step::Idle]].concat()), ["LRANGE ? ? ? -> ok cut"]);
    // An answer of which nothing was captured.
    let unseen = [burst(Q, command(&["GET", "a"])), hole(R, 5, "+OK\r\n"), Step::Idle];
    assert_eq!(pairs(&unseen), ["GET ? -> ok cut"]);
    // A command whose last words were not captured.
    let long = [burst(Q, "*200\r\n$4\r\nMSET\r\n$1\r\na\r\n$9"), hole(Q, 9000, "v\r\n"), burst(R, "+OK\r\n")];
    let long = [&long[..], &[burst(Q, command(&["PING"])), burst(R, "+PONG\r\n")]].concat();
    assert_eq!(pairs(&long), ["MSET ? ? ? ? ? ? ? ? ... cut -> ok", "PING -> ok"]);
}

#[test]
fn answers_in_a_hole_are_nobodys() {
    let script = [
        burst(Q, command(&["GET", "a"]) + &command(&["MGET", "b", "c"]) + &command(&["GET", "c"])),
        burst(R, "$5\r\nhello\r\n*2\r\n$1000\r\nv"),
        hole(R, 2010, "v\r\n"),
        burst(Q, command(&["PING"])),
        burst(R, "+PONG\r\n"),
    ];
    assert_eq!(pairs(&script), ["GET ? -> ok", "MGET ? ? -> ok cut", "GET ? lost gap", "PING -> ok"]);
    // By its length the second answer ends in the hole, and only one is left for the rest of it.
    let script = [
        burst(Q, command(&["GET", "a"]).repeat(2)),
        burst(R, "$1000\r\nv"),
        hole(R, 2010, "v\r\n"),
        burst(Q, command(&["PING"])),
        burst(R, "+PONG\r\n"),
    ];
    assert_eq!(pairs(&script), ["GET ? -> ok", "GET ? -> ok cut", "PING -> ok"]);
}

#[test]
fn after_a_gap_nobody_gets_the_answer_of_another() {
    let get = command(&["GET", "a"]);
    let answers = [burst(Q, &get), gap(R), burst(Q, command(&["PING"])), burst(R, "+PONG\r\n")];
    assert_eq!(pairs(&answers), ["GET ? lost gap", "PING -> ok"]);
    let commands = [
        burst(Q, &get),
        gap(Q),
        more(Q, &get),
        burst(R, "$1\r\na\r\n$1\r\nb\r\n"),
        burst(Q, &get),
        burst(R, "$-1\r\n"),
    ];
    assert_eq!(pairs(&commands), ["GET ? lost gap", "GET ? -> ok"]);
    let middle = [
        burst(Q, "*2\r\n$3\r\nGET\r\n$3\r\na"),
        gap(Q),
        burst(R, "$1\r\na\r\n"),
        burst(Q, &get),
        burst(R, "-ERR x\r\n"),
    ];
    assert_eq!(pairs(&middle), [" lost gap", "GET ? -> ERR"]);
}

#[test]
fn of_a_client_that_does_not_wait_only_silence_removes_doubt() {
    let get = command(&["GET", "a"]);
    let incr = command(&["INCR", "a"]);
    // The second command is sent before the first is answered.
    let busy =
        [burst(Q, &get), burst(R, "$1\r\n"), burst(Q, &incr), more(R, "a\r\n:1\r\n"), burst(Q, &get), gap(R)];
    let after = [burst(Q, &incr), burst(R, "-ERR of the one before\r\n"), burst(R, ":2\r\n")];
    let found = pairs(&[&busy[..], &after].concat());
    assert_eq!(found, ["GET ? -> ok", "INCR ? -> ok", "GET ? lost gap", "INCR ? lost gap"]);
    let calm = [Step::Idle, burst(Q, &get), burst(R, "$-1\r\n")];
    let found = pairs(&[&busy[..], &after, &calm].concat());
    assert_eq!(found.last().unwrap(), "GET ? -> ok");
    // More answers than commands: the order was not what it seemed.
    let more = [burst(Q, &get), burst(R, "$1\r\na\r\n:1\r\n"), burst(Q, &incr), burst(R, ":1\r\n")];
    assert_eq!(pairs(&more), ["GET ? -> ok", "INCR ? lost gap"]);
}

#[test]
fn what_is_no_command_is_passed_over() {
    let script = [
        burst(Q, "PING\r\n"),
        burst(R, "+PONG\r\n"),
        burst(Q, command(&["GET", "a"])),
        burst(R, "$-1\r\n"),
        burst(Q, "*2\r\n$3\r\nGET\r\n:5\r\n"),
        burst(R, "-ERR Protocol error\r\n"),
    ];
    assert_eq!(pairs(&script), ["GET ? -> ok", " lost malformed"]);
}

#[test]
fn commands_that_nobody_answers_are_bounded() {
    let many = command(&["GET", "a"]).repeat(5000);
    let found = pairs(&[burst(Q, many)]);
    assert_eq!(found.len(), 5000);
    assert!(found.iter().filter(|text| text.ends_with("lost overflow")).count() >= 3900);
}

#[test]
fn both_ends_close() {
    let open = [burst(Q, command(&["BLPOP", "a", "0"])), Step::Idle, Step::End(Q), Step::End(R)];
    assert_eq!(pairs(&open), ["BLPOP ? ? aborted"]);
    let half = [burst(Q, "*2\r\n$3\r\nGET\r\n"), Step::End(R), Step::End(Q)];
    assert_eq!(pairs(&half), [" aborted"]);
}

fn answer() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("+OK\r\n".to_owned()),
        Just("_\r\n".to_owned()),
        any::<i64>().prop_map(|n| format!(":{n}\r\n")),
        "[\r\na-z]{0,40}".prop_map(|text| format!("${}\r\n{text}\r\n", text.len())),
        "[\r\na-z]{0,40}".prop_map(|text| format!("=${}\r\n{text}\r\n", text.len()).replace("=$", "=")),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|all| format!("*{}\r\n{}", all.len(), all.concat())),
            vec(inner.clone(), 0..5).prop_map(|all| format!("*?\r\n{}.\r\n", all.concat())),
            vec((inner.clone(), inner), 0..3)
                .prop_map(|all| all.iter().fold(format!("%{}\r\n", all.len()), |out, (a, b)| out + a + b)),
        ]
    })
}

/// Rounds of commands and their answers, one burst each.
fn rounds() -> impl Strategy<Value = Vec<(Vec<Vec<String>>, Vec<String>)>> {
    let name = prop::sample::select(&["GET", "SET", "HGETALL", "LRANGE", "CLIENT", "EVAL"][..])
        .prop_map(String::from);
    let one = (name, vec("[\r\n*$0-9a-z]{0,30}", 0..5)).prop_map(|(name, mut words)| {
        words.insert(0, name);
        words
    });
    vec(vec((one, answer()), 1..6).prop_map(|all| all.into_iter().unzip()), 1..5)
}

/// The bytes cut into pieces at these places.
fn pieces(flow: Flow, bytes: &str, cuts: &[prop::sample::Index]) -> Vec<Step> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|w| Step::Bytes(flow, bytes.as_bytes()[w[0]..w[1]].to_vec(), w[0] == 0)).collect()
}

fn lines(script: &[Step]) -> Vec<String> {
    let mut driver = Driver::<Connection>::default();
    for step in script {
        driver.step(step);
    }
    assert_eq!(driver.parser.in_flight(), 0);
    driver.items.iter().map(|(at, item)| line(*at, item)).collect()
}

/// What happens on a connection that many tasks of a client share.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many commands in one transfer.
    Send(usize),
    /// So many answers in one transfer, if so many are due.
    Answer(usize),
    /// All answers come, then nothing for long.
    Calm,
    /// A loss that the kernel side counts: of nothing is known what was missed.
    Gap,
}

fn events() -> impl Strategy<Value = Vec<(Event, bool)>> {
    let event = prop_oneof![
        6 => (1usize..4).prop_map(Event::Send),
        6 => (1usize..4).prop_map(Event::Answer),
        1 => Just(Event::Calm),
        1 => Just(Event::Gap),
    ];
    vec((event, prop::bool::weighted(0.1)), 1..60)
}

/// The transfers of such a connection as the parser gets them: those that were lost are holes, found by the next of their
/// direction. Each command has a name of its own, and its answer is an error of that name.
fn shared(events: &[(Event, bool)]) -> Vec<Step> {
    let name =
        |n: usize| String::from_iter([n / 26 / 26, n / 26, n].map(|n| char::from(b'A' + (n % 26) as u8)));
    let (mut sent, mut answered, mut last, mut lost) = (0, 0, None, [0u64; 2]);
    let mut steps = Vec::new();
    let mut transfer = |flow: Flow, bytes: String, is_lost: bool, steps: &mut Vec<Step>| {
        let lost = &mut lost[common::side(flow)];
        if is_lost {
            *lost += bytes.len() as u64;
        } else {
            if *lost > 0 {
                steps.push(hole(flow, std::mem::take(lost), ""));
            }
            steps.push(Step::Bytes(flow, bytes.into_bytes(), last != Some(flow)));
        }
        last = Some(flow);
    };
    // It is seen from the start that the client does not wait.
    let start =
        [Event::Send(2), Event::Answer(1), Event::Send(1), Event::Answer(2)].map(|event| (event, false));
    for (event, is_lost) in start.into_iter().chain(events.iter().copied()) {
        match event {
            Event::Send(count) => {
                let bytes =
                    (sent..sent + count).map(|n| command(&[&format!("T.{}", name(n)), "key"])).collect();
                sent += count;
                transfer(Q, bytes, is_lost, &mut steps);
            }
            Event::Answer(count) if answered + count <= sent => {
                let bytes = (answered..answered + count).map(|n| format!("-{} x\r\n", name(n))).collect();
                answered += count;
                transfer(R, bytes, is_lost, &mut steps);
            }
            Event::Answer(_) => {}
            Event::Calm => {
                if answered < sent {
                    let bytes = (answered..sent).map(|n| format!("-{} x\r\n", name(n))).collect();
                    answered = sent;
                    transfer(R, bytes, false, &mut steps);
                }
                steps.push(Step::Idle);
            }
            Event::Gap => steps.extend([gap(R), gap(Q)]),
        }
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn it_does_not_matter_how_it_is_cut(rounds in rounds(), cuts in vec(any::<prop::sample::Index>(), 0..12)) {
        let (mut whole, mut cut, mut count) = (Vec::new(), Vec::new(), 0);
        for (commands, answers) in &rounds {
            count += commands.len();
            let asked: String = commands.iter()
                .map(|words| command(&words.iter().map(String::as_str).collect::<Vec<_>>())).collect();
            for (flow, bytes) in [(Q, asked), (R, answers.concat())] {
                whole.push(burst(flow, &bytes));
                cut.extend(pieces(flow, &bytes, &cuts));
            }
        }
        let expected = lines(&whole);
        prop_assert_eq!(&lines(&cut), &expected);
        let ends = expected.iter().filter(|line| line.starts_with('<') && line.contains(" end 0 ")).count();
        prop_assert_eq!(ends, count, "{:?}", expected);
    }

    #[test]
    fn on_a_shared_connection_every_answer_is_of_its_command(events in events()) {
        for text in pairs(&shared(&events)) {
            if let Some((asked, answered)) = text.split_once(" -> ") {
                let name = asked.strip_prefix("T.").unwrap().split(' ').next().unwrap();
                prop_assert!([name, "ok cut"].contains(&answered) || answered == format!("{name} cut"), "{}", text);
            }
        }
    }

    #[test]
    fn after_losses_and_silence_answers_are_given_again(events in events()) {
        // Losses are noticed with the next transfer of their direction; then it is calm.
        let end = [Event::Calm, Event::Send(1), Event::Calm, Event::Send(1), Event::Calm, Event::Send(1), Event::Answer(1)];
        let found = pairs(&shared(&[events, end.map(|event| (event, false)).to_vec()].concat()));
        prop_assert!(found.last().unwrap().contains(" -> "), "{:?}", found);
    }

    #[test]
    fn without_losses_every_command_has_its_answer(events in events()) {
        let whole = |event| !matches!(event, Event::Gap);
        let events: Vec<_> = events.into_iter().filter(|(event, _)| whole(*event)).map(|(event, _)| (event, false)).collect();
        let found = pairs(&shared(&[events, vec![(Event::Calm, false)]].concat()));
        prop_assert!(found.iter().all(|text| text.contains(" -> ")), "{:?}", found);
    }

    #[test]
    fn a_hole_never_gives_an_answer_to_another(
        gets in vec((any::<bool>(), 0usize..3000), 1..30),
        from in any::<prop::sample::Index>(),
        len in any::<prop::sample::Index>(),
    ) {
        // Each answer tells its command: an error for INCR, a value for GET.
        let mut script = Vec::new();
        for (i, (get, size)) in gets.iter().enumerate() {
            let last = i + 1 == gets.len();
            script.push(burst(Q, command(&[if *get { "GET" } else { "INCR" }, "a"])));
            let answer = if *get { format!("${size}\r\n{}\r\n", "v".repeat(*size)) } else { format!("-ERR {}\r\n", "e".repeat(*size)) };
            if last || from.index(gets.len()) != i {
                script.push(burst(R, answer));
                continue;
            }
            let cut = len.index(answer.len());
            script.push(burst(R, &answer[..cut]));
            script.push(hole(R, (answer.len() - cut) as u64, &answer.as_bytes()[cut.max(answer.len().saturating_sub(8))..]));
        }
        for text in pairs(&script) {
            let good = matches!(text.as_str(), "GET ? -> ok" | "GET ? -> ok cut" | "INCR ? -> ERR" | "INCR ? -> ok cut" | "INCR ? -> ERR cut" | "INCR ? -> _OTHER cut")
                || text.contains(" lost ");
            prop_assert!(good, "{}", text);
        }
    }
}
