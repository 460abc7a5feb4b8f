//! Heads: bytes from the start line on in, the message's head and its framing out, in one pass over the lines.

use std::borrow::Cow;

use memchr::{memchr, memrchr};

use super::detect::{MAX_METHOD, is_token};
use super::text::{MAX_AUTHORITY, MAX_USER_AGENT, Target, text, trim};
use crate::context::{self, TraceContext};
use crate::message::{Request, Response, Rpc, RpcSystem, Version};
use crate::rpc::{self, Content};

/// What came of reading a head.
pub(super) enum Read<T> {
    /// The head, and its length.
    Whole(T, usize),
    /// The empty line is missing.
    Partial,
    /// There is no head here; the length of the offending line.
    Malformed(usize),
}

/// What a head says of the body's length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Lengths {
    /// `Content-Length`.
    pub(super) content: Option<u64>,
    /// The last transfer coding is chunked.
    pub(super) chunked: bool,
    /// There is another transfer coding at the end.
    pub(super) coded: bool,
    /// `Content-Length` is no number, or differs from another.
    pub(super) bad: bool,
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
    pub(super) lengths: Lengths,
    /// What its content type says of calls.
    pub(super) content: Option<Content>,
    /// `grpc-status`: the head is trailers too.
    pub(super) status: Option<u32>,
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

/// The value of a line if it is the field `name` (lower case).
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (key, rest) = line.split_at_checked(name.len())?;
    match rest.split_first() {
        Some((b':', value)) if key.eq_ignore_ascii_case(name) => Some(trim(value)),
        _ => None,
    }
}

impl Lengths {
    /// Takes a line that may be about the body's length.
    fn line(&mut self, line: &[u8]) {
        if let Some(value) = field(line, b"content-length") {
            for part in value.split(|&b| b == b',') {
                match number(trim(part)) {
                    Some(n) if self.content.is_none_or(|other| other == n) => self.content = Some(n),
                    _ => self.bad = true,
                }
            }
        } else if let Some(value) = field(line, b"transfer-encoding") {
            for coding in value.split(|&b| b == b',').map(trim).filter(|coding| !coding.is_empty()) {
                self.chunked = coding.eq_ignore_ascii_case(b"chunked");
                self.coded = !self.chunked && !coding.eq_ignore_ascii_case(b"identity");
            }
        }
    }

