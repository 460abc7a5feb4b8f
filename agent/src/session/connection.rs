//! One connection: finds out what it carries, feeds the parser, and follows its exchanges.

use std::collections::VecDeque;
use std::sync::Arc;

use spanwise_common::event::{Data, Direction, flags};
use spanwise_protocol::http1;
use spanwise_protocol::message::{Flow, Head, Request, Response};
use spanwise_protocol::{Detect, Input, Item, Parser, What};

use super::account::Account;
use super::exchange::{Edge, Exchange, ExchangeKey, Outcome, Signal, Task};
use super::rest::{Rest, mark};
use super::table::{Output, Who};
use crate::conn::{ConnInfo, Half, MessageName, Place, Side, inputs};

/// Bytes kept of a burst that is too short to tell what it is.
const PREFIX: usize = 64;

/// An exchange under way.
struct Active {
    key: ExchangeKey,
    number: u32,
    task: Task,
    message: Option<MessageName>,
    began_ns: u64,
    request: Option<Request>,
    request_body: u64,
    answered_ns: u64,
    response: Option<Response>,
    last_ns: u64,
}

/// First bytes of a burst that was too short to tell.
struct Prefix {
    direction: Direction,
    bytes: Vec<u8>,
    seq: u32,
    at_ns: u64,
    task: Task,
    /// Transfers that it came in.
    transfers: u64,
}

/// What a connection carries, as far as known.
enum Carries {
    /// Not known; bursts seen that were nothing we know.
    Unknown { misses: u8, prefix: Option<Prefix> },
    /// HTTP/1.
    Http1 { parser: Box<http1::Connection>, request: Direction },
    /// Something else.
    Other,
}

/// Facts that the table acts on after a record.
#[derive(Clone, Copy, Default)]
pub(super) struct Change {
    /// The connection turned out not to be for us.
    pub(super) ignore: bool,
    /// A head was longer than the budget of its direction.
    pub(super) long_head: Option<Direction>,
}

/// One connection.
pub(super) struct Connection {
    pub(super) info: Arc<ConnInfo>,
    pub(super) tgid: u32,
    pub(super) last_ns: u64,
    pub(super) idle_told: bool,
    /// When it was last asked whether the connection is still there.
    pub(super) doubted_ns: u64,
    pub(super) in_active: bool,
    pub(super) completed: u32,
    pub(super) verdict_sent: u8,
    /// The kernel side began to count positions anew: what comes next need not follow what came last.
    pub(super) restarted: bool,
    /// The same at both ends: chooses who rests.
    pub(super) mark: u32,
    pub(super) rest: Rest,
    /// The kernel side has a verdict that it is to forget at the end.
    pub(super) was_told: bool,
    /// Direction whose heads have been longer than their budget.
    pub(super) long: Option<Direction>,
    /// The budgets that were told are those for heads only.
    pub(super) heads_only: bool,
    /// Bursts that are no message before the connection is given up.
    pub(super) patience: u8,
    halves: [Half; 2],
    carries: Carries,
    exchanges: VecDeque<Active>,
}

/// Who and when, for one input.
struct Moment {
    task: Task,
    at_ns: u64,
    /// Sequence number of the input's first byte.
    seq: u32,
}

impl Connection {
    pub(super) fn new(info: ConnInfo, tgid: u32) -> Self {
        let info = Arc::new(info);
        Self {
            mark: mark(&info),
            rest: Rest::Awake,
            was_told: false,
            long: None,
            heads_only: false,
            patience: u8::MAX,
            info,
            tgid,
            last_ns: 0,
            idle_told: false,
            doubted_ns: 0,
            in_active: false,
            completed: 0,
            verdict_sent: 0,
            restarted: false,
            halves: [Half::default(); 2],
            carries: Carries::Unknown { misses: 0, prefix: None },
            exchanges: VecDeque::new(),
        }
    }

    /// Exchanges under way.
    pub(super) fn in_flight(&self) -> usize {
        self.exchanges.len()
    }

    /// Direction of requests, once known.
    pub(super) fn request_direction(&self) -> Option<Direction> {
        match &self.carries {
            Carries::Http1 { request, .. } => Some(*request),
            _ => None,
        }
    }

