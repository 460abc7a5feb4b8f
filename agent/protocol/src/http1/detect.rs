//! The first bytes of a burst in, what they look like out.

use memchr::memchr;

use crate::parser::Detect;

/// Longest method that is taken for one.
pub(super) const MAX_METHOD: usize = 64;
/// Longest scheme of an absolute target that is taken for one.
const MAX_SCHEME: usize = 32;

/// A byte of a token (RFC 9110, 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
        | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// What these first bytes look like.
pub(super) fn detect(bytes: &[u8]) -> Detect {
    // A server must ignore empty lines before a request.
    let start = bytes.iter().position(|&b| b != b'\r' && b != b'\n').unwrap_or(bytes.len());
    if start > 4 {
        return Detect::No;
    }
    let rest = bytes.get(start..).unwrap_or_default();
    if rest.is_empty() {
        return Detect::More;
    }
    if start == 0 {
        match prefix(rest, b"HTTP/1.") {
            Match::Yes => return response(rest),
            // "HTTP" could still be a method, but nobody's is.
            Match::Open => return Detect::More,
            Match::No => {}
        }
    }
    request(rest)
}

/// The status line, which is known to begin with `HTTP/1.`.
fn response(bytes: &[u8]) -> Detect {
    let minor = bytes.get(7).is_none_or(u8::is_ascii_digit);
    let space = bytes.get(8).is_none_or(|&b| b == b' ');
    let status = bytes.iter().skip(9).take(3).all(u8::is_ascii_digit);
    if minor && space && status { Detect::Response } else { Detect::No }
}

/// The request line.
fn request(bytes: &[u8]) -> Detect {
    let method_len = bytes.iter().position(|&b| !is_token(b)).unwrap_or(bytes.len());
    if method_len > MAX_METHOD {
        return Detect::No;
    }
    let (method, rest) = bytes.split_at(method_len);
    let Some((&b' ', rest)) = rest.split_first() else {
        return if rest.is_empty() { Detect::More } else { Detect::No };
    };
    if method.is_empty() {
        return Detect::No;
    }
    let target_len = rest.iter().position(|&b| b <= b' ' || b == 0x7f).unwrap_or(rest.len());
    let (target, after) = rest.split_at(target_len);
    match plausible(method, target, after.is_empty()) {
        Match::No => Detect::No,
        Match::Open => Detect::More,
        Match::Yes if after.is_empty() => Detect::Request,
        Match::Yes => version(after),
    }
}

/// A space and the version, as far as they are there.
fn version(after: &[u8]) -> Detect {
    match prefix(after, b" HTTP/1.") {
        Match::No => Detect::No,
        // The target is one, and the line goes on as it should.
        Match::Open => Detect::More,
        Match::Yes => {
            let line = after.get(8..memchr(b'\n', after).unwrap_or(after.len())).unwrap_or_default();
            let minor = line.first().is_none_or(u8::is_ascii_digit);
            let end = line.get(1).is_none_or(|&b| b == b'\r') && line.len() <= 2;
            if minor && end { Detect::Request } else { Detect::No }
        }
    }
}

enum Match {
    Yes,
    No,
    /// As far as there are bytes.
    Open,
}

fn prefix(bytes: &[u8], wanted: &[u8]) -> Match {
    if bytes.starts_with(wanted) {
        Match::Yes
    } else if wanted.starts_with(bytes) {
        Match::Open
    } else {
        Match::No
    }
}

