//! What of a TLS connection is in clear: the headers of records, ClientHello and ServerHello.
//!
//! Comes in: the first captured bytes of each direction. Goes out: server name, protocols offered and chosen, version. Every
//! length is checked; what does not fit ends the reading, and what was learnt until then stays.

use spanwise_common::event::Direction;

/// Bytes kept of a direction until its hello is complete.
const MOST: usize = 8192;
/// Longest record: 2^14 bytes and what ciphers may add.
const LONGEST: usize = (1 << 14) + 2048;
/// Bytes of a record's header.
const HEADER: usize = 5;
/// Protocols of an offer that are kept.
const MOST_PROTOCOLS: usize = 8;

/// What is known of a TLS connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// Protocols that the client offered, best first.
    pub offered: Vec<Box<str>>,
    /// The protocol that the server chose, where it said so in clear (before TLS 1.3).
    pub chosen: Option<Box<str>>,
    /// The version that both speak, as in `0x0304`.
    pub version: Option<u16>,
}

impl Tls {
    /// The version as `tls.protocol.version` has it.
    #[must_use]
    pub fn version_name(&self) -> Option<&'static str> {
        match self.version? {
            0x0300 => Some("3"),
            0x0301 => Some("1"),
            0x0302 => Some("1.1"),
            0x0303 => Some("1.2"),
            0x0304 => Some("1.3"),
            _ => None,
        }
    }

    /// The application protocol, where it is certain: the server said so in clear, or the connection carries HTTP/2, which is
    /// chosen by agreement only, and the client offered it.
    #[must_use]
    pub fn next_protocol(&self, speaks_http2: bool) -> Option<&str> {
        let http2 = || self.offered.iter().find(|name| speaks_http2 && &***name == "h2");
        self.chosen.as_ref().or_else(http2).map(AsRef::as_ref)
    }
}

/// Whether the bytes of a transfer begin a TLS record. Of a few bytes it is not told.
#[must_use]
pub fn begins_record(bytes: &[u8]) -> bool {
    let Some((&[kind, major, minor, high, low], rest)) = bytes.split_first_chunk() else { return false };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if major != 3 || minor > 4 || len == 0 || len > LONGEST {
        return false;
    }
    match (kind, rest.first()) {
        // A change of ciphers is one byte; an alert two, or more once encrypted.
        (20, _) => len == 1,
        (21, _) => len == 2 || len >= 16,
        // Of a handshake only hellos are in clear.
        (22, Some(first)) => len >= 4 && (*first <= 2 || len >= 40),
        (22 | 23, _) => len >= 4,
        _ => false,
    }
}

/// One direction.
#[derive(Clone, Debug, Default)]
struct Half {
    bytes: Vec<u8>,
    over: bool,
}

/// Reads the hellos of a connection.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    halves: [Half; 2],
    /// What was learnt.
    pub tls: Tls,
}

impl Handshake {
    /// Whether nothing more is to be learnt.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.halves.iter().all(|half| half.over)
    }

    /// Bytes kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.halves.iter().map(|half| half.bytes.capacity()).sum()
    }

    /// The next bytes of a direction; `whole` if none are missing behind them.
    pub fn feed(&mut self, direction: Direction, bytes: &[u8], whole: bool) {
        let Self { halves, tls } = self;
        let Some(half) = halves.get_mut(usize::from(direction.0 & 1)) else { return };
        if half.over {
            return;
        }
        let room = MOST.saturating_sub(half.bytes.len());
        half.bytes.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
        let found = hello(&half.bytes);
        half.over = !matches!(found, Found::More) || !whole || bytes.len() > room;
        if let Found::Hello(message) = found {
            read_hello(&message, tls);
        }
        if half.over {
            half.bytes = Vec::new();
        }
    }

    /// A direction goes on where it was not seen from its start.
    pub fn give_up(&mut self) {
        for half in &mut self.halves {
            *half = Half { bytes: Vec::new(), over: true };
        }
    }
}

enum Found {
    /// The message, with its header.
    Hello(Vec<u8>),
    More,
    Nothing,
}

