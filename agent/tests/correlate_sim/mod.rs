//! Programs in small, with the truth known: what their threads do on sockets goes to a correlator, and its
//! decisions are compared with what really caused each call.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's own data: a miss is a bug of the test"
)]

mod feed;
pub mod program;

pub use feed::{Feed, Line, task};

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use spanwise::session::{Outcome, Side, Task};
use spanwise::span::ParentSource;
use spanwise::span::correlate::{Correlator, Settings};

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
