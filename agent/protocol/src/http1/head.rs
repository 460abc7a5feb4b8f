//! Heads: bytes from the start line on in, the message's head and its framing out, in one pass over the lines.

use std::borrow::Cow;

use memchr::memchr;

use super::detect::{MAX_METHOD, is_token};
use super::fields::{ContextFields, Lengths, RequestFields, ResponseFields};
use super::memo::Memo;
use super::text::{self, Target, trim};
use crate::message::{Request, Response, Version};
use crate::rpc::Content;

/// What came of reading a head.
pub(super) enum Read<T> {
    /// The head, and its length.
    Whole(T, usize),
    /// The empty line is missing.
    Partial,
    /// There is no head here; the length of the offending line.
    Malformed(usize),
}

/// A request's head.
pub(super) struct RequestHead {
    pub(super) request: Request,
    pub(super) lengths: Lengths,
    /// An `Upgrade` field was there.
    pub(super) upgrade: bool,
    /// It asked for HTTP/2 and nothing else.
    pub(super) h2c: bool,
    /// What its content type says of calls.
    pub(super) content: Option<Content>,
}

/// A response's head.
pub(super) struct ResponseHead {
    pub(super) response: Response,
    pub(super) fields: ResponseFields,
}

/// Finds the end of a head from `from`, the beginning of a line. `Err`: the beginning of the unfinished line.
pub(super) fn find_end(bytes: &[u8], mut from: usize) -> Result<usize, usize> {
    while let Some(rest) = bytes.get(from..) {
        let Some(line_feed) = memchr(b'\n', rest) else { break };
        let blank = from > 0 && matches!(rest.get(..line_feed), Some(b"" | b"\r"));
        from += line_feed + 1;
        if blank {
            return Ok(from);
        }
    }
    Err(from)
}

/// Lines of a head with folded ones joined.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    /// No more bytes will come: an unfinished line is left out.
    cut: bool,
}

enum Line<'a> {
    Field(Cow<'a, [u8]>),
    Blank,
    Missing,
}

impl<'a> Lines<'a> {
    /// The next line without its end, not unfolded.
    fn plain(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let end = memchr(b'\n', rest)?;
        self.at += end + 1;
        let line = rest.get(..end)?;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn next(&mut self) -> Line<'a> {
        let Some(line) = self.plain() else { return Line::Missing };
        if line.is_empty() {
            return Line::Blank;
        }
        match self.bytes.get(self.at) {
            Some(b' ' | b'\t') => self.unfold(line),
            // Whether the line goes on is not known: it counts only if it surely ended here.
            None if self.cut => Line::Missing,
            _ => Line::Field(Cow::Borrowed(line)),
        }
    }

    /// Gives each field line, up to the end of the head. False if that is missing and may still come.
    fn each(&mut self, mut take: impl FnMut(&[u8])) -> bool {
        loop {
            match self.next() {
                Line::Field(line) => take(&line),
                Line::Blank => return true,
                Line::Missing => return self.cut,
            }
        }
    }

    /// What the fields say, if they are those of the head before; then they are passed over.
    fn again<T: Clone + Default>(&mut self, memo: &mut Memo<T>) -> Option<T> {
        let (said, len) = memo.again(self.bytes.get(self.at..)?)?;
        self.at += len;
        Some(said)
    }

    /// What was read from this position on.
    fn since(&self, from: usize) -> &'a [u8] {
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    /// Joins the line with those that continue it.
    #[cold]
    fn unfold(&mut self, line: &'a [u8]) -> Line<'a> {
        let mut joined = line.to_vec();
        while let Some(b' ' | b'\t') = self.bytes.get(self.at) {
            let Some(more) = self.plain() else { return Line::Missing };
            joined.push(b' ');
            joined.extend_from_slice(trim(more));
        }
        Line::Field(Cow::Owned(joined))
    }
}

/// Bytes of `HTTP/1.x`.
const VERSION: usize = 8;

/// `HTTP/1.x`: the x, as far as it matters.
fn minor(version: &[u8]) -> Option<u8> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', digit @ b'0'..=b'9'] => Some((digit - b'0').min(1)),
        _ => None,
    }
}

