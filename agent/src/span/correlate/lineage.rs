//! Which task (goroutine) started which, and what each does. Comes in: tasks as transfers and hand-offs name them, requests that
//! they read. Goes out: the request that a task works for, by itself or through those who started it, and how sure that is.
//!
//! The rules stand in docs/adr/0013.

use std::collections::VecDeque;

use super::arena::{Arena, Id};
use super::goroutines::Started;
use super::handovers::{Diligence, Use};
use super::hash::{Map, Seed};
use super::jobs::Jobs;
use super::node::Node;
use super::recent::Recent;

/// Levels of starters that are looked through.
const DEPTH: usize = 8;
/// Start functions with a score in one process.
const KINDS: usize = 4_096;
/// One task that outlived its request is outweighed by so many that did not.
const OUTWEIGHED_BY: u64 = 200;
/// Requests that one task has open: more are not followed.
const MOST_OPEN: usize = 1_024;

/// What a start function is for, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Nothing special.
    #[default]
    Plain,
    /// Works for whoever comes: never a child of the one that started it.
    Shared,
    /// Reads (or calls) for the task that started it, and is to be taken for it.
    Stands,
}

/// A task.
#[derive(Clone, Copy, Debug)]
struct Member {
    parent: u64,
    start: u64,
    /// When it was first seen to do something.
    first_ns: u64,
    /// It made a call that nothing explained.
    unexplained: bool,
}

/// A task that reads requests.
#[derive(Debug, Default)]
struct Server {
    /// The connection of its open requests.
    cookie: u64,
    /// They came on several connections: what it does next may be for any of them.
    mixed: bool,
    /// Requests under way, in the order in which they are answered.
    open: VecDeque<Id>,
    /// Since when the first of them is the first.
    since_ns: u64,
    /// Requests so far.
    served: u64,
}

/// The tasks that began at one function.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    role: Role,
    /// Calls that were over before the request was, and those of tasks that outlived it.
    nested: u64,
    against: u64,
    /// The same of calls for what they were given.
    jobs: Diligence,
}

impl Kind {
    fn fits(&self) -> bool {
        self.role == Role::Plain && self.against * OUTWEIGHED_BY <= self.nested
    }
}

/// What lineage says of a call.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Found {
    /// It is of this request.
    Certain(Id),
    /// It is, if it is over before the request is.
    Nested(Id),
    /// Nothing is known of this task, which stands between.
    Hole,
    /// Nothing.
    Nothing,
}

/// The tasks of one process.
#[derive(Debug)]
pub(super) struct Lineage {
    members: Recent<Member>,
    servers: Recent<Server>,
    kinds: Map<u64, Kind>,
    /// Tasks that were only read of, not seen: parent and start.
    heard: Map<u64, (u64, u64)>,
    /// Connection to the task that makes its next call.
    callers: Recent<u64>,
    /// Object of the runtime to the task that made its call.
    objects: Recent<u64>,
    /// Stream to its request.
    streams: Recent<Id>,
    /// What tasks were given to do.
    pub(super) jobs: Jobs,
    pub(super) hand_overs: Use,
    pub(super) figures: Figures,
}

/// Counts of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// Calls with a request by lineage.
    pub(super) named: u64,
    /// Those of them that were over before their request was.
    pub(super) nested: u64,
    /// Tasks that were found to outlive their request.
    pub(super) against: u64,
}

impl Lineage {
    pub(super) fn new(seed: Seed, bound: usize) -> Self {
        Self {
            members: Recent::new(seed, bound),
            servers: Recent::new(seed, bound),
            kinds: Map::with_hasher(seed),
            heard: Map::with_hasher(seed),
            callers: Recent::new(seed, bound),
            objects: Recent::new(seed, bound),
            streams: Recent::new(seed, bound),
            jobs: Jobs::new(seed, bound),
            hand_overs: Use::default(),
            figures: Figures::default(),
        }
    }

    /// A task does something. Whether its start function is a new one.
    pub(super) fn see(&mut self, task: Started, at_ns: u64) -> bool {
        if self.members.get(task.id).is_some() {
            return false;
        }
        let Started { id, parent, start } = task;
        self.members.insert(id, Member { parent, start, first_ns: at_ns, unexplained: false });
        let new = self.kinds.len() < KINDS && !self.kinds.contains_key(&start);
        if new {
            self.kinds.insert(start, Kind::default());
        }
        new
    }

    /// All tasks that there are now, as the process's memory tells.
    pub(super) fn hear(&mut self, tasks: &[Started]) {
        self.heard.clear();
        self.heard.extend(tasks.iter().map(|task| (task.id, (task.parent, task.start))));
    }

    /// What a start function is for.
    pub(super) fn role(&mut self, start: u64, role: Role) {
        if let Some(kind) = self.kinds.get_mut(&start) {
            kind.role = role;
        }
    }

