//! Takes the signals of exchanges in order, keeps what the models look at, and asks them when something is to say.

use std::hash::BuildHasher;
use std::rc::Rc;

use super::Correlator;
use super::arena::Id;
use super::models::{chain, first_in_first_out, in_order, last_in, only, thread};
use super::node::{Model, Node, Parent, Start};
use super::process::{Input, Process};
use crate::conn::{ConnInfo, MessageName};
use crate::session::{Edge, Side, Signal, Task};
use crate::span::{SpanId, ids};

impl Correlator {
    pub(super) fn edge(&mut self, signal: Signal) {
        let Signal { key, side, task, at_ns, edge } = signal;
        match edge {
            Edge::Began { conn, message } => self.begins(key.0, side, task, at_ns, conn, message),
            Edge::Context(context) => {
                if let Some(id) = self.keys.get(&key.0) {
                    self.context(*id, context);
                }
            }
            Edge::Asked { kind, first } => {
                if let Some(id) = self.keys.get(&key.0) {
                    self.call_understood(*id, task, at_ns, kind, first);
                }
            }
            Edge::Answer { first: _, last } => {
                let Some(id) = self.keys.get(&key.0).copied() else { return };
                match side {
                    Side::Server => self.response_written(id, task, at_ns, last),
                    Side::Client => self.answer_read(id, task, at_ns, last),
                }
            }
        }
    }

    fn begins(
        &mut self,
        key: u64,
        side: Side,
        task: Task,
        at_ns: u64,
        conn: Rc<ConnInfo>,
        message: Option<MessageName>,
    ) {
        if self.nodes.len() >= self.settings.max_open + self.settings.max_held + self.settings.max_lingering
            || self.keys.len() >= self.settings.max_open + self.held
        {
            self.counters.not_tracked += 1;
            return;
        }
        self.lonely.begins(side, message);
        let process = self.process(task.tgid);
        let span_id = self.span_id(side, key, at_ns, &conn, message);
        let start = Start {
            key,
            side,
            tgid: task.tgid,
            process,
            thread: owner(task),
            began_ns: at_ns,
            conn,
            message,
            span_id,
        };
        let id = self.nodes.insert(Node::new(start));
        self.keys.insert(key, id);
        match side {
            Side::Server => self.request_begins(id, process, task, at_ns),
            Side::Client => self.call_begins(id, process, task, at_ns),
        }
        self.goroutine_begins(id, task, at_ns);
        if let Some(other) = self.joiner.begins(&self.nodes, id) {
            match side {
                Side::Server => self.joined(id, other),
                Side::Client => self.joined(other, id),
            }
        }
    }

    pub(super) fn span_id(
        &self,
        side: Side,
        key: u64,
        began_ns: u64,
        conn: &ConnInfo,
        message: Option<MessageName>,
    ) -> SpanId {
        match (message, side) {
            (Some(name), Side::Client) => ids::client_span_id(&name),
            (Some(name), Side::Server) => ids::server_span_id(&name),
            (None, _) => {
                let name =
                    ids::Unnamed { boot: self.settings.boot, cookie: conn.cookie, began_ns, counter: key };
                ids::unnamed_span_id(&name, side)
            }
        }
    }

    fn request_begins(&mut self, id: Id, process: Id, task: Task, at_ns: u64) {
        let now_ns = self.now_ns;
        let bound = self.settings.max_threads;
        let process_id = process;
        let Some(process) = self.processes.get_mut(process) else { return };
        process.used_ns = now_ns;
        process.background.advance(at_ns, process.open.count);
        let alone = process.open.count == 0;
        // When a request comes is not up to the program: as good as any moment.
        if !alone && let Some(carrying) = process.threads.get(&carrier(task)) {
            let available = last_in::available(&self.nodes, carrying, process_id);
            process.last_in.calibrator.moment(available);
        }
        process.open.begin(id);
        process.oldest_unanswered(&self.nodes);
        process.unanswered.push_back(id);
        process.start_order.request_begins(&self.nodes, id, alone);
        let process_begun = process.open.begun;
        let Some(node) = self.nodes.get(id) else { return };
        let thread = process.thread(owner(task), now_ns, bound, &mut self.counters.threads_crowded);
        let on_thread = thread::request_begins(&self.nodes, thread, node);
        thread.open.begin(id);
        let thread_begun = thread.open.begun;
        if task.task == 0 {
            thread.read(Input::Request(id));
        } else {
            process
                .thread(carrier(task), now_ns, bound, &mut self.counters.threads_crowded)
                .read(Input::Request(id));
        }
        let Process { threads, in_order: order, .. } = process;
        if task.task == 0
            && order.is_used()
            && let Some(thread) = threads.get_mut(&owner(task))
        {
            in_order::request(&mut self.nodes, &mut thread.inputs, order, id, alone, at_ns);
        }
        if on_thread.is_err() {
            process.thread.against();
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.alone = alone;
            node.process_begun = process_begun;
            node.alone_on_thread = on_thread == Ok(true);
            node.thread_begun = thread_begun;
        }
    }

