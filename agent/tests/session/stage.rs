//! The stage with a small kernel in front of it. In: what programs do on sockets. Out: what the stage says of it.

use std::sync::Arc;

use spanwise::kernel::record::{self, Record};
use spanwise::process::Service;
use spanwise::session::{Edge, Effort, Exchange, Outcome, Output, Sessions, Side, Signal, Who};
use spanwise_common::conn::{Info, Verdict, known, transport, verdict};
use spanwise_common::event::{Close, Data, Direction, Header, Join, Kind, Open, Plain, Route, flags};

pub(crate) const MS: u64 = 1_000_000;
/// Process of every record that says nothing else.
pub(crate) const TGID: u32 = 100;
pub(crate) const FIN_WAIT1: u32 = 4;
pub(crate) const CLOSED: u32 = 7;
const ESTABLISHED: u32 = 1;

pub(crate) const GET: &str = "GET /a?q=1 HTTP/1.1\r\nHost: shop\r\n\r\n";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// What the other stages know here.
#[derive(Default)]
pub(crate) struct Known {
    /// What the kernel side says of a connection whose opening was lost.
    pub(crate) connection: Option<Info>,
    /// The kernel side has forgotten every connection.
    pub(crate) gone: bool,
    /// Sockets, by inode, that no process holds.
    pub(crate) closed: Vec<u64>,
}

impl Who for Known {
    fn service(&mut self, tgid: u32) -> Arc<Service> {
        Arc::new(Service { id: tgid, name: "test".into(), attributes: vec![] })
    }
    fn connection(&mut self, _cookie: u64) -> Option<Info> {
        self.connection
    }
    fn is_gone(&mut self, _cookie: u64) -> bool {
        self.gone
    }
    fn closed_sockets(&mut self, _tgid: u32, inodes: &[u64]) -> Vec<u64> {
        inodes.iter().copied().filter(|inode| self.closed.contains(inode)).collect()
    }
}

/// One end of a connection, as the kernel side follows it.
#[derive(Clone)]
pub(crate) struct Socket {
    pub(crate) cookie: u64,
    pub(crate) info: Info,
    pub(crate) tgid: u32,
    next: [u32; 2],
    last: Option<Direction>,
}

/// A TCP connection: the end that opened it, and the other one.
pub(crate) fn pair() -> (Socket, Socket) {
    let (client_first, server_first) = (1_000, u32::MAX - 20);
    let address = |last| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[127, 0, 0, last]);
        bytes
    };
    let info = |own_base, peer_base, ports: (u16, u16)| Info {
        sock: 1,
        peer_sock: 0,
        own_base,
        peer_base,
        local: address(1),
        remote: address(2),
        local_port: ports.0,
        remote_port: ports.1,
        transport: transport::TCP4,
        known: known::BASES,
        pad: [0; 2],
        netns: 1,
        inode: 0,
    };
    let socket = |cookie, info, next| Socket { cookie, info, tgid: TGID, next, last: None };
    (
        // The SYN counts on the side that opened.
        socket(1, info(client_first - 1, server_first, (40_000, 80)), [client_first, server_first]),
        socket(2, info(server_first, client_first, (80, 40_000)), [server_first, client_first]),
    )
}

/// The same of a unix connection.
pub(crate) fn unix_pair() -> (Socket, Socket) {
    let (mut client, mut server) = pair();
    for (socket, sock, peer_sock) in [(&mut client, 11, 12), (&mut server, 12, 11)] {
        socket.info = Info {
            sock,
            peer_sock,
            transport: transport::UNIX,
            known: 0,
            inode: sock as u32 * 100,
            ..socket.info
        };
    }
    (client, server)
}

/// The stage, and what it said so far.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) sessions: Sessions,
    pub(crate) known: Known,
    pub(crate) now: u64,
    pub(crate) signals: Vec<Signal>,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) verdicts: Vec<(u64, Verdict)>,
    pub(crate) forgotten: Vec<u64>,
    output: Output,
}

impl Bench {
    /// A stage that has seen these connections being opened.
    pub(crate) fn with(sockets: &[&Socket]) -> Self {
        let mut bench = Self { now: 10 * MS, ..Self::default() };
        for socket in sockets {
            bench.open(socket);
        }
        bench
    }

    /// Gives the stage the bytes of a record, as the ring would.
    fn record(&mut self, bytes: &[u8]) {
        match record::decode(bytes).unwrap() {
            Record::Data(data, payload) => {
                self.sessions.data(&data, payload, &mut self.known, &mut self.output);
            }
            Record::Close(close) => self.sessions.close(&close, &mut self.known, &mut self.output),
            other => unreachable!("no other record is made here: {other:?}"),
        }
        self.gather();
    }

