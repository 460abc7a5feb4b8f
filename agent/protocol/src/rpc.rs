//! Remote procedure calls over HTTP: what their header fields and length prefixes say. For any version of HTTP.

use crate::message::{RpcPart, RpcSystem};

/// Length of the prefix of a message: flags, and the length in four bytes.
const PREFIX: usize = 5;
/// Flag of gRPC-Web: these are trailers, no message.
const WEB_TRAILERS: u8 = 0x80;
/// Flag of Connect: this ends the stream, and is no message.
const CONNECT_END: u8 = 0x02;
/// Trailers of gRPC-Web that are looked at.
const MAX_TRAILERS: usize = 256;

/// What a content type says of calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    /// The system.
    pub system: RpcSystem,
    /// Messages have a length before them, as bytes.
    pub prefixed: bool,
}

/// What a `Content-Type` field says.
pub fn content(value: &[u8]) -> Option<Content> {
    let rest = strip(value, b"application/")?;
    let ends = |rest: &[u8]| matches!(rest.first(), None | Some(b'+' | b';' | b' '));
    if strip(rest, b"grpc-web-text").is_some_and(ends) {
        // Base64 of the whole.
        Some(Content { system: RpcSystem::GrpcWeb, prefixed: false })
    } else if strip(rest, b"grpc-web").is_some_and(ends) {
        Some(Content { system: RpcSystem::GrpcWeb, prefixed: true })
    } else if strip(rest, b"grpc").is_some_and(ends) {
        Some(Content { system: RpcSystem::Grpc, prefixed: true })
    } else if strip(rest, b"connect+").is_some() {
        Some(Content { system: RpcSystem::Connect, prefixed: true })
    } else {
        None
    }
}

fn strip<'a>(value: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = value.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// A `grpc-timeout` field, in nanoseconds.
pub fn grpc_timeout(value: &[u8]) -> Option<u64> {
    let (&unit, digits) = value.split_last()?;
    let each = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    if digits.len() > 8 { None } else { number(digits)?.checked_mul(each) }
}

/// A `connect-timeout-ms` field, in nanoseconds.
pub fn connect_timeout(value: &[u8]) -> Option<u64> {
    if value.len() > 10 { None } else { number(value)?.checked_mul(1_000_000) }
}

/// A `grpc-status` field.
pub fn grpc_status(value: &[u8]) -> Option<u32> {
    number(value)?.try_into().ok()
}

/// Digits, and nothing else.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Counts messages by the lengths before them. A message counts as soon as its length is there, so bodies may be left
/// out; where a length was left out, the rest is not counted, and it is said.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    prefix: [u8; PREFIX],
    have: u8,
    /// Bytes of the current message to come.
    left: u32,
    messages: u32,
    bytes: u64,
    lost: bool,
    /// Trailers of gRPC-Web.
    trailers: Option<Vec<u8>>,
}