    /// A task is about to make the next call on a connection or stream.
    pub(super) fn hands(&mut self, place: u64, id: u64) {
        self.callers.insert(place, id);
    }

    /// A task made the call that the runtime keeps in `object`; which connection (or stream) carries it is said later.
    pub(super) fn hands_object(&mut self, object: u64, id: u64) {
        self.objects.insert(object, id);
    }

    /// Who made the call kept in `object`.
    pub(super) fn caller_by_object(&mut self, object: u64) -> Option<u64> {
        self.objects.remove(object)
    }

    /// The call kept in `object` is carried here.
    pub(super) fn names_object(&mut self, object: u64, place: u64) {
        if let Some(id) = self.objects.remove(object) {
            self.callers.insert(place, id);
        }
    }

    /// The request of a stream begins; the task that serves it is said later.
    pub(super) fn stream_begins(&mut self, place: u64, request: Id) {
        self.streams.insert(place, request);
    }

    /// The request of a stream that nobody serves yet.
    pub(super) fn stream(&mut self, place: u64) -> Option<Id> {
        self.streams.remove(place)
    }

    /// Who makes the call that begins on a connection or stream, if it was said.
    pub(super) fn caller(&mut self, place: u64) -> Option<u64> {
        self.callers.remove(place)
    }

    /// A task read the beginning of a request. Gives the task that it is a request of.
    pub(super) fn request_begins(&mut self, id: u64, request: Id, cookie: u64, at_ns: u64) -> u64 {
        let owner = self.stands_for(id, cookie).unwrap_or(id);
        self.serves(owner, request, cookie, at_ns);
        owner
    }

    /// A task works for a request from now on, until that is over.
    pub(super) fn serves(&mut self, owner: u64, request: Id, cookie: u64, at_ns: u64) {
        if self.servers.get(owner).is_none() {
            self.servers.insert(owner, Server::default());
        }
        if let Some(server) = self.servers.get(owner) {
            if server.open.is_empty() {
                server.mixed = false;
                server.since_ns = at_ns;
            } else if server.cookie != cookie {
                server.mixed = true;
            }
            server.cookie = cookie;
            server.served += 1;
            if server.open.len() < MOST_OPEN {
                server.open.push_back(request);
            } else {
                server.mixed = true;
            }
        }
    }

    /// The task that another one makes a call for, if that is what it was started for.
    pub(super) fn calls_for(&mut self, id: u64) -> Option<u64> {
        let member = *self.members.get(id)?;
        let role = self.kinds.get(&member.start).map(|kind| kind.role).unwrap_or_default();
        (role == Role::Stands).then_some(member.parent)
    }

    /// The task that another one reads for: its starter, if that serves this connection.
    fn stands_for(&mut self, id: u64, cookie: u64) -> Option<u64> {
        let member = *self.members.get(id)?;
        let role = self.kinds.get(&member.start).map(|kind| kind.role).unwrap_or_default();
        let serves = self.servers.get(member.parent).is_some_and(|server| server.cookie == cookie);
        (role == Role::Stands || serves).then_some(member.parent)
    }

    /// The request is answered by a task that did not read it: it belongs to the one that answers, if that started the reader.
    pub(super) fn answers(&mut self, reader: u64, writer: u64, request: Id, at_ns: u64) -> bool {
        let Some(member) = self.members.get(reader).copied() else { return false };
        let Some(server) = self.servers.get(reader) else { return false };
        if member.parent != writer || server.served != 1 {
            return false;
        }
        let cookie = server.cookie;
        self.servers.remove(reader);
        if let Some(kind) = self.kinds.get_mut(&member.start) {
            kind.role = Role::Stands;
        }
        self.request_begins(writer, request, cookie, at_ns);
        true
    }

    /// The request is over.
    pub(super) fn request_ends(&mut self, owner: u64, request: Id, at_ns: u64) {
        let Some(server) = self.servers.get(owner) else { return };
        let first = server.open.front() == Some(&request);
        server.open.retain(|open| *open != request);
        if first {
            server.since_ns = at_ns;
        }
    }

    /// How sure a call is that was over before its request was.
    pub(super) fn confidence(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of calls is far below 2^52")]
        let nested = self.figures.nested as f64;
        1.0 - 1.0 / (nested + 34.0)
    }

    /// The request that a task works for, which makes a call now.
    pub(super) fn request_of(&mut self, id: u64, nodes: &Arena<Node>) -> Found {
        self.follow(id, nodes, true)
    }

    /// The same, without learning anything from it.
    pub(super) fn look(&mut self, id: u64, nodes: &Arena<Node>) -> Found {
        self.follow(id, nodes, false)
    }

