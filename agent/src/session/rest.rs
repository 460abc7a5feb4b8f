//! Connections that rest: nothing of them is read for a while, by the governor's word.
//!
//! A connection goes to rest between exchanges where it can. What is under way when it cannot wait ends with a gap. When it
//! may go on, it begins anew: nobody knows what was missed, and nothing is concluded from what was before.

use std::rc::Rc;

use spanwise_common::conn::{Verdict, verdict};
use spanwise_common::event::{Data, Direction};
use spanwise_common::limits::{BUDGET_FRAMES, BUDGET_LONG_HEAD, BUDGET_UNKNOWN};

use super::connection::Connection;
use super::effort::{Effort, TURN_NS};
use super::table::{Output, Sessions, Who};
use crate::conn::ConnInfo;

/// How long a connection that is to rest may go on with the exchange that it is in.
const GRACE_NS: u64 = 1_000_000_000;
/// Exchanges under way on all connections together. About 500 bytes each.
const MAX_UNDER_WAY: u64 = 65_536;
/// Exchanges under way that a connection may have in any case. More than one is pipelining.
const ALWAYS: usize = 4;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Rest {
    /// It is read.
    #[default]
    Awake,
    /// It rests. One that carries a single exchange is over before the kernel side could be told.
    Untold,
    /// It rests, and the kernel side knows.
    Told,
}

/// The same number at both ends of a connection: of the opener's end the kernel's numbers are one too small, so the lowest
/// bits do not count.
pub(super) fn mark(info: &Rc<ConnInfo>) -> u32 {
    match info.names {
        Some(names) => (names.own >> 8).wrapping_add(names.peer >> 8).wrapping_mul(0x9e37_79b9),
        None if info.peer_sock != 0 => ((info.sock ^ info.peer_sock) >> 6) as u32,
        None => info.cookie as u32,
    }
}

/// What the kernel side is to ship of a connection that is read.
pub(super) fn wanted(connection: &Connection, effort: Effort) -> Verdict {
    let Some(request) = connection.request_direction() else {
        return Verdict {
            verdict: u32::from(verdict::UNKNOWN),
            budget_send: BUDGET_UNKNOWN,
            budget_recv: BUDGET_UNKNOWN,
        };
    };
    if connection.has_streams() {
        return Verdict {
            verdict: u32::from(verdict::HTTP2),
            budget_send: BUDGET_FRAMES,
            budget_recv: BUDGET_FRAMES,
        };
    }
    let (mut of_request, mut of_response) = effort.budgets();
    if let Some(direction) = connection.long {
        *(if direction == request { &mut of_request } else { &mut of_response }) = BUDGET_LONG_HEAD;
    }
    let (budget_send, budget_recv) =
        if request == Direction::SEND { (of_request, of_response) } else { (of_response, of_request) };
    Verdict { verdict: u32::from(verdict::HTTP1), budget_send, budget_recv }
}

/// The kernel side is to ship nothing.
pub(super) fn nothing() -> Verdict {
    Verdict { verdict: u32::from(verdict::IGNORE), budget_send: 0, budget_recv: 0 }
}

impl Sessions {
    /// From now on this much is done.
    pub fn govern(&mut self, effort: Effort, now_ns: u64, who: &mut dyn Who, out: &mut Output) {
        self.effort = effort;
        self.turn_over(now_ns, who, out);
    }

    /// Lets other connections rest, when it is time.
    pub(super) fn tick_rest(&mut self, now_ns: u64, who: &mut dyn Who, out: &mut Output) {
        if self.effort.resting > 0 && now_ns / TURN_NS != self.turn {
            self.turn_over(now_ns, who, out);
        }
    }

    fn turn_over(&mut self, now_ns: u64, who: &mut dyn Who, out: &mut Output) {
        self.turn = now_ns / TURN_NS;
        self.turned_ns = now_ns;
        for (cookie, connection) in &mut self.connections {
            let rests = self.effort.rests(connection.mark, self.turn);
            if !rests && connection.rest != Rest::Awake {
                let told = std::mem::take(&mut connection.rest) == Rest::Told;
                connection.restarted = true;
                self.account.woken += 1;
                if told && !connection.is_foreign() {
                    out.verdicts.push((*cookie, wanted(connection, self.effort)));
                    connection.heads_only = self.effort.heads_only;
                }
            } else if rests && self.effort.at_once && connection.in_flight() > 0 {
                // Whoever is quiet would keep its memory until its next byte.
                connection.cut(who, &mut self.account, out);
            }
        }
    }

    /// Whether nothing of this transfer is to be read. A connection whose turn to rest has come goes to rest with it.
    pub(super) fn rests(&mut self, data: &Data, who: &mut dyn Who, out: &mut Output) -> bool {
        // The usual case, for every transfer: then none rests.
        if self.effort.resting == 0 {
            return false;
        }
        let at_ns = data.header.at_ns;
        let Some(connection) = self.connections.get_mut(&data.cookie) else { return false };
        match connection.rest {
            Rest::Told => {}
            Rest::Untold => {
                connection.rest = Rest::Told;
                connection.was_told = true;
                out.verdicts.push((data.cookie, nothing()));
            }
            Rest::Awake => {
                let patient = at_ns.saturating_sub(self.turned_ns) < GRACE_NS && !self.effort.at_once;
                if !self.effort.rests(connection.mark, self.turn)
                    || connection.is_foreign()
                    || (patient && connection.in_flight() > 0)
                {
                    return false;
                }
                connection.cut(who, &mut self.account, out);
                connection.rest = Rest::Untold;
                self.account.rests += 1;
                if connection.completed > 0 {
                    connection.rest = Rest::Told;
                    connection.was_told = true;
                    out.verdicts.push((data.cookie, nothing()));
                }
            }
        }
        self.account.rested += 1;
        true
    }

    /// Ends what is under way on a connection that has a lot of it, if all connections together have too much.
    pub(super) fn bound_under_way(&mut self, cookie: u64, who: &mut dyn Who, out: &mut Output) {
        if self.account.under_way() <= MAX_UNDER_WAY {
            return;
        }
        if let Some(connection) = self.connections.get_mut(&cookie)
            && connection.in_flight() > ALWAYS
        {
            self.account.too_many += connection.in_flight() as u64;
            connection.cut(who, &mut self.account, out);
        }
    }
}