    fn call_begins(&mut self, id: Id, process_id: Id, task: Task, at_ns: u64) {
        let now_ns = self.now_ns;
        let bound = self.settings.max_threads;
        let Some(process) = self.processes.get_mut(process_id) else { return };
        process.used_ns = now_ns;
        if process.open.begun == 0 {
            // It never served a request: nothing can have caused the call but the process itself.
            if let Some(node) = self.nodes.get_mut(id) {
                node.orphan = true;
            }
            return;
        }
        process.background.advance(at_ns, process.open.count);
        let orphan = process.open.count == 0;
        let Some(node) = self.nodes.get_mut(id) else { return };
        let remote = self.seed.hash_one(&node.conn.remote);
        let destination = process.background.call(remote, orphan);
        node.destination = destination;
        node.kind = remote | 1;
        // What background explains is nobody's, even while a request is open: models are kept clean of it.
        let background = process.background.explains(destination);
        node.orphan = orphan;
        node.process_begun = process.open.begun;
        let thread = process.thread(owner(task), now_ns, bound, &mut self.counters.threads_crowded);
        node.thread_begun = thread.open.begun;
        let stray = thread.open.count == 0 && thread.serves();
        let on_thread = self.nodes.get(id).and_then(|node| thread::name(&self.nodes, thread, node));
        let carrying = process.thread(carrier(task), now_ns, bound, &mut self.counters.threads_crowded);
        carrying.sends();
        chain::sent(&mut self.nodes, carrying, id);
        if stray {
            process.thread.against();
        }
        if orphan {
            return;
        }
        let Process { threads, in_order: order, unanswered, .. } = process;
        if task.task == 0 && !background {
            if order.comes_into_use() {
                in_order::catch_up(&mut self.nodes, threads, order, unanswered);
            }
            if let Some(carrying) = threads.get_mut(&carrier(task)) {
                in_order::begins(&mut self.nodes, &mut carrying.inputs, order, id, at_ns);
            }
        }
        let alone = only::name(&self.nodes, process);
        let in_order = if background { None } else { process.start_order.call_begins(&self.nodes) };
        process.undecided.push(id);
        if !process.listed {
            process.listed = true;
            self.listed.push(process_id);
        }
        if let (Some((_, far)), Some(node)) = (in_order, self.nodes.get_mut(id)) {
            node.neighbour = far;
        }
        self.claim(id, Model::Thread, on_thread);
        self.claim(id, Model::Only, alone);
        self.claim(id, Model::StartOrder, in_order.map(|(request, _)| request));
    }