    fn gather(&mut self) {
        self.signals.append(&mut self.output.signals);
        self.exchanges.extend(self.output.exchanges.drain(..).map(|exchange| *exchange));
        self.verdicts.append(&mut self.output.verdicts);
        self.forgotten.append(&mut self.output.forgotten);
        self.balance();
    }

    /// Both accounts of the stage add up, and every exchange that began is under way or was handed on.
    pub(crate) fn balance(&self) {
        for stage in self.sessions.stages() {
            assert!(stage.balances(), "{stage:?}");
        }
        let began = self.signals.iter().filter(|signal| matches!(signal.edge, Edge::Began { .. })).count();
        assert_eq!(began as u64, self.counted("under way") + self.exchanges.len() as u64);
    }

    /// A figure of the accounts, row or note.
    pub(crate) fn counted(&self, label: &str) -> u64 {
        let stages = self.sessions.stages();
        let rows = stages.iter().flat_map(|stage| stage.rows.iter().map(|row| (row.1, row.2)));
        let notes = stages.iter().flat_map(|stage| stage.notes.iter().copied());
        rows.chain(notes).find(|(name, _)| *name == label).unwrap().1
    }

    fn header(&self, kind: Kind, flags: u16, size: usize, tgid: u32) -> Header {
        Header { kind: kind.0, flags, size: size as u32, at_ns: self.now, tgid, tid: tgid + 1 }
    }

    pub(crate) fn open(&mut self, socket: &Socket) {
        self.open_unchecked(socket);
        self.balance();
    }

    /// For tens of thousands of them: checking takes the longer the more there are.
    pub(crate) fn open_unchecked(&mut self, socket: &Socket) {
        let header = self.header(Kind::OPEN, 0, size_of::<Open>(), socket.tgid);
        self.sessions.open(&Open { header, cookie: socket.cookie, info: socket.info });
    }

    /// A transfer all of whose bytes are shipped. A millisecond passes before each.
    pub(crate) fn moves(&mut self, socket: &mut Socket, direction: Direction, bytes: &str) {
        self.moves_more(socket, direction, bytes, 0, "");
    }

    pub(crate) fn send(&mut self, socket: &mut Socket, bytes: &str) {
        self.moves(socket, Direction::SEND, bytes);
    }

    pub(crate) fn recv(&mut self, socket: &mut Socket, bytes: &str) {
        self.moves(socket, Direction::RECV, bytes);
    }

    /// The server's router tells the pattern of the request whose answer is sent next.
    pub(crate) fn routes(&mut self, socket: &Socket, pattern: &str) {
        let header = self.header(Kind::ROUTE, 0, size_of::<Route>() + pattern.len(), socket.tgid);
        let seq = socket.next[usize::from(Direction::SEND.0)];
        let len = pattern.len() as u16;
        let route = Route { header, cookie: socket.cookie, seq, len, part: 0, parts: 1 };
        self.sessions.route(&route, pattern.as_bytes());
    }

    /// A transfer of which `more` bytes behind the shipped ones are only counted; `tail` are their last.
    pub(crate) fn moves_more(
        &mut self,
        socket: &mut Socket,
        direction: Direction,
        bytes: &str,
        more: u32,
        tail: &str,
    ) {
        self.now += MS;
        let mut kind = 0;
        if socket.last != Some(direction) {
            kind |= flags::BURST_START;
        }
        if more > 0 {
            kind |= flags::CUT;
        }
        socket.last = Some(direction);
        let len = bytes.len() as u32 + more;
        let seq = &mut socket.next[usize::from(direction.0)];
        let at = *seq;
        *seq = at.wrapping_add(len);
        let mut last = [0; 8];
        last[8 - tail.len()..].copy_from_slice(tail.as_bytes());
        let data = Data {
            header: self.header(Kind::DATA, kind, size_of::<Data>() + bytes.len(), socket.tgid),
            cookie: socket.cookie,
            task: Default::default(),
            seq: at,
            len,
            captured: bytes.len() as u32,
            direction: direction.0,
            plane: 1,
            tail_len: tail.len() as u8,
            route: 0,
            tail: last,
        };
        self.record(&record::encode_data(&data, bytes.as_bytes()));
    }

    /// A chunk of plaintext of an object on this connection, at this position, which says to be so long.
    pub(crate) fn plain(
        &mut self,
        socket: &Socket,
        object: u64,
        direction: Direction,
        [seq, len]: [u32; 2],
        bytes: &[u8],
    ) {
        self.now += MS;
        let bits = flags::BURST_START | flags::FROM_START;
        let plain = Plain {
            header: self.header(Kind::PLAIN, bits, size_of::<Plain>() + bytes.len(), socket.tgid),
            object,
            cookie: socket.cookie,
            task: Default::default(),
            seq,
            len,
            captured: bytes.len() as u32,
            cipher: 0,
            direction: direction.0,
            library: 1,
            tail_len: 0,
            pad: [0; 5],
            tail: [0; 8],
        };
        self.sessions.plain(&plain, bytes, &mut self.known, &mut self.output);
        self.gather();
    }

