//! What is known of one process: its threads, what is open in it, and the score of each model.

use std::collections::VecDeque;

use super::arena::{Arena, Id};
use super::background::Background;
use super::calibrator::{Calibrator, Neighbours};
use super::hash::{Map, Seed};
use super::learning::Learning;
use super::lineage::Lineage;
use super::models::in_order::{Inputs, Order};
use super::models::{StartOrder, ThreadScore};
use super::node::Node;
use super::settings::Settings;
use crate::span::TraceId;

/// Requests open at one time, by count and fold: the sole one can be read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) count: u32,
    fold: Id,
    /// Requests begun so far: unchanged means that none began since.
    pub(super) begun: u64,
}

impl Open {
    pub(super) fn new() -> Self {
        Self { count: 0, fold: Id::EMPTY, begun: 0 }
    }

    pub(super) fn begin(&mut self, id: Id) {
        self.count += 1;
        self.begun += 1;
        self.fold = self.fold.fold(id);
    }

    pub(super) fn end(&mut self, id: Id) {
        self.count = self.count.saturating_sub(1);
        self.fold = if self.count == 0 { Id::EMPTY } else { self.fold.fold(id) };
    }

    /// The open request, if there is exactly one.
    pub(super) fn sole(&self) -> Option<Id> {
        (self.count == 1).then_some(self.fold)
    }
}

/// What a thread read last.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Input {
    Nothing,
    Request(Id),
    Answer(Id),
}

/// A thread (or a task on one).
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) open: Open,
    pub(super) input: Input,
    /// The last call sent after `input`.
    pub(super) sent: Id,
    /// Complete answers read and not yet given to a response.
    pub(super) answers: VecDeque<(u64, Id)>,
    /// Messages read that led to nothing yet.
    pub(super) inputs: Inputs,
    /// A response took an answer since the last one was read.
    pub(super) took: bool,
    /// Messages read that no call and no response followed yet, as far as can be told by counting.
    pending: u8,
    pub(super) used_ns: u64,
}

impl Thread {
    fn new() -> Self {
        Self {
            open: Open::new(),
            input: Input::Nothing,
            sent: Id::NONE,
            answers: VecDeque::new(),
            inputs: Inputs::new(),
            took: false,
            pending: 0,
            used_ns: 0,
        }
    }

    /// The thread has read requests.
    pub(super) fn serves(&self) -> bool {
        self.open.begun > 0
    }

    pub(super) fn read(&mut self, input: Input) {
        if self.input != input {
            self.pending = self.pending.saturating_add(u8::from(input != Input::Nothing));
            self.input = input;
            self.sent = Id::NONE;
        }
    }

    /// It begins to send a call or a response; whether more than one message that was read waits for that.
    pub(super) fn sends(&mut self) -> bool {
        let several = self.pending > 1;
        self.pending = self.pending.saturating_sub(1);
        several
    }
}

/// The scores of the models that are checked by impossible pairs.
#[derive(Debug)]
pub(super) struct Score {
    pub(super) calibrator: Calibrator,
    pub(super) neighbours: Neighbours,
}

impl Score {
    fn new(settings: &Settings) -> Self {
        Self {
            calibrator: Calibrator::new(settings.bar, settings.tolerance),
            neighbours: Neighbours::default(),
        }
    }
}

/// The scores of *first in, first out*.
#[derive(Debug)]
pub(super) struct Queue {
    /// Of answers that waited alone, or with others of their kind.
    pub(super) plain: Score,
    /// Of answers that waited together with others that may overtake them.
    pub(super) mixed: Calibrator,
    /// Above zero since answers that wait together may be overtaken.
    pub(super) uneven: u32,
}

impl Queue {
    /// The score that the pair of a call goes by: also of one whose answer waited together with others before these turned
    /// out to be overtaken.
    pub(super) fn of(&self, call: &Node) -> &Calibrator {
        let mixed = call.mixed || (call.together && self.uneven > 0);
        if mixed { &self.mixed } else { &self.plain.calibrator }
    }
}

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) tgid: u32,
    pub(super) open: Open,
    pub(super) threads: Map<u64, Thread>,
    /// Requests in the order in which they began; answered ones are taken from the front.
    pub(super) unanswered: VecDeque<Id>,
    /// Calls without a decision.
    pub(super) undecided: Vec<Id>,
    /// It stands in the list of processes with such calls.
    pub(super) listed: bool,
    /// When to look through them next.
    pub(super) look_ns: u64,
    /// Open requests by the trace that they carried in.
    pub(super) contexts: Map<TraceId, Vec<Id>>,
    pub(super) background: Background,
    pub(super) thread: ThreadScore,
    pub(super) last_in: Score,
    pub(super) first_in_first_out: Queue,
    pub(super) sibling: Score,
    pub(super) next: Score,
    pub(super) start_order: StartOrder,
    pub(super) in_order: Order,
    /// Calls that wait for one of these to prove itself.
    pub(super) learning: Learning,
    /// Its tasks, once one was seen.
    pub(super) lineage: Option<Box<Lineage>>,
    pub(super) used_ns: u64,
}

impl Process {
    pub(super) fn new(tgid: u32, seed: Seed, settings: &Settings) -> Self {
        Self {
            tgid,
            open: Open::new(),
            threads: Map::with_hasher(seed),
            unanswered: VecDeque::new(),
            undecided: Vec::new(),
            listed: false,
            look_ns: 0,
            contexts: Map::with_hasher(seed),
            background: Background::default(),
            thread: ThreadScore::default(),
            last_in: Score::new(settings),
            first_in_first_out: Queue {
                plain: Score::new(settings),
                mixed: Calibrator::new(settings.bar, settings.tolerance),
                uneven: 0,
            },
            sibling: Score::new(settings),
            next: Score::new(settings),
            start_order: StartOrder::new(Calibrator::new(settings.bar, settings.tolerance)),
            in_order: Order::new(Calibrator::new(settings.chain_bar, settings.chain_tolerance)),
            learning: Learning::default(),
            lineage: None,
            used_ns: 0,
        }
    }

    /// The thread's state, made if there is none; `crowded` counts when idle ones were forgotten for it.
    pub(super) fn thread(&mut self, key: u64, now_ns: u64, bound: usize, crowded: &mut u64) -> &mut Thread {
        if self.threads.len() >= bound && !self.threads.contains_key(&key) {
            *crowded += 1;
            let recent = now_ns.saturating_sub(100_000_000);
            self.threads.retain(|_, thread| thread.open.count > 0 || thread.used_ns > recent);
            if self.threads.len() >= bound {
                self.threads.clear();
            }
        }
        let thread = self.threads.entry(key).or_insert_with(Thread::new);
        thread.used_ns = now_ns;
        thread
    }

    /// Forgets threads that did nothing for a while; thread and task ids come back as others.
    pub(super) fn forget_threads(&mut self, before_ns: u64) {
        self.threads.retain(|_, thread| thread.open.count > 0 || thread.used_ns > before_ns);
    }

    /// When the oldest request began that waits for its response; what began after an answer cannot have caused it.
    pub(super) fn oldest_unanswered(&mut self, nodes: &Arena<Node>) -> Option<u64> {
        while let Some(front) = self.unanswered.front() {
            match nodes.get(*front) {
                Some(node) if node.unanswered() => return Some(node.began_ns),
                _ => self.unanswered.pop_front(),
            };
        }
        None
    }
}
