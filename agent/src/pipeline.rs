//! The picture of the whole: every stage, wired top to bottom.
//!
//! ```text
//!   kernel ring ──records──▶ process registry        [2] who: fork, exec, exit
//!        │
//!        └──────records──▶ sessions                  [3] streams  [4] parsers, exchanges
//!                             │  signals (edges in time), exchanges
//!                             ▼
//!                          correlator                [5] parents and ids, decided late
//!                             │  exchange + decision
//!                             ▼
//!                          sampler                   [6] keep or drop, counted
//!                             │
//!                             ▼
//!                          span builder              [5] semantic conventions, redaction, clock
//!                             │  spans
//!                             ▼
//!                          exporters                 [7] encode, batch, queue, send (threads of their own)
//! ```
//!
//! Everything down to the encoding of a span runs on one thread, without locks and without channels; what can wait for the
//! outside (network, disk, terminal) runs behind bounded queues. Sizes stand with the stage that they bound.

use std::sync::Arc;
use std::time::Instant;

use spanwise_common::conn::{Info, Verdict};
use spanwise_common::event::{Task, flags};

use crate::attribute::Attribute;
use crate::config::Settings;
use crate::export::Exporters;
use crate::kernel::clock;
use crate::kernel::record::{self, Record};
use crate::process::Service;
use crate::sample::Sampler;
use crate::session::{Effort, Outcome, Output, Sessions, Who};
use crate::span::build::{self, Commons, Conventions};
use crate::span::clock::Clock;
use crate::span::correlate::{Correlator, Role, Settings as CorrelateSettings, Started};
use crate::telemetry::{Flow, Stage};

/// How often ends that cannot be seen are looked for, in nanoseconds.
const LOOK_EVERY_NS: u64 = 20_000_000;

/// How often the mapping to the time of day is corrected.
const READ_CLOCK_EVERY_NS: u64 = 5_000_000_000;

/// Where records come from, and who knows about processes: the live kernel or a recording.
pub trait Origin: Who {
    /// A traced process made a child.
    fn fork(&mut self, parent: u32, child: u32);
    /// A process became another program.
    fn exec(&mut self, tgid: u32, comm: [u8; 16]);
    /// A process ended; its exchanges have been handed on.
    fn exit(&mut self, tgid: u32);
    /// What to ship of a connection.
    fn decide(&mut self, cookie: u64, verdict: Verdict);
    /// A connection is over.
    fn forget(&mut self, cookie: u64);
    /// What a function is for that tasks (goroutines) begin at.
    fn role(&mut self, _tgid: u32, _start: u64) -> Role {
        Role::Plain
    }
    /// All tasks (goroutines) of a process as they are now, unless that cannot be had or costs too much.
    fn tasks(&mut self, _tgid: u32) -> Option<Vec<Started>> {
        None
    }
    /// Values that pass from task (goroutine) to task in a process are to be told from now on, or no longer.
    fn hand_overs(&mut self, _tgid: u32, _told: bool) {}
    /// Bytes left a socket that no hook saw.
    fn unseen(&mut self) {}
    /// A process may have loaded code; `more` if it surely has.
    fn mapped(&mut self, _tgid: u32, _more: bool) {}
    /// Whether the children of traced processes are traced from now on.
    fn follow(&mut self, _new: bool) {}
}

/// All stages.
pub struct Pipeline<O> {
    /// Where records come from.
    pub origin: O,
    sessions: Sessions,
    output: Output,
    tail: Tail,
    looked_ns: u64,
    clock_read_ns: u64,
    records: u64,
    malformed: u64,
    others: u64,
}

/// The stages behind the sessions.
struct Tail {
    correlator: Correlator,
    sampler: Sampler,
    clock: Clock,
    exporters: Exporters,
    conventions: Conventions,
    /// The list of the span before, for its storage.
    attributes: Vec<Attribute>,
    /// What the spans of a connection have in common.
    commons: Commons,
    decided: u64,
    headless: u64,
}

impl Tail {
    fn correlator_takes(&mut self, output: &mut Output) {
        if output.signals.is_empty() && output.exchanges.is_empty() {
            return;
        }
        for signal in output.signals.drain(..) {
            self.correlator.signal(signal);
        }
        for exchange in output.exchanges.drain(..) {
            self.correlator.finish(exchange);
        }
        self.drain();
    }

