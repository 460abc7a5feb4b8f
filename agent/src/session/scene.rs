//! What a parser found, acted on: exchanges begin, go on and end.
//!
//! Comes in: items of one connection's parser, with who and when. Goes out: signals and exchanges.

use std::collections::VecDeque;
use std::rc::Rc;

use spanwise_common::event::Direction;
use spanwise_protocol::message::{Answer, Flow, Head, Query, Request, Response, Rpc, RpcSystem};
use spanwise_protocol::{Item, LostReason, What};

use super::account::Account;
use super::exchange::{DbSeen, Edge, Exchange, ExchangeKey, Outcome, RpcSeen, Signal, Task};
use super::kind;
use super::routes::Matched;
use super::table::{Output, Who};
use crate::conn::{ConnInfo, MessageName, Side};

/// An exchange under way.
pub(super) struct Active {
    key: ExchangeKey,
    number: u32,
    pub(super) task: Task,
    message: Option<MessageName>,
    began_ns: u64,
    request: Option<Request>,
    request_body: u64,
    answered_ns: u64,
    response: Option<Response>,
    rpc: Option<Box<RpcSeen>>,
    db: Option<Box<DbSeen>>,
    reset: Option<u32>,
    /// The pattern that the server matched it with.
    route: Option<Box<str>>,
    pub(super) last_ns: u64,
}

impl Active {
    /// Whether it is known what was asked.
    fn is_understood(&self) -> bool {
        self.request.is_some() || self.db.is_some()
    }

    /// The exchange of this number goes on as stream 1.
    pub(super) fn renumber(&mut self, exchange: u32) {
        if self.number == exchange {
            self.number = 1;
        }
    }
}

/// Who and when, for one input.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) task: Task,
    pub(super) at_ns: u64,
    /// Sequence number of the input's first byte.
    pub(super) seq: u32,
}

/// How messages in the plaintext of an encrypted connection are named: by the encrypted record that a chunk came in. Only what
/// begins a chunk has the same name at both ends for certain.
#[derive(Clone, Copy)]
pub(super) struct Sealed {
    /// Position of the chunk's first byte.
    pub(super) first: u32,
    /// Sequence number of the socket behind the record.
    pub(super) name: Option<u32>,
}

/// Facts that the table acts on after a record.
#[derive(Clone, Copy, Default)]
pub(super) struct Change {
    /// The connection turned out not to be for us.
    pub(super) ignore: bool,
    /// A head was longer than the budget of its direction.
    pub(super) long_head: Option<Direction>,
}

/// Everything an item of the parser can touch.
pub(super) struct Scene<'a> {
    pub(super) info: &'a Rc<ConnInfo>,
    pub(super) side: Side,
    pub(super) exchanges: &'a mut VecDeque<Active>,
    pub(super) completed: &'a mut u32,
    /// A remote procedure call was seen on the connection.
    pub(super) calls: &'a mut bool,
    pub(super) moment: &'a Moment,
    /// Of the plaintext of an encrypted connection.
    pub(super) sealed: Option<Sealed>,
    /// The pattern of the request whose answer comes next.
    pub(super) route: &'a mut Option<Matched>,
    pub(super) who: &'a mut dyn Who,
    pub(super) account: &'a mut Account,
    pub(super) out: &'a mut Output,
    pub(super) change: Change,
    /// Direction of the input.
    pub(super) fed: Flow,
    /// Exchanges have numbers on the wire and interleave.
    pub(super) streams: bool,
    /// Streams whose answer began with this input and goes on.
    pub(super) fresh: Vec<u32>,
}

