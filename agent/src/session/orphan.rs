//! Connections that outlive their process by a moment, and those that are read after they closed.
//!
//! Comes in: the end of a process, or of a connection. Goes out: nothing at once, where something is under way.
//!
//! The kernel closes what a process held right after it told of its end, and how the connection closes is how the exchange
//! ended: a server that crashes aborts its request, one that leaves the end of an answer to its own end has answered.
//!
//! A connection that was closed from both sides, or reset, is over for the kernel while its last bytes still wait to be read.

use std::sync::Arc;

use spanwise_common::conn::Info;

use super::connection::Connection;
use super::exchange::Outcome;
use super::table::{Output, Sessions, Who};
use crate::conn::Endpoint;
use crate::process::Service;

/// How long the close of an orphan may take. Then another process holds it too, or its close was lost.
const GRACE_NS: u64 = 1_000_000_000;

/// Without a byte for so long, a call on a connection that has closed will not be answered.
const LINGER_NS: u64 = 1_000_000_000;

/// What is kept of the process of a connection that outlived it.
#[derive(Clone)]
pub(super) struct Orphan {
    tgid: u32,
    service: Arc<Service>,
    since_ns: u64,
}

impl Orphan {
    /// Whether its close should have come. If bytes still move, another process goes on with it.
    pub(super) fn is_left_behind(&self, now_ns: u64, last_ns: u64) -> bool {
        last_ns <= self.since_ns && now_ns.saturating_sub(self.since_ns) >= GRACE_NS
    }
}

/// Who a process was, for exchanges that end after it.
pub(super) struct Late<'a> {
    orphan: Option<Orphan>,
    who: &'a mut dyn Who,
}

impl<'a> Late<'a> {
    pub(super) fn new(connection: &Connection, who: &'a mut dyn Who) -> Self {
        Self { orphan: connection.orphan.clone(), who }
    }
}

impl Who for Late<'_> {
    fn service(&mut self, tgid: u32) -> Arc<Service> {
        match &self.orphan {
            Some(orphan) if orphan.tgid == tgid => Arc::clone(&orphan.service),
            _ => self.who.service(tgid),
        }
    }
    fn connection(&mut self, cookie: u64) -> Option<Info> {
        self.who.connection(cookie)
    }
    fn is_gone(&mut self, cookie: u64) -> bool {
        self.who.is_gone(cookie)
    }
    fn closed_sockets(&mut self, tgid: u32, inodes: &[u64]) -> Vec<u64> {
        self.who.closed_sockets(tgid, inodes)
    }
}

impl Connection {
    /// Whether it closed, and has been read as far as it will be.
    pub(super) fn has_lingered(&self, now_ns: u64) -> bool {
        self.closed_ns.is_some_and(|closed_ns| {
            self.in_flight() == 0 || now_ns.saturating_sub(closed_ns.max(self.last_ns)) >= LINGER_NS
        })
    }
}

impl Sessions {
    /// A connection closed. If it is kept for an answer that may still be read, true.
    pub(super) fn lingers(
        &mut self,
        cookie: u64,
        at_ns: u64,
        received: Option<u32>,
        who: &mut dyn Who,
        out: &mut Output,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(&cookie) else { return false };
        if !connection.awaits_answer() {
            return false;
        }
        if connection.closed_ns.is_none() {
            connection.closed_ns = Some(at_ns);
            connection.close(at_ns, false, received, who, &mut self.account, out);
        }
        // What is not in the list of the active ones would not be concluded.
        connection.in_flight() > 0 && connection.in_active
    }

    /// A connection closed, and all of it was read.
    pub(super) fn conclude(&mut self, cookie: u64, who: &mut dyn Who, out: &mut Output) {
        if let Some(mut connection) = self.remove(cookie) {
            let at_ns = connection.closed_ns.unwrap_or_default().max(connection.last_ns);
            connection.close(at_ns, true, None, who, &mut self.account, out);
            // Reading has made the kernel side follow it again.
            out.forgotten.push(cookie);
        }
    }

    /// A process ended. What it had under way ends when its connections close.
    pub fn exit(&mut self, tgid: u32, at_ns: u64, who: &mut dyn Who, out: &mut Output) {
        let lost = self.encrypted.exit(tgid);
        self.lost(lost);
        for cookie in self.of_process.remove(&tgid).unwrap_or_default() {
            let under_way = |key: u64| self.connections.get(&key).is_some_and(|c| c.in_flight() > 0);
            // Under the key of an encrypted connection nothing is under way; its close ends the plaintext.
            let awaited = under_way(cookie) || self.encrypted.object(cookie).is_some_and(under_way);
            let unix = self.connections.get(&cookie).is_some_and(|c| c.info.local == Endpoint::Unix);
            let closed_ns = self.connections.get(&cookie).and_then(|connection| connection.closed_ns);
            if awaited && !unix && closed_ns.is_none() {
                if let Some(connection) = self.connections.get_mut(&cookie) {
                    connection.orphan = Some(Orphan { tgid, service: who.service(tgid), since_ns: at_ns });
                }
                continue;
            }
            self.encrypted.forget(cookie);
            if let Some(mut connection) = self.connections.remove(&cookie) {
                self.unix.forget(cookie, &connection);
                // No hook tells that a unix socket was closed.
                let at_ns = closed_ns.map_or(at_ns, |closed_ns| closed_ns.max(connection.last_ns));
                connection.close(at_ns, true, None, who, &mut self.account, out);
                if connection.was_told || closed_ns.is_some() {
                    out.forgotten.push(cookie);
                }
            }
        }
    }

    /// An orphan whose close did not come is given up.
    pub(super) fn give_up(&mut self, cookie: u64, now_ns: u64, who: &mut dyn Who, out: &mut Output) {
        if let Some(mut connection) = self.remove(cookie) {
            let mut late = Late::new(&connection, who);
            connection.abandon(Outcome::Unfinished, now_ns, &mut late, &mut self.account, out);
            if connection.was_told {
                out.forgotten.push(cookie);
            }
        }
    }
}