    /// It is known what a call asks for.
    fn call_understood(&mut self, id: Id, task: Task, at_ns: u64, kind: u64, first: bool) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.kind = self.seed.hash_one((&node.conn.remote, kind)) | 1;
        let Some(process) = self.processes.get_mut(node.process) else { return };
        if task.task != 0 || node.orphan || process.background.explains(node.destination) {
            return;
        }
        let Process { threads, in_order: order, open, .. } = process;
        if let Some(thread) = threads.get_mut(&carrier(task)) {
            in_order::understood(&mut self.nodes, &mut thread.inputs, order, id, first, open.begun, at_ns);
        }
    }

    /// A model names a request for a call; confirmed or not when the call's answer is read.
    pub(super) fn claim(&mut self, call: Id, model: Model, request: Option<Id>) {
        let Some(request) = request else { return };
        let Some(named) = self.nodes.get_mut(request) else { return };
        if named.calls.last() != Some(&call) {
            if named.calls.len() >= self.settings.max_calls {
                self.counters.calls_crowded += 1;
                return;
            }
            named.calls.push(call);
        }
        named.references += 1;
        if let Some(node) = self.nodes.get_mut(call) {
            node.set_claim(model, request, false);
        }
    }

    fn answer_read(&mut self, id: Id, task: Task, at_ns: u64, last: bool) {
        let now_ns = self.now_ns;
        let bound = self.settings.max_threads;
        let Some(node) = self.nodes.get_mut(id) else { return };
        let first = node.answer.first_ns == 0;
        if first {
            node.answer.first_ns = at_ns.max(1);
        }
        let (process, orphan, parent) = (node.process, node.orphan, node.parent);
        if orphan {
            node.answer.last_ns = at_ns.max(1);
            self.decide_orphan(id);
        }
        let Some(process) = self.processes.get_mut(process) else { return };
        process.used_ns = now_ns;
        if process.open.begun == 0 {
            return;
        }
        let background = self.nodes.get(id).is_none_or(|node| process.background.explains(node.destination));
        let nobodys = orphan || background;
        let carrying = process.thread(carrier(task), now_ns, bound, &mut self.counters.threads_crowded);
        carrying.read(if nobodys { Input::Nothing } else { Input::Answer(id) });
        if nobodys && orphan {
            return;
        }
        if last && !nobodys {
            let left = first_in_first_out::read(carrying, id, now_ns);
            process.first_in_first_out.overtaken(left);
        }
        if (first || last) && !nobodys && task.task == 0 {
            let Process { threads, in_order: order, .. } = process;
            if let Some(carrying) = threads.get_mut(&carrier(task)) {
                in_order::answer(&mut self.nodes, &mut carrying.inputs, order, id, last, at_ns);
            }
        }
        // A call with a certain parent still is evidence about the models; only claims need confirming.
        if thread::confirm(&mut self.nodes, process, id, Some(owner(task))) && first {
            process.thread.against();
        }
        if first && parent == Parent::Open {
            only::confirm(&mut self.nodes, process, id);
        }
        self.goroutine_reads(id, task, first, last);
        let Some(process) = self.nodes.get(id).map(|node| node.process) else { return };
        let Some(process) = self.processes.get_mut(process) else { return };
        if let Some(node) = self.nodes.get_mut(id) {
            node.answer.last_ns = at_ns.max(1);
        }
        if last {
            let contested = process.open.count > 1;
            let claim =
                self.nodes.get(id).map(|node| (node.claim(Model::StartOrder).request, node.neighbour));
            if let Some((request, far)) = claim
                && request != Id::NONE
            {
                let possible = process.start_order.answer_read(&self.nodes, request, far, contested);
                if let Some(node) = self.nodes.get_mut(id) {
                    node.confirm(Model::StartOrder, possible);
                }
            }
        }
    }

    fn response_written(&mut self, id: Id, task: Task, at_ns: u64, last: bool) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.answer.first_ns == 0 {
            node.answer.first_ns = at_ns.max(1);
            self.goroutine_answers(id, task, at_ns);
            self.response_begins(id, task);
        }
        if last {
            self.close(id, at_ns);
        }
    }

    fn response_begins(&mut self, id: Id, task: Task) {
        let now_ns = self.now_ns;
        let Some(node) = self.nodes.get(id) else { return };
        let Some(process) = self.processes.get_mut(node.process) else { return };
        process.used_ns = now_ns;
        let contested = !node.alone || process.open.begun != node.process_begun;
        let kept = node.alone_on_thread
            && node.thread == owner(task)
            && process.threads.get(&node.thread).is_some_and(|thread| thread.open.begun == node.thread_begun);
        if kept {
            process.thread.nested();
        } else if node.thread != owner(task) {
            process.thread.against();
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.kept_thread = kept;
        }
        let mut named = std::mem::take(&mut self.named);
        let Process { threads, last_in: last, first_in_first_out: first, in_order: order, open, .. } =
            process;
        if let Some(carrying) = threads.get_mut(&carrier(task)) {
            carrying.used_ns = now_ns;
            let several = carrying.sends();
            if task.task == 0 && order.is_used() {
                let open = contested.then_some(open.count);
                let inputs = &mut carrying.inputs;
                in_order::closes(&mut self.nodes, inputs, order, id, open, now_ns, &mut named);
            }
            let lifo = last_in::name(&mut self.nodes, carrying, last, id, contested);
            let fifo = first_in_first_out::name(&mut self.nodes, carrying, first, id, contested, now_ns);
            let score = fifo
                .and_then(|(call, _)| self.nodes.get(call))
                .map_or(&first.plain.calibrator, |call| first.of(call));
            let (stands, speaks) = (score.stands(), score.speaks());
            if let (Some((one, _)), Some((other, _))) = (lifo, fifo)
                && one != other
            {
                last.calibrator.disputed(stands);
            }
            // A loop that reads several answers before their handlers go on: the last may be the next response's.
            let lifo = lifo.filter(|_| !(several && last.calibrator.slipped()));
            let mut told = None;
            for (model, pair, speaks) in
                [(Model::FirstInFirstOut, fifo, speaks), (Model::LastIn, lifo, last.calibrator.speaks())]
            {
                let Some((call, true)) = pair else { continue };
                if let Some(node) = self.nodes.get_mut(call)
                    && node.parent == Parent::Open
                {
                    node.set_claim(model, id, true);
                    if let Some(request) = self.nodes.get_mut(id) {
                        request.references += 1;
                    }
                }
                if speaks.is_some() {
                    told = Some(call);
                }
                named.push(call);
            }
            if let Some(call) = told {
                chain::derive(&mut self.nodes, process, call, id, contested, &mut named);
            }
        }
        for call in named.drain(..) {
            self.decide_call(call, false);
        }
        self.named = named;
        self.decide_calls_of(id, false);
    }

    /// The response is complete, or will never be.
    pub(super) fn close(&mut self, id: Id, at_ns: u64) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.closed {
            return;
        }
        // Its calls may still be confirmed as nested while it counts as open.
        self.goroutine_ends(id, at_ns);
        self.decide_calls_of(id, true);
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.closed = true;
        let Some(process) = self.processes.get_mut(node.process) else { return };
        process.background.advance(at_ns, process.open.count);
        process.open.end(id);
        if let Some(thread) = process.threads.get_mut(&node.thread) {
            thread.open.end(id);
        }
        if let Some(context) = &node.context
            && let Some(requests) = process.contexts.get_mut(&context.trace_id)
        {
            requests.retain(|request| *request != id);
            if requests.is_empty() {
                process.contexts.remove(&context.trace_id);
            }
        }
    }

    /// A call ended without an answer: that is all that there will be.
    pub(super) fn confirm_unanswered(&mut self, id: Id) {
        let Some(node) = self.nodes.get(id) else { return };
        if node.answer.first_ns != 0 || node.orphan {
            return;
        }
        let Some(process) = self.processes.get_mut(node.process) else { return };
        thread::confirm(&mut self.nodes, process, id, None);
        only::confirm(&mut self.nodes, process, id);
    }

    pub(super) fn process(&mut self, tgid: u32) -> Id {
        if let Some(id) = self.tgids.get(&tgid) {
            return *id;
        }
        if self.tgids.len() >= self.settings.max_processes {
            let unused = self.processes.iter().min_by_key(|(_, process)| process.used_ns);
            if let Some((id, tgid)) = unused.map(|(id, process)| (id, process.tgid)) {
                self.counters.processes_forgotten += 1;
                self.tgids.remove(&tgid);
                self.forget_process(id);
            }
        }
        let mut process = Process::new(tgid, self.seed, &self.settings);
        process.used_ns = self.now_ns;
        let id = self.processes.insert(process);
        self.tgids.insert(tgid, id);
        id
    }
}

/// Who the work belongs to: the task where one is known, else the thread.
fn owner(task: Task) -> u64 {
    if task.task == 0 { u64::from(task.tid) } else { task.task | (1 << 63) }
}

/// What carries it: the thread. A task that became ready often runs next on the thread that woke it.
fn carrier(task: Task) -> u64 {
    u64::from(task.tid)
}
