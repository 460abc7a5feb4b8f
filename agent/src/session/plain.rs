//! Encrypted connections, and the plaintext that belongs to them.
//!
//! Comes in: transfers that are TLS, plaintext of libraries, and which connection an object of a library uses. Goes out: the
//! plaintext of each object as a connection of its own, with the addresses and the name of the socket below; of the encrypted
//! one, the word to the kernel side that nothing of it is wanted.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use spanwise_common::conn::{Verdict, verdict};
use spanwise_common::event::{Close, Data, Direction, Join, Plain, flags};

use super::account::Account;
use super::connection::Connection;
use super::held::Held;
use super::scene::Sealed;
use super::table::{Output, Sessions, Who};
use crate::conn::ConnInfo;
use crate::conn::tls::{Handshake, begins_record};
use crate::numbers::Numbers;

/// Processes whose library has hooks, as far as they are remembered.
const MAX_COVERED: usize = 4096;
/// Transfers after which the hellos of a connection are no longer waited for.
const PATIENCE: u8 = 12;
/// A record of application data: the handshake is over.
const APPLICATION_DATA: u8 = 23;

/// An encrypted connection.
#[derive(Default)]
struct Encrypted {
    handshake: Handshake,
    /// The object that gives its plaintext, zero while there is none.
    object: u64,
    transfers: u8,
    /// The kernel side ships nothing of it any more.
    told: bool,
}

/// All of them. Each is one of the table's connections too.
#[derive(Default)]
pub(super) struct EncryptedConnections {
    by_cookie: HashMap<u64, Encrypted, Numbers>,
    /// Processes whose library has hooks.
    covered: HashSet<u32, Numbers>,
    /// Of the others, how many of their transfers were counted as not covered: the first ones of a handshake come before
    /// anything tells of the library.
    doubtful: HashMap<u32, u64, Numbers>,
    held: Held,
}

impl EncryptedConnections {
    /// A connection is over.
    pub(super) fn forget(&mut self, cookie: u64) -> Option<u64> {
        self.by_cookie.remove(&cookie).map(|encrypted| encrypted.object).filter(|object| *object != 0)
    }

    /// Whether a connection is known to be encrypted.
    pub(super) fn has(&self, cookie: u64) -> bool {
        self.by_cookie.contains_key(&cookie)
    }

    /// The object that gives a connection's plaintext.
    pub(super) fn object(&self, cookie: u64) -> Option<u64> {
        self.by_cookie.get(&cookie).map(|encrypted| encrypted.object).filter(|object| *object != 0)
    }

    /// A process ended. How many chunks of it will never be known whose they are.
    pub(super) fn exit(&mut self, tgid: u32) -> u64 {
        self.covered.remove(&tgid);
        self.doubtful.remove(&tgid);
        self.held.exit(tgid)
    }

    /// The library of a process has hooks. What of its transfers was counted otherwise is counted anew.
    fn cover(&mut self, tgid: u32, account: &mut Account) {
        if self.covered.len() < MAX_COVERED && self.covered.insert(tgid) {
            let before = self.doubtful.remove(&tgid).unwrap_or(0).min(account.uncovered);
            account.uncovered -= before;
            account.encrypted += before;
        }
    }

    /// A transfer of a process whose library has no hooks, as far as is known.
    fn doubt(&mut self, tgid: u32) {
        if let Some(count) = self.doubtful.get_mut(&tgid) {
            *count += 1;
        } else if self.doubtful.len() < MAX_COVERED {
            self.doubtful.insert(tgid, 1);
        }
    }
}

/// Nothing of it is wanted: its plaintext comes from elsewhere, or cannot be had.
fn sealed() -> Verdict {
    Verdict { verdict: u32::from(verdict::ENCRYPTED), budget_send: 0, budget_recv: 0 }
}

impl Encrypted {
    /// Tells the kernel side, once the hellos have been read or will not come.
    fn tell(&mut self, cookie: u64, connection: Option<&mut Connection>, out: &mut Output) {
        if self.told || !(self.handshake.is_over() || self.transfers >= PATIENCE) {
            return;
        }
        self.told = true;
        self.handshake.give_up();
        if let Some(connection) = connection {
            connection.was_told = true;
        }
        out.verdicts.push((cookie, sealed()));
    }
}

impl Sessions {
    /// Whether a transfer is of an encrypted connection; then all is done that there is to do.
    pub(super) fn is_encrypted(&mut self, data: &Data, payload: &[u8], out: &mut Output) -> bool {
        let Some(connection) = self.connections.get_mut(&data.cookie) else { return false };
        let known = self.encrypted.by_cookie.contains_key(&data.cookie);
        if !known && (!connection.is_unknown() || !begins_record(payload)) {
            return false;
        }
        let encrypted = self.encrypted.by_cookie.entry(data.cookie).or_default();
        if !known {
            self.account.encrypted_connections += 1;
        }
        connection.last_ns = data.header.at_ns;
        encrypted.transfers = encrypted.transfers.saturating_add(1);
        if payload.first() == Some(&APPLICATION_DATA) && begins_record(payload) {
            encrypted.handshake.give_up();
        } else if !payload.is_empty() {
            encrypted.handshake.feed(Direction(data.direction & 1), payload, data.captured == data.len);
        }
        encrypted.tell(data.cookie, Some(connection), out);
        if encrypted.object != 0 || self.encrypted.covered.contains(&data.header.tgid) {
            self.account.encrypted += 1;
        } else {
            self.account.uncovered += 1;
            self.encrypted.doubt(data.header.tgid);
        }
        true
    }

