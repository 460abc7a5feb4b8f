//! Parents by evidence: one file per model, and a calibrator that checks each without truth.
//!
//! Comes in: edges of exchanges while they go on ([`Signal`]), each exchange when it ends, the time. Goes out:
//! every exchange once, with a [`Decision`]: its ids, its parent, how that was found and how sure it is.
//!
//! - `edges` takes the signals and asks the models; `join` finds the other end of a message on this node;
//!   `certain` takes what needs no model; `goroutines` and `lineage` follow tasks and those who started them,
//!   `handovers` and `jobs` those who gave them work.
//! - `models` name requests for calls; `calibrator` and `background` say which of them may be believed.
//! - `learning` lets calls wait whose model has not proven itself yet.
//! - `told` fills what one end of a message could not read with what the other could.
//! - `decide` weighs what they say; `resolve` lets trace ids follow parents and emits; `time` keeps the bounds.
//!
//! A call is decided late: when the response of a request begins for which it was named, or when no request
//! is left whose response could still tell. An exchange goes out when its parents are decided up to a trace id.
//! Everything kept is bounded by [`Settings`]; where a bound is hit the oldest is decided early, and counted.

mod arena;
mod background;
mod calibrator;
mod certain;
mod decide;
mod edges;
mod goroutines;
mod handovers;
mod hash;
mod jobs;
mod join;
mod keys;
mod learning;
mod lineage;
mod lonely;
mod models;
mod node;
mod process;
mod recent;
mod report;
mod resolve;
pub mod role;
mod settings;
mod time;
mod told;

use std::collections::VecDeque;

use arena::{Arena, Id};
use hash::{Map, Seed};
use join::Joiner;
use keys::Keys;
use lonely::Lonely;
use node::Node;
use process::Process;
use report::Counters;

pub use calibrator::Estimate;
pub use goroutines::Started;
pub use lineage::Role;
pub use report::ModelReport;
pub use settings::Settings;

use crate::session::{Exchange, Signal};
use crate::span::Decision;

/// Decides parents and ids; one for all processes of the node.
#[derive(Debug)]
pub struct Correlator {
    settings: Settings,
    seed: Seed,
    nodes: Arena<Node>,
    keys: Keys,
    processes: Arena<Process>,
    tgids: Map<u32, Id>,
    joiner: Joiner,
    lonely: Lonely,
    now_ns: u64,
    /// Ended requests that wait for their client's end, by deadline.
    peer_waits: VecDeque<(u64, Id)>,
    /// Ended exchanges by the deadline at which they go out whatever is known.
    holds: VecDeque<(u64, Id)>,
    held: usize,
    /// Calls that went out and wait for their server's end, by deadline: answered ones and others.
    lingers: [VecDeque<(u64, Id)>; 2],
    /// Processes with undecided calls.
    listed: Vec<Id>,
    swept_ns: u64,
    out: VecDeque<(Box<Exchange>, Decision)>,
    /// Start functions that were not asked about yet, by process.
    fresh_starts: Vec<(u32, u64)>,
    /// Calls of a task whose starter is not known, by process.
    holes: Vec<(u32, Id)>,
    /// Processes whose hand-overs should be told, or no longer.
    wishes: Vec<(u32, bool)>,
    /// Calls that wait for a model to prove itself, of all processes.
    learning: usize,
    /// Work lists, kept for their storage.
    stack: Vec<Id>,
    named: Vec<Id>,
    counters: Counters,
}

impl Correlator {
    /// With nothing known of any process.
    pub fn new(settings: Settings) -> Self {
        let seed = Seed::random();
        Self {
            settings,
            seed,
            nodes: Arena::new(),
            keys: Keys::new(seed),
            processes: Arena::new(),
            tgids: Map::with_hasher(seed),
            joiner: Joiner::new(seed),
            lonely: Lonely::new(seed),
            now_ns: 0,
            peer_waits: VecDeque::new(),
            holds: VecDeque::new(),
            held: 0,
            lingers: [VecDeque::new(), VecDeque::new()],
            listed: Vec::new(),
            swept_ns: 0,
            out: VecDeque::new(),
            fresh_starts: Vec::new(),
            holes: Vec::new(),
            wishes: Vec::new(),
            learning: 0,
            stack: Vec::new(),
            named: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes an edge, in the order of the ring.
    pub fn signal(&mut self, signal: Signal) {
        self.now_ns = self.now_ns.max(signal.at_ns);
        self.edge(signal);
    }

    /// Takes an exchange that ended; exactly one for each `Began`.
    pub fn finish(&mut self, exchange: impl Into<Box<Exchange>>) {
        let exchange = exchange.into();
        self.now_ns = self.now_ns.max(exchange.ended_ns);
        self.counters.finished += 1;
        self.ended(exchange);
    }

    /// Takes the time (`CLOCK_BOOTTIME`), every few milliseconds; deadlines fall here.
    pub fn tick(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.deadlines();
    }

    /// Gives the exchanges that are decided. Parents do not always come before children.
    pub fn drain(&mut self, out: &mut impl FnMut(Box<Exchange>, Decision)) {
        while let Some((exchange, decision)) = self.out.pop_front() {
            self.counters.drained += 1;
            out(exchange, decision);
        }
    }

    /// A process ended: nothing more will be learnt about its calls. Its open exchanges are still to be finished.
    pub fn process_exit(&mut self, tgid: u32, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        if let Some(id) = self.tgids.remove(&tgid) {
            self.forget_process(id);
        }
    }

    /// Decides all that has ended, now.
    pub fn flush(&mut self) {
        let ids: Vec<Id> = self.holds.drain(..).map(|(_, id)| id).collect();
        for id in ids {
            self.force(id);
        }
        self.peer_waits.clear();
    }
}