impl Messages {
    /// Takes bytes of the body.
    pub fn bytes(&mut self, mut bytes: &[u8]) {
        while !self.lost && !bytes.is_empty() {
            if self.left > 0 {
                let here = bytes.len().min(self.left as usize);
                let (part, rest) = bytes.split_at(here);
                if let Some(trailers) = &mut self.trailers {
                    let room = MAX_TRAILERS.saturating_sub(trailers.len());
                    trailers.extend_from_slice(part.get(..room).unwrap_or(part));
                }
                self.left -= here as u32;
                bytes = rest;
                continue;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(place) = self.prefix.get_mut(usize::from(self.have)) {
                *place = byte;
            }
            self.have += 1;
            if usize::from(self.have) == PREFIX {
                self.begin();
            }
        }
    }

    /// Takes bytes of the body that were not captured.
    pub fn hole(&mut self, len: u64) {
        match u32::try_from(len) {
            Ok(len) if len <= self.left => {
                self.left -= len;
                // A part of them is of no use.
                self.trailers = self.trailers.take().filter(|_| len == 0);
            }
            _ => self.lost = true,
        }
    }

    fn begin(&mut self) {
        self.have = 0;
        let [flags, length @ ..] = self.prefix;
        self.left = u32::from_be_bytes(length);
        match flags {
            0 | 1 => {
                self.messages = self.messages.saturating_add(1);
                self.bytes = self.bytes.saturating_add(u64::from(self.left));
            }
            CONNECT_END | 3 => {}
            WEB_TRAILERS => self.trailers = Some(Vec::new()),
            // No message begins like this.
            _ => self.lost = true,
        }
    }

    /// What was seen.
    pub fn part(&self) -> RpcPart {
        RpcPart {
            messages: self.messages,
            bytes: self.bytes,
            status: self.trailers.as_deref().and_then(status_line),
            truncated: self.lost,
        }
    }

    /// Memory held beside the struct itself.
    pub fn state_bytes(&self) -> usize {
        self.trailers.as_ref().map_or(0, Vec::capacity)
    }

    /// Bound of [`Messages::state_bytes`].
    pub const MAX_STATE: usize = 2 * MAX_TRAILERS;
}

/// The status in trailers as gRPC-Web sends them: lines in the body.
fn status_line(trailers: &[u8]) -> Option<u32> {
    trailers.split(|&b| b == b'\n').find_map(|line| {
        let value = strip(line.trim_ascii(), b"grpc-status:")?;
        grpc_status(value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        let name = |value: &str| content(value.as_bytes()).map(|c| (c.system, c.prefixed));
        assert_eq!(name("application/grpc"), Some((RpcSystem::Grpc, true)));
        assert_eq!(name("application/grpc+proto"), Some((RpcSystem::Grpc, true)));
        assert_eq!(name("Application/gRPC;charset=x"), Some((RpcSystem::Grpc, true)));
        assert_eq!(name("application/grpc-web"), Some((RpcSystem::GrpcWeb, true)));
        assert_eq!(name("application/grpc-web+proto"), Some((RpcSystem::GrpcWeb, true)));
        assert_eq!(name("application/grpc-web-text"), Some((RpcSystem::GrpcWeb, false)));
        assert_eq!(name("application/grpc-web-text+proto"), Some((RpcSystem::GrpcWeb, false)));
        assert_eq!(name("application/connect+json"), Some((RpcSystem::Connect, true)));
        for other in [
            "application/grpcx",
            "application/grpc-webx",
            "application/json",
            "text/grpc",
            "",
            "application/",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn timeouts() {
        assert_eq!(grpc_timeout(b"1H"), Some(3_600_000_000_000));
        assert_eq!(grpc_timeout(b"2M"), Some(120_000_000_000));
        assert_eq!(grpc_timeout(b"99999999n"), Some(99_999_999));
        assert_eq!(grpc_timeout(b"5m"), Some(5_000_000));
        assert_eq!(grpc_timeout(b"7u"), Some(7_000));
        assert_eq!(grpc_timeout(b"3S"), Some(3_000_000_000));
        for bad in ["", "S", "1", "1s", "-1S", "100000000S", "1.5S"] {
            assert_eq!(grpc_timeout(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(grpc_timeout(b"99999999H"), None);
        assert_eq!(connect_timeout(b"1500"), Some(1_500_000_000));
        assert_eq!(connect_timeout(b"10000000000"), None);
    }

    fn message(flags: u8, text: &[u8]) -> Vec<u8> {
        [&[flags][..], &(text.len() as u32).to_be_bytes(), text].concat()
    }

    #[test]
    fn messages_are_counted_however_they_are_split() {
        let all = [message(0, b"abc"), message(1, b""), message(0, &[7; 300])].concat();
        for step in 1..all.len() {
            let mut messages = Messages::default();
            all.chunks(step).for_each(|chunk| messages.bytes(chunk));
            assert_eq!(messages.part(), RpcPart { messages: 3, bytes: 303, status: None, truncated: false });
        }
    }

    #[test]
    fn holes_count_up_to_a_length() {
        let mut messages = Messages::default();
        messages.bytes(&message(0, &[7; 100])[..50]);
        messages.hole(55);
        messages.bytes(&message(0, b"ab"));
        assert_eq!(messages.part(), RpcPart { messages: 2, bytes: 102, status: None, truncated: false });
        messages.hole(1);
        messages.bytes(&message(0, b"ab"));
        assert_eq!(messages.part(), RpcPart { messages: 2, bytes: 102, status: None, truncated: true });
    }

    #[test]
    fn trailers_of_grpc_web_are_read() {
        let all = [message(0, b"abc"), message(0x80, b"grpc-status: 5\r\ngrpc-message: no\r\n")].concat();
        let mut messages = Messages::default();
        all.chunks(3).for_each(|chunk| messages.bytes(chunk));
        assert_eq!(messages.part(), RpcPart { messages: 1, bytes: 3, status: Some(5), truncated: false });
    }
}
