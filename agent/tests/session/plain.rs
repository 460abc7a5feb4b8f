//! Plaintext of encrypted connections: whatever order, gaps, repeats and lengths its records come with, nothing of an object ends
//! up on another connection, and the accounts add up.

use proptest::prelude::*;
use spanwise_common::event::Direction;

use crate::stage::{Bench, CLOSED, FIN_WAIT1, OK, Socket, TGID, pair};

/// A record of application data, and a hello that never gets complete.
const RECORD: &str = "\u{17}\u{3}\u{3}\0\u{1a}aaaaaaaaaaaaaaaaaaaaaaaaaa";
const HELLO: &str = "\u{16}\u{3}\u{1}\0\u{10}\u{1}\0\0\u{40}";
const OBJECT: u64 = 1 << 63;

fn sockets() -> Vec<Socket> {
    let (client, _) = pair();
    (0..4)
        .map(|number| {
            let mut socket = client.clone();
            (socket.cookie, socket.tgid) = (number + 1, TGID + number as u32 % 2);
            socket
        })
        .collect()
}

fn object(socket: &Socket) -> u64 {
    OBJECT | socket.cookie
}

/// A request that tells whose it is.
fn request(socket: &Socket) -> String {
    format!("GET /of/{} HTTP/1.1\r\nHost: h\r\n\r\n", socket.cookie)
}

#[test]
fn a_library_is_not_covered_only_where_no_join_ever_comes() {
    let mut all = sockets();
    let mut bench = Bench::with(&all.iter().collect::<Vec<_>>());
    // The handshakes of a process of either kind, before anything tells of a library.
    for socket in &mut all {
        bench.send(socket, HELLO);
        bench.recv(socket, RECORD);
    }
    let label = "encrypted, library not covered";
    assert_eq!((bench.counted(label), bench.counted("encrypted, plaintext from its library")), (8, 0));
    bench.join(&all[0], object(&all[0]));
    assert_eq!((bench.counted(label), bench.counted("encrypted, plaintext from its library")), (4, 4));
    bench.send(&mut all[2], RECORD);
    assert_eq!(bench.counted(label), 4, "another connection of the same process");
    bench.send(&mut all[1], RECORD);
    assert_eq!(bench.counted(label), 5, "a process whose library tells nothing");
    // A later process of the same id begins anew.
    bench.exit(TGID);
    let mut next = all[0].clone();
    next.cookie = 9;
    bench.open(&next);
    bench.send(&mut next, RECORD);
    assert_eq!(bench.counted(label), 6);
    bench.join(&next, OBJECT | 9);
    assert_eq!(bench.counted(label), 5);
}

#[test]
fn connections_that_are_never_read_are_counted_also_where_the_library_is_covered() {
    let mut all = sockets();
    let mut bench = Bench::with(&all.iter().collect::<Vec<_>>());
    for socket in &mut all {
        bench.send(socket, HELLO);
    }
    let label = "encrypted connections without plaintext";
    assert_eq!(bench.counted(label), 4);
    // A process whose library got its hooks while it had a connection already: 0 and 2 are of one process.
    bench.join(&all[2], object(&all[2]));
    bench.join(&all[2], object(&all[2]));
    bench.state(&all[0], CLOSED);
    assert_eq!(bench.counted(label), 3);
    bench.finish();
    assert_eq!((bench.counted("encrypted connections"), bench.counted(label)), (4, 3));
}

#[test]
fn plaintext_is_its_own_connections() {
    let all = sockets();
    let mut bench = Bench::with(&all.iter().collect::<Vec<_>>());
    for socket in &all {
        bench.join(socket, object(socket));
    }
    for socket in &all {
        let request = request(socket);
        bench.plain(socket, object(socket), Direction::SEND, [0, request.len() as u32], request.as_bytes());
    }
    for socket in all.iter().rev() {
        bench.plain(socket, object(socket), Direction::RECV, [0, OK.len() as u32], OK.as_bytes());
    }
    assert_eq!(bench.exchanges.len(), 4);
    for exchange in &bench.exchanges {
        assert_eq!(*exchange.request.path, format!("/of/{}", exchange.conn.cookie));
        assert!(exchange.conn.tls.is_some());
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// How the position and the length differ from what they should be.
    Plain {
        answer: bool,
        moved: Option<u32>,
        claimed: Option<u32>,
        cut: usize,
    },
    Noise {
        direction: u8,
        bytes: Vec<u8>,
        len: u32,
    },
    Again,
    Encrypted(u8, bool),
    Join,
    State(u32),
    Exit,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let odd = || prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(1 << 31), 0_u32..5_000, any::<u32>()];
    let rarely = move || prop_oneof![4 => Just(None), 1 => odd().prop_map(Some)];
    prop_oneof![
        12 => (any::<bool>(), rarely(), rarely(), 0_usize..60)
            .prop_map(|(answer, moved, claimed, cut)| Event::Plain { answer, moved, claimed, cut }),
        2 => (0_u8..2, prop::collection::vec(any::<u8>(), 0..40), odd())
            .prop_map(|(direction, bytes, len)| Event::Noise { direction, bytes, len }),
        3 => Just(Event::Again),
        4 => (0_u8..2, any::<bool>()).prop_map(|(direction, hello)| Event::Encrypted(direction, hello)),
        3 => Just(Event::Join),
        1 => prop::sample::select(vec![FIN_WAIT1, CLOSED]).prop_map(Event::State),
        1 => Just(Event::Exit),
        1 => (1_u64..200).prop_map(Event::Wait),
    ]
}

