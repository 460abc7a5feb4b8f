//! What messages of the protocol (version 3) look like. In: a type byte, a length, a body. Out: whether that can be, and its fields.

use memchr::memchr;

/// Version 3.0, and its minor versions.
const VERSION_3: u32 = 3 << 16;
const LAST_MINOR: u32 = 99;
/// Asks for TLS.
const SSL_REQUEST: u32 = 80_877_103;
/// Asks for encryption by GSSAPI.
const GSS_REQUEST: u32 = 80_877_104;
/// Asks to break off what another connection does.
const CANCEL_REQUEST: u32 = 80_877_102;
/// Longest packet that begins a connection, as the server has it.
pub(super) const MAX_STARTUP: u32 = 10_000;
/// Longest message that is believed: what the server can allocate.
const MAX_MESSAGE: u32 = 0x3fff_ffff;
/// Longest body of messages that hold a name or two and no data.
const MAX_SHORT: u32 = 30_000;

/// Bytes of a message before its body: type and length.
pub(super) const HEADER: usize = 5;
/// A Sync, as it stands at the end of a transfer.
pub(super) const SYNC: [u8; 5] = *b"S\0\0\0\x04";
/// What ends every answer, but for the status of the transaction behind it.
const READY: [u8; 5] = *b"Z\0\0\0\x05";

/// Packets that begin a connection and have no type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opening<'a> {
    /// Encryption is asked for; one byte answers.
    Encryption,
    /// Another connection's work is to be broken off; nothing follows.
    Cancel,
    /// The beginning proper, with parameters.
    Startup(&'a [u8]),
}

/// What the body of an untyped packet is.
pub(super) fn opening(body: &[u8]) -> Option<Opening<'_>> {
    let (code, rest) = body.split_first_chunk()?;
    match (u32::from_be_bytes(*code), rest.len()) {
        (SSL_REQUEST | GSS_REQUEST, 0) => Some(Opening::Encryption),
        // Process and key, which is longer since 3.2.
        (CANCEL_REQUEST, 8..=260) => Some(Opening::Cancel),
        (version, _) if (VERSION_3..=VERSION_3 + LAST_MINOR).contains(&version) => {
            Some(Opening::Startup(rest))
        }
        _ => None,
    }
}

/// Parameters of the beginning: name and value, in turn. A pair without an end is not given.
pub(super) fn parameters(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (name, behind) = text(rest).filter(|(name, _)| !name.is_empty())?;
        let (value, behind) = text(behind)?;
        rest = behind;
        Some((name, value))
    })
}

/// Whether these are parameters, to the last byte: a user is always among them.
pub(super) fn are_parameters(mut rest: &[u8]) -> bool {
    let mut user = false;
    while let Some((name, behind)) = text(rest) {
        if name.is_empty() {
            return user && behind.is_empty();
        }
        let Some((value, behind)) = text(behind) else { return false };
        let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
        if !name.iter().all(word) {
            return false;
        }
        user |= name == b"user" && !value.is_empty();
        rest = behind;
    }
    false
}

/// A text that ends with a zero byte, and what follows.
pub(super) fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn int16(bytes: &[u8]) -> Option<(i16, &[u8])> {
    bytes.split_first_chunk().map(|(int, rest)| (i16::from_be_bytes(*int), rest))
}

/// Whether a client sends messages of this type with a length like this.
pub(super) fn is_request(kind: u8, len: u32) -> bool {
    match kind {
        b'Q' | b'P' | b'B' | b'F' | b'd' => (4..=MAX_MESSAGE).contains(&len),
        b'E' | b'D' | b'C' | b'f' => (5..=MAX_SHORT).contains(&len),
        b'p' => (4..=65_535).contains(&len),
        b'S' | b'H' | b'X' | b'c' => len == 4,
        _ => false,
    }
}

/// Whether a server does.
pub(super) fn is_response(kind: u8, len: u32) -> bool {
    match kind {
        b'D' | b'd' | b'T' | b'V' | b't' => (6..=MAX_MESSAGE).contains(&len) || (kind == b'd' && len >= 4),
        b'E' | b'N' | b'S' | b'A' | b'C' | b'v' => (5..=MAX_SHORT).contains(&len),
        b'1' | b'2' | b'3' | b'I' | b'n' | b's' | b'c' => len == 4,
        b'Z' => len == 5,
        b'R' => (8..=65_535).contains(&len),
        b'K' => (12..=264).contains(&len),
        b'G' | b'H' | b'W' => (7..=MAX_SHORT).contains(&len),
        _ => false,
    }
}

/// Whether bytes end with the end of an answer; gives the status of the transaction.
pub(super) fn ready(bytes: &[u8]) -> Option<u8> {
    let (start, status) = bytes.split_at(bytes.len().checked_sub(1)?);
    match status {
        [status @ (b'I' | b'T' | b'E')] if start.ends_with(&READY) => Some(*status),
        _ => None,
    }
}

/// SQLSTATE among the fields of an error.
pub(super) fn sqlstate(mut fields: &[u8]) -> Option<[u8; 5]> {
    while let Some((&kind, rest)) = fields.split_first() {
        let (value, behind) = text(rest)?;
        if kind == b'C' {
            let state: [u8; 5] = value.try_into().ok()?;
            return state.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()).then_some(state);
        }
        fields = behind;
    }
    None
}

/// Messages one after the other: type and body.
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is no whole message.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Type and length of what stands there, if that much of it does.
    pub(super) fn header(&self) -> Option<(u8, u32)> {
        let (header, _) = self.rest.split_first_chunk::<HEADER>()?;
        let [kind, len @ ..] = *header;
        Some((kind, u32::from_be_bytes(len)))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, len) = self.header()?;
        let len = usize::try_from(len).ok()?.checked_add(1)?;
        let (message, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some((kind, message.get(HEADER..)?))
    }
}

