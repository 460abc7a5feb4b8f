//! All connections of the node, bounded; and what the stage hands on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use spanwise_common::conn::{Info, Verdict, transport};
use spanwise_common::event::{Close, Data, Open, flags};

use super::account::Account;
use super::connection::Connection;
use super::effort::Effort;
use super::exchange::{Exchange, ExchangeKey, Outcome, Signal};
use super::orphan::Late;
use super::plain::EncryptedConnections;
use super::rest::{Rest, nothing, wanted};
use super::scene::Change;
use super::unix::Ends;
use crate::conn::{ConnInfo, Endpoint};
use crate::numbers::Numbers;
use crate::process::Service;
use crate::telemetry::Stage;

/// Connections followed at once. One costs about a kilobyte when idle.
const MAX_CONNECTIONS: usize = 16 * 1024;
/// Without a byte for so long, an end that cannot be seen is concluded.
pub(super) const IDLE_NS: u64 = 80_000_000;
/// Without a byte for so long, it is asked whether a connection with something under way is still there: its close may have been
/// lost in a full ring.
const DOUBT_NS: u64 = 10_000_000_000;
/// No hook tells that a unix socket was closed on this side, and looking at its process may not tell. Without a byte for so long,
/// what is under way is given up.
const UNIX_PATIENCE_NS: u64 = 300_000_000_000;
pub(super) const TCP_FIN_WAIT1: u32 = 4;
pub(super) const TCP_CLOSE: u32 = 7;

/// Looks up what other stages know.
pub trait Who {
    /// The service of a process.
    fn service(&mut self, tgid: u32) -> Arc<Service>;
    /// What the kernel side knows of a connection whose opening was lost.
    fn connection(&mut self, cookie: u64) -> Option<Info>;
    /// Whether the kernel side has forgotten a connection. Of a recording nobody knows.
    fn is_gone(&mut self, _cookie: u64) -> bool {
        false
    }
    /// Which of these unix sockets, by inode, a process surely does not hold any more. Of a recording nobody knows.
    fn closed_sockets(&mut self, _tgid: u32, _inodes: &[u64]) -> Vec<u64> {
        Vec::new()
    }
}

/// What the stage hands on. The pipeline empties it after each record.
#[derive(Default)]
pub struct Output {
    /// Edges, in order.
    pub signals: Vec<Signal>,
    /// Exchanges that ended. They are large, and go through several hands.
    pub exchanges: Vec<Box<Exchange>>,
    /// What the kernel side is to ship of a connection.
    pub verdicts: Vec<(u64, Verdict)>,
    /// Connections the kernel side can forget.
    pub forgotten: Vec<u64>,
    keys: u64,
}

impl Output {
    /// Identity for a new exchange.
    pub(super) fn next_key(&mut self) -> ExchangeKey {
        self.keys += 1;
        ExchangeKey(self.keys)
    }
}

/// Every connection, and the account of the stage.
#[derive(Default)]
pub struct Sessions {
    pub(super) connections: HashMap<u64, Connection, Numbers>,
    pub(super) of_process: HashMap<u32, HashSet<u64, Numbers>, Numbers>,
    /// Connections with exchanges under way.
    pub(super) active: Vec<u64>,
    pub(super) unix: Ends,
    pub(super) encrypted: EncryptedConnections,
    pub(super) account: Account,
    /// How much is to be done.
    pub(super) effort: Effort,
    /// Number of the turn: it chooses who rests.
    pub(super) turn: u64,
    /// Since when the same connections rest.
    pub(super) turned_ns: u64,
}

impl Sessions {
    /// A connection was seen for the first time, or the kernel side had to forget it and sees it again.
    pub fn open(&mut self, open: &Open) {
        if let Some(connection) = self.connections.get_mut(&open.cookie) {
            // Positions of TCP are the kernel's own and go on.
            connection.restarted = open.info.transport == transport::UNIX;
            return;
        }
        self.insert(open.cookie, &open.info, open.header.tgid);
    }

    pub(super) fn insert(&mut self, cookie: u64, info: &Info, tgid: u32) -> bool {
        let added = self.add(cookie, Connection::new(ConnInfo::new(cookie, info), tgid));
        if added {
            self.unix.opened(cookie, info);
        }
        added
    }

    /// A new connection, under the cookie of its socket or the identity of the object that gives its plaintext.
    pub(super) fn add(&mut self, key: u64, connection: Connection) -> bool {
        if self.connections.len() >= MAX_CONNECTIONS && !self.make_room() {
            return false;
        }
        self.account.connections += 1;
        self.of_process.entry(connection.tgid).or_default().insert(key);
        self.connections.insert(key, connection);
        true
    }