    /// It became known which connection an object uses.
    pub fn join(&mut self, join: &Join, who: &mut dyn Who, out: &mut Output) {
        self.account.joins += 1;
        self.encrypted.cover(join.header.tgid, &mut self.account);
        let held = self.encrypted.held.take(join.object);
        if join.header.flags & flags::SAME != 0 {
            let object = self.encrypted.object(join.cookie);
            return self.release(held, object, join, who, out);
        }
        if !self.connections.contains_key(&join.cookie) {
            let Some(info) = who.connection(join.cookie) else { return };
            if !self.insert(join.cookie, &info, join.header.tgid) {
                return;
            }
        }
        let mut fresh = false;
        let encrypted = self.encrypted.by_cookie.entry(join.cookie).or_insert_with(|| {
            fresh = true;
            Encrypted::default()
        });
        self.account.encrypted_connections += u64::from(fresh);
        let before = std::mem::replace(&mut encrypted.object, join.object);
        self.account.joined_connections += u64::from(before == 0 && join.object != 0);
        encrypted.tell(join.cookie, self.connections.get_mut(&join.cookie), out);
        // Two objects on one connection: it was handed on, or the end of the first was not seen.
        if before != 0 && before != join.object {
            self.end_object(before, join.header.at_ns, true, who, out);
        }
        self.release(held, Some(join.object), join, who, out);
    }

    /// Chunks whose connection was not known in time.
    pub(super) fn lost(&mut self, chunks: u64) {
        self.account.transfers += chunks;
        self.account.plain += chunks;
        self.account.unknown += chunks;
    }

    /// What waited for a join is the plaintext of this object.
    fn release(
        &mut self,
        held: Vec<(Plain, Box<[u8]>)>,
        object: Option<u64>,
        join: &Join,
        who: &mut dyn Who,
        out: &mut Output,
    ) {
        let Some(object) = object else {
            return self.lost(held.len() as u64);
        };
        for (mut plain, payload) in held {
            plain.object = object;
            plain.cookie = join.cookie;
            plain.header.flags |= join.header.flags & flags::FROM_START;
            self.plain(&plain, &payload, who, out);
        }
    }

    /// A chunk of plaintext.
    pub fn plain(&mut self, plain: &Plain, payload: &[u8], who: &mut dyn Who, out: &mut Output) {
        if plain.cookie == 0 {
            let lost = self.encrypted.held.hold(plain, payload);
            return self.lost(lost);
        }
        self.account.transfers += 1;
        self.account.plain += 1;
        if !self.connections.contains_key(&plain.object) {
            let Some(connection) = self.plaintext_of(plain, who) else {
                self.account.unknown += 1;
                return;
            };
            if !self.add(plain.object, connection) {
                self.account.refused += 1;
                return;
            }
        }
        if let Some(connection) = self.connections.get_mut(&plain.object) {
            connection.sealed = Some(Sealed {
                first: plain.seq,
                name: (plain.header.flags & flags::HAS_CIPHER != 0).then_some(plain.cipher),
            });
        }
        let data = Data {
            header: plain.header,
            cookie: plain.object,
            task: plain.task,
            seq: plain.seq,
            len: plain.len,
            captured: plain.captured,
            direction: plain.direction,
            plane: 0,
            tail_len: plain.tail_len,
            route: 0,
            tail: plain.tail,
        };
        self.moved(&data, payload, who, out);
    }

    /// The connection of an object that is seen for the first time: the socket's, with what is known of its encryption.
    fn plaintext_of(&mut self, plain: &Plain, who: &mut dyn Who) -> Option<Connection> {
        let mut info = match self.connections.get(&plain.cookie) {
            Some(connection) => ConnInfo::clone(&connection.info),
            None => ConnInfo::new(plain.cookie, &who.connection(plain.cookie)?),
        };
        let known = self.encrypted.by_cookie.get(&plain.cookie);
        info.tls = Some(Rc::new(known.map(|encrypted| encrypted.handshake.tls.clone()).unwrap_or_default()));
        let mut connection = Connection::new(info, plain.header.tgid);
        if plain.header.flags & flags::FROM_START != 0 {
            connection.begins_at_zero();
        }
        Some(connection)
    }

    /// The plaintext of an object ends, with its connection or with the object; in one direction, or in both.
    pub(super) fn end_object(
        &mut self,
        object: u64,
        at_ns: u64,
        both: bool,
        who: &mut dyn Who,
        out: &mut Output,
    ) {
        use super::table::{TCP_CLOSE, TCP_FIN_WAIT1};
        let header = spanwise_common::event::Header { kind: 0, flags: 0, size: 0, at_ns, tgid: 0, tid: 0 };
        let new_state = if both { TCP_CLOSE } else { TCP_FIN_WAIT1 };
        let close = Close { header, cookie: object, old_state: 0, new_state, received: 0, pad: 0 };
        self.close(&close, who, out);
    }
}