/// Whether the body of a client's message is what its type says, to the last byte.
pub(super) fn is_exact(kind: u8, body: &[u8]) -> bool {
    let whole = |rest: Option<&[u8]>| rest.is_some_and(<[u8]>::is_empty);
    match kind {
        b'Q' => text(body).is_some_and(|(query, rest)| rest.is_empty() && is_statement(query)),
        b'P' => parse_is_exact(body).unwrap_or(false),
        b'B' => whole(bind(body)),
        b'E' => text(body).is_some_and(|(_, rest)| rest.len() == 4),
        b'D' | b'C' => body.split_first().is_some_and(|(kind, name)| {
            matches!(kind, b'S' | b'P') && whole(text(name).map(|(_, rest)| rest))
        }),
        b'S' | b'H' => body.is_empty(),
        _ => false,
    }
}

/// Name, statement, types of parameters.
fn parse_is_exact(body: &[u8]) -> Option<bool> {
    let (_, rest) = text(body)?;
    let (query, rest) = text(rest)?;
    let (types, rest) = int16(rest)?;
    Some(usize::try_from(types).ok()?.checked_mul(4)? == rest.len() && is_statement(query))
}

/// What follows a Bind: portal, statement, formats, parameters, formats.
fn bind(body: &[u8]) -> Option<&[u8]> {
    let (_, rest) = text(body)?;
    let (_, rest) = text(rest)?;
    let formats = |rest| {
        let (formats, rest) = int16(rest)?;
        rest.get(usize::try_from(formats).ok()?.checked_mul(2)?..)
    };
    let (parameters, mut rest) = int16(formats(rest)?)?;
    for _ in 0..usize::try_from(parameters).ok()? {
        let (len, behind) = rest.split_first_chunk()?;
        // A negative length is NULL.
        rest = behind.get(usize::try_from(i32::from_be_bytes(*len)).unwrap_or(0)..)?;
    }
    formats(rest)
}

/// Words that statements begin with.
const WORDS: &[&str] = &[
    "ABORT",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "IMPORT",
    "INSERT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "REASSIGN",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "TRUNCATE",
    "UNLISTEN",
    "UPDATE",
    "VACUUM",
    "VALUES",
    "WITH",
];

/// Whether a text looks like a statement: it begins with the word of one, or is nothing but a comment.
fn is_statement(query: &[u8]) -> bool {
    let query = query.trim_ascii_start();
    if query.starts_with(b"--") || query.starts_with(b"/*") {
        return true;
    }
    let query = query.trim_ascii_start();
    let start = query.iter().position(|b| !matches!(b, b'(' | b' ')).unwrap_or(query.len());
    let rest = query.get(start..).unwrap_or_default();
    let end = rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
    let word = rest.get(..end).unwrap_or_default();
    WORDS.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings() {
        assert_eq!(opening(b"\x04\xd2\x16\x2f"), Some(Opening::Encryption));
        assert_eq!(opening(b"\x04\xd2\x16\x30"), Some(Opening::Encryption));
        assert_eq!(opening(b"\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02"), Some(Opening::Cancel));
        assert_eq!(opening(b"\0\x03\0\x02user\0a\0\0"), Some(Opening::Startup(b"user\0a\0\0")));
        assert_eq!(opening(b"\0\x02\0\0user\0a\0\0"), None);
        assert_eq!(opening(b"\0\x03"), None);
        assert!(are_parameters(b"user\0a\0database\0b\0\0"));
        assert!(!are_parameters(b"user\0a\0\0more"));
        assert!(!are_parameters(b"database\0b\0\0"));
        assert!(!are_parameters(b"user\0a\0"));
        let all: Vec<_> = parameters(b"user\0a\0database\0b\0cut").collect();
        assert_eq!(all, [(&b"user"[..], &b"a"[..]), (b"database", b"b")]);
    }

    #[test]
    fn errors() {
        assert_eq!(sqlstate(b"SERROR\0VERROR\0C42P01\0Mno\0\0"), Some(*b"42P01"));
        assert_eq!(sqlstate(b"SERROR\0C42p01\0\0"), None);
        assert_eq!(sqlstate(b"SERROR\0C42"), None);
        assert_eq!(sqlstate(b"\0"), None);
    }

    #[test]
    fn bodies_are_judged_to_the_last_byte() {
        assert!(
            is_exact(b'Q', b"select 1\0") && is_exact(b'Q', b"-- ping\0") && is_exact(b'Q', b"(SELECT 1)\0")
        );
        assert!(
            !is_exact(b'Q', b"select 1") && !is_exact(b'Q', b"hello\0") && !is_exact(b'Q', b"select\0x\0")
        );
        assert!(
            is_exact(b'P', b"\0select $1\0\0\x01\0\0\0\x17") && !is_exact(b'P', b"\0select $1\0\0\x01\0\0")
        );
        let bind = b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0";
        assert!(is_exact(b'B', bind) && !is_exact(b'B', &bind[..bind.len() - 1]));
        assert!(is_exact(b'E', b"\0\0\0\0\0") && !is_exact(b'E', b"\0\0\0\0"));
        assert!(is_exact(b'D', b"S\0") && is_exact(b'C', b"Pp\0") && !is_exact(b'D', b"X\0"));
    }

    #[test]
    fn the_end_of_an_answer() {
        assert_eq!(ready(b"xZ\0\0\0\x05I"), Some(b'I'));
        assert_eq!(ready(b"Z\0\0\0\x05E"), Some(b'E'));
        assert_eq!(ready(b"Z\0\0\0\x05X"), None);
        assert_eq!(ready(b"\0\0\0\x05I"), None);
        assert_eq!(ready(b""), None);
    }
}
