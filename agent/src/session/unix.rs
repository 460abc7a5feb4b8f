//! Unix connections: no hook tells that one was closed.
//!
//! Comes in: what one end reads, and now and then what a process holds open. Goes out: the end of what the other end, or a socket
//! that is gone, had under way.
//!
//! Where both ends are traced, the one that reads the end of the stream tells that the other will send no more. Where one is, a
//! process with something under way that has been quiet is looked at: a socket that it closed will never carry the answer.

use std::collections::HashMap;

use spanwise_common::conn::{Info, transport};
use spanwise_common::event::{Close, Data, Direction, Header, flags};

use super::connection::Connection;
use super::exchange::Outcome;
use super::orphan::Late;
use super::table::{Output, Sessions, TCP_FIN_WAIT1, Who};
use crate::conn::Endpoint;
use crate::numbers::Numbers;

/// Without a byte for so long, a process is asked whether it still holds a connection with something under way, and again after as
/// long.
const DOUBT_NS: u64 = 2_000_000_000;
/// One process is looked at in so long, for all of its connections that are in doubt.
const LOOK_EVERY_NS: u64 = 1_000_000_000;

/// The ends of unix connections.
#[derive(Default)]
pub(super) struct Ends {
    /// Keys of connections by the kernel's sockets, which are used again: what is found is asked whether it is meant.
    by_sock: HashMap<u64, u64, Numbers>,
    looked_ns: u64,
}

impl Ends {
    /// A connection was seen for the first time.
    pub(super) fn opened(&mut self, cookie: u64, info: &Info) {
        if info.transport == transport::UNIX && info.sock != 0 {
            self.by_sock.insert(info.sock, cookie);
        }
    }

    /// A connection is not followed any more.
    pub(super) fn forget(&mut self, cookie: u64, connection: &Connection) {
        if connection.info.local == Endpoint::Unix && self.by_sock.get(&connection.info.sock) == Some(&cookie)
        {
            self.by_sock.remove(&connection.info.sock);
        }
    }
}

impl Connection {
    /// The process that is to go on with what is under way.
    fn holder(&self) -> u32 {
        self.exchanges.back().map_or(self.tgid, |active| active.task.tgid)
    }

    fn is_doubtful(&self, now_ns: u64) -> bool {
        self.info.local == Endpoint::Unix
            && self.in_flight() > 0
            && now_ns.saturating_sub(self.last_ns.max(self.doubted_ns)) >= DOUBT_NS
    }
}

impl Sessions {
    /// A transfer was told. If it says that the other end of a unix connection sends no more, that end is told so.
    pub(super) fn heard_end(&mut self, data: &Data, who: &mut dyn Who, out: &mut Output) {
        if data.header.flags & flags::EOF == 0 || data.direction != Direction::RECV.0 {
            return;
        }
        let Some(own) = self.connections.get(&data.cookie).map(|connection| &connection.info) else { return };
        if own.local != Endpoint::Unix || own.sock == 0 {
            return;
        }
        let Some(cookie) = self.unix.by_sock.get(&own.peer_sock).copied() else { return };
        let is_other_end = |c: &Connection| c.info.sock == own.peer_sock && c.info.peer_sock == own.sock;
        if self.connections.get(&cookie).is_some_and(is_other_end) {
            let at_ns = data.header.at_ns;
            let header = Header { kind: 0, flags: 0, size: 0, at_ns, tgid: 0, tid: 0 };
            let new_state = TCP_FIN_WAIT1;
            self.close(&Close { header, cookie, old_state: 0, new_state, received: 0, pad: 0 }, who, out);
        }
    }

    /// Looks at a process whose unix connections are in doubt, if one was not looked at just now.
    pub(super) fn doubt_unix(&mut self, now_ns: u64, who: &mut dyn Who, out: &mut Output) {
        if now_ns.saturating_sub(self.unix.looked_ns) < LOOK_EVERY_NS {
            return;
        }
        let mut tgid = None;
        let mut doubted = Vec::new();
        for cookie in &self.active {
            let Some(connection) = self.connections.get_mut(cookie) else { continue };
            if connection.is_doubtful(now_ns)
                && *tgid.get_or_insert_with(|| connection.holder()) == connection.holder()
            {
                connection.doubted_ns = now_ns;
                doubted.push((*cookie, connection.info.cookie));
            }
        }
        let Some(tgid) = tgid else { return };
        self.unix.looked_ns = now_ns;
        let mut numbers: Vec<(u64, u64)> = Vec::with_capacity(doubted.len());
        for (key, cookie) in doubted {
            let inode = who.connection(cookie).map_or(0, |info| info.inode);
            if inode != 0 {
                numbers.push((key, u64::from(inode)));
            }
        }
        let inodes: Vec<u64> = numbers.iter().map(|(_, inode)| *inode).collect();
        if inodes.is_empty() {
            return;
        }
        let gone = who.closed_sockets(tgid, &inodes);
        for (key, _) in numbers.iter().filter(|(_, inode)| gone.contains(inode)) {
            self.abandon_unix(*key, now_ns, who, out);
        }
    }

    /// When it was closed is not known: what was under way ends with its last byte.
    fn abandon_unix(&mut self, key: u64, now_ns: u64, who: &mut dyn Who, out: &mut Output) {
        if let Some(mut connection) = self.remove(key) {
            let mut late = Late::new(&connection, who);
            connection.abandon(Outcome::Unfinished, now_ns, &mut late, &mut self.account, out);
            out.forgotten.push(connection.info.cookie);
        }
    }
}