    fn follow(&mut self, id: u64, nodes: &Arena<Node>, learn: bool) -> Found {
        let mut path = [0u64; DEPTH];
        let (mut at, mut seen_ns) = (id, u64::MAX);
        for depth in 0..DEPTH {
            if let Some(server) = self.servers.get(at) {
                let (mixed, served, since_ns) = (server.mixed, server.served, server.since_ns);
                let request = server.open.front().copied();
                let starts = path.get(..depth).unwrap_or_default();
                if mixed {
                    return Found::Nothing;
                }
                let Some(request) = request else {
                    // Whoever is not done when the request is, was not waited for.
                    if learn {
                        self.outlived(starts);
                    }
                    return Found::Nothing;
                };
                if depth == 0 {
                    return Found::Certain(request);
                }
                if seen_ns < since_ns {
                    if learn {
                        self.outlived(starts);
                    }
                    return Found::Nothing;
                }
                // The first request of a connection, and of its task: all that descends from that was started in it.
                let first =
                    nodes.get(request).and_then(|node| node.message).is_some_and(|name| name.position == 0);
                if first && served == 1 {
                    return Found::Certain(request);
                }
                let fit = starts.iter().all(|start| self.kinds.get(start).is_none_or(Kind::fits));
                return if fit { Found::Nested(request) } else { Found::Nothing };
            }
            let (parent, start) = if let Some(member) = self.members.get(at) {
                seen_ns = seen_ns.min(member.first_ns);
                (member.parent, member.start)
            } else if let Some(heard) = self.heard.get(&at) {
                *heard
            } else {
                return Found::Hole;
            };
            // What it does is for others than those that started it.
            if self.kinds.get(&start).is_some_and(|kind| kind.role != Role::Plain) {
                return Found::Nothing;
            }
            if let Some(step) = path.get_mut(depth) {
                *step = start;
            }
            // The first one is started by nobody.
            if parent <= 1 {
                return Found::Nothing;
            }
            at = parent;
        }
        Found::Nothing
    }

    fn outlived(&mut self, starts: &[u64]) {
        for start in starts {
            if let Some(kind) = self.kinds.get_mut(start) {
                kind.against += 1;
                self.figures.against += 1;
            }
        }
    }

    /// A call of a task, named as nested, was over before its request was; or it was not.
    pub(super) fn ended(&mut self, id: u64, nested: bool) {
        self.figures.nested += u64::from(nested);
        let mut at = id;
        for _ in 0..DEPTH {
            if self.servers.get(at).is_some() {
                return;
            }
            let known = self.members.get(at).map(|member| (member.parent, member.start));
            let Some((parent, start)) = known.or_else(|| self.heard.get(&at).copied()) else { return };
            if let Some(kind) = self.kinds.get_mut(&start) {
                if nested {
                    kind.nested += 1;
                } else {
                    kind.against += 1;
                    self.figures.against += 1;
                }
            }
            at = parent;
        }
    }

    /// A call by what a task was given was over before its request was; or it was not, or the task collects work. Whether its kind
    /// is to be believed.
    pub(super) fn diligence(&mut self, id: u64, nested: bool) -> bool {
        let Some(start) = self.members.get(id).map(|member| member.start) else { return false };
        let Some(kind) = self.kinds.get_mut(&start) else { return false };
        if nested {
            kind.jobs.nested += 1;
        } else {
            kind.jobs.against += 1;
        }
        kind.jobs.fits()
    }

    /// Tasks that began where this one did have taken work before they were done with what they had.
    pub(super) fn collects(&mut self, id: u64) -> bool {
        let Some(start) = self.members.get(id).map(|member| member.start) else { return false };
        self.kinds.get(&start).is_some_and(|kind| kind.jobs.against > 0)
    }

    /// A task made a call that nothing explains. Whether it did so before.
    pub(super) fn again(&mut self, id: u64) -> bool {
        self.members.get(id).is_some_and(|member| std::mem::replace(&mut member.unexplained, true))
    }

    /// A task moves bytes for others, or stands for another.
    pub(super) fn is_mover(&mut self, id: u64) -> bool {
        let Some(start) = self.members.get(id).map(|member| member.start) else { return false };
        self.kinds.get(&start).is_some_and(|kind| kind.role != Role::Plain)
    }

    /// A task reads requests.
    pub(super) fn serves_any(&mut self, id: u64) -> bool {
        self.servers.get(id).is_some()
    }

    /// A task was started by another, or by one that was.
    pub(super) fn descends(&mut self, id: u64, from: u64) -> bool {
        let mut at = id;
        for _ in 0..DEPTH {
            let Some(parent) = self.members.get(at).map(|member| member.parent) else { return false };
            if parent == from {
                return true;
            }
            at = parent;
        }
        false
    }

    /// A call was written by one task and its answer read by another: both move bytes for others.
    pub(super) fn moved(&mut self, writer: u64, reader: u64) {
        for id in [writer, reader] {
            if self.servers.get(id).is_some() {
                continue;
            }
            if let Some(start) = self.members.get(id).map(|member| member.start)
                && let Some(kind) = self.kinds.get_mut(&start)
                && kind.role == Role::Plain
            {
                kind.role = Role::Shared;
            }
        }
    }
}
