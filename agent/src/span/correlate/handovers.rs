//! Values that pass from task to task over channels, and the calls that tasks make for what they were given.
//!
//! Comes in: hand-overs, calls that nothing explains. Goes out: who works for which request (see `jobs`), and in which processes
//! hand-overs should be told at all.

use spanwise_common::event::{Handoff, handoff};

use super::Correlator;
use super::arena::{Arena, Id};
use super::goroutines::Started;
use super::jobs::Came;
use super::lineage::{Found, Lineage};
use super::node::{Model, Node};
use super::process::Process;

/// Calls without an explanation, each by a task that made some before, until hand-overs are told.
const OFTEN: u32 = 16;
/// So many hand-overs must explain at least one call in a thousand, else they are told no longer.
const TRIED: u64 = 16_384;
const USEFUL: u64 = TRIED / 1_000;
/// Calls that were not over before their request was, and collections of work: of fifty calls one may be such.
const OUTWEIGHED_BY: u64 = 50;
/// Processes that wait to be told of.
const MOST_WISHES: usize = 1_024;

/// Whether the hand-overs of a process are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Told {
    /// Nothing asked for them.
    #[default]
    No,
    Yes,
    /// They were of no use.
    NoMore,
}

/// What hand-overs are good for in one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    told: Told,
    unexplained: u32,
    /// Hand-overs since it was last asked whether they are of use, and calls that they explained.
    seen: u64,
    explained: u64,
}

/// How well the tasks with one start function do with the work that they get.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Diligence {
    pub(super) nested: u64,
    pub(super) against: u64,
}

impl Diligence {
    pub(super) fn fits(self) -> bool {
        self.against * OUTWEIGHED_BY <= self.nested
    }
}

impl Correlator {
    /// A value passed from one task to another.
    pub(super) fn hand_over(&mut self, handoff: &Handoff) {
        let Handoff { header, cookie: to, object: kind, task, stream: age, .. } = *handoff;
        let given_ns = header.at_ns.saturating_sub(u64::from(age) * handoff::AGE_NS);
        self.task(header.tgid, Started { id: task.id, parent: task.parent, start: task.start }, given_ns);
        let id = self.process(header.tgid);
        let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(id) else { return };
        self.counters.hand_overs += 1;
        if lineage.hand_over_seen() {
            self.wish(header.tgid, false);
            return;
        }
        let nodes = &self.nodes;
        if lineage.is_mover(task.id) || lineage.is_mover(to) {
            return;
        }
        let from = lineage.works_for(task.id, given_ns, nodes);
        let receiver = lineage.works_for(to, header.at_ns, nodes);
        let serves = lineage.serves_any(to);
        if let Some(request) = receiver
            && lineage.jobs.delivers(task.id, request, given_ns, serves)
        {
            return;
        }
        // What serves requests works for those, and what a task started gives it results.
        if serves || lineage.descends(task.id, to) {
            return;
        }
        let Some(request) = from else {
            lineage.jobs.comes_from_nobody(to, kind);
            return;
        };
        let open = |id: Id| nodes.get(id).is_some_and(|node| !node.closed);
        // Passing it on is what the giver did with it.
        lineage.jobs.uses(task.id);
        if lineage.jobs.comes(to, request, kind, header.at_ns, open) == Came::Mixed {
            lineage.diligence(to, false);
            self.counters.jobs_mixed += 1;
        }
    }

    /// The request of a call by what the caller was given, if lineage knows none.
    pub(super) fn by_job(
        lineage: &mut Lineage,
        caller: u64,
        nodes: &Arena<Node>,
        found: Found,
    ) -> Option<Id> {
        // What is done with the work is to be known in any case.
        let job = lineage.jobs.uses(caller);
        let (Found::Nothing | Found::Hole, Some(request)) = (found, job) else { return None };
        nodes.get(request).is_some_and(|node| !node.closed).then_some(request)
    }

    /// A call by what its task was given was over before the request was, or it was not. Whether it is to be believed.
    pub(super) fn job_ended(&mut self, call: Id, nested: bool) -> bool {
        let Some(node) = self.nodes.get(call) else { return false };
        let caller = node.goroutine;
        let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(node.process) else {
            return false;
        };
        let believed = lineage.diligence(caller, nested) && nested;
        if believed {
            lineage.hand_overs.explained += 1;
            lineage.figures.nested += 1;
            self.counters.by_hand_over += 1;
        }
        believed
    }

    /// A call stays without a parent: its task may be one that gets its work over a channel.
    pub(super) fn unexplained(&mut self, call: Id) {
        let Some(node) = self.nodes.get(call) else { return };
        let (tgid, caller) = (node.tgid, node.goroutine);
        if caller == 0 || self.nodes.get(node.claim(Model::Goroutine).request).is_some() {
            return;
        }
        if let Some(Process { lineage: Some(lineage), .. }) = self.processes.get_mut(node.process)
            && lineage.is_unexplained(caller)
        {
            self.wish(tgid, true);
        }
    }

    fn wish(&mut self, tgid: u32, told: bool) {
        if self.wishes.len() < MOST_WISHES {
            self.wishes.push((tgid, told));
        }
    }

    /// Processes whose hand-overs should be told from now on, or no longer.
    pub fn hand_overs_wished(&mut self, tell: &mut dyn FnMut(u32, bool)) {
        for (tgid, told) in self.wishes.drain(..) {
            tell(tgid, told);
        }
    }
}

impl Lineage {
    /// One more. Whether they turned out to be of no use.
    fn hand_over_seen(&mut self) -> bool {
        let counts = &mut self.hand_overs;
        counts.seen += 1;
        if counts.seen < TRIED {
            return false;
        }
        let idle = counts.explained < USEFUL && counts.told == Told::Yes;
        if idle {
            counts.told = Told::NoMore;
        }
        (counts.seen, counts.explained) = (0, 0);
        idle
    }

    /// A task has made a call that nothing explains. Whether it is time to be told of hand-overs.
    fn is_unexplained(&mut self, caller: u64) -> bool {
        // One that makes a single call was started for it; one that makes several may be a worker.
        if self.hand_overs.told != Told::No || !self.again(caller) || self.is_mover(caller) {
            return false;
        }
        self.hand_overs.unexplained += 1;
        let often = self.hand_overs.unexplained >= OFTEN;
        if often {
            self.hand_overs.told = Told::Yes;
        }
        often
    }

    /// The request that a task worked for at some time, which is still open.
    fn works_for(&mut self, id: u64, at_ns: u64, nodes: &Arena<Node>) -> Option<Id> {
        let open = |id: Id| nodes.get(id).is_some_and(|node| !node.closed && node.began_ns <= at_ns);
        match self.look(id, nodes) {
            Found::Certain(request) | Found::Nested(request) => Some(request).filter(|id| open(*id)),
            Found::Hole | Found::Nothing => {
                let (request, since_ns) = self.jobs.of(id)?;
                // One that has taken more before it passed on what it had may keep a list.
                if self.collects(id) {
                    return None;
                }
                (since_ns <= at_ns && open(request)).then_some(request)
            }
        }
    }
}
