//! Programs in small, with the truth known: what their threads do on sockets goes to a correlator, and its
//! decisions are compared with what really caused each call.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's own data: a miss is a bug of the test"
)]

pub mod program;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use spanwise::conn::{ConnInfo, Endpoint, MessageName, Texts};
use spanwise::process::Service;
use spanwise::session::{Edge, Exchange, ExchangeKey, Outcome, Side, Signal, Task};
use spanwise::span::correlate::{Correlator, Settings};
use spanwise::span::{Decision, ParentSource};
use spanwise_protocol::context::TraceContext;
use spanwise_protocol::message::{Request, Response};

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;

/// Deterministic numbers (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

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

/// What a handler does, in order.
#[derive(Clone, Copy)]
pub enum Step {
    Sleep,
    Calls(usize),
}

/// How the program runs its handlers.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// One thread, a continuation runs as soon as its answer is read.
    Libuv,
    /// One thread, continuations run in the next turn, in order.
    Asyncio,
    /// A thread for each connection.
    Threads,
    /// A thread for each connection, calls on threads of a pool.
    Handoff,
    /// Goroutines unknown: any of four threads does anything, often the one that woke it.
    Go,
}

enum Event {
    Arrive(usize),
    Answer(usize),
    Rest(usize),
    Timer(usize),
    Poll,
}

struct Handler {
    key: u64,
    client: usize,
    tid: u32,
    step: usize,
    pending: usize,
}

struct Call {
    key: u64,
    request: Option<usize>,
    socket: usize,
    tid: u32,
}

/// One program under load.
pub struct Sim {
    pub kind: Kind,
    pub script: Vec<Step>,
    pub concurrency: usize,
    pub requests: usize,
    /// Sockets to the other service.
    pub pool: usize,
    /// A call outside of requests so often (ns), zero for never; to a port.
    pub poll_ns: u64,
    pub poll_port: u16,
    /// A proxy of so many worker processes that passes each answer on in two pieces, as they come; zero for none.
    pub proxies: u32,
    /// Pause of each client between requests.
    pub think_ns: u64,
    /// Handlers of an asyncio loop start a turn after their request was read.
    pub late: bool,
    /// Each call of a handler asks for something else.
    pub paths: bool,
    pub seed: u64,
    pub settings: Settings,
}

impl Sim {
    pub fn new(kind: Kind, script: &[Step], concurrency: usize, requests: usize) -> Self {
        let script = script.to_vec();
        let seed = std::env::var("SPANWISE_SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
        let (poll_ns, poll_port, think_ns) = (0, 9_100, 100 * US);
        Self {
            kind,
            script,
            concurrency,
            requests,
            pool: 1_000,
            poll_ns,
            poll_port,
            proxies: 0,
            think_ns,
            late: false,
            paths: false,
            seed,
            settings: Settings::default(),
        }
    }
}

/// Shares of calls: of the second half of the run, and the right and wrong ones of the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    pub right: f64,
    pub wrong: f64,
    pub abstained: f64,
    pub right_ever: f64,
    pub wrong_ever: f64,
    pub calls: usize,
}

struct Run<'a> {
    sim: &'a Sim,
    feed: Feed,
    rng: Rng,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Event>,
    handlers: Vec<Handler>,
    calls: Vec<Call>,
    free: VecDeque<usize>,
    waiting: VecDeque<(usize, u32)>,
    positions: HashMap<(usize, usize), u32>,
    truth: Vec<(u64, Option<u64>)>,
    arrived: usize,
}

const TGID: u32 = 4_000;

impl Sim {
    pub fn run(&self) -> (Shares, Correlator) {
        let mut run = Run {
            sim: self,
            feed: Feed::new(self.settings),
            rng: Rng(self.seed),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            handlers: Vec::new(),
            calls: Vec::new(),
            free: (0..self.pool).collect(),
            waiting: VecDeque::new(),
            positions: HashMap::new(),
            truth: Vec::new(),
            arrived: 0,
        };
        run.go();
        run.feed.end();
        assert_eq!(run.feed.decided.len() as u64, run.feed.began);
        assert_eq!(run.feed.twice, 0);
        assert!(run.feed.correlator.stage().balances());
        let mut right = [0_usize; 2];
        let mut wrong = [0_usize; 2];
        let mut abstained = [0_usize; 2];
        let total = run.truth.len();
        for (i, (call, cause)) in run.truth.iter().enumerate() {
            let half = usize::from(i * 2 >= total);
            let decision = run.feed.of(*call);
            match (decision.parent_key.map(|key| key.0), cause) {
                (Some(parent), Some(cause)) if parent == *cause => right[half] += 1,
                (None, None) => right[half] += 1,
                (Some(_), _) => wrong[half] += 1,
                (None, Some(_)) => {
                    assert!(matches!(decision.source, ParentSource::Abstained | ParentSource::Root));
                    abstained[half] += 1;
                }
            }
        }
        let half = (right[1] + wrong[1] + abstained[1]) as f64;
        let shares = Shares {
            right: right[1] as f64 / half,
            wrong: wrong[1] as f64 / half,
            abstained: abstained[1] as f64 / half,
            right_ever: (right[0] + right[1]) as f64 / total as f64,
            wrong_ever: (wrong[0] + wrong[1]) as f64 / total as f64,
            calls: total,
        };
        (shares, run.feed.correlator)
    }
}