    /// Drops the connection that was quiet longest, among a few, and has nothing under way.
    fn make_room(&mut self) -> bool {
        let oldest = self
            .connections
            .iter()
            // The kernel side would be silent for ever about one that it was told to let rest.
            .filter(|(_, c)| c.in_flight() == 0 && c.rest != Rest::Told)
            .take(64)
            .min_by_key(|(_, c)| c.last_ns)
            .map(|(cookie, _)| *cookie);
        oldest.is_some_and(|cookie| {
            self.remove(cookie);
            self.account.displaced += 1;
            true
        })
    }

    pub(super) fn remove(&mut self, cookie: u64) -> Option<Connection> {
        let connection = self.connections.remove(&cookie)?;
        self.encrypted.forget(cookie);
        self.unix.forget(cookie, &connection);
        if let Some(set) = self.of_process.get_mut(&connection.tgid) {
            set.remove(&cookie);
            if set.is_empty() {
                self.of_process.remove(&connection.tgid);
            }
        }
        Some(connection)
    }

    /// A transfer.
    pub fn data(&mut self, data: &Data, payload: &[u8], who: &mut dyn Who, out: &mut Output) {
        self.account.transfers += 1;
        let cookie = data.cookie;
        // Nearly always: a connection whose protocol is known, while none rests.
        if self.effort.resting == 0
            && let Some(connection) = self.connections.get_mut(&cookie)
            && !connection.is_unknown()
            && !self.encrypted.has(cookie)
        {
            read(connection, data, payload, self.effort, &mut self.active, who, &mut self.account, out);
            self.bound_under_way(cookie, who, out);
            self.heard_end(data, who, out);
            return;
        }
        if !self.connections.contains_key(&cookie) {
            let Some(info) = who.connection(cookie) else {
                self.account.unknown += 1;
                return;
            };
            if !self.insert(cookie, &info, data.header.tgid) {
                self.account.refused += 1;
                return;
            }
        }
        if !self.is_encrypted(data, payload, out) {
            self.moved(data, payload, who, out);
        }
        self.heard_end(data, who, out);
    }

    /// Bytes moved on a connection of the table, by its key.
    pub(super) fn moved(&mut self, data: &Data, payload: &[u8], who: &mut dyn Who, out: &mut Output) {
        let cookie = data.cookie;
        if self.rests(data, who, out) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&cookie) else { return };
        read(connection, data, payload, self.effort, &mut self.active, who, &mut self.account, out);
        self.bound_under_way(cookie, who, out);
    }

    /// A connection goes towards its end.
    pub fn close(&mut self, close: &Close, who: &mut dyn Who, out: &mut Output) {
        let at_ns = close.header.at_ns;
        let cookie = close.cookie;
        // Of one whose process has ended nobody waits for what still comes.
        let orphan = self.connections.get(&cookie).is_some_and(|connection| connection.orphan.is_some());
        let gone = close.new_state == TCP_CLOSE || orphan;
        let both = gone || close.header.flags & flags::GIVEN_UP != 0;
        let received = (close.header.flags & flags::HAS_RECEIVED != 0).then_some(close.received);
        let object = if gone { self.encrypted.forget(cookie) } else { self.encrypted.object(cookie) };
        if let Some(object) = object {
            self.end_object(object, at_ns, both, who, out);
        }
        if gone && !orphan && self.lingers(cookie, at_ns, received, who, out) {
            return;
        }
        if gone {
            if let Some(mut connection) = self.remove(cookie) {
                let mut late = Late::new(&connection, who);
                connection.close(at_ns, true, received, &mut late, &mut self.account, out);
                if connection.was_told {
                    out.forgotten.push(cookie);
                }
            }
        } else if let Some(connection) = self.connections.get_mut(&cookie) {
            connection.close(at_ns, both, received, who, &mut self.account, out);
        }
    }

    /// Concludes ends that cannot be seen. To be called every few tens of milliseconds.
    pub fn tick(&mut self, now_ns: u64, who: &mut dyn Who, out: &mut Output) {
        self.tick_rest(now_ns, who, out);
        self.doubt_unix(now_ns, who, out);
        let mut at = 0;
        while let Some(cookie) = self.active.get(at).copied() {
            let Some(connection) = self.connections.get_mut(&cookie) else {
                self.active.swap_remove(at);
                continue;
            };
            if connection.in_flight() > 0
                && !connection.idle_told
                && now_ns.saturating_sub(connection.last_ns) >= IDLE_NS
            {
                let mut late = Late::new(connection, who);
                connection.idle(now_ns, &mut late, &mut self.account, out);
            }
            if connection.has_lingered(now_ns) {
                self.conclude(cookie, who, out);
                continue;
            }
            if connection.in_flight() == 0 {
                connection.in_active = false;
                self.active.swap_remove(at);
                continue;
            }
            if connection
                .orphan
                .as_ref()
                .is_some_and(|orphan| orphan.is_left_behind(now_ns, connection.last_ns))
            {
                self.give_up(cookie, now_ns, who, out);
                continue;
            }
            let is_over = if connection.info.local == Endpoint::Unix {
                now_ns.saturating_sub(connection.last_ns) >= UNIX_PATIENCE_NS
            } else if now_ns.saturating_sub(connection.last_ns.max(connection.doubted_ns)) >= DOUBT_NS {
                connection.doubted_ns = now_ns;
                who.is_gone(connection.info.cookie)
            } else {
                false
            };
            if is_over {
                let mut late = Late::new(connection, who);
                connection.abandon(Outcome::Unfinished, now_ns, &mut late, &mut self.account, out);
                self.remove(cookie);
                continue;
            }
            at += 1;
        }
    }

    /// Ends everything: the agent stops.
    pub fn finish(&mut self, now_ns: u64, who: &mut dyn Who, out: &mut Output) {
        for connection in self.connections.values_mut() {
            let mut late = Late::new(connection, who);
            let (outcome, at_ns) = match connection.closed_ns {
                Some(closed_ns) => (Outcome::Aborted, closed_ns.max(connection.last_ns)),
                None => (Outcome::Unfinished, now_ns),
            };
            connection.abandon(outcome, at_ns, &mut late, &mut self.account, out);
        }
    }

    /// The account of the stage.
    pub fn stages(&self) -> [Stage; 2] {
        let held: usize = self.connections.values().map(Connection::in_flight).sum();
        self.account.stages(held as u64)
    }
}