    /// Something that a task did comes next.
    fn sees(&mut self, tgid: u32, task: Task, at_ns: u64) {
        if task.id != 0 {
            let task = Started { id: task.id, parent: task.parent, start: task.start };
            self.correlator.task(tgid, task, at_ns);
        }
    }

    /// Decided exchanges become spans, if the sampler keeps them.
    fn drain(&mut self) {
        let Self {
            correlator,
            sampler,
            clock,
            exporters,
            conventions,
            attributes,
            commons,
            decided,
            headless,
        } = self;
        correlator.drain(&mut |exchange, mut decision| {
            *decided += 1;
            if exchange.outcome == Outcome::Headless {
                *headless += 1;
                return;
            }
            let incoming = decision.trace_state.as_deref();
            let verdict = sampler.decide(&decision.trace_id, decision.upstream_flags, incoming);
            if verdict.is_keep() {
                decision.trace_state = sampler.trace_state(verdict, incoming);
                let list = std::mem::take(attributes);
                let span = build::build_in(list, commons, exchange, decision, clock, *conventions);
                exporters.span(&span);
                *attributes = span.attributes;
            }
        });
    }
}

impl<O: Origin> Pipeline<O> {
    /// Wires the stages.
    pub fn new(origin: O, settings: &Settings, exporters: Exporters, clock: Clock) -> Self {
        Self {
            origin,
            sessions: Sessions::default(),
            output: Output::default(),
            tail: Tail {
                correlator: Correlator::new(CorrelateSettings::default()),
                sampler: Sampler::new(settings.sampler),
                clock,
                exporters,
                conventions: Conventions { old_rpc_names: settings.old_rpc_names },
                attributes: Vec::new(),
                commons: Commons::default(),
                decided: 0,
                headless: 0,
            },
            looked_ns: 0,
            clock_read_ns: clock::boot_ns(),
            records: 0,
            malformed: 0,
            others: 0,
        }
    }

    /// One record, all the way.
    pub fn record(&mut self, bytes: &[u8]) {
        let Self { origin, sessions, output, tail, .. } = self;
        match record::decode(bytes) {
            Some(Record::Data(data, payload)) => {
                self.records += 1;
                if data.header.flags & flags::UNSEEN != 0 {
                    origin.unseen();
                }
                tail.sees(data.header.tgid, data.task, data.header.at_ns);
                tail.correlator.new_starts(&mut |tgid, start| origin.role(tgid, start));
                if data.route != 0 {
                    sessions.answers(&data, record::route(&data, bytes));
                }
                sessions.data(&data, payload, origin, output);
            }
            Some(Record::Plain(plain, payload)) => {
                self.records += 1;
                tail.sees(plain.header.tgid, plain.task, plain.header.at_ns);
                tail.correlator.new_starts(&mut |tgid, start| origin.role(tgid, start));
                sessions.plain(&plain, payload, origin, output);
            }
            Some(other) => {
                self.others += 1;
                match other {
                    Record::Open(open) => sessions.open(&open),
                    Record::Close(close) => sessions.close(&close, origin, output),
                    Record::Fork(event) => origin.fork(event.header.tgid, event.other),
                    Record::Exec(event) => {
                        tail.correlator.program_changed(event.header.tgid);
                        origin.exec(event.header.tgid, event.comm);
                    }
                    Record::Exit(event) => {
                        let (tgid, at_ns) = (event.header.tgid, event.header.at_ns);
                        sessions.exit(tgid, at_ns, origin, output);
                        tail.correlator_takes(output);
                        tail.correlator.process_exit(tgid, at_ns);
                        origin.exit(tgid);
                    }
                    Record::Join(join) => sessions.join(&join, origin, output),
                    Record::Handoff(handoff) => {
                        tail.sees(handoff.header.tgid, handoff.task, handoff.header.at_ns);
                        tail.correlator.new_starts(&mut |tgid, start| origin.role(tgid, start));
                        tail.correlator.handoff(&handoff);
                    }
                    Record::Route(route, text) => sessions.route(&route, text),
                    Record::Mapped(event) => origin.mapped(event.header.tgid, event.other != 0),
                    Record::Data(..) | Record::Plain(..) => {}
                }
            }
            None => self.malformed += 1,
        }
        self.hand_on();
    }

