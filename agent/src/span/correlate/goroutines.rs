//! Tasks (goroutines) as evidence: who reads a request, who makes a call, and who started whom.
//!
//! Comes in: tasks as records name them, hand-offs, the edges of exchanges. Goes out: claims of [`Model::Goroutine`], which
//! outrank those of the other models.

use spanwise_common::event::{Handoff, handoff};

use super::Correlator;
use super::arena::Id;
use super::lineage::{Found, Lineage, Role};
use super::node::{Model, Parent};
use super::process::Process;
use crate::session::{Side, Task};

/// A task of a process, and how it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Started {
    /// Identity, unique in the process.
    pub id: u64,
    /// The task that started it, zero where unknown.
    pub parent: u64,
    /// Address of the function it was started with.
    pub start: u64,
}

/// Calls that wait for a look at one time.
const MOST_HOLES: usize = 4_096;
/// The rules have no open question in them.
const SURE: f64 = 1.0;

impl Correlator {
    /// A task does something: to be told before the edges that it causes.
    pub fn task(&mut self, tgid: u32, task: Started, at_ns: u64) {
        if task.id == 0 {
            return;
        }
        if let Some(lineage) = self.lineage(tgid)
            && lineage.see(task, at_ns)
        {
            self.fresh_starts.push((tgid, task.start));
        }
    }

    /// A task hands work to a connection that another task writes, or takes it from one that another task reads.
    pub fn handoff(&mut self, handoff: &Handoff) {
        let Handoff { header, cookie, object, task, stream, what, .. } = *handoff;
        if what == handoff::GIVES {
            return self.hand_over(handoff);
        }
        let place = place(cookie, stream);
        self.task(header.tgid, Started { id: task.id, parent: task.parent, start: task.start }, header.at_ns);
        let Some(lineage) = self.lineage(header.tgid) else { return };
        match what {
            // A connection that was not seen yet has no cookie: the kernel's socket stands for it.
            handoff::CALLS if task.id != 0 && stream == 0 && object != 0 => {
                lineage.hands_object(object, task.id);
            }
            handoff::CALLS if task.id != 0 => lineage.hands(place, task.id),
            handoff::NAMES => lineage.names_object(object, place),
            handoff::SERVES if task.id != 0 => {
                if let Some(request) = lineage.stream(place)
                    && let Some(node) = self.nodes.get_mut(request)
                    && !node.closed
                {
                    node.goroutine = task.id;
                    // Reached again, because the node is not the lineage's.
                    let process = node.process;
                    if let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(process) {
                        lineage.serves(task.id, request, cookie, header.at_ns);
                    }
                }
            }
            _ => {}
        }
    }

    /// Start functions not seen before, in processes that have any: what are they for?
    pub fn new_starts(&mut self, ask: &mut dyn FnMut(u32, u64) -> Role) {
        while let Some((tgid, start)) = self.fresh_starts.pop() {
            let role = ask(tgid, start);
            if role != Role::Plain
                && let Some(lineage) = self.lineage(tgid)
            {
                lineage.role(start, role);
            }
        }
    }

    /// Calls began of whose task nobody knows who started it: `look` gives all tasks of a process as they are now, if it can. To be
    /// asked after each record, because tasks end.
    pub fn fill_holes(&mut self, look: &mut dyn FnMut(u32) -> Option<Vec<Started>>) {
        if self.holes.is_empty() {
            return;
        }
        let holes = std::mem::take(&mut self.holes);
        let mut looked: Vec<u32> = Vec::new();
        for (tgid, id) in holes {
            if !looked.contains(&tgid) {
                looked.push(tgid);
                if let Some(tasks) = look(tgid)
                    && let Some(lineage) = self.lineage(tgid)
                {
                    lineage.hear(&tasks);
                }
            }
            self.goroutine_calls(id, true);
        }
    }

    /// The process runs another program: what was known of its tasks is void.
    pub fn program_changed(&mut self, tgid: u32) {
        let id = self.tgids.get(&tgid).copied();
        if let Some(process) = id.and_then(|id| self.processes.get_mut(id)) {
            process.lineage = None;
        }
    }

    fn lineage(&mut self, tgid: u32) -> Option<&mut Lineage> {
        let id = self.process(tgid);
        let (seed, bound) = (self.seed, self.settings.max_tasks);
        let process = self.processes.get_mut(id)?;
        Some(process.lineage.get_or_insert_with(|| Box::new(Lineage::new(seed, bound))))
    }

    /// An exchange begins.
    pub(super) fn goroutine_begins(&mut self, id: Id, task: Task, at_ns: u64) {
        let Some(node) = self.nodes.get(id) else { return };
        let (side, message, cookie) = (node.side, node.message, node.conn.cookie);
        let stream = message.and_then(|name| name.stream());
        let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(node.process) else {
            return;
        };
        match side {
            Side::Server => match stream {
                // Who reads the beginning of one stream reads those of all; who serves it is said by a hand-off.
                Some(stream) => lineage.stream_begins(place(cookie, stream), id),
                None if task.task == 0 => {}
                None => {
                    let owner = lineage.request_begins(task.task, id, cookie, at_ns);
                    if let Some(node) = self.nodes.get_mut(id) {
                        node.goroutine = owner;
                    }
                }
            },
            Side::Client => {
                let handed = lineage.caller(place(cookie, stream.unwrap_or(0)));
                let handed = handed.or_else(|| match stream {
                    None => lineage.caller_by_object(node.conn.sock),
                    Some(_) => None,
                });
                let handed = handed.or_else(|| lineage.calls_for(task.task));
                // One task writes what others call on a connection with streams.
                let own = if stream.is_some() { 0 } else { task.task };
                let caller = handed.unwrap_or(own);
                if caller == 0 {
                    return;
                }
                if let Some(node) = self.nodes.get_mut(id) {
                    node.goroutine = caller;
                    node.handed = handed.is_some();
                }
                self.goroutine_calls(id, false);
            }
        }
    }

