//! Bounded text from bytes, and the parts of a request target.

use std::borrow::Cow;
use std::rc::Rc;

use memchr::{memchr, memchr2, memmem, memrchr};

use super::detect::MAX_METHOD;

/// Longest path kept.
const MAX_PATH: usize = 2048;
/// Longest query kept.
const MAX_QUERY: usize = 2048;
/// Longest user agent kept.
pub(crate) const MAX_USER_AGENT: usize = 256;
/// Longest authority kept.
pub(crate) const MAX_AUTHORITY: usize = 255;
/// Longest scheme kept.
pub(crate) const MAX_SCHEME: usize = 32;

/// Without white space at both ends.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Text of at most `max` bytes, cut between characters; what is not UTF-8 is replaced.
pub(crate) fn text<T: for<'a> From<&'a str>>(bytes: &[u8], max: usize) -> T {
    let (kept, was_cut) = match bytes.get(..max) {
        Some(kept) => (kept, bytes.len() > max),
        None => (bytes, false),
    };
    match str::from_utf8(kept) {
        Ok(text) => text.into(),
        Err(error) => {
            // A character that only the cut made incomplete is left out.
            let kept = match error.error_len() {
                None if was_cut => kept.get(..error.valid_up_to()).unwrap_or_default(),
                _ => kept,
            };
            let text = String::from_utf8_lossy(kept);
            let mut end = max.min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.get(..end).unwrap_or_default().into()
        }
    }
}

/// A method. Those that are registered cost nothing.
pub(crate) fn method(bytes: &[u8]) -> Cow<'static, str> {
    Cow::Borrowed(match bytes {
        b"GET" => "GET",
        b"POST" => "POST",
        b"PUT" => "PUT",
        b"PATCH" => "PATCH",
        b"DELETE" => "DELETE",
        b"HEAD" => "HEAD",
        b"OPTIONS" => "OPTIONS",
        b"CONNECT" => "CONNECT",
        other => return Cow::Owned(text(other, MAX_METHOD)),
    })
}

/// The parts of a request target.
#[derive(Default)]
pub(crate) struct Target {
    pub(crate) path: Box<str>,
    pub(crate) query: Option<Box<str>>,
    pub(crate) authority: Option<Rc<str>>,
    pub(crate) scheme: Option<Box<str>>,
}

impl Target {
    /// Takes a target apart by its form (RFC 9112, 3.2).
    pub(crate) fn parse(method: &[u8], target: &[u8]) -> Self {
        if method == b"CONNECT" {
            return Self { authority: Some(host(target)), ..Self::default() };
        }
        if target.first() == Some(&b'/') {
            return Self::default().with_path(target);
        }
        let Some(colon) = memmem::find(target, b"://") else { return Self::default().with_path(target) };
        let (scheme, rest) = target.split_at(colon);
        let rest = rest.get(3..).unwrap_or_default();
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let mut parts = Self::default().with_path(path);
        if parts.path.is_empty() {
            parts.path = if method == b"OPTIONS" && parts.query.is_none() { "*".into() } else { "/".into() };
        }
        parts.authority = Some(host(authority));
        parts.scheme = Some(text(scheme, MAX_SCHEME));
        parts
    }

    fn with_path(mut self, target: &[u8]) -> Self {
        let end = memchr2(b'?', b'#', target).unwrap_or(target.len());
        let (path, rest) = target.split_at(end);
        self.path = text(path, MAX_PATH);
        if let Some((b'?', query)) = rest.split_first() {
            let end = memchr(b'#', query).unwrap_or(query.len());
            self.query = Some(text(query.get(..end).unwrap_or_default(), MAX_QUERY));
        }
        self
    }
}

/// An authority without user and password, which never leave the parser.
pub(crate) fn host(authority: &[u8]) -> Rc<str> {
    let start = memrchr(b'@', authority).map_or(0, |at| at + 1);
    text(authority.get(start..).unwrap_or_default(), MAX_AUTHORITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_between_characters() {
        let text = text::<String>;
        assert_eq!(&*text(b"abc", 3), "abc");
        assert_eq!(&*text(b"abcd", 3), "abc");
        assert_eq!(&*text("ab\u{e9}".as_bytes(), 3), "ab");
        assert_eq!(&*text("ab\u{e9}".as_bytes(), 4), "ab\u{e9}");
        assert_eq!(&*text(b"a\xffb", 10), "a\u{fffd}b");
        // Replacements are longer than what they replace, and still bounded.
        assert_eq!(&*text(b"\xff\xff\xff", 7), "\u{fffd}\u{fffd}");
        assert_eq!(&*text(b"ab\xc3", 10), "ab\u{fffd}");
    }

    #[test]
    fn targets_come_apart() {
        let parts = |method: &str, target: &str| {
            let t = Target::parse(method.as_bytes(), target.as_bytes());
            let [scheme, authority, query] =
                [t.scheme.as_deref(), t.authority.as_deref(), t.query.as_deref()].map(|o| o.unwrap_or("-"));
            format!("{scheme} {authority} {} {query}", t.path)
        };
        assert_eq!(parts("GET", "/a/b?c=d?e#f"), "- - /a/b c=d?e");
        assert_eq!(parts("GET", "/a?"), "- - /a ");
        assert_eq!(parts("GET", "/a#b?c"), "- - /a -");
        assert_eq!(parts("GET", "/r?u=http://x/y"), "- - /r u=http://x/y");
        assert_eq!(parts("OPTIONS", "*"), "- - * -");
        assert_eq!(parts("GET", "http://u:p@h:8080/a?b"), "http h:8080 /a b");
        assert_eq!(parts("GET", "https://h"), "https h / -");
        assert_eq!(parts("OPTIONS", "http://h"), "http h * -");
        assert_eq!(parts("GET", "http://h?q"), "http h / q");
        assert_eq!(parts("CONNECT", "h:443"), "- h:443  -");
    }
}