/// A transfer of a connection that is to be read.
#[expect(
    clippy::too_many_arguments,
    reason = "parts of the table beside the connection, which is borrowed from it"
)]
fn read(
    connection: &mut Connection,
    data: &Data,
    payload: &[u8],
    effort: Effort,
    active: &mut Vec<u64>,
    who: &mut dyn Who,
    account: &mut Account,
    out: &mut Output,
) {
    connection.patience = effort.patience();
    let mut late = Late::new(connection, who);
    let change = connection.data(data, payload, &mut late, account, out);
    if connection.in_flight() > 0 && !connection.in_active {
        connection.in_active = true;
        active.push(data.cookie);
    }
    decide(data.cookie, connection, change, effort, out);
}

/// Tells the kernel side what to ship, once there is a reason to.
fn decide(cookie: u64, connection: &mut Connection, change: Change, effort: Effort, out: &mut Output) {
    const SENT_HTTP: u8 = 1;
    const SENT_LONG: u8 = 2;
    const SENT_FRAMES: u8 = 3;
    const SENT_IGNORE: u8 = 4;
    if change.ignore {
        if connection.verdict_sent != SENT_IGNORE {
            connection.verdict_sent = SENT_IGNORE;
            connection.was_told = true;
            out.verdicts.push((cookie, nothing()));
        }
        return;
    }
    if connection.has_streams() {
        // At once: what a budget cuts off is needed to understand what follows.
        if connection.verdict_sent != SENT_FRAMES {
            connection.verdict_sent = SENT_FRAMES;
            connection.was_told = true;
            out.verdicts.push((cookie, wanted(connection, effort)));
        }
        return;
    }
    // A connection that lives for one exchange is not worth a system call.
    let settled = connection.completed >= 2 && connection.verdict_sent == 0;
    let long = change.long_head.is_some() && connection.verdict_sent < SENT_LONG;
    let other_effort = connection.verdict_sent != 0 && connection.heads_only != effort.heads_only;
    if !settled && !long && !other_effort || connection.request_direction().is_none() {
        return;
    }
    if long {
        connection.long = change.long_head;
    }
    connection.verdict_sent = if connection.long.is_some() { SENT_LONG } else { SENT_HTTP };
    connection.was_told = true;
    connection.heads_only = effort.heads_only;
    out.verdicts.push((cookie, wanted(connection, effort)));
}