    /// An object turns out to be this connection's.
    pub(crate) fn join(&mut self, socket: &Socket, object: u64) {
        let header = self.header(Kind::JOIN, 0, size_of::<Join>(), socket.tgid);
        let join = Join { header, object, cookie: socket.cookie };
        self.sessions.join(&join, &mut self.known, &mut self.output);
        self.gather();
    }

    /// Bytes that moved and whose records were lost.
    pub(crate) fn lose(&mut self, socket: &mut Socket, direction: Direction, bytes: u32) {
        let seq = &mut socket.next[usize::from(direction.0)];
        *seq = seq.wrapping_add(bytes);
        socket.last = Some(direction);
    }

    /// A read that says that the peer will send no more.
    pub(crate) fn end_of_stream(&mut self, socket: &Socket) {
        self.now += MS;
        let data = Data {
            header: self.header(Kind::DATA, flags::EOF, size_of::<Data>(), socket.tgid),
            cookie: socket.cookie,
            task: Default::default(),
            seq: socket.next[1],
            len: 0,
            captured: 0,
            direction: Direction::RECV.0,
            plane: 1,
            tail_len: 0,
            route: 0,
            tail: [0; 8],
        };
        self.record(&record::encode_data(&data, &[]));
    }

    pub(crate) fn state(&mut self, socket: &Socket, new_state: u32) {
        self.changes(socket, new_state, 0, 0);
    }

    /// The same from a kernel that tells where reading ended.
    pub(crate) fn state_and_received(&mut self, socket: &Socket, new_state: u32) {
        self.changes(socket, new_state, flags::HAS_RECEIVED, socket.next[1]);
    }

    /// The process closes its socket, from a kernel that tells this from the end of sending.
    pub(crate) fn gives_up(&mut self, socket: &Socket) {
        self.changes(socket, FIN_WAIT1, flags::GIVEN_UP, 0);
    }

    fn changes(&mut self, socket: &Socket, new_state: u32, bits: u16, received: u32) {
        self.now += MS;
        let header = self.header(Kind::CLOSE, bits, size_of::<Close>(), socket.tgid);
        let close =
            Close { header, cookie: socket.cookie, old_state: ESTABLISHED, new_state, received, pad: 0 };
        self.record(&record::encode_close(&close));
    }

    pub(crate) fn exit(&mut self, tgid: u32) {
        self.now += MS;
        self.sessions.exit(tgid, self.now, &mut self.known, &mut self.output);
        self.gather();
    }

    /// Time passes, and nothing moves.
    pub(crate) fn wait(&mut self, ms: u64) {
        self.now += ms * MS;
        self.sessions.tick(self.now, &mut self.known, &mut self.output);
        self.gather();
    }

    /// From now on this much is done.
    pub(crate) fn govern(&mut self, effort: Effort) {
        self.sessions.govern(effort, self.now, &mut self.known, &mut self.output);
        self.gather();
    }

    /// The agent stops.
    pub(crate) fn finish(&mut self) {
        self.sessions.finish(self.now, &mut self.known, &mut self.output);
        self.gather();
        assert_eq!(self.counted("under way"), 0);
    }

    /// How every exchange that was handed on ended, in order.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.exchanges.iter().map(|exchange| exchange.outcome).collect()
    }

    /// The only exchange that was handed on.
    pub(crate) fn only(&self) -> &Exchange {
        assert_eq!(self.exchanges.len(), 1, "{:?}", self.exchanges);
        &self.exchanges[0]
    }

    /// Connections that the kernel side was asked to ignore.
    pub(crate) fn ignored(&self) -> Vec<u64> {
        let ignores = |said: &&(u64, Verdict)| said.1.verdict == u32::from(verdict::IGNORE);
        self.verdicts.iter().filter(ignores).map(|(cookie, _)| *cookie).collect()
    }

    /// Side and edge of each signal, in words.
    pub(crate) fn edges(&self) -> Vec<&'static str> {
        let word = |signal: &Signal| match (signal.side, &signal.edge) {
            (Side::Client, Edge::Began { .. }) => "client began",
            (Side::Server, Edge::Began { .. }) => "server began",
            (_, Edge::Context(_)) => "context",
            (_, Edge::Asked { .. }) => "asked",
            (_, Edge::Answer { first: true, last: true }) => "whole answer",
            (_, Edge::Answer { first: true, last: false }) => "first of answer",
            (_, Edge::Answer { first: false, last: true }) => "last of answer",
            (_, Edge::Answer { .. }) => "more of answer",
        };
        self.signals.iter().map(word).collect()
    }
}
