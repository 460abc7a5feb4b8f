//! TLS libraries that a program file has inside. Comes in: the file's bytes. Goes out: which library, if any. It is for sentences
//! only: nothing is probed because of it.

use memchr::memmem::find;

/// A label that every library writes down that speaks TLS 1.3 and can log its keys. A program that only uses one does not have it.
const SIGN: &[u8] = b"CLIENT_HANDSHAKE_TRAFFIC_SECRET";
/// What tells one from another, most telling first: descendants of OpenSSL keep many of its texts.
const NAMES: [(&[u8], &str); 7] = [
    (b"rustls", "rustls"),
    (b"aws-lc", "aws-lc"),
    (b"BoringSSL", "BoringSSL"),
    (b"boringssl", "BoringSSL"),
    (b"LibreSSL", "LibreSSL"),
    (b"wolfSSL", "wolfSSL"),
    (b"OpenSSL", "OpenSSL"),
];

/// The library inside.
pub(super) fn library(bytes: &[u8]) -> Option<&'static str> {
    find(bytes, SIGN)?;
    let named = NAMES.iter().find(|(text, _)| find(bytes, text).is_some());
    Some(named.map_or("a TLS library", |(_, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_their_texts() {
        let with = |texts: &[&str]| library(texts.join("\0").as_bytes());
        let sign = std::str::from_utf8(SIGN).unwrap();
        assert_eq!(with(&["OpenSSL 3.0.19", "rustls-0.23.1"]), None, "what is linked against is not inside");
        assert_eq!(with(&[sign, "OpenSSL 3.0.19"]), Some("OpenSSL"));
        assert_eq!(with(&[sign, "OpenSSL", "BoringSSL"]), Some("BoringSSL"));
        assert_eq!(with(&[sign, "rustls-0.23.1", "aws-lc"]), Some("rustls"));
        assert_eq!(with(&[sign]), Some("a TLS library"));
        assert_eq!(library(b""), None);
    }
}
