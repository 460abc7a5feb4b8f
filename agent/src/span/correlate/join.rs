//! Finds the other end of a message on this node.
//!
//! Comes in: ends as they begin. Goes out: pairs of a client's and a server's end of one message. By its name
//! where it has one; else by the two sockets (unix) or the address tuple, in the order of time. Of the plaintext of an encrypted
//! connection one end may have a name and the other none: such ends are looked for both ways.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

use super::arena::{Arena, Id};
use super::hash::{Map, Seed};
use super::node::Node;
use crate::conn::{Endpoint, MessageName};
use crate::session::Side;

/// Ends without a name kept for one connection; above, the oldest is forgotten.
const BOUND: usize = 64;
/// A send is stamped when it completes: its receipt at the other end may carry an earlier time.
const SLACK_NS: u64 = 10_000_000;

/// A connection whose messages have no names; the same for both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Line {
    Unix(u64, u64),
    Inet(SocketAddr, SocketAddr, u32),
}

#[derive(Default, Debug)]
struct Waiting {
    clients: VecDeque<Id>,
    servers: VecDeque<Id>,
}

/// Ends whose other end was not seen yet.
#[derive(Debug)]
pub(super) struct Joiner {
    names: Map<MessageName, (Side, Id)>,
    lines: Map<Line, Waiting>,
}

impl Joiner {
    pub(super) fn new(seed: Seed) -> Self {
        Self { names: Map::with_hasher(seed), lines: Map::with_hasher(seed) }
    }

    /// An end begins: the other one, if it was there already.
    pub(super) fn begins(&mut self, nodes: &Arena<Node>, id: Id) -> Option<Id> {
        let node = nodes.get(id)?;
        let Some(name) = node.message else {
            let other = self.begins_on_line(nodes, id, node)?;
            if let Some(name) = nodes.get(other).and_then(|other| other.message) {
                self.names.remove(&name);
            }
            return Some(other);
        };
        let entry = match self.names.entry(name) {
            Entry::Occupied(entry) => {
                let (side, other) = *entry.get();
                if side != node.side
                    && let Some(found) = nodes.get(other)
                {
                    entry.remove();
                    if may_lack_name(found) {
                        self.leave_line(other, found);
                    }
                    return Some(other);
                }
                Entry::Occupied(entry)
            }
            entry @ Entry::Vacant(_) => entry,
        };
        if may_lack_name(node) {
            let other = self.begins_on_line(nodes, id, node);
            if other.is_none() {
                self.names.insert(name, (node.side, id));
            }
            return other;
        }
        entry.insert_entry((node.side, id));
        None
    }

    fn begins_on_line(&mut self, nodes: &Arena<Node>, id: Id, node: &Node) -> Option<Id> {
        let line = line(node)?;
        let waiting = self.lines.entry(line).or_default();
        let (own, others) = match node.side {
            Side::Client => (&mut waiting.clients, &mut waiting.servers),
            Side::Server => (&mut waiting.servers, &mut waiting.clients),
        };
        // What is given to a TLS library is stamped before it is on its way.
        let slack = if node.conn.tls.is_some() { 0 } else { SLACK_NS };
        let mut at = 0;
        while let Some(other) = others.get(at).copied() {
            // One that was answered before this began lost its other end.
            let Some(found) =
                nodes.get(other).filter(|found| found.ended_ns.saturating_add(slack) >= node.began_ns)
            else {
                others.remove(at);
                continue;
            };
            // Two names that differ name two messages.
            if found.message.is_some() && node.message.is_some() {
                at += 1;
                continue;
            }
            let crossed = matches!(line, Line::Inet(..)) || is_crossed(found, node);
            let (client, server) = if node.side == Side::Client { (node, found) } else { (found, node) };
            if crossed && server.began_ns.saturating_add(slack) >= client.began_ns {
                others.remove(at);
                if own.is_empty() && others.is_empty() {
                    self.lines.remove(&line);
                }
                return Some(other);
            }
            break;
        }
        if own.len() >= BOUND {
            own.pop_front();
        }
        own.push_back(id);
        None
    }

    /// The end will not be joined any more.
    pub(super) fn forget(&mut self, id: Id, node: &Node) {
        if let Some(name) = node.message {
            if !self.names.is_empty()
                && let Entry::Occupied(entry) = self.names.entry(name)
                && entry.get().1 == id
            {
                entry.remove();
            }
            if !may_lack_name(node) {
                return;
            }
        }
        self.leave_line(id, node);
    }

    fn leave_line(&mut self, id: Id, node: &Node) {
        let Some(line) = line(node) else { return };
        if let Some(waiting) = self.lines.get_mut(&line) {
            match node.side {
                Side::Client => waiting.clients.retain(|known| *known != id),
                Side::Server => waiting.servers.retain(|known| *known != id),
            }
            if waiting.clients.is_empty() && waiting.servers.is_empty() {
                self.lines.remove(&line);
            }
        }
    }

    /// Ends that wait, and lines with such ends.
    pub(super) fn len(&self) -> usize {
        self.names.len() + self.lines.len()
    }
}

/// Whether the other end of a message may have no name though this one has: only one of them may have seen where the record ended
/// that carried it. Streams are known by their number.
fn may_lack_name(node: &Node) -> bool {
    node.conn.tls.is_some() && node.message.is_none_or(|name| name.stream().is_none())
}

fn is_crossed(a: &Node, b: &Node) -> bool {
    a.conn.sock == b.conn.peer_sock && a.conn.peer_sock == b.conn.sock
}

fn line(node: &Node) -> Option<Line> {
    let conn = &node.conn;
    match (&conn.local, &conn.remote) {
        (Endpoint::Inet(local), Endpoint::Inet(remote)) => {
            Some(Line::Inet(*local.min(remote), *local.max(remote), conn.netns))
        }
        _ if conn.sock != 0 && conn.peer_sock != 0 => {
            Some(Line::Unix(conn.sock.min(conn.peer_sock), conn.sock.max(conn.peer_sock)))
        }
        _ => None,
    }
}
