//! Feeds records of encrypted connections, of the plaintext of their libraries, and of joins to the session stage: in any order, with
//! any lengths and positions.
//!
//! `RUSTC_BOOTSTRAP=1 SPANWISE_BPF=stub cargo fuzz run plaintext -- -max_total_time=60`
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use spanwise::process::Service;
use spanwise::session::{Output, Sessions, Who};
use spanwise_common::conn::{Info, known, transport};
use spanwise_common::event::{Close, Data, Direction, Header, Join, Plain};

/// Objects and connections; each object belongs to the connection of its number.
const MOST: u64 = 4;
const OBJECT: u64 = 1 << 63;

struct Known;

impl Who for Known {
    fn service(&mut self, tgid: u32) -> Arc<Service> {
        Arc::new(Service { id: tgid, name: "fuzz".into(), attributes: Vec::new() })
    }
    fn connection(&mut self, cookie: u64) -> Option<Info> {
        let (known, pad, inode) = (known::BASES, [0; 2], 0);
        let info = Info {
            sock: cookie,
            peer_sock: 0,
            own_base: 1,
            peer_base: 2,
            local: [1; 16],
            remote: [2; 16],
            local_port: 443,
            remote_port: 50_000,
            transport: transport::TCP4,
            known,
            pad,
            netns: 1,
            inode,
        };
        (cookie != 0).then_some(info)
    }
}

/// Bytes that are used up from the front; zero when there are none left.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn number<const N: usize>(&mut self) -> u32 {
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        taken.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

const TEXTS: [&[u8]; 8] = [
    b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84",
    b"\0\0\x01\x01\x05\0\0\0\x01\x88",
    b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    b"\x17\x03\x03\x00\x1aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    b"POST /s.S/M HTTP/1.1\r\nContent-Type: application/grpc-web\r\nContent-Length: 7\r\n\r\n\0\0\0\0\x02ab",
    b"",
];

fuzz_target!(|data: &[u8]| {
    let mut source = Source(data);
    let (mut sessions, mut out, mut who) = (Sessions::default(), Output::default(), Known);
    let mut at_ns = 1_000;
    // Positions go on unless the input says otherwise.
    let mut next = [[0_u32; 2]; 2 * MOST as usize];
    while !source.0.is_empty() {
        let what = source.number::<1>();
        let number = u64::from(what >> 4) % MOST;
        let direction = (what >> 3 & 1) as u8;
        at_ns += 1 + u64::from(source.number::<1>()) * 1_000_000;
        let flags =
            if source.0.first().is_some_and(|byte| byte & 1 == 0) { 1 } else { source.number::<2>() as u16 };
        let header = Header { kind: 0, flags, size: 0, at_ns, tgid: 100 + (number % 2) as u32, tid: 1 };
        match what & 7 {
            kind @ 0..=4 => {
                let choice = source.number::<1>();
                let is_plain = kind < 3;
                // What an object says names it, and nothing else has such a name.
                let own = format!("GET /o{number} HTTP/1.1\r\n\r\n").into_bytes();
                let any: Vec<u8> = source
                    .bytes(choice as usize)
                    .iter()
                    .map(|byte| if *byte == b'o' { b'p' } else { *byte })
                    .collect();
                let payload: &[u8] = match choice {
                    0..=7 => TEXTS[choice as usize],
                    8..=23 if is_plain => &own,
                    _ => &any,
                };
                let place = &mut next[number as usize + if is_plain { MOST as usize } else { 0 }]
                    [usize::from(direction)];
                let (seq, len) = match source.number::<1>() {
                    0..=200 => (*place, payload.len() as u32),
                    201..=220 => (*place, source.number::<4>()),
                    _ => (source.number::<4>(), source.number::<4>()),
                };
                *place = seq.wrapping_add(len);
                let captured = payload.len() as u32;
                let tail_len = source.number::<1>() as u8 % 9;
                if is_plain {
                    let plain = Plain {
                        header,
                        object: OBJECT | number + 1,
                        cookie: number + 1,
                        task: Default::default(),
                        seq,
                        len,
                        captured,
                        cipher: source.number::<2>(),
                        direction,
                        library: 1,
                        tail_len,
                        pad: [0; 5],
                        tail: [b'x'; 8],
                    };
                    sessions.plain(&plain, payload, &mut who, &mut out);
                } else {
                    let data = Data {
                        header,
                        cookie: number + 1,
                        task: Default::default(),
                        seq,
                        len,
                        captured,
                        direction: Direction(direction).0,
                        plane: 0,
                        tail_len,
                        route: 0,
                        tail: [b'x'; 8],
                    };
                    sessions.data(&data, payload, &mut who, &mut out);
                }
            }
            5 => {
                let join = Join { header, object: OBJECT | number + 1, cookie: number + 1 };
                sessions.join(&join, &mut who, &mut out);
            }
            6 => {
                let new_state = if source.number::<1>() < 128 { 7 } else { 4 };
                let received = source.number::<4>();
                let close = Close { header, cookie: number + 1, old_state: 1, new_state, received, pad: 0 };
                sessions.close(&close, &mut who, &mut out);
            }
            _ if source.number::<1>() < 32 => sessions.exit(header.tgid, at_ns, &mut who, &mut out),
            _ => sessions.tick(at_ns, &mut who, &mut out),
        }
        for stage in sessions.stages() {
            assert!(stage.balances(), "{stage:?}");
        }
        // Plaintext of an object is of its own connection, and of no other.
        for exchange in &out.exchanges {
            assert!((1..=MOST).contains(&exchange.conn.cookie));
            if let Some(object) = exchange.request.path.strip_prefix("/o") {
                assert!(object.starts_with(&(exchange.conn.cookie - 1).to_string()), "{exchange:?}");
                assert!(exchange.conn.tls.is_some(), "{exchange:?}");
            }
        }
        out.exchanges.clear();
        out.signals.clear();
        out.verdicts.clear();
        out.forgotten.clear();
    }
    sessions.finish(at_ns, &mut who, &mut out);
    for stage in sessions.stages() {
        assert!(stage.balances(), "{stage:?}");
    }
});