/// Method, target and minor version of a request line.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], u8)> {
    let (method, rest) = split_method(line)?;
    // The version has no space in it, so the last one stands right before it.
    let (target, version) = rest.split_at_checked(rest.len().checked_sub(VERSION + 1)?)?;
    let (b' ', version) = version.split_first().map(|(space, version)| (*space, version))? else {
        return None;
    };
    let minor = minor(version)?;
    if target.is_empty() { None } else { Some((method, target, minor)) }
}

fn split_method(line: &[u8]) -> Option<(&[u8], &[u8])> {
    // Most requests have one of these.
    for known in [&b"GET"[..], b"POST"] {
        if let Some(rest) = line.strip_prefix(known).and_then(|rest| rest.strip_prefix(b" ")) {
            return Some((known, rest));
        }
    }
    let space = line.iter().take(MAX_METHOD + 1).position(|&b| !is_token(b)).filter(|&n| n > 0)?;
    let (method, rest) = line.split_at_checked(space)?;
    Some((method, rest.strip_prefix(b" ")?))
}

/// Minor version and status of a status line.
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let minor = minor(line.get(..VERSION)?)?;
    let code = match line.get(8..12)? {
        [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return None,
    };
    if line.get(12).is_none_or(|&b| b == b' ') { Some((minor, code)) } else { None }
}

/// Whether the start line, which ends at the first line feed, can be one. For heads that arrive in pieces.
pub(super) fn start_line_is_good(line: &[u8], request: bool) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if request { request_line(line).is_some() } else { status_line(line).is_some() }
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

/// Reads a request's head. `cut`: no more of it will come.
pub(super) fn request(bytes: &[u8], cut: bool, memo: &mut Memo<RequestFields>) -> Read<RequestHead> {
    let mut lines = Lines { bytes, at: 0, cut };
    let (method, target, version) = match lines.plain() {
        Some(line) => {
            let Some((method, target, minor)) = request_line(line) else { return Read::Malformed(lines.at) };
            (method, target, version(minor))
        }
        None if cut => {
            // The line itself was cut: what there is of the target is better than nothing.
            let Some((method, target)) = split_method(bytes) else { return Read::Malformed(bytes.len()) };
            let end = memchr(b' ', target).unwrap_or(target.len());
            (method, target.get(..end).unwrap_or_default(), Version::Http11)
        }
        None => return Read::Partial,
    };
    let mut context = ContextFields::default();
    let fields = match lines.again(memo) {
        Some(fields) => fields,
        None => {
            let mut fields = RequestFields::default();
            let from = lines.at;
            if !lines.each(|line| fields.line(line, &mut context)) {
                return Read::Partial;
            }
            if !cut && context.are_absent() {
                memo.keep(lines.since(from), &fields);
            }
            fields
        }
    };
    let rpc = fields.rpc();
    let RequestFields { host, user_agent, lengths, upgrade, h2c, content, .. } = fields;
    let parts = Target::parse(method, target);
    let request = Request {
        method: text::method(method),
        path: parts.path,
        query: parts.query,
        authority: parts.authority.or(host.filter(|host| !host.is_empty())),
        scheme: parts.scheme,
        version,
        user_agent,
        context: context.parent(),
        rpc,
        content_length: lengths.declared(),
        truncated: cut,
    };
    Read::Whole(RequestHead { request, lengths, upgrade, h2c, content }, lines.at)
}

/// Reads a response's head. `cut`: no more of it will come.
pub(super) fn response(bytes: &[u8], cut: bool, memo: &mut Memo<ResponseFields>) -> Read<ResponseHead> {
    let mut lines = Lines { bytes, at: 0, cut };
    let line = match lines.plain() {
        Some(line) => line,
        // The status may be there although its line is not whole.
        None if cut => bytes.get(..12).unwrap_or(bytes),
        None => return Read::Partial,
    };
    let Some((minor, status)) = status_line(line) else { return Read::Malformed(lines.at) };
    let fields = match lines.again(memo) {
        Some(fields) => fields,
        None => {
            let mut fields = ResponseFields::default();
            let from = lines.at;
            if !lines.each(|line| fields.line(line)) {
                return Read::Partial;
            }
            if !cut {
                memo.keep(lines.since(from), &fields);
            }
            fields
        }
    };
    let content_length = fields.lengths.declared();
    let response = Response { status, version: version(minor), content_length, truncated: cut };
    Read::Whole(ResponseHead { response, fields }, lines.at)
}