/// The first message of a handshake, which may be spread over several records.
fn hello(mut bytes: &[u8]) -> Found {
    let mut message = Vec::new();
    loop {
        let Some((&[kind, major, _, high, low], rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Found::More;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if kind != 22 || major != 3 || len == 0 || len > LONGEST {
            return Found::Nothing;
        }
        message.extend_from_slice(rest.get(..len.min(rest.len())).unwrap_or_default());
        if let Some(&[kind, a, b, c]) = message.first_chunk() {
            let wanted = 4 + usize::from(a) * 65_536 + usize::from(b) * 256 + usize::from(c);
            if !matches!(kind, 1 | 2) || wanted > MOST {
                return Found::Nothing;
            }
            if message.len() >= wanted {
                message.truncate(wanted);
                return Found::Hello(message);
            }
        }
        match rest.get(len..) {
            Some(next) => bytes = next,
            None => return Found::More,
        }
    }
}

/// Bytes that are taken from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<usize> {
        Some(self.take(N)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// What a length of `N` bytes goes before.
    fn part<const N: usize>(&mut self) -> Option<Self> {
        let len = self.number::<N>()?;
        self.take(len).map(Cursor)
    }
}

/// None where the message ends early: what stands before is known by then.
fn read_hello(message: &[u8], tls: &mut Tls) -> Option<()> {
    let mut cursor = Cursor(message);
    let client = cursor.number::<1>()? == 1;
    let mut body = cursor.part::<3>()?;
    let version = body.number::<2>()?;
    body.take(32)?;
    body.part::<1>()?; // session
    if client {
        body.part::<2>()?; // ciphers
        body.part::<1>()?; // compressions
    } else {
        tls.version = u16::try_from(version).ok();
        body.take(3)?;
    }
    let mut extensions = body.part::<2>()?;
    while !extensions.0.is_empty() {
        let kind = extensions.number::<2>()?;
        let mut content = extensions.part::<2>()?;
        match kind {
            0 if client => tls.server_name = server_name(content).or(tls.server_name.take()),
            16 => {
                let names = protocols(content);
                if client {
                    tls.offered = names;
                } else {
                    tls.chosen = names.into_iter().next();
                }
            }
            43 if !client => tls.version = u16::try_from(content.number::<2>()?).ok(),
            _ => {}
        }
    }
    Some(())
}

fn server_name(mut content: Cursor<'_>) -> Option<Box<str>> {
    let mut list = content.part::<2>()?;
    while !list.0.is_empty() {
        let kind = list.number::<1>()?;
        let name = list.part::<2>()?.0;
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if kind == 0 && !name.is_empty() && name.len() <= 255 && name.iter().all(fits) {
            return std::str::from_utf8(name).ok().map(Into::into);
        }
    }
    None
}

fn protocols(mut content: Cursor<'_>) -> Vec<Box<str>> {
    let mut names = Vec::new();
    let Some(mut list) = content.part::<2>() else { return names };
    while let Some(name) = list.part::<1>() {
        let text =
            std::str::from_utf8(name.0).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        if names.len() < MOST_PROTOCOLS {
            names.extend(text.filter(|text| !text.is_empty()).map(Box::from));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_len<const N: usize>(bytes: &[u8]) -> Vec<u8> {
        let len = bytes.len().to_be_bytes();
        [&len[len.len() - N..], bytes].concat()
    }

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 3, 1], with_len::<2>(body).as_slice()].concat()
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_len::<2>(body)].concat()
    }

    fn client_hello() -> Vec<u8> {
        let name = [&[0][..], &with_len::<2>(b"shop.example")].concat();
        let protocols = [with_len::<1>(b"h2"), with_len::<1>(b"http/1.1")].concat();
        let extensions = [
            extension(0, &with_len::<2>(&name)),
            extension(16, &with_len::<2>(&protocols)),
            extension(43, &[4, 3, 4, 3, 3]),
        ]
        .concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &with_len::<1>(&[9; 32]),
            &with_len::<2>(&[0x13, 1]),
            &with_len::<1>(&[0]),
            &with_len::<2>(&extensions),
        ]
        .concat();
        [&[1][..], &with_len::<3>(&body)].concat()
    }

    fn server_hello(extensions: &[u8]) -> Vec<u8> {
        let body =
            [&[3, 3][..], &[8; 32], &with_len::<1>(&[9; 32]), &[0x13, 1, 0], &with_len::<2>(extensions)]
                .concat();
        [&[2][..], &with_len::<3>(&body)].concat()
    }

    fn expected() -> Tls {
        Tls {
            server_name: Some("shop.example".into()),
            offered: vec!["h2".into(), "http/1.1".into()],
            chosen: None,
            version: Some(0x0304),
        }
    }

    #[test]
    fn both_hellos_however_they_are_cut() {
        let there = record(22, &client_hello());
        let back = record(22, &server_hello(&extension(43, &[3, 4])));
        for cut in 0..there.len() {
            let mut handshake = Handshake::default();
            handshake.feed(Direction::SEND, &there[..cut], true);
            handshake.feed(Direction::SEND, &there[cut..], true);
            assert!(!handshake.is_over());
            for byte in &back {
                handshake.feed(Direction::RECV, &[*byte], true);
            }
            assert_eq!(handshake.tls, expected(), "cut at {cut}");
            assert!(handshake.is_over());
            assert_eq!(handshake.kept(), 0);
        }
        // One message in records of ten bytes.
        let mut handshake = Handshake::default();
        let many: Vec<u8> = client_hello().chunks(10).flat_map(|part| record(22, part)).collect();
        handshake.feed(Direction::RECV, &many, true);
        assert_eq!(handshake.tls.server_name.as_deref(), Some("shop.example"));
    }

    #[test]
    fn before_tls_1_3_the_choice_is_in_clear() {
        let mut handshake = Handshake::default();
        let chosen = extension(16, &with_len::<2>(&with_len::<1>(b"http/1.1")));
        handshake.feed(Direction::RECV, &record(22, &server_hello(&chosen)), true);
        assert_eq!(handshake.tls.version_name(), Some("1.2"));
        assert_eq!(handshake.tls.next_protocol(false), Some("http/1.1"));
        assert_eq!(expected().next_protocol(false), None, "HTTP/1 may be spoken without an agreement");
        assert_eq!(expected().next_protocol(true), Some("h2"));
    }

    #[test]
    fn hostile_bytes_end_the_reading() {
        let there = record(22, &client_hello());
        // Every length wrong, one after the other.
        for at in 0..there.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = there.clone();
                bytes[at] = value;
                let mut handshake = Handshake::default();
                handshake.feed(Direction::SEND, &bytes, true);
                handshake.feed(Direction::SEND, &[0xff; 20_000], true);
                assert!(handshake.kept() <= 2 * MOST);
            }
        }
        let mut handshake = Handshake::default();
        handshake.feed(Direction::SEND, &there[..20], false);
        handshake.feed(Direction::SEND, &there[20..], true);
        assert_eq!(handshake.tls, Tls::default(), "bytes are missing in between");
        handshake.give_up();
        assert!(handshake.is_over());
    }

    #[test]
    fn records_are_told_from_other_protocols() {
        let application = [23, 3, 3, 0, 26, 1, 2, 3];
        for bytes in [&record(22, &client_hello())[..], &application, &[20, 3, 3, 0, 1, 1], &[23, 3, 3, 1, 0]]
        {
            assert!(begins_record(bytes), "{bytes:x?}");
        }
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"HTTP/1.1 200 OK\r\n",
            b"PRI * HTTP/2.0\r\n",
            &[0, 0, 0x12, 4, 0, 0, 0, 0, 0],
            &[23, 3, 3, 0],
            &[23, 3, 3, 0xff, 0xff],
            &[0x16, 2, 0, 0, 9],
            &[],
        ] {
            assert!(!begins_record(bytes), "{bytes:x?}");
        }
    }
}