/// The last chunk of a connection: direction, position and length, bytes.
type Chunk = (Direction, [u32; 2], Vec<u8>);

fn apply(
    bench: &mut Bench,
    socket: &mut Socket,
    next: &mut [u32; 2],
    last: &mut Option<Chunk>,
    event: Event,
) {
    let chunk = match event {
        Event::Plain { answer, moved, claimed, cut } => {
            let text = if answer { OK.to_owned() } else { request(socket) };
            // Sometimes the end is missing.
            let text = text.get(..text.len() - if cut < 20 { cut } else { 0 }).unwrap_or(&text);
            let place = &mut next[usize::from(answer)];
            *place = place.wrapping_add(moved.unwrap_or(0));
            let len = claimed.unwrap_or(text.len() as u32);
            let chunk = (Direction(u8::from(answer)), [*place, len], text.as_bytes().to_vec());
            *place = place.wrapping_add(len);
            chunk
        }
        Event::Noise { direction, bytes, len } => {
            let bytes = bytes.into_iter().filter(|byte| *byte != b'/').collect();
            (Direction(direction), [next[usize::from(direction)], len], bytes)
        }
        Event::Again => match last.clone() {
            Some(chunk) => chunk,
            None => return,
        },
        Event::Encrypted(direction, hello) => {
            return bench.moves(socket, Direction(direction), if hello { HELLO } else { RECORD });
        }
        Event::Join => return bench.join(socket, object(socket)),
        Event::State(state) => return bench.state(socket, state),
        Event::Exit => return bench.exit(socket.tgid),
        Event::Wait(ms) => return bench.wait(ms),
    };
    bench.plain(socket, object(socket), chunk.0, chunk.1, &chunk.2);
    *last = Some(chunk);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_on_another_connection(
        events in prop::collection::vec((0_usize..4, event()), 1..100),
        looked_up in any::<bool>(),
    ) {
        let mut all = sockets();
        let mut bench = Bench::with(&all.iter().collect::<Vec<_>>());
        bench.known.connection = looked_up.then_some(all[0].info);
        let mut next = [[0; 2]; 4];
        let mut last = [const { None }; 4];
        for (which, event) in events {
            apply(&mut bench, &mut all[which], &mut next[which], &mut last[which], event);
        }
        bench.finish();
        for exchange in &bench.exchanges {
            // A head that was cut may end in the middle of its path, or go on as the next one of the same object.
            for of in exchange.request.path.split("/of/").skip(1).filter(|of| !of.is_empty()) {
                prop_assert!(of.starts_with(&exchange.conn.cookie.to_string()), "{:?}", exchange);
                prop_assert!(exchange.conn.tls.is_some());
            }
        }
        prop_assert!(bench.counted("connections") <= 8 * 100);
    }
}

#[test]
fn objects_and_connections_are_bounded() {
    const MANY: u64 = 40_000;
    let all = sockets();
    let mut bench = Bench::with(&[]);
    bench.known.connection = Some(all[0].info);
    let mut output = spanwise::session::Output::default();
    for number in 0..MANY {
        use spanwise_common::event::{Header, Join};
        let header = Header { kind: 0, flags: 0, size: 0, at_ns: number, tgid: number as u32, tid: 1 };
        let join = Join { header, object: OBJECT | number, cookie: number + 1 };
        bench.sessions.join(&join, &mut bench.known, &mut output);
    }
    let table = bench.counted("connections") - bench.counted("connections forgotten for room");
    assert_eq!((bench.counted("library objects joined to connections"), table), (MANY, 16 * 1024));
}