impl Run<'_> {
    fn at(&mut self, time: u64, event: Event) {
        self.events.push(event);
        self.queue.push(Reverse((time, self.events.len() as u64, self.events.len() - 1)));
    }

    /// The program works a little.
    fn work(&mut self) {
        let took = US + self.rng.below(9 * US);
        self.feed.pass(self.feed.now + took);
    }

    fn go(&mut self) {
        for client in 0..self.sim.concurrency {
            let time = self.feed.now + self.rng.below(5 * MS);
            self.at(time, Event::Arrive(client));
        }
        if self.sim.poll_ns > 0 {
            self.at(self.feed.now + self.sim.poll_ns, Event::Poll);
        }
        while let Some(Reverse((time, _, _))) = self.queue.peek() {
            let time = *time;
            self.feed.pass(time);
            let mut ready = Vec::new();
            while let Some(Reverse((time, _, event))) = self.queue.peek().copied() {
                if time > self.feed.now || (self.sim.kind != Kind::Asyncio && !ready.is_empty()) {
                    break;
                }
                self.queue.pop();
                if let Some(next) = self.happens(event) {
                    ready.push(next);
                }
            }
            for (request, tid) in ready {
                self.goes_on(request, tid);
            }
        }
    }

    /// The part of an event that is done at once; what has to go on because of it.
    fn happens(&mut self, event: usize) -> Option<(usize, u32)> {
        match self.events[event] {
            Event::Arrive(client) => {
                if self.arrived >= self.sim.requests {
                    return None;
                }
                self.arrived += 1;
                self.work();
                let tid = self.own_tid(client);
                let position = self.position(0, client);
                let line = Line::tcp(client as u32, 8_000, Side::Server);
                let key = self.feed.begin(Side::Server, self.who(tid), &line, position);
                self.handlers.push(Handler { key, client, tid, step: 0, pending: 0 });
                if self.sim.late {
                    self.at(self.feed.now, Event::Timer(self.handlers.len() - 1));
                    return None;
                }
                Some((self.handlers.len() - 1, tid))
            }
            Event::Timer(request) => {
                let tid = match self.sim.kind {
                    Kind::Go => self.any_tid(0),
                    _ => self.handlers[request].tid,
                };
                Some((request, tid))
            }
            Event::Poll => {
                if self.arrived < self.sim.requests {
                    let jitter = self.rng.below(self.sim.poll_ns / 4);
                    self.at(self.feed.now + self.sim.poll_ns + jitter, Event::Poll);
                    let tid = match self.sim.kind {
                        Kind::Libuv | Kind::Asyncio => TGID,
                        _ => TGID + 900,
                    };
                    self.work();
                    self.send(None, usize::MAX, tid);
                }
                None
            }
            Event::Answer(call) if self.sim.proxies > 0 => {
                self.work();
                let (request, who) = self.proxied(call);
                self.feed.answer(self.calls[call].key, who, true, false);
                self.work();
                self.feed.answer(self.handlers[request].key, who, true, false);
                let time = self.feed.now + 20 * US + self.rng.below(MS);
                self.at(time, Event::Rest(call));
                None
            }
            Event::Rest(call) => {
                self.work();
                let (request, who) = self.proxied(call);
                let Call { key, socket, .. } = self.calls[call];
                self.free.push_back(socket);
                self.feed.answer(key, who, false, true);
                self.feed.finish(key, Outcome::Complete);
                self.work();
                let Handler { key, client, .. } = self.handlers[request];
                self.feed.answer(key, who, false, true);
                self.feed.finish(key, Outcome::Complete);
                let time = self.feed.now + self.sim.think_ns + self.rng.below(self.sim.think_ns + 1);
                self.at(time, Event::Arrive(client));
                None
            }
            Event::Answer(call) => {
                self.work();
                let Call { key, request, socket, tid } = self.calls[call];
                let tid = if self.sim.kind == Kind::Go { self.any_tid(0) } else { tid };
                self.feed.complete(key, task(TGID, tid));
                if socket != usize::MAX {
                    self.free.push_back(socket);
                    if let Some((waiting, tid_of_waiting)) = self.waiting.pop_front() {
                        let socket = self.free.pop_front().unwrap();
                        self.work();
                        self.send(Some(waiting), socket, tid_of_waiting);
                    }
                }
                let request = request?;
                self.handlers[request].pending -= 1;
                (self.handlers[request].pending == 0).then_some((request, tid))
            }
        }
    }

    fn goes_on(&mut self, request: usize, tid: u32) {
        let step = self.handlers[request].step;
        self.handlers[request].step += 1;
        let tid = match self.sim.kind {
            Kind::Go => self.any_tid(tid),
            _ => self.handlers[request].tid,
        };
        match self.sim.script.get(step) {
            Some(Step::Sleep) => {
                let time = self.feed.now + 200 * US + self.rng.below(5 * MS);
                self.at(time, Event::Timer(request));
            }
            Some(Step::Calls(count)) => {
                self.handlers[request].pending = *count;
                for _ in 0..*count {
                    let tid = match self.sim.kind {
                        Kind::Handoff => TGID + 500 + self.rng.below(16) as u32,
                        Kind::Go => self.any_tid(tid),
                        _ => tid,
                    };
                    match self.free.pop_front() {
                        Some(socket) => {
                            self.work();
                            self.send(Some(request), socket, tid);
                        }
                        None => self.waiting.push_back((request, tid)),
                    }
                }
            }
            None => {
                self.work();
                let Handler { key, client, .. } = self.handlers[request];
                self.feed.complete(key, task(TGID, tid));
                let time = self.feed.now + self.sim.think_ns + self.rng.below(self.sim.think_ns + 1);
                self.at(time, Event::Arrive(client));
            }
        }
    }

    fn send(&mut self, request: Option<usize>, socket: usize, tid: u32) {
        let polls = socket == usize::MAX;
        let number = if polls { 49_000 } else { 1_000 + socket as u32 };
        let position = self.position(1, number as usize);
        let line = Line::tcp(number, if polls { self.sim.poll_port } else { 9_000 }, Side::Client);
        let key = self.feed.begin(Side::Client, self.who(tid), &line, position);
        let step = request.map_or(0, |request| self.handlers[request].step);
        let path = if self.sim.paths { ["/a", "/b", "/c", "/d"][step % 4] } else { "/a" };
        self.feed.asks(key, path, position == 100);
        self.truth.push((key, request.map(|request| self.handlers[request].key)));
        self.calls.push(Call { key, request, socket, tid });
        let time = self.feed.now + 100 * US + self.rng.below(10 * MS);
        self.at(time, Event::Answer(self.calls.len() - 1));
    }

    /// The request of a call of a proxy, and the worker.
    fn proxied(&self, call: usize) -> (usize, Task) {
        let Some(request) = self.calls[call].request else {
            unreachable!("a proxy makes no calls of its own")
        };
        let tid = self.handlers[request].tid;
        (request, task(tid, tid))
    }

    /// Workers of a proxy are processes of one thread; else all is one process.
    fn who(&self, tid: u32) -> Task {
        if self.sim.proxies > 0 { task(tid, tid) } else { task(TGID, tid) }
    }

    fn position(&mut self, side: usize, line: usize) -> u32 {
        let position = self.positions.entry((side, line)).or_insert(0);
        *position += 100;
        *position
    }

    fn own_tid(&mut self, client: usize) -> u32 {
        match self.sim.kind {
            _ if self.sim.proxies > 0 => TGID + client as u32 % self.sim.proxies,
            Kind::Libuv | Kind::Asyncio => TGID,
            Kind::Threads | Kind::Handoff => TGID + 1 + client as u32,
            Kind::Go => self.any_tid(0),
        }
    }

    /// A thread of four; the given one in most cases.
    fn any_tid(&mut self, tid: u32) -> u32 {
        if tid != 0 && self.rng.below(100) < 90 { tid } else { TGID + self.rng.below(4) as u32 }
    }
}