    fn hand_on(&mut self) {
        self.tail.correlator_takes(&mut self.output);
        let Self { tail, origin, .. } = self;
        tail.correlator.new_starts(&mut |tgid, start| origin.role(tgid, start));
        tail.correlator.fill_holes(&mut |tgid| origin.tasks(tgid));
        tail.correlator.hand_overs_wished(&mut |tgid, told| origin.hand_overs(tgid, told));
        for (cookie, verdict) in self.output.verdicts.drain(..) {
            self.origin.decide(cookie, verdict);
        }
        for cookie in self.output.forgotten.drain(..) {
            self.origin.forget(cookie);
        }
    }

    /// Time passes: `now_ns` is the clock of the records.
    pub fn tick(&mut self, now_ns: u64, now: Instant) {
        if now_ns.saturating_sub(self.looked_ns) >= LOOK_EVERY_NS {
            self.looked_ns = now_ns;
            self.sessions.tick(now_ns, &mut self.origin, &mut self.output);
            self.hand_on();
        }
        if now_ns.saturating_sub(self.clock_read_ns) >= READ_CLOCK_EVERY_NS {
            self.clock_read_ns = now_ns;
            self.tail.clock.refresh();
        }
        self.tail.correlator.tick(now_ns);
        self.tail.drain();
        self.tail.exporters.tick(now);
    }

    /// From now on this much is done.
    pub fn govern(&mut self, effort: Effort, now_ns: u64) {
        self.sessions.govern(effort, now_ns, &mut self.origin, &mut self.output);
        self.origin.follow(!effort.no_new_processes);
        self.hand_on();
    }

    /// Whether an exporter's queue is half full.
    pub fn is_behind(&self) -> bool {
        self.tail.exporters.is_behind()
    }

    /// The account of every stage so far.
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = vec![Stage {
            name: "ring: data records",
            input: self.records,
            rows: vec![(Flow::Out, "to sessions", self.records)],
            notes: vec![("malformed records", self.malformed), ("other records", self.others)],
        }];
        stages.extend(self.sessions.stages());
        stages.push(self.tail.correlator.stage());
        let Tail { decided, headless, .. } = self.tail;
        stages.push(Stage {
            name: "span: decided exchanges",
            input: decided,
            rows: vec![
                (Flow::Out, "to the sampler", decided - headless),
                (Flow::Drop, "head never understood", headless),
            ],
            notes: vec![("clock steps", self.tail.clock.steps())],
        });
        stages.push(self.tail.sampler.stage());
        stages.extend(self.tail.exporters.stages());
        stages
    }

    /// What the correlator knows of its models.
    pub fn explain(&self) -> Vec<crate::span::correlate::ModelReport> {
        self.tail.correlator.explain()
    }

    /// Ends everything: what is under way is handed on as it is, the origin is left, queues are emptied within a bound.
    pub fn finish<R>(
        mut self,
        now_ns: u64,
        within: std::time::Duration,
        leave: impl FnOnce(O) -> R,
    ) -> (R, Vec<Stage>) {
        self.sessions.finish(now_ns, &mut self.origin, &mut self.output);
        self.hand_on();
        self.tail.correlator.tick(now_ns);
        self.tail.correlator.flush();
        self.tail.drain();
        let mut stages = self.stages();
        // The exporters' accounts are final only once they have stopped.
        let before = self.tail.exporters.stages().len();
        stages.truncate(stages.len().saturating_sub(before));
        let left = leave(self.origin);
        stages.extend(self.tail.exporters.flush_and_stop(within));
        (left, stages)
    }
}

/// An origin that is not a kernel: services and connections from a recording.
#[derive(Default)]
pub struct Recorded {
    /// Service of each process.
    pub services: std::collections::HashMap<u32, Arc<Service>>,
}

impl Who for Recorded {
    fn service(&mut self, tgid: u32) -> Arc<Service> {
        let unknown = || Arc::new(Service { id: 0, name: "unknown".into(), attributes: vec![] });
        self.services.get(&tgid).map_or_else(unknown, Arc::clone)
    }
    fn connection(&mut self, _cookie: u64) -> Option<Info> {
        None
    }
}

impl Origin for Recorded {
    fn fork(&mut self, parent: u32, child: u32) {
        if let Some(service) = self.services.get(&parent).cloned() {
            self.services.entry(child).or_insert(service);
        }
    }
    fn exec(&mut self, _tgid: u32, _comm: [u8; 16]) {}
    fn exit(&mut self, _tgid: u32) {}
    fn decide(&mut self, _cookie: u64, _verdict: Verdict) {}
    fn forget(&mut self, _cookie: u64) {}
}
