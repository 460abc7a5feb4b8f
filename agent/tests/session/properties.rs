//! Whatever comes, in whatever order: no panic, both accounts add up after each record, and one exchange follows each beginning.

use std::collections::HashSet;

use proptest::prelude::*;
use spanwise::session::{CLASSES, Edge, Effort};
use spanwise_common::conn::transport;
use spanwise_common::event::Direction;

use crate::stage::{Bench, CLOSED, FIN_WAIT1, GET, OK, Socket, TGID, pair};

/// Something that happens; the number chooses the connection.
#[derive(Clone, Debug)]
enum Event {
    Moves { direction: u8, bytes: String, more: u32, tail: &'static str },
    Lose { direction: u8, bytes: u32 },
    EndOfStream,
    State(u32),
    Open,
    Exit,
    Wait(u64),
    Govern(Effort),
}

fn text() -> impl Strategy<Value = String> {
    let whole = prop::sample::select(vec![
        GET,
        OK,
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "HEAD / HTTP/1.0\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "GET / HTTP/1.1\r\nHost a\r\n: \r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ]);
    // Whole, cut, or twice.
    (whole, 0_usize..120, prop::bool::weighted(0.7), prop::bool::weighted(0.1)).prop_map(
        |(text, at, all, twice)| match (all, twice) {
            (_, true) => text.repeat(2),
            (true, false) => text.to_owned(),
            (false, false) => {
                let (start, end) = text.split_at(at.min(text.len()));
                if at % 2 == 0 { start.to_owned() } else { end.to_owned() }
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let tail = prop::sample::select(vec!["", "x", "0\r\n\r\n", "xxxxxxxx"]);
    let more = prop_oneof![4 => Just(0_u32), 1 => 8_u32..5_000];
    prop_oneof![
        20 => (0_u8..2, text(), more, tail).prop_map(|(direction, bytes, more, tail)| Event::Moves {
            direction,
            bytes,
            more,
            tail: if more == 0 { "" } else { tail },
        }),
        2 => (0_u8..2, 1_u32..200).prop_map(|(direction, bytes)| Event::Lose { direction, bytes }),
        1 => Just(Event::EndOfStream),
        1 => prop::sample::select(vec![FIN_WAIT1, CLOSED]).prop_map(Event::State),
        1 => Just(Event::Open),
        1 => Just(Event::Exit),
        1 => (1_u64..200).prop_map(Event::Wait),
        1 => (any::<(bool, bool, bool)>(), 0..=CLASSES).prop_map(|((heads_only, impatient, at_once), resting)| {
            Event::Govern(Effort { heads_only, impatient, resting, at_once, no_new_processes: false })
        }),
    ]
}

fn apply(bench: &mut Bench, socket: &mut Socket, event: Event) {
    match event {
        Event::Moves { direction, bytes, more, tail } => {
            bench.moves_more(socket, Direction(direction), &bytes, more, tail);
        }
        Event::Lose { direction, bytes } => bench.lose(socket, Direction(direction), bytes),
        Event::EndOfStream => bench.end_of_stream(socket),
        Event::State(state) => bench.state(socket, state),
        Event::Open => bench.open(socket),
        Event::Exit => bench.exit(socket.tgid),
        Event::Wait(ms) => bench.wait(ms),
        Event::Govern(effort) => bench.govern(effort),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_balances(
        events in prop::collection::vec((0_usize..3, event()), 1..120),
        looked_up in any::<bool>(),
    ) {
        let (client, server) = pair();
        let mut unix = client.clone();
        (unix.cookie, unix.tgid, unix.info.transport, unix.info.known) = (3, TGID + 1, transport::UNIX, 0);
        let mut bench = Bench::with(&[&client, &server, &unix]);
        bench.known.connection = looked_up.then_some(client.info);
        let mut sockets = [client, server, unix];
        let transfers =
            events.iter().filter(|(_, event)| matches!(event, Event::Moves { .. } | Event::EndOfStream)).count();
        for (which, event) in events {
            apply(&mut bench, &mut sockets[which], event);
        }
        bench.finish();

        let input = bench.sessions.stages()[0].input;
        prop_assert_eq!(input, transfers as u64);
        let mut open = HashSet::new();
        for signal in &bench.signals {
            if matches!(signal.edge, Edge::Began { .. }) {
                prop_assert!(open.insert(signal.key), "began twice");
            } else {
                prop_assert!(open.contains(&signal.key), "an edge of what did not begin");
            }
        }
        for exchange in &bench.exchanges {
            prop_assert!(open.remove(&exchange.key), "handed on twice, or never begun");
            prop_assert!(exchange.ended_ns >= exchange.began_ns);
            prop_assert!(exchange.answered_ns == 0 || exchange.answered_ns >= exchange.began_ns);
        }
        prop_assert!(open.is_empty(), "never handed on");
    }
}
