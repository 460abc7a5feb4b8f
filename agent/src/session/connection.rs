//! One connection: finds out what it carries, feeds the parser, and follows its exchanges.

use std::collections::VecDeque;
use std::rc::Rc;

use spanwise_common::event::{Data, Direction, flags};
use spanwise_protocol::message::Flow;
use spanwise_protocol::{Detect, Input, Item};

use super::account::Account;
use super::carries::{Carries, Prefix, Wire, detect};
use super::exchange::{Outcome, Task};
use super::orphan::Orphan;
use super::rest::{Rest, mark};
use super::routes::Matched;
use super::scene::{Active, Change, Moment, Scene, Sealed, finish};
use super::table::{IDLE_NS, Output, Who};
use crate::conn::{ConnInfo, Endpoint, Half, Place, Side, beginning, boundary, inputs};

/// Bytes kept of a burst that is too short to tell what it is.
const PREFIX: usize = 64;

/// One connection.
pub(super) struct Connection {
    pub(super) info: Rc<ConnInfo>,
    pub(super) tgid: u32,
    pub(super) last_ns: u64,
    pub(super) idle_told: bool,
    /// When it was last asked whether the connection is still there.
    pub(super) doubted_ns: u64,
    pub(super) in_active: bool,
    pub(super) completed: u32,
    /// A remote procedure call was seen.
    calls: bool,
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
    /// The pattern of the request whose answer comes next.
    pub(super) route: Option<Matched>,
    /// It is the plaintext of an encrypted connection: how the chunk is named that is being read.
    pub(super) sealed: Option<Sealed>,
    /// Its process has ended.
    pub(super) orphan: Option<Orphan>,
    /// When it closed; the end of an answer may still be read.
    pub(super) closed_ns: Option<u64>,
    halves: [Half; 2],
    carries: Carries,
    pub(super) exchanges: VecDeque<Active>,
}

impl Connection {
    pub(super) fn new(info: ConnInfo, tgid: u32) -> Self {
        let info = Rc::new(info);
        Self {
            mark: mark(&info),
            rest: Rest::Awake,
            was_told: false,
            long: None,
            heads_only: false,
            patience: u8::MAX,
            route: None,
            sealed: None,
            orphan: None,
            closed_ns: None,
            info,
            tgid,
            last_ns: 0,
            idle_told: false,
            doubted_ns: 0,
            in_active: false,
            completed: 0,
            calls: false,
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
            Carries::Known { request, .. } => Some(*request),
            _ => None,
        }
    }

    /// Whether its exchanges interleave: every transfer may hold heads.
    pub(super) fn has_streams(&self) -> bool {
        matches!(&self.carries, Carries::Known { wire, .. } if wire.has_streams())
    }