    /// Looks for the request of a call; `again` once all was done to know who started whom.
    fn goroutine_calls(&mut self, id: Id, again: bool) {
        let Some(node) = self.nodes.get(id) else { return };
        if node.parent != Parent::Open || self.nodes.get(node.claim(Model::Goroutine).request).is_some() {
            return;
        }
        let caller = node.goroutine;
        let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(node.process) else {
            return;
        };
        let found = lineage.request_of(caller, &self.nodes);
        let job = Self::by_job(lineage, caller, &self.nodes, found);
        let (request, certain) = match (found, job) {
            (_, Some(request)) | (Found::Nested(request), _) => (request, false),
            (Found::Certain(request), _) => (request, true),
            (Found::Nothing, None) => return,
            (Found::Hole, None) => {
                let tgid = node.tgid;
                if self.holes.len() < MOST_HOLES && !again {
                    self.holes.push((tgid, id));
                } else {
                    self.counters.starters_unknown += 1;
                }
                return;
            }
        };
        lineage.figures.named += 1;
        self.claim(id, Model::Goroutine, Some(request));
        if let Some(node) = self.nodes.get_mut(id) {
            node.certain = certain;
            node.by_job = job.is_some();
            node.confirm(Model::Goroutine, certain);
        }
    }

    /// The answer to a call is read.
    pub(super) fn goroutine_reads(&mut self, id: Id, task: Task, first: bool, last: bool) {
        let Some(node) = self.nodes.get(id) else { return };
        let (caller, handed, certain, by_job) = (node.goroutine, node.handed, node.certain, node.by_job);
        if caller == 0 {
            return;
        }
        let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(node.process) else {
            return;
        };
        if first && !handed && task.task != 0 && task.task != caller {
            // Bytes that others move say nothing of whose they are.
            lineage.moved(caller, task.task);
            if let Some(node) = self.nodes.get_mut(id) {
                node.certain = false;
                node.goroutine = 0;
                node.confirm(Model::Goroutine, false);
            }
            return;
        }
        let claim = node.claim(Model::Goroutine);
        let named = self.nodes.get(claim.request);
        if last
            && !certain
            && let Some(named) = named
        {
            let mut nested = !named.closed;
            if by_job {
                nested = self.job_ended(id, nested);
            } else {
                lineage.ended(caller, nested);
            }
            if let Some(node) = self.nodes.get_mut(id) {
                node.confirm(Model::Goroutine, nested);
            }
        }
        if last || certain {
            self.decide_by_goroutine(id);
        }
    }

    fn decide_by_goroutine(&mut self, id: Id) {
        if self.nodes.get(id).is_some_and(|node| node.claim(Model::Goroutine).confirmed) {
            self.decide_call(id, false);
        }
    }

    /// The response to a request begins.
    pub(super) fn goroutine_answers(&mut self, id: Id, task: Task, at_ns: u64) {
        let Some(node) = self.nodes.get(id) else { return };
        let reader = node.goroutine;
        // Responses of streams are written by one goroutine for all.
        let stream = node.message.is_some_and(|name| name.stream().is_some());
        if stream || reader == 0 || task.task == 0 || task.task == reader {
            return;
        }
        let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(node.process) else {
            return;
        };
        if lineage.answers(reader, task.task, id, at_ns)
            && let Some(node) = self.nodes.get_mut(id)
        {
            node.goroutine = task.task;
        }
    }

    /// The response is complete, or will never be.
    pub(super) fn goroutine_ends(&mut self, id: Id, at_ns: u64) {
        let Some(node) = self.nodes.get(id) else { return };
        if node.goroutine == 0 || node.side != Side::Server {
            return;
        }
        let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(node.process) else {
            return;
        };
        lineage.request_ends(node.goroutine, id, at_ns);
        // Calls that go on were not waited for.
        for call in &node.calls {
            if let Some(call) = self.nodes.get(*call)
                && call.claim(Model::Goroutine).request == id
                && !call.claim(Model::Goroutine).confirmed
                && call.exchange.is_none()
                && call.parent == Parent::Open
            {
                if call.by_job {
                    lineage.diligence(call.goroutine, false);
                } else {
                    lineage.ended(call.goroutine, false);
                }
            }
        }
    }

    pub(super) fn goroutine_confidence(&self, call: &super::node::Node) -> f64 {
        if call.certain {
            return SURE;
        }
        match self.processes.get(call.process) {
            Some(Process { lineage: Some(lineage), .. }) => lineage.confidence(),
            _ => 0.0,
        }
    }
}

/// A connection, or a stream of it.
fn place(cookie: u64, stream: u32) -> u64 {
    cookie ^ u64::from(stream).rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