/// Whether this is a target of one of the four forms; `open`: it may go on.
fn plausible(method: &[u8], target: &[u8], open: bool) -> Match {
    let unfinished = if open { Match::Open } else { Match::No };
    match target {
        [] => unfinished,
        [b'/', ..] => Match::Yes,
        b"*" => {
            if open {
                Match::Open
            } else {
                Match::Yes
            }
        }
        _ if method == b"CONNECT" => {
            // host:port, [v6]:port
            let port = target.iter().rev().take_while(|b| b.is_ascii_digit()).count();
            let colon = target.len().checked_sub(port + 1).and_then(|at| target.get(at)) == Some(&b':');
            if colon && (1..=5).contains(&port) && target.len() > port + 1 {
                Match::Yes
            } else if target.len() <= 300 {
                unfinished
            } else {
                Match::No
            }
        }
        _ => {
            let scheme = target
                .iter()
                .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))
                .unwrap_or(target.len());
            if scheme == 0 || scheme > MAX_SCHEME || !target.first().is_some_and(u8::is_ascii_alphabetic) {
                return Match::No;
            }
            match prefix(target.get(scheme..).unwrap_or_default(), b"://") {
                Match::Open => unfinished,
                other => other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\n\n",
            "get /x?y=z HTTP/1.1\r\n",
            "M-SEARCH * HTTP/1.1\r\n",
            "X!#$%&'*+-.^_`|~9 /a HTTP/1.1",
            "OPTIONS * HTTP/1.1\r\n",
            "GET http://a.b:80/c HTTP/1.1\r\n",
            "GET ws+x://a",
            "CONNECT a.b:443 HTTP/1.1\r\n",
            "CONNECT [::1]:443 HTTP/1.1\r\n",
            "POST /very/long",
            "GET /",
            "\r\n\r\nGET / HTTP/1.1\r\n",
            "GET /\u{e9} HTTP/1.1\r\n",
        ] {
            assert_eq!(detect(head.as_bytes()), Detect::Request, "{head}");
        }
    }

    #[test]
    fn responses() {
        for head in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 404\n", "HTTP/1.", "HTTP/1.1 ", "HTTP/1.1 2"] {
            assert_eq!(detect(head.as_bytes()), Detect::Response, "{head}");
        }
    }

    #[test]
    fn prefixes_are_open() {
        for head in [
            "",
            "G",
            "GET",
            "GET ",
            "H",
            "HTTP",
            "HTTP/1",
            "GET / H",
            "GET / HTTP/1",
            "OPTIONS *",
            "GET ht",
            "GET http:",
            "GET http:/",
            "CONNECT a",
            "\r\n",
            "PRI * HTTP/",
        ] {
            assert_eq!(detect(head.as_bytes()), Detect::More, "{head}");
        }
    }

    #[test]
    fn every_prefix_of_a_head_is_possible() {
        for head in [
            "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\n\r\n",
        ] {
            for n in 0..head.len() {
                assert_ne!(detect(&head.as_bytes()[..n]), Detect::No, "{:?}", &head[..n]);
            }
        }
    }

    #[test]
    fn others_are_not_http1() {
        let others: &[&[u8]] = &[
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
            b"+OK\r\n",
            b"$-1\r\n",
            b":1\r\n",
            b"PING\r\n",
            b"GET /key\r\n",
            b"get /key\r\n",
            b"GET key\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"\x00\x00\x00\x29\x00\x03\x00\x00user\x00postgres\x00",
            b"Q\x00\x00\x00\x0dSELECT 1\x00",
            b"R\x00\x00\x00\x08\x00\x00\x00\x00",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"220 mail.example.com ESMTP\r\n",
            b"220-welcome\r\n",
            b"220 (vsFTPd 3.0.3)\r\n",
            b"EHLO example.com\r\n",
            b"MAIL FROM:<a@b.c>\r\n",
            b"CWD /tmp\r\n",
            b"USER anonymous\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"INVITE sip:bob@example.com SIP/2.0\r\n",
            b"DESCRIBE rtsp://a/b RTSP/1.0\r\n",
            b"HTTP/2 200\r\n",
            b"HTTP/1.x 200\r\n",
            b"HTTP/1.1 abc\r\n",
            b"GET / HTTP/1.12\r\n",
            b"GET / FTP/1.1\r\n",
            b"GET  / HTTP/1.1\r\n",
            b" GET / HTTP/1.1\r\n",
            b"{\"a\": 1}",
            b"<html>",
            b"\r\n\r\n\r\n\r\nGET / HTTP/1.1",
            b"CONNECT host HTTP/1.1\r\n",
        ];
        for bytes in others {
            assert_eq!(detect(bytes), Detect::No, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(detect(&[b'A'; 100]), Detect::No);
    }
}