    /// Whether it carries something that is not read.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self.carries, Carries::Other)
    }

    /// Ends what is under way with a gap: the rest of it will not be read.
    pub(super) fn cut(&mut self, who: &mut dyn Who, account: &mut Account, out: &mut Output) {
        let task = Task { tgid: self.tgid, tid: 0, task: 0 };
        // It ends with the last byte that was seen.
        let moment = Moment { task, at_ns: self.last_ns, seq: 0 };
        self.restart(&moment, who, account, out);
        self.abandon(Outcome::Gap, self.last_ns, who, account, out);
        self.restarted = true;
    }

    /// A transfer.
    pub(super) fn data(
        &mut self,
        data: &Data,
        payload: &[u8],
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
    ) -> Change {
        self.last_ns = data.header.at_ns;
        self.idle_told = false;
        let task = Task { tgid: data.header.tgid, tid: data.header.tid, task: data.task.id };
        let at_ns = data.header.at_ns;
        let direction = Direction(data.direction & 1);
        if data.header.flags & flags::EOF != 0 {
            account.parsed += 1;
            let moment = Moment { task, at_ns, seq: data.seq };
            return self.feed(direction, Input::End, &moment, who, account, out);
        }
        if std::mem::take(&mut self.restarted) {
            self.restart(&Moment { task, at_ns, seq: data.seq }, who, account, out);
        }
        let Some(half) = self.halves.get_mut(usize::from(direction.0)) else { return Change::default() };
        match half.place(data.seq, data.len) {
            Place::Next => {}
            Place::Seen => {
                account.repeated += 1;
                return Change::default();
            }
            Place::After(missing) => {
                account.holes += 1;
                let moment = Moment { task, at_ns, seq: data.seq.wrapping_sub(missing) };
                let hole = Input::Hole { len: u64::from(missing), tail: &[] };
                match &mut self.carries {
                    // What was kept of the burst does not go on here.
                    Carries::Unknown { prefix, .. } => drop(prefix.take_if(|p| p.direction == direction)),
                    _ => drop(self.feed(direction, hole, &moment, who, account, out)),
                }
            }
        }
        if matches!(self.carries, Carries::Unknown { .. })
            && !self.detect(direction, data, payload, who, account, out)
        {
            let ignore = matches!(self.carries, Carries::Other);
            return Change { ignore, long_head: None };
        }
        if matches!(self.carries, Carries::Other) {
            account.foreign += 1;
            return Change { ignore: true, long_head: None };
        }
        account.parsed += 1;
        let mut change = Change::default();
        for (offset, input) in inputs(data, payload) {
            let moment = Moment { task, at_ns, seq: data.seq.wrapping_add(offset) };
            let got = self.feed(direction, input, &moment, who, account, out);
            change.ignore |= got.ignore;
            change.long_head = change.long_head.or(got.long_head);
        }
        change
    }

    /// Ends what was going on: nobody knows what was missed.
    fn restart(&mut self, moment: &Moment, who: &mut dyn Who, account: &mut Account, out: &mut Output) {
        self.halves = [Half::default(); 2];
        if let Carries::Unknown { prefix, .. } = &mut self.carries {
            *prefix = None;
        }
        if let Some(request) = self.request_direction() {
            // Answers first: a request that comes now is not one of those whose answers were missed.
            self.feed(Direction(request.0 ^ 1), Input::Gap, moment, who, account, out);
            self.feed(request, Input::Gap, moment, who, account, out);
        }
    }

    /// Looks whether a burst begins a message. True when the transfer is now to be fed to the parser.
    fn detect(
        &mut self,
        direction: Direction,
        data: &Data,
        payload: &[u8],
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
    ) -> bool {
        let Carries::Unknown { misses, prefix } = &mut self.carries else { return true };
        let starts = data.header.flags & flags::BURST_START != 0;
        let continued = prefix.take_if(|p| p.direction == direction);
        if !starts && continued.is_none() {
            account.undetected += 1;
            return false;
        }
        let joined;
        let seen: &[u8] = match &continued {
            Some(p) => {
                let most = payload.get(..payload.len().min(PREFIX)).unwrap_or_default();
                joined = [p.bytes.as_slice(), most].concat();
                &joined
            }
            None => payload,
        };
        let request = match http1::Connection::detect(seen) {
            Detect::Request => direction,
            Detect::Response => Direction(direction.0 ^ 1),
            Detect::More if seen.len() < PREFIX && data.captured == data.len => {
                let task = Task { tgid: data.header.tgid, tid: data.header.tid, task: data.task.id };
                *prefix = Some(match continued {
                    Some(p) => Prefix { bytes: seen.to_vec(), transfers: p.transfers + 1, ..p },
                    None => Prefix {
                        direction,
                        bytes: seen.to_vec(),
                        seq: data.seq,
                        at_ns: data.header.at_ns,
                        task,
                        transfers: 1,
                    },
                });
                account.undetected += 1;
                return false;
            }
            Detect::More | Detect::No => {
                *misses += 1;
                if *misses >= self.patience {
                    self.carries = Carries::Other;
                    account.ignored += 1;
                    account.foreign += 1;
                } else {
                    account.undetected += 1;
                }
                return false;
            }
        };
        self.carries = Carries::Http1 { parser: Box::default(), request };
        if request == direction {
            self.note_beginning(direction, continued.as_ref().map_or(data.seq, |p| p.seq));
        }
        if let Some(p) = continued {
            // Its transfers were counted as not detected; they are parsed after all.
            account.undetected = account.undetected.saturating_sub(p.transfers);
            account.parsed += p.transfers;
            let moment = Moment { task: p.task, at_ns: p.at_ns, seq: p.seq };
            let input = Input::Bytes { bytes: &p.bytes, burst_start: true };
            self.feed(direction, input, &moment, who, account, out);
        }
        true
    }

    /// A connection whose first request is seen from its first byte has had no answer yet: the first one is known to
    /// begin where its direction does.
    fn note_beginning(&mut self, request: Direction, seq: u32) {
        let side = if request == Direction::SEND { Side::Client } else { Side::Server };
        let first = self.info.message(side, seq).filter(|message| message.position == 0);
        if let (Some(first), Some(answers)) = (first, self.halves.get_mut(usize::from(request.0 ^ 1))) {
            answers.begins_at(first.response_base);
        }
    }

    /// Gives one input to the parser and acts on what it finds.
    fn feed(
        &mut self,
        direction: Direction,
        input: Input<'_>,
        moment: &Moment,
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
    ) -> Change {
        let Carries::Http1 { parser, request } = &mut self.carries else { return Change::default() };
        let request = *request;
        let flow = if direction == request { Flow::Request } else { Flow::Response };
        let mut scene = Scene {
            info: &self.info,
            side: if request == Direction::SEND { Side::Client } else { Side::Server },
            exchanges: &mut self.exchanges,
            completed: &mut self.completed,
            moment,
            who,
            account,
            out,
            change: Change::default(),
            fed: flow,
        };
        parser.feed(flow, input, &mut |item| scene.item(item));
        scene.more_answer();
        let mut change = scene.change;
        if parser.is_switched() {
            self.carries = Carries::Other;
            change.ignore = true;
        }
        change
    }

    /// Nothing moved for a while.
    pub(super) fn idle(&mut self, now_ns: u64, who: &mut dyn Who, account: &mut Account, out: &mut Output) {
        let last = self.last_ns;
        self.idle_told = true;
        self.each(
            Task { tgid: self.tgid, tid: 0, task: 0 },
            last.min(now_ns),
            who,
            account,
            out,
            |parser, sink| {
                parser.idle(sink);
            },
        );
    }

    /// One or both directions will carry no more. `both` when the connection is gone; `received` is where reading ended.
    pub(super) fn close(
        &mut self,
        at_ns: u64,
        both: bool,
        received: Option<u32>,
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
    ) {
        let task = Task { tgid: self.tgid, tid: 0, task: 0 };
        let moment = Moment { task, at_ns, seq: 0 };
        self.last_unseen(received, &moment, who, account, out);
        self.feed(Direction::SEND, Input::End, &moment, who, account, out);
        if both {
            self.feed(Direction::RECV, Input::End, &moment, who, account, out);
            self.abandon(Outcome::Aborted, at_ns, who, account, out);
        }
    }

    /// What was read last without being seen (by splice, or lost on the way here) is known by its length.
    fn last_unseen(
        &mut self,
        received: Option<u32>,
        moment: &Moment,
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
    ) {
        let half = self.halves.get_mut(usize::from(Direction::RECV.0));
        if let (Some(seq), Some(half)) = (received, half)
            && let Place::After(missing) = half.place(seq, 0)
        {
            account.holes += 1;
            let moment = Moment { seq: seq.wrapping_sub(missing), ..*moment };
            let hole = Input::Hole { len: u64::from(missing), tail: &[] };
            self.feed(Direction::RECV, hole, &moment, who, account, out);
        }
    }

    /// Ends whatever is under way.
    pub(super) fn abandon(
        &mut self,
        outcome: Outcome,
        at_ns: u64,
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
    ) {
        let side =
            if self.request_direction() == Some(Direction::SEND) { Side::Client } else { Side::Server };
        while let Some(active) = self.exchanges.pop_front() {
            let ended = if outcome == Outcome::Aborted { at_ns } else { active.last_ns };
            finish(active, &self.info, side, outcome, ended, 0, who, account, out);
        }
    }

    /// Calls the parser for something other than input.
    fn each(
        &mut self,
        task: Task,
        at_ns: u64,
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
        call: impl FnOnce(&mut http1::Connection, &mut dyn FnMut(Item)),
    ) {
        let Carries::Http1 { parser, request } = &mut self.carries else { return };
        let moment = Moment { task, at_ns, seq: 0 };
        let mut scene = Scene {
            info: &self.info,
            side: if *request == Direction::SEND { Side::Client } else { Side::Server },
            exchanges: &mut self.exchanges,
            completed: &mut self.completed,
            moment: &moment,
            who,
            account,
            out,
            change: Change::default(),
            fed: Flow::Request,
        };
        call(parser, &mut |item| scene.item(item));
    }
}

