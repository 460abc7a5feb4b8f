//! What a program in small does on sockets, fed to a correlator. Comes in: exchanges that begin, are asked for, answered and end. Goes
//! out: what the correlator decided of each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use spanwise::conn::{ConnInfo, Endpoint, MessageName, Texts};
use spanwise::process::Service;
use spanwise::session::{Edge, Exchange, ExchangeKey, Outcome, Side, Signal, Task};
use spanwise::span::Decision;
use spanwise::span::correlate::{Correlator, Settings};
use spanwise_protocol::context::TraceContext;
use spanwise_protocol::message::{Request, Response};

use super::MS;

/// A connection, as one of its ends sees it.
#[derive(Clone)]
pub struct Line {
    pub conn: Rc<ConnInfo>,
    pub base: u32,
    pub named: bool,
}

impl Line {
    /// The `number`-th connection, to a port.
    pub fn tcp(number: u32, port: u16, side: Side) -> Self {
        let client: SocketAddr = format!("127.0.0.1:{}", 10_000 + number % 50_000).parse().unwrap();
        let server: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let (local, remote) = if side == Side::Client { (client, server) } else { (server, client) };
        let cookie = u64::from(number) * 2 + u64::from(side == Side::Client);
        let (local, remote) = (Endpoint::Inet(local), Endpoint::Inet(remote));
        let conn = ConnInfo {
            cookie,
            local,
            remote,
            names: None,
            sock: 0,
            peer_sock: 0,
            netns: 1,
            texts: Texts::default(),
            tls: None,
        };
        Self { conn: Rc::new(conn), base: number, named: true }
    }

    pub fn unix(number: u64, side: Side) -> Self {
        let (a, b) = (number * 16 + 0x1000, number * 16 + 0x1008);
        let (sock, peer_sock) = if side == Side::Client { (a, b) } else { (b, a) };
        let (local, remote) = (Endpoint::Unix, Endpoint::Unix);
        let conn = ConnInfo {
            cookie: sock,
            local,
            remote,
            names: None,
            sock,
            peer_sock,
            netns: 1,
            texts: Texts::default(),
            tls: None,
        };
        Self { conn: Rc::new(conn), base: 0, named: false }
    }

    pub fn message(&self, position: u32) -> Option<MessageName> {
        self.named.then_some(MessageName { request_base: self.base, response_base: !self.base, position })
    }
}

/// A correlator, and what is needed to feed it and to remember what it said.
pub struct Feed {
    pub correlator: Correlator,
    pub now: u64,
    ticked: u64,
    next: u64,
    open: HashMap<u64, Exchange>,
    pub began: u64,
    pub decided: HashMap<u64, (Exchange, Decision)>,
    pub twice: u64,
    services: HashMap<u32, Arc<Service>>,
}

impl Feed {
    pub fn new(settings: Settings) -> Self {
        Self {
            correlator: Correlator::new(settings),
            now: 1_000 * MS,
            ticked: 0,
            next: 1,
            open: HashMap::new(),
            began: 0,
            decided: HashMap::new(),
            twice: 0,
            services: HashMap::new(),
        }
    }

    /// Lets time pass, with ticks.
    pub fn pass(&mut self, until: u64) {
        while self.ticked + 2 * MS <= until {
            self.ticked = (self.ticked + 2 * MS).max(self.now / (2 * MS) * (2 * MS));
            if self.ticked > until {
                break;
            }
            self.correlator.tick(self.ticked);
            self.take();
        }
        self.now = self.now.max(until);
    }

    pub fn take(&mut self) {
        let (decided, twice) = (&mut self.decided, &mut self.twice);
        self.correlator.drain(&mut |exchange, decision| {
            if decided.insert(exchange.key.0, (*exchange, decision)).is_some() {
                *twice += 1;
            }
        });
    }

    pub fn begin(&mut self, side: Side, task: Task, line: &Line, position: u32) -> u64 {
        let key = self.next;
        self.next += 1;
        self.began += 1;
        let service = self.services.entry(task.tgid).or_insert_with(|| {
            Arc::new(Service { id: task.tgid, name: "app".into(), attributes: Vec::new() })
        });
        let exchange = Exchange {
            key: ExchangeKey(key),
            side,
            task,
            service: Arc::clone(service),
            conn: Rc::clone(&line.conn),
            message: line.message(position),
            request: Request::default(),
            rpc: None,
            db: None,
            reset: None,
            route: None,
            response: None,
            request_body: 0,
            response_body: 0,
            began_ns: self.now,
            answered_ns: 0,
            ended_ns: 0,
            outcome: Outcome::Complete,
        };
        let edge = Edge::Began { conn: Rc::clone(&line.conn), message: exchange.message };
        self.open.insert(key, exchange);
        self.correlator.signal(Signal { key: ExchangeKey(key), side, task, at_ns: self.now, edge });
        key
    }

    pub fn context(&mut self, key: u64, context: &TraceContext) {
        let exchange = self.open.get_mut(&key).unwrap();
        exchange.request.context = Some(Box::new(context.clone()));
        let edge = Edge::Context(Box::new(context.clone()));
        let (side, task) = (exchange.side, exchange.task);
        self.correlator.signal(Signal { key: ExchangeKey(key), side, task, at_ns: self.now, edge });
    }

    /// What the request asks for; `first`: on its connection.
    pub fn asks(&mut self, key: u64, path: &str, first: bool) {
        let exchange = self.open.get_mut(&key).unwrap();
        exchange.request.path = path.into();
        let (side, task) = (exchange.side, exchange.task);
        if side == Side::Client {
            // As the session tells kinds: values in the path are all the same.
            let kind = path
                .bytes()
                .filter(|byte| !byte.is_ascii_digit())
                .fold(1, |kind, byte| kind * 31 + u64::from(byte));
            let edge = Edge::Asked { kind, first };
            self.correlator.signal(Signal { key: ExchangeKey(key), side, task, at_ns: self.now, edge });
        }
    }

    /// What was read of its heads; of the answer a status, zero if it could not be read.
    pub fn reads(&mut self, key: u64, request: Request, status: Option<u16>) {
        let exchange = self.open.get_mut(&key).unwrap();
        if request.truncated || status == Some(0) {
            exchange.conn.texts.note_lacking();
        }
        exchange.request = request;
        exchange.response =
            status.map(|status| Response { status, truncated: status == 0, ..Response::default() });
    }

    pub fn answer(&mut self, key: u64, task: Task, first: bool, last: bool) {
        let exchange = self.open.get_mut(&key).unwrap();
        if first {
            exchange.answered_ns = self.now;
        }
        let edge = Edge::Answer { first, last };
        let side = exchange.side;
        self.correlator.signal(Signal { key: ExchangeKey(key), side, task, at_ns: self.now, edge });
    }

    pub fn finish(&mut self, key: u64, outcome: Outcome) {
        let mut exchange = self.open.remove(&key).unwrap();
        exchange.ended_ns = self.now;
        exchange.outcome = outcome;
        self.correlator.finish(exchange);
    }

    /// The response in one piece, and the end.
    pub fn complete(&mut self, key: u64, task: Task) {
        self.answer(key, task, true, true);
        self.finish(key, Outcome::Complete);
    }

    pub fn end(&mut self) {
        self.pass(self.now + 20_000 * MS);
        self.correlator.flush();
        self.take();
    }

    pub fn of(&self, key: u64) -> &Decision {
        &self.decided[&key].1
    }
}

pub fn task(tgid: u32, tid: u32) -> Task {
    Task { tgid, tid, task: 0 }
}
