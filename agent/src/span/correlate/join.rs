//! Finds the other end of a message on this node.
//!
//! Comes in: ends as they begin. Goes out: pairs of a client's and a server's end of one message. By its name
//! where it has one; else by the two sockets (unix) or the address tuple, in the order of time.

use std::collections::VecDeque;
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
        let Some(name) = node.message else { return self.begins_on_line(nodes, id, node) };
        match self.names.get(&name) {
            Some((side, other)) if *side != node.side && nodes.get(*other).is_some() => {
                let other = *other;
                self.names.remove(&name);
                Some(other)
            }
            _ => {
                self.names.insert(name, (node.side, id));
                None
            }
        }
    }

    fn begins_on_line(&mut self, nodes: &Arena<Node>, id: Id, node: &Node) -> Option<Id> {
        let line = line(node)?;
        let waiting = self.lines.entry(line).or_default();
        let (own, others) = match node.side {
            Side::Client => (&mut waiting.clients, &mut waiting.servers),
            Side::Server => (&mut waiting.servers, &mut waiting.clients),
        };
        while let Some(other) = others.pop_front() {
            // One that ended before this began lost its other end.
            let Some(found) = nodes.get(other) else { continue };
            let ended_ns = found.exchange.as_ref().map_or(u64::MAX, |exchange| exchange.ended_ns);
            if ended_ns.saturating_add(SLACK_NS) < node.began_ns {
                continue;
            }
            let crossed = matches!(line, Line::Inet(..)) || is_crossed(found, node);
            let (client, server) = if node.side == Side::Client { (node, found) } else { (found, node) };
            if crossed && server.began_ns.saturating_add(SLACK_NS) >= client.began_ns {
                if own.is_empty() && others.is_empty() {
                    self.lines.remove(&line);
                }
                return Some(other);
            }
            others.push_front(other);
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
            if self.names.get(&name).is_some_and(|(_, known)| *known == id) {
                self.names.remove(&name);
            }
            return;
        }
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
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.names.len() + self.lines.len()
    }
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
