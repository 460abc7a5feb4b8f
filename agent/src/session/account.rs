//! What the session stage counts.

use crate::telemetry::{Flow, Stage};

/// Counters of the stage. Transfers and exchanges each balance.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Data records and chunks of plaintext that came in.
    pub transfers: u64,
    /// Given to a parser.
    pub parsed: u64,
    /// On a connection whose protocol is not known yet.
    pub undetected: u64,
    /// On a connection that carries no protocol we read (or no longer).
    pub foreign: u64,
    /// On a connection that is not known: its opening was lost and the kernel side has forgotten it.
    pub unknown: u64,
    /// Seen already.
    pub repeated: u64,
    /// On connections that found no room in the table.
    pub refused: u64,
    /// On connections that rest (see [`Effort`](super::Effort)).
    pub rested: u64,
    /// Of an encrypted connection in a process whose library gives the plaintext.
    pub encrypted: u64,
    /// Of an encrypted connection in a process whose plaintext is not captured.
    pub uncovered: u64,
    /// Chunks of plaintext among the records that came in.
    pub plain: u64,
    /// Connections that turned out to be encrypted.
    pub encrypted_connections: u64,
    /// Those of them that an object was joined to.
    pub joined_connections: u64,
    /// Times that an object of a TLS library was joined to a connection.
    pub joins: u64,
    /// Exchanges whose first byte was seen.
    pub began: u64,
    /// Handed on with a response.
    pub complete: u64,
    /// Handed on without a whole response: the connection closed first.
    pub aborted: u64,
    /// Handed on at a switch of protocols.
    pub upgraded: u64,
    /// Handed on because process or agent ended.
    pub unfinished: u64,
    /// Handed on although captured bytes were lost in their middle.
    pub gaps: u64,
    /// Handed on with what was no answer.
    pub foreign_answers: u64,
    /// Handed on to be counted: the request's head was never understood.
    pub headless: u64,
    /// Messages without a seen beginning or request (connections older than the agent).
    pub half_seen: u64,
    /// Times that bytes between messages were no message.
    pub garbage: u64,
    /// Holes found by sequence number.
    pub holes: u64,
    /// Connections given up as another protocol.
    pub ignored: u64,
    /// Connections seen.
    pub connections: u64,
    /// Connections with nothing under way that were forgotten because the table was full.
    pub displaced: u64,
    /// Times that a connection went to rest.
    pub rests: u64,
    /// Times that one went on afterwards.
    pub woken: u64,
    /// Exchanges given up because too many were under way.
    pub too_many: u64,
}

impl Account {
    /// Exchanges that began and were not handed on.
    pub(super) fn under_way(&self) -> u64 {
        let ended = self.complete
            + self.aborted
            + self.upgraded
            + self.unfinished
            + self.gaps
            + self.foreign_answers
            + self.headless;
        self.began.saturating_sub(ended)
    }

    /// The stage's rows: transfers, then exchanges.
    pub fn stages(&self, held: u64) -> [Stage; 2] {
        [
            Stage {
                name: "session: transfers",
                input: self.transfers,
                rows: vec![
                    (Flow::Out, "parsed", self.parsed),
                    (Flow::Drop, "protocol not known yet", self.undetected),
                    (Flow::Drop, "other protocol", self.foreign),
                    (Flow::Drop, "connection not known", self.unknown),
                    (Flow::Drop, "seen already", self.repeated),
                    (Flow::Drop, "connection table full", self.refused),
                    (Flow::Drop, "connection rests", self.rested),
                    (Flow::Drop, "encrypted, plaintext from its library", self.encrypted),
                    (Flow::Drop, "encrypted, library not covered", self.uncovered),
                ],
                notes: vec![
                    ("connections", self.connections),
                    ("connections forgotten for room", self.displaced),
                    ("connections ignored", self.ignored),
                    ("chunks of plaintext", self.plain),
                    ("encrypted connections", self.encrypted_connections),
                    // Requests on them have no span, and nobody knows how many there were.
                    (
                        "encrypted connections without plaintext",
                        self.encrypted_connections.saturating_sub(self.joined_connections),
                    ),
                    ("library objects joined to connections", self.joins),
                    ("rests of connections", self.rests),
                    ("rests that are over", self.woken),
                    ("exchanges given up, too many under way", self.too_many),
                    ("holes by sequence number", self.holes),
                    ("messages half seen", self.half_seen),
                    ("garbage between messages", self.garbage),
                ],
            },
            Stage {
                name: "session: exchanges",
                input: self.began,
                rows: vec![
                    (Flow::Out, "complete", self.complete),
                    (Flow::Out, "aborted", self.aborted),
                    (Flow::Out, "upgraded", self.upgraded),
                    (Flow::Out, "unfinished", self.unfinished),
                    (Flow::Out, "with a gap", self.gaps),
                    (Flow::Out, "answered in another protocol", self.foreign_answers),
                    (Flow::Out, "head never understood", self.headless),
                    (Flow::Held, "under way", held),
                ],
                notes: vec![],
            },
        ]
    }
}
