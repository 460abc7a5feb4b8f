//! A program of goroutines in small, with the truth known: who reads, who calls, who starts whom, who gives work to whom.

use std::collections::HashMap;

use spanwise::session::{Side, Task};
use spanwise::span::ParentSource;
use spanwise::span::correlate::{Settings, Started};
use spanwise_common::event::{self, Handoff, Header, Kind, handoff};

use super::{Feed, Line, Rng, US};

pub const TGID: u32 = 7;
pub const MAIN: u64 = 1;
pub const SERVE: u64 = 0x1000;

/// A process of goroutines.
pub struct Program {
    pub feed: Feed,
    pub rng: Rng,
    pub next: u64,
    pub started: HashMap<u64, Started>,
    pub truth: Vec<(u64, Option<u64>)>,
}

impl Program {
    pub fn new() -> Self {
        let (feed, rng) = (Feed::new(Settings::default()), Rng(11));
        Self { feed, rng, next: 17, started: HashMap::new(), truth: Vec::new() }
    }

    /// A `go` statement of one goroutine.
    pub fn go(&mut self, parent: u64, start: u64) -> u64 {
        self.next += 1;
        self.started.insert(self.next, Started { id: self.next, parent, start });
        self.next
    }

    pub fn wait(&mut self, ns: u64) {
        let until = self.feed.now + ns;
        self.feed.pass(until);
    }

    /// A goroutine does something on a socket, on some thread.
    pub fn does(&mut self, id: u64) -> Task {
        let tid = 100 + u32::try_from(self.rng.below(4)).unwrap();
        self.wait(2 * US);
        self.feed.correlator.task(TGID, self.started[&id], self.feed.now);
        Task { tgid: TGID, tid, task: id }
    }

    pub fn hands(&mut self, line: &Line, stream: u32, id: u64, what: u8) {
        self.wait(US);
        let Started { id, parent, start } = self.started[&id];
        let header =
            Header { kind: Kind::HANDOFF.0, flags: 0, size: 72, at_ns: self.feed.now, tgid: TGID, tid: 9 };
        let task = event::Task { id, parent, start };
        let (cookie, object, pad) = (line.conn.cookie, 0, [0; 3]);
        self.feed.correlator.handoff(&Handoff { header, cookie, object, task, stream, what, pad });
    }

    /// A goroutine has given a value to another, `age` ago; zero is one that nobody knows.
    pub fn gives(&mut self, from: u64, to: u64, kind: u64, age: u64) {
        self.wait(US);
        let task = self.started.get(&from).map_or_else(event::Task::default, |one| {
            let Started { id, parent, start } = *one;
            event::Task { id, parent, start }
        });
        let header =
            Header { kind: Kind::HANDOFF.0, flags: 0, size: 72, at_ns: self.feed.now, tgid: TGID, tid: 9 };
        let stream = u32::try_from(age / handoff::AGE_NS).unwrap();
        let (what, pad) = (handoff::GIVES, [0; 3]);
        self.feed.correlator.handoff(&Handoff { header, cookie: to, object: kind, task, stream, what, pad });
    }

    /// A request is read by a goroutine.
    pub fn request(&mut self, id: u64, line: &Line, position: u32) -> u64 {
        let task = self.does(id);
        self.feed.begin(Side::Server, task, line, position)
    }

    /// The response to it is written by one.
    pub fn respond(&mut self, key: u64, id: u64) {
        let task = self.does(id);
        self.feed.complete(key, task);
    }

    /// A call is written by a goroutine; `parent` is the truth.
    pub fn call(&mut self, id: u64, line: &Line, position: u32, parent: Option<u64>) -> u64 {
        let task = self.does(id);
        let key = self.feed.begin(Side::Client, task, line, position);
        self.truth.push((key, parent));
        key
    }

    pub fn answer(&mut self, key: u64, id: u64) {
        let task = self.does(id);
        self.feed.complete(key, task);
    }

    /// Calls: right, wrong, not attributed.
    pub fn judge(&mut self) -> (usize, usize, usize) {
        self.feed.end();
        let (mut right, mut wrong, mut silent) = (0, 0, 0);
        for (call, request) in &self.truth {
            let named = self.feed.of(*call).parent_key.map(|key| key.0);
            match named {
                None if request.is_none() => right += 1,
                None => silent += 1,
                Some(named) if Some(named) == *request => right += 1,
                Some(_) => wrong += 1,
            }
        }
        (right, wrong, silent)
    }

    pub fn sources(&self) -> HashMap<&'static str, usize> {
        let mut found = HashMap::new();
        for (call, _) in &self.truth {
            let word = match self.feed.of(*call).source {
                ParentSource::Goroutine => "goroutine",
                ParentSource::Abstained => "abstained",
                ParentSource::Root => "root",
                _ => "other",
            };
            *found.entry(word).or_default() += 1;
        }
        found
    }
}

pub fn server_line(number: u32) -> Line {
    Line::tcp(number, 8_000, Side::Server)
}

pub fn client_line(number: u32) -> Line {
    Line::tcp(20_000 + number, 9_000, Side::Client)
}

/// A server connection with its goroutine.
pub struct Conn {
    pub line: Line,
    pub id: u64,
    pub position: u32,
}

pub fn conns(program: &mut Program, count: u32) -> Vec<Conn> {
    (0..count)
        .map(|number| Conn { line: server_line(number), id: program.go(MAIN, SERVE), position: 0 })
        .collect()
}