/// Everything an item of the parser can touch.
struct Scene<'a> {
    info: &'a Arc<ConnInfo>,
    side: Side,
    exchanges: &'a mut VecDeque<Active>,
    completed: &'a mut u32,
    moment: &'a Moment,
    who: &'a mut dyn Who,
    account: &'a mut Account,
    out: &'a mut Output,
    change: Change,
    fed: Flow,
}

impl Scene<'_> {
    fn signal(&mut self, key: ExchangeKey, edge: Edge) {
        let Moment { task, at_ns, .. } = *self.moment;
        self.out.signals.push(Signal { key, side: self.side, task, at_ns, edge });
    }

    fn find(&mut self, number: u32) -> Option<&mut Active> {
        // Nearly always the first.
        self.exchanges.iter_mut().find(|active| active.number == number)
    }

    fn item(&mut self, item: Item) {
        match (item.flow, item.what) {
            (Flow::Request, What::Begin) => self.begin(item.exchange, item.offset),
            (Flow::Request, What::Head(Head::Request(request))) => self.request(item.exchange, request),
            (Flow::Request, What::End { body }) => {
                let at_ns = self.moment.at_ns;
                if let Some(active) = self.find(item.exchange) {
                    active.request_body = body;
                    active.last_ns = at_ns;
                }
            }
            (Flow::Request, What::Aborted { body }) => {
                if let Some(active) = self.find(item.exchange) {
                    active.request_body = body;
                }
                self.headless(item.exchange);
            }
            (Flow::Request, What::Lost(_)) => self.headless(item.exchange),
            (Flow::Response, What::Begin) => {
                let at_ns = self.moment.at_ns;
                if let Some(active) = self.find(item.exchange) {
                    active.answered_ns = at_ns;
                    active.last_ns = at_ns;
                }
            }
            (Flow::Response, What::Head(Head::Response(response))) => {
                if response.truncated {
                    self.change.long_head = Some(self.direction_of(Flow::Response));
                }
                if let Some(active) = self.find(item.exchange) {
                    active.response = Some(response);
                }
            }
            (Flow::Response, What::End { body }) => self.end(item.exchange, Outcome::Complete, body),
            (Flow::Response, What::Aborted { body }) => self.end(item.exchange, Outcome::Aborted, body),
            (Flow::Response, What::Lost(_)) => self.end(item.exchange, Outcome::Gap, 0),
            (_, What::Switched) => self.end(item.exchange, Outcome::Upgraded, 0),
            (_, What::HalfSeen) => self.account.half_seen += 1,
            (_, What::Garbage) => self.account.garbage += 1,
            (_, What::Head(_) | What::Rpc(_) | What::Reset { .. }) => {}
        }
    }

    fn direction_of(&self, flow: Flow) -> Direction {
        match (self.side, flow) {
            (Side::Client, Flow::Request) | (Side::Server, Flow::Response) => Direction::SEND,
            _ => Direction::RECV,
        }
    }

    fn begin(&mut self, number: u32, offset: usize) {
        self.account.began += 1;
        let key = self.out.next_key();
        let seq = self.moment.seq.wrapping_add(offset as u32);
        let message = self.info.message(self.side, seq);
        let Moment { task, at_ns, .. } = *self.moment;
        self.exchanges.push_back(Active {
            key,
            number,
            task,
            message,
            began_ns: at_ns,
            request: None,
            request_body: 0,
            answered_ns: 0,
            response: None,
            last_ns: at_ns,
        });
        self.signal(key, Edge::Began { conn: Arc::clone(self.info), message });
    }

    fn request(&mut self, number: u32, request: Request) {
        if request.truncated {
            self.change.long_head = Some(self.direction_of(Flow::Request));
        }
        let context = request.context.clone();
        let Some(active) = self.find(number) else { return };
        active.request = Some(request);
        let key = active.key;
        if let Some(context) = context {
            self.signal(key, Edge::Context(context));
        }
    }

    /// A request that ended without a head that was understood is over with that.
    fn headless(&mut self, number: u32) {
        if self.find(number).is_some_and(|active| active.request.is_none()) {
            self.end(number, Outcome::Gap, 0);
        }
    }

    fn end(&mut self, number: u32, outcome: Outcome, body: u64) {
        let Some(at) = self.exchanges.iter().position(|active| active.number == number) else { return };
        let Some(active) = self.exchanges.remove(at) else { return };
        if outcome == Outcome::Gap {
            // Several messages in one burst (pipelining) may need more of it than the usual budget.
            self.change.long_head = Some(self.direction_of(Flow::Response));
        }
        // An end that was concluded later stands at the last byte that was seen.
        let ended = if self.fed == Flow::Response || outcome == Outcome::Aborted {
            self.moment.at_ns
        } else {
            active.last_ns
        };
        if active.answered_ns != 0 || outcome == Outcome::Upgraded {
            self.signal(
                active.key,
                Edge::Answer { first: active.answered_ns == self.moment.at_ns, last: true },
            );
        }
        *self.completed = self.completed.saturating_add(1);
        finish(active, self.info, self.side, outcome, ended, body, self.who, self.account, self.out);
    }

    /// More bytes of a response that goes on.
    fn more_answer(&mut self) {
        if self.fed != Flow::Response {
            return;
        }
        let at_ns = self.moment.at_ns;
        let Some(active) = self.exchanges.iter_mut().find(|active| active.answered_ns != 0) else { return };
        active.last_ns = at_ns;
        let (key, first) = (active.key, active.answered_ns == at_ns);
        self.signal(key, Edge::Answer { first, last: false });
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site for each way to end; a struct would only rename them"
)]
fn finish(
    active: Active,
    info: &Arc<ConnInfo>,
    side: Side,
    outcome: Outcome,
    ended_ns: u64,
    response_body: u64,
    who: &mut dyn Who,
    account: &mut Account,
    out: &mut Output,
) {
    // What never became a request is followed to its end all the same: the stages behind it know of it.
    let outcome = if active.request.is_none() { Outcome::Headless } else { outcome };
    match outcome {
        Outcome::Headless => account.headless += 1,
        Outcome::Complete => account.complete += 1,
        Outcome::Aborted => account.aborted += 1,
        Outcome::Upgraded => account.upgraded += 1,
        Outcome::Unfinished => account.unfinished += 1,
        Outcome::Gap => account.gaps += 1,
    }
    out.exchanges.push(Exchange {
        key: active.key,
        side,
        task: active.task,
        service: who.service(active.task.tgid),
        conn: Arc::clone(info),
        message: active.message,
        request: active.request.unwrap_or_default(),
        response: active.response,
        request_body: active.request_body,
        response_body,
        began_ns: active.began_ns,
        answered_ns: active.answered_ns,
        ended_ns: ended_ns.max(active.began_ns),
        outcome,
    });
}