    /// The declared length, if the fields agree on one.
    fn declared(&self) -> Option<u64> {
        self.content.filter(|_| !self.bad && !self.chunked && !self.coded)
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

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
    let space = memrchr(b' ', rest)?;
    let (target, version) = rest.split_at_checked(space)?;
    let minor = minor(version.get(1..)?)?;
    if target.is_empty() { None } else { Some((method, target, minor)) }
}

fn split_method(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr(b' ', line).filter(|&n| n > 0 && n <= MAX_METHOD)?;
    let (method, rest) = line.split_at_checked(space)?;
    if method.iter().all(|&b| is_token(b)) { Some((method, rest.get(1..)?)) } else { None }
}

/// Minor version and status of a status line.
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let minor = minor(line.get(..8)?)?;
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
pub(super) fn request(bytes: &[u8], cut: bool) -> Read<RequestHead> {
    let mut lines = Lines { bytes, at: 0, cut };
    let mut head = RequestHead {
        request: Request::default(),
        lengths: Lengths::default(),
        upgrade: false,
        h2c: false,
        content: None,
    };
    let (method, target) = match lines.plain() {
        Some(line) => {
            let Some((method, target, minor)) = request_line(line) else { return Read::Malformed(lines.at) };
            head.request.version = version(minor);
            (method, target)
        }
        None if cut => {
            // The line itself was cut: what there is of the target is better than nothing.
            let Some((method, target)) = split_method(bytes) else { return Read::Malformed(bytes.len()) };
            let end = memchr(b' ', target).unwrap_or(target.len());
            head.request.version = Version::Http11;
            (method, target.get(..end).unwrap_or_default())
        }
        None => return Read::Partial,
    };
    let mut fields = Fields::default();
    loop {
        match lines.next() {
            Line::Field(Cow::Borrowed(line)) => head.line(line, &mut fields),
            Line::Field(Cow::Owned(line)) => head.line(&line, &mut fields),
            Line::Blank => break,
            Line::Missing if cut => break,
            Line::Missing => return Read::Partial,
        }
    }
    let request = &mut head.request;
    request.truncated = cut;
    request.method = text(method, MAX_METHOD);
    request.content_length = head.lengths.declared();
    request.rpc = fields.rpc(head.content);
    let target = Target::parse(method, target);
    request.path = target.path;
    request.query = target.query;
    request.scheme = target.scheme;
    request.authority = target.authority.or(fields.host.filter(|host| !host.is_empty()));
    request.user_agent = fields.user_agent;
    if let Parent::One(Some(mut parent)) = fields.parent {
        parent.state = fields.state.as_deref().and_then(context::state);
        request.context = Some(Box::new(parent));
    }
    Read::Whole(head, lines.at)
}

/// Fields of a request that are put together at the end.
#[derive(Default)]
struct Fields {
    host: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    parent: Parent,
    state: Option<Vec<u8>>,
    /// A `connect-protocol-version` field was there.
    connect: bool,
    timeout_ns: Option<u64>,
}

impl Fields {
    /// The call that the request is. What only says that it is gRPC is none: that needs HTTP/2.
    fn rpc(&self, content: Option<Content>) -> Option<Rpc> {
        let system = match content.map(|content| content.system) {
            Some(RpcSystem::GrpcWeb) => RpcSystem::GrpcWeb,
            Some(RpcSystem::Connect) => RpcSystem::Connect,
            None if self.connect => RpcSystem::Connect,
            None | Some(RpcSystem::Grpc) => return None,
        };
        Some(Rpc { system, timeout_ns: self.timeout_ns })
    }
}

/// `traceparent` fields.
#[derive(Default)]
enum Parent {
    #[default]
    None,
    One(Option<TraceContext>),
    /// Which one holds is not known.
    Many,
}

impl RequestHead {
    /// Takes one field line. The first letter sorts out most of those that do not matter.
    fn line(&mut self, line: &[u8], fields: &mut Fields) {
        match line.first().map(|b| b | 0x20) {
            Some(b'h') => {
                if let Some(value) = field(line, b"host").filter(|_| fields.host.is_none()) {
                    fields.host = Some(text(value, MAX_AUTHORITY));
                }
            }
            Some(b'c') => {
                if let Some(value) = field(line, b"content-type") {
                    self.content = rpc::content(value);
                } else if field(line, b"connect-protocol-version").is_some() {
                    fields.connect = true;
                } else if let Some(value) = field(line, b"connect-timeout-ms") {
                    fields.timeout_ns = rpc::connect_timeout(value);
                } else {
                    self.lengths.line(line);
                }
            }
            Some(b'g') => {
                if let Some(value) = field(line, b"grpc-timeout") {
                    fields.timeout_ns = rpc::grpc_timeout(value);
                }
            }
            Some(b'u') => {
                if let Some(value) = field(line, b"user-agent") {
                    fields.user_agent.get_or_insert_with(|| text(value, MAX_USER_AGENT));
                } else if let Some(value) = field(line, b"upgrade") {
                    self.h2c = !self.upgrade && value.eq_ignore_ascii_case(b"h2c");
                    self.upgrade = true;
                }
            }
            Some(b't') => {
                if let Some(value) = field(line, b"traceparent") {
                    fields.parent = match fields.parent {
                        Parent::None => Parent::One(TraceContext::parse(value, None)),
                        _ => Parent::Many,
                    };
                } else if let Some(value) = field(line, b"tracestate") {
                    match &mut fields.state {
                        None => fields.state = Some(value.to_vec()),
                        Some(state) => {
                            state.push(b',');
                            state.extend_from_slice(value);
                        }
                    }
                } else {
                    self.lengths.line(line);
                }
            }
            _ => {}
        }
    }
}

/// Reads a response's head. `cut`: no more of it will come.
pub(super) fn response(bytes: &[u8], cut: bool) -> Read<ResponseHead> {
    let mut lines = Lines { bytes, at: 0, cut };
    let line = match lines.plain() {
        Some(line) => line,
        // The status may be there although its line is not whole.
        None if cut => bytes.get(..12).unwrap_or(bytes),
        None => return Read::Partial,
    };
    let Some((minor, status)) = status_line(line) else { return Read::Malformed(lines.at) };
    let mut lengths = Lengths::default();
    let (mut content, mut grpc_status) = (None, None);
    loop {
        match lines.next() {
            Line::Field(line) if matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) => {
                match field(&line, b"content-type") {
                    Some(value) => content = rpc::content(value),
                    None => lengths.line(&line),
                }
            }
            Line::Field(line) if matches!(line.first(), Some(b'g' | b'G')) => {
                grpc_status = field(&line, b"grpc-status").and_then(rpc::grpc_status).or(grpc_status);
            }
            Line::Field(_) => {}
            Line::Blank => break,
            Line::Missing if cut => break,
            Line::Missing => return Read::Partial,
        }
    }
    let response =
        Response { status, version: version(minor), content_length: lengths.declared(), truncated: cut };
    Read::Whole(ResponseHead { response, lengths, content, status: grpc_status }, lines.at)
}
