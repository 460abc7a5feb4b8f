//! Connections that outlive their process by a moment.
//!
//! Comes in: the end of a process. Goes out: nothing at once, where something is under way. The kernel closes what the process
//! held right after it told of its end, and how the connection closes is how the exchange ended: a server that crashes aborts
//! its request, one that leaves the end of an answer to its own end has answered.

use std::sync::Arc;

use spanwise_common::conn::Info;

use super::connection::Connection;
use super::exchange::Outcome;
use super::table::{Output, Sessions, Who};
use crate::conn::Endpoint;
use crate::process::Service;

/// How long the close of an orphan may take. Then another process holds it too, or its close was lost.
const GRACE_NS: u64 = 1_000_000_000;

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
}

impl Sessions {
    /// A process ended. What it had under way ends when its connections close.
    pub fn exit(&mut self, tgid: u32, at_ns: u64, who: &mut dyn Who, out: &mut Output) {
        self.encrypted.exit(tgid);
        for cookie in self.of_process.remove(&tgid).unwrap_or_default() {
            let under_way = |key: u64| self.connections.get(&key).is_some_and(|c| c.in_flight() > 0);
            // Under the key of an encrypted connection nothing is under way; its close ends the plaintext.
            let awaited = under_way(cookie) || self.encrypted.object(cookie).is_some_and(under_way);
            let unix = self.connections.get(&cookie).is_some_and(|c| c.info.local == Endpoint::Unix);
            if awaited && !unix {
                if let Some(connection) = self.connections.get_mut(&cookie) {
                    connection.orphan = Some(Orphan { tgid, service: who.service(tgid), since_ns: at_ns });
                }
                continue;
            }
            self.encrypted.forget(cookie);
            if let Some(mut connection) = self.connections.remove(&cookie) {
                // No hook tells that a unix socket was closed.
                connection.close(at_ns, true, None, who, &mut self.account, out);
                if connection.was_told {
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
