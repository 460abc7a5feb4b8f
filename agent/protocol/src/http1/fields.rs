//! Fields of heads: lines in, what they say out.

use std::rc::Rc;
use std::sync::Arc;

use super::text::{MAX_AUTHORITY, MAX_USER_AGENT, text, trim};
use crate::context::{self, TraceContext};
use crate::message::{Rpc, RpcSystem};
use crate::rpc::{self, Content};

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
                match rpc::number(trim(part)) {
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
    pub(super) fn declared(&self) -> Option<u64> {
        self.content.filter(|_| !self.bad && !self.chunked && !self.coded)
    }
}

/// What the fields of a request say that may well be the same in the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestFields {
    pub(super) host: Option<Rc<str>>,
    pub(super) user_agent: Option<Arc<str>>,
    pub(super) lengths: Lengths,
    /// An `Upgrade` field was there.
    pub(super) upgrade: bool,
    /// It asked for HTTP/2 and nothing else.
    pub(super) h2c: bool,
    /// What the content type says of calls.
    pub(super) content: Option<Content>,
    /// A `connect-protocol-version` field was there.
    connect: bool,
    timeout_ns: Option<u64>,
}

/// Trace context, which differs from request to request.
#[derive(Default)]
pub(super) struct ContextFields {
    parent: Parent,
    state: Option<Vec<u8>>,
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

impl ContextFields {
    pub(super) fn are_absent(&self) -> bool {
        matches!(self.parent, Parent::None) && self.state.is_none()
    }

    /// The context, if exactly one valid one was sent.
    pub(super) fn parent(self) -> Option<Box<TraceContext>> {
        let Parent::One(Some(mut parent)) = self.parent else { return None };
        parent.state = self.state.as_deref().and_then(context::state);
        Some(Box::new(parent))
    }
}

impl RequestFields {
    /// The call that the request is. What only says that it is gRPC is none: that needs HTTP/2.
    pub(super) fn rpc(&self) -> Option<Rpc> {
        let system = match self.content.map(|content| content.system) {
            Some(RpcSystem::GrpcWeb) => RpcSystem::GrpcWeb,
            Some(RpcSystem::Connect) => RpcSystem::Connect,
            None if self.connect => RpcSystem::Connect,
            None | Some(RpcSystem::Grpc) => return None,
        };
        Some(Rpc { system, timeout_ns: self.timeout_ns })
    }

    /// Takes one field line. The first letter sorts out most of those that do not matter.
    pub(super) fn line(&mut self, line: &[u8], context: &mut ContextFields) {
        match line.first().map(|b| b | 0x20) {
            Some(b'h') => {
                if let Some(value) = field(line, b"host").filter(|_| self.host.is_none()) {
                    self.host = Some(text(value, MAX_AUTHORITY));
                }
            }
            Some(b'c') => {
                if let Some(value) = field(line, b"content-type") {
                    self.content = rpc::content(value);
                } else if field(line, b"connect-protocol-version").is_some() {
                    self.connect = true;
                } else if let Some(value) = field(line, b"connect-timeout-ms") {
                    self.timeout_ns = rpc::connect_timeout(value);
                } else {
                    self.lengths.line(line);
                }
            }
            Some(b'g') => {
                if let Some(value) = field(line, b"grpc-timeout") {
                    self.timeout_ns = rpc::grpc_timeout(value);
                }
            }
            Some(b'u') => {
                if let Some(value) = field(line, b"user-agent") {
                    self.user_agent.get_or_insert_with(|| text(value, MAX_USER_AGENT));
                } else if let Some(value) = field(line, b"upgrade") {
                    self.h2c = !self.upgrade && value.eq_ignore_ascii_case(b"h2c");
                    self.upgrade = true;
                }
            }
            Some(b't') => {
                if let Some(value) = field(line, b"traceparent") {
                    context.parent = match context.parent {
                        Parent::None => Parent::One(TraceContext::parse(value, None)),
                        _ => Parent::Many,
                    };
                } else if let Some(value) = field(line, b"tracestate") {
                    match &mut context.state {
                        None => context.state = Some(value.to_vec()),
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

impl RequestFields {
    /// Memory held beside the struct itself.
    pub(super) fn state_bytes(&self) -> usize {
        [self.host.as_deref(), self.user_agent.as_deref()].into_iter().flatten().map(str::len).sum()
    }

    /// Bound of [`RequestFields::state_bytes`].
    pub(super) const MAX_STATE: usize = MAX_AUTHORITY + MAX_USER_AGENT;
}

/// What the fields of a response say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResponseFields {
    pub(super) lengths: Lengths,
    /// What the content type says of calls.
    pub(super) content: Option<Content>,
    /// `grpc-status`: the head is trailers too.
    pub(super) status: Option<u32>,
}

impl ResponseFields {
    /// Takes one field line.
    pub(super) fn line(&mut self, line: &[u8]) {
        match line.first().map(|b| b | 0x20) {
            Some(b'c' | b't') => match field(line, b"content-type") {
                Some(value) => self.content = rpc::content(value),
                None => self.lengths.line(line),
            },
            Some(b'g') => {
                self.status = field(line, b"grpc-status").and_then(rpc::grpc_status).or(self.status);
            }
            _ => {}
        }
    }
}