impl Scene<'_> {
    fn signal(&mut self, key: ExchangeKey, edge: Edge) {
        let Moment { task, at_ns, .. } = *self.moment;
        self.out.signals.push(Signal { key, side: self.side, task, at_ns, edge });
    }

    /// Where an exchange stands, or would: they begin in the order of their numbers.
    fn place(&self, number: u32) -> Result<usize, usize> {
        match self.exchanges.front() {
            // Nearly always the first.
            Some(first) if first.number == number => Ok(0),
            _ => self.exchanges.binary_search_by_key(&number, |active| active.number),
        }
    }

    fn find(&mut self, number: u32) -> Option<&mut Active> {
        let at = self.place(number).ok()?;
        self.exchanges.get_mut(at)
    }

    pub(super) fn item(&mut self, item: Item) {
        // Heads are large: they are moved once, to where they stay, and nothing else is moved at all.
        if let What::Head(head) = item.what {
            self.head(item.flow, item.exchange, head);
            return;
        }
        match (item.flow, &item.what) {
            (Flow::Request, What::Begin) => self.begin(item.exchange, item.offset),
            (Flow::Request, What::End { body }) => {
                let at_ns = self.moment.at_ns;
                if let Some(active) = self.find(item.exchange) {
                    active.request_body = *body;
                    active.last_ns = at_ns;
                }
            }
            (Flow::Request, What::Aborted { body }) => {
                if let Some(active) = self.find(item.exchange) {
                    active.request_body = *body;
                }
                self.headless(item.exchange);
            }
            (Flow::Request, What::Lost(_)) => self.headless(item.exchange),
            (Flow::Response, What::Begin) => self.answer_begins(item.exchange),
            (flow, What::Rpc(part)) => {
                *self.calls |= part.status.is_some();
                if !self.streams && flow == Flow::Response && part.status.is_none() {
                    // The status stands at the end of the body (gRPC-Web): more of it may be needed.
                    self.change.long_head = Some(self.direction_of(Flow::Response));
                }
                if let Some(active) = self.find(item.exchange) {
                    let seen = active.rpc.get_or_insert_default();
                    *(if flow == Flow::Request { &mut seen.request } else { &mut seen.response }) = *part;
                }
            }
            (Flow::Response, What::End { body }) => self.end(item.exchange, Outcome::Complete, *body),
            (Flow::Response, What::Aborted { body }) => self.end(item.exchange, Outcome::Aborted, *body),
            (Flow::Response, What::Lost(LostReason::Foreign)) if self.is_first(item.exchange) => {
                self.end(item.exchange, Outcome::Foreign, 0);
            }
            (Flow::Response, What::Lost(_)) => self.end(item.exchange, Outcome::Gap, 0),
            (_, What::Switched) => self.end(item.exchange, Outcome::Upgraded, 0),
            (_, What::Reset { code, .. }) => {
                if let Some(active) = self.find(item.exchange) {
                    active.reset = Some(*code);
                }
            }
            (_, What::HalfSeen) => self.account.half_seen += 1,
            (_, What::Garbage) => self.account.garbage += 1,
            (_, What::Head(_)) => {}
        }
    }

    fn head(&mut self, flow: Flow, exchange: u32, head: Head) {
        match head {
            Head::Request(request) if flow == Flow::Request => self.request(exchange, request),
            Head::Response(response) if flow == Flow::Response => {
                if response.truncated {
                    self.info.texts.note_lacking();
                    self.change.long_head = Some(self.direction_of(Flow::Response));
                }
                if let Some(active) = self.find(exchange) {
                    active.response = Some(response);
                }
            }
            Head::Query(query) if flow == Flow::Request => self.query(exchange, query),
            Head::Answer(answer) if flow == Flow::Response => self.answer(exchange, answer),
            Head::Request(_) | Head::Response(_) | Head::Query(_) | Head::Answer(_) => {}
        }
    }

    fn query(&mut self, number: u32, query: Query) {
        if query.truncated {
            self.change.long_head = Some(self.direction_of(Flow::Request));
        }
        let kind = self.calls(|| kind::of_query(&query));
        let Some(active) = self.find(number) else { return };
        active.db = Some(Box::new(DbSeen { query, answer: None }));
        let key = active.key;
        self.asks(key, kind);
    }

    /// Answers of databases are cut as a rule: of what is cut off only the end tells something, and that is seen.
    fn answer(&mut self, number: u32, answer: Answer) {
        if let Some(db) = self.find(number).and_then(|active| active.db.as_mut()) {
            db.answer = Some(answer);
        }
    }

    fn answer_begins(&mut self, number: u32) {
        let Moment { at_ns, seq, .. } = *self.moment;
        let streams = self.streams;
        let route = self.route.take_if(|route| route.is_at(seq)).and_then(|mut route| route.pattern());
        let Some(active) = self.find(number) else { return };
        active.answered_ns = at_ns;
        active.last_ns = at_ns;
        active.route = route.or(active.route.take());
        if streams {
            self.fresh.push(number);
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
        let message = if self.streams {
            self.info.stream(self.side, number)
        } else {
            self.position(offset).and_then(|seq| self.info.message(self.side, seq))
        };
        let Moment { task, at_ns, .. } = *self.moment;
        let at = self.place(number).unwrap_or_else(|at| at);
        let active = Active {
            key,
            number,
            task,
            message,
            began_ns: at_ns,
            request: None,
            request_body: 0,
            answered_ns: 0,
            response: None,
            rpc: None,
            db: None,
            reset: None,
            route: None,
            last_ns: at_ns,
        };
        if at == self.exchanges.len() {
            self.exchanges.push_back(active);
        } else {
            self.exchanges.insert(at, active);
        }
        self.signal(key, Edge::Began { conn: Rc::clone(self.info), message });
    }

    /// Whether the request is the first one of its connection: nothing was missed that what comes could belong to.
    fn is_first(&mut self, number: u32) -> bool {
        self.find(number).is_some_and(|active| active.message.is_some_and(|name| name.position == 0))
    }

    /// The position that names a message which begins at this offset of the input.
    fn position(&self, offset: usize) -> Option<u32> {
        let seq = self.moment.seq.wrapping_add(offset as u32);
        match self.sealed {
            None => Some(seq),
            Some(sealed) => sealed.name.filter(|_| sealed.first == seq),
        }
    }

    fn request(&mut self, number: u32, mut request: Request) {
        if request.truncated {
            self.info.texts.note_lacking();
            self.change.long_head = Some(self.direction_of(Flow::Request));
        }
        if self.streams {
            *self.calls |= request.rpc.is_some();
            if *self.calls && may_be_call(&request) {
                request.rpc = Some(Rpc { system: RpcSystem::Grpc, timeout_ns: None });
            }
        }
        let context = request.context.clone();
        let kind = self.calls(|| kind::of_request(&request));
        let Some(active) = self.find(number) else { return };
        active.request = Some(request);
        let key = active.key;
        if let Some(context) = context {
            self.signal(key, Edge::Context(context));
        }
        self.asks(key, kind);
    }

    /// Something of calls only.
    fn calls<T>(&self, of: impl FnOnce() -> T) -> Option<T> {
        (self.side == Side::Client).then(of)
    }

    /// A call is told to be of this kind.
    fn asks(&mut self, key: ExchangeKey, kind: Option<u64>) {
        if let Some(kind) = kind {
            let first = *self.completed == 0 && self.exchanges.len() == 1;
            self.signal(key, Edge::Asked { kind, first });
        }
    }

    /// A request that ended without a head that was understood is over with that.
    fn headless(&mut self, number: u32) {
        if self.find(number).is_some_and(|active| !active.is_understood()) {
            self.end(number, Outcome::Gap, 0);
        }
    }

    fn end(&mut self, number: u32, outcome: Outcome, body: u64) {
        let Ok(at) = self.place(number) else { return };
        self.fresh.retain(|fresh| *fresh != number);
        if outcome == Outcome::Gap {
            // Several messages in one burst (pipelining) may need more of it than the usual budget.
            self.change.long_head = Some(self.direction_of(Flow::Response));
        }
        let Some(active) = self.exchanges.get_mut(at) else { return };
        // An end that was concluded later stands at the last byte that was seen.
        let ended = if self.fed == Flow::Response || outcome == Outcome::Aborted {
            self.moment.at_ns
        } else {
            active.last_ns
        };
        *self.completed = self.completed.saturating_add(1);
        let (key, answered_ns) = (active.key, active.answered_ns);
        finish(active, self.info, self.side, outcome, ended, body, self.who, self.account, self.out);
        // Nothing large is left in it. Nearly always it is the first, which can go without moving others.
        if at == 0 {
            self.exchanges.pop_front();
        } else {
            self.exchanges.remove(at);
        }
        if answered_ns != 0 || outcome == Outcome::Upgraded {
            self.signal(key, Edge::Answer { first: answered_ns == self.moment.at_ns, last: true });
        }
    }

    /// More bytes of a response that goes on. Of streams only beginnings and ends are told: what of a transfer belongs to which
    /// of them is no evidence of anything.
    pub(super) fn more_answer(&mut self) {
        if self.fed != Flow::Response {
            return;
        }
        if self.streams {
            for number in std::mem::take(&mut self.fresh) {
                if let Some(key) = self.find(number).map(|active| active.key) {
                    self.signal(key, Edge::Answer { first: true, last: false });
                }
            }
            return;
        }
        let at_ns = self.moment.at_ns;
        let Some(active) = self.exchanges.iter_mut().find(|active| active.answered_ns != 0) else { return };
        active.last_ns = at_ns;
        let (key, first) = (active.key, active.answered_ns == at_ns);
        self.signal(key, Edge::Answer { first, last: false });
    }
}