    /// Whether it carries something that is not read.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self.carries, Carries::Other)
    }

    /// Whether it is not known yet what it carries.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.carries, Carries::Unknown { .. })
    }

    /// Both directions were seen from their first byte, and positions count from there.
    pub(super) fn begins_at_zero(&mut self) {
        for half in &mut self.halves {
            half.begins_at(0);
        }
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
        if self.was_silent(data.header.at_ns) {
            self.idle(self.last_ns, who, account, out);
        }
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
        let moment = Moment { task, at_ns, seq: data.seq };
        if self.place(direction, data.len, &moment, who, account, out) == Place::Seen {
            account.repeated += 1;
            return Change::default();
        }
        if matches!(self.carries, Carries::Unknown { .. })
            && !self.detect(direction, data, beginning(data, payload), who, account, out)
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
        if let (Some((ahead, walk)), Carries::Known { wire, request }) = (boundary(data), &mut self.carries) {
            let flow = if direction == *request { Flow::Request } else { Flow::Response };
            wire.boundary(flow, ahead, walk);
        }
        if !payload.is_empty() && payload.len() == data.len as usize && data.header.flags & flags::PIECES == 0
        {
            // Most transfers: all of it is here, in one piece.
            let burst_start = data.header.flags & flags::BURST_START != 0;
            return self.feed(
                direction,
                Input::Bytes { bytes: payload, burst_start },
                &moment,
                who,
                account,
                out,
            );
        }
        for (offset, input) in inputs(data, payload) {
            let moment = Moment { task, at_ns, seq: data.seq.wrapping_add(offset) };
            let got = self.feed(direction, input, &moment, who, account, out);
            change.ignore |= got.ignore;
            change.long_head = change.long_head.or(got.long_head);
        }
        change
    }

    /// Nothing moved for a while, nobody told the parser so because nothing is under way, and it matters to it.
    fn was_silent(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_ns) >= IDLE_NS
            && !self.idle_told
            && matches!(&self.carries, Carries::Known { wire, .. } if wire.needs_silence())
    }

    /// Puts what begins at the moment's sequence number in its place. What is missing before it is told to the parser.
    fn place(
        &mut self,
        direction: Direction,
        len: u32,
        moment: &Moment,
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
    ) -> Place {
        let Some(half) = self.halves.get_mut(usize::from(direction.0)) else { return Place::Seen };
        let place = half.place(moment.seq, len);
        // What is read after the end was received counts the FIN.
        let fin = self.closed_ns.is_some() && place == Place::After(1);
        if let Place::After(missing) = place
            && !fin
        {
            account.holes += 1;
            self.info.texts.note_lacking();
            match &mut self.carries {
                // What was kept of the burst does not go on here.
                Carries::Unknown { prefix, .. } => drop(prefix.take_if(|p| p.direction == direction)),
                _ => {
                    let moment = Moment { seq: moment.seq.wrapping_sub(missing), ..*moment };
                    let hole = Input::Hole { len: u64::from(missing), tail: &[] };
                    self.feed(direction, hole, &moment, who, account, out);
                }
            }
        }
        place
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
        // By pairs of sockets event loops wake each other: a byte at a time, one way only, so that no other burst ever begins.
        let wakes = data.len == 1 && self.info.local == Endpoint::Unix;
        if !starts && continued.is_none() && !wakes {
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
        let (request, wire) = match detect(seen) {
            (Detect::Request, Some(wire)) => (direction, wire),
            (Detect::Response, Some(wire)) => (Direction(direction.0 ^ 1), wire),
            (Detect::More, _) if seen.len() < PREFIX && data.captured == data.len => {
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
            _ => {
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
        // What came the other way, too short to tell by itself, is of the same protocol.
        let earlier = prefix.take();
        let numbered = wire.has_streams();
        self.carries = Carries::Known { wire, request };
        if request == direction && !numbered {
            self.note_beginning(direction, continued.as_ref().map_or(data.seq, |p| p.seq));
        }
        for p in [earlier, continued].into_iter().flatten() {
            // Its transfers were counted as not detected; they are parsed after all.
            account.undetected = account.undetected.saturating_sub(p.transfers);
            account.parsed += p.transfers;
            let moment = Moment { task: p.task, at_ns: p.at_ns, seq: p.seq };
            let input = Input::Bytes { bytes: &p.bytes, burst_start: true };
            self.feed(p.direction, input, &moment, who, account, out);
        }
        true
    }

    /// A connection whose first request is seen from its first byte has had no answer yet: the first one is known to
    /// begin where its direction does.
    fn note_beginning(&mut self, request: Direction, seq: u32) {
        if self.sealed.is_some() {
            return; // its positions are not the socket's
        }
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
        let Some(request) = self.request_direction() else { return Change::default() };
        let flow = if direction == request { Flow::Request } else { Flow::Response };
        let change = self.drive(flow, moment, who, account, out, |wire, sink| wire.feed(flow, input, sink));
        if matches!(&self.carries, Carries::Known { wire, .. } if wire.is_upgraded()) {
            return self.feed_upgraded(flow, input, moment, who, account, out).unwrap_or(change);
        }
        change
    }

    /// Goes on with the rest of an input whose beginning agreed on HTTP/2. Apart from the rest, because it is rare.
    #[cold]
    #[inline(never)]
    fn feed_upgraded(
        &mut self,
        flow: Flow,
        input: Input<'_>,
        moment: &Moment,
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
    ) -> Option<Change> {
        let rest = self.upgrade(input)?;
        let seq = moment.seq.wrapping_add(rest.1 as u32);
        Some(self.drive(flow, &Moment { seq, ..*moment }, who, account, out, |wire, sink| {
            wire.feed(flow, rest.0, sink);
        }))
    }

    /// Goes on with HTTP/2 where a request of HTTP/1 asked for that and got it. Gives what of the input belongs to that, and
    /// where that begins.
    fn upgrade<'a>(&mut self, input: Input<'a>) -> Option<(Input<'a>, usize)> {
        let Carries::Known { wire, .. } = &mut self.carries else { return None };
        let upgraded = wire.upgrade()?;
        for active in &mut self.exchanges {
            active.renumber(upgraded.exchange);
        }
        let Input::Bytes { bytes, .. } = input else { return None };
        let rest = bytes.get(upgraded.offset..).filter(|rest| !rest.is_empty())?;
        Some((Input::Bytes { bytes: rest, burst_start: false }, upgraded.offset))
    }

    /// Lets the parser work, and acts on what it finds. `flow` is the direction of what is new, if anything is.
    fn drive(
        &mut self,
        flow: Flow,
        moment: &Moment,
        who: &mut dyn Who,
        account: &mut Account,
        out: &mut Output,
        work: impl FnOnce(&mut Wire, &mut dyn FnMut(Item)),
    ) -> Change {
        let side = self.side();
        let Carries::Known { wire, .. } = &mut self.carries else { return Change::default() };
        let mut scene = Scene {
            info: &self.info,
            side,
            sealed: self.sealed,
            route: &mut self.route,
            exchanges: &mut self.exchanges,
            completed: &mut self.completed,
            calls: &mut self.calls,
            moment,
            who,
            account,
            out,
            change: Change::default(),
            fed: flow,
            streams: wire.has_streams(),
            fresh: Vec::new(),
        };
        work(wire, &mut |item| scene.item(item));
        scene.more_answer();
        let mut change = scene.change;
        if wire.is_encrypted() {
            // What comes next is to be recognised as that.
            self.carries = Carries::Unknown { misses: 0, prefix: None };
        } else if wire.is_switched() && !wire.is_upgraded() {
            self.carries = Carries::Other;
            change.ignore = true;
        }
        change
    }

    /// Whether a call waits for (the rest of) its answer.
    pub(super) fn awaits_answer(&self) -> bool {
        self.in_flight() > 0 && self.side() == Side::Client
    }

    /// Which end of its exchanges the process is.
    fn side(&self) -> Side {
        if self.request_direction() == Some(Direction::SEND) { Side::Client } else { Side::Server }
    }

    /// Nothing moved for a while.
    pub(super) fn idle(&mut self, now_ns: u64, who: &mut dyn Who, account: &mut Account, out: &mut Output) {
        self.idle_told = true;
        let task = Task { tgid: self.tgid, tid: 0, task: 0 };
        let moment = Moment { task, at_ns: self.last_ns.min(now_ns), seq: 0 };
        // Nothing is new of the answers: as if it were of the requests.
        self.drive(Flow::Request, &moment, who, account, out, |wire, sink| wire.idle(sink));
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
        // What was read last without being seen (by splice, or lost on the way here) is known by its length.
        if let Some(seq) = received {
            self.place(Direction::RECV, 0, &Moment { seq, ..moment }, who, account, out);
        }
        self.feed(Direction::SEND, Input::End, &moment, who, account, out);
        if both {
            self.feed(Direction::RECV, Input::End, &moment, who, account, out);
            self.abandon(Outcome::Aborted, at_ns, who, account, out);
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
        let side = self.side();
        for mut active in self.exchanges.drain(..) {
            let ended = if outcome == Outcome::Aborted { at_ns } else { active.last_ns };
            finish(&mut active, &self.info, side, outcome, ended, 0, who, account, out);
        }
    }
}