/// Whether a request on a connection with remote procedure calls is one too, although fields of it could not be decoded: the
/// content type stands in the table since before the connection was seen, and stays there.
fn may_be_call(request: &Request) -> bool {
    let path = &request.path;
    request.rpc.is_none()
        && request.truncated
        && matches!(&*request.method, "POST" | "")
        && (path.is_empty() || path.strip_prefix('/').is_some_and(|name| name.contains('/')))
}

/// Hands an exchange on that ended; what is left of it is to be forgotten.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site for each way to end; a struct would only rename them"
)]
pub(super) fn finish(
    active: &mut Active,
    info: &Rc<ConnInfo>,
    side: Side,
    outcome: Outcome,
    ended_ns: u64,
    response_body: u64,
    who: &mut dyn Who,
    account: &mut Account,
    out: &mut Output,
) {
    // What never became a request is followed to its end all the same: the stages behind it know of it.
    let outcome = if !active.is_understood() { Outcome::Headless } else { outcome };
    match outcome {
        Outcome::Headless => account.headless += 1,
        Outcome::Complete => account.complete += 1,
        Outcome::Aborted => account.aborted += 1,
        Outcome::Upgraded => account.upgraded += 1,
        Outcome::Unfinished => account.unfinished += 1,
        Outcome::Gap => account.gaps += 1,
        Outcome::Foreign => account.foreign_answers += 1,
    }
    // The memory first: what is large is then written to where it stays.
    let place = Box::new_uninit();
    let exchange = Exchange {
        key: active.key,
        side,
        task: active.task,
        service: who.service(active.task.tgid),
        conn: Rc::clone(info),
        message: active.message,
        request: active.request.take().unwrap_or_default(),
        response: active.response.take(),
        rpc: active.rpc.take(),
        db: active.db.take(),
        reset: active.reset,
        route: active.route.take(),
        request_body: active.request_body,
        response_body,
        began_ns: active.began_ns,
        answered_ns: active.answered_ns,
        ended_ns: ended_ns.max(active.began_ns),
        outcome,
    };
    out.exchanges.push(Box::write(place, exchange));
}
