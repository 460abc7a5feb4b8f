//! The fields of one header block in, the head of a message out.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use super::hpack::{Field, Text};
use crate::context::{self, TraceContext};
use crate::http1::text::{MAX_AUTHORITY, MAX_SCHEME, MAX_USER_AGENT, Target, host, method, text};
use crate::message::{Request, Response, Rpc, RpcSystem, Version};
use crate::rpc::{self, Content};

/// Longest method that is kept.
const MAX_METHOD: usize = 64;
/// Bytes of a target that are looked at.
const MAX_TARGET: usize = 4200;
/// Bytes of `tracestate` that are looked at.
const MAX_STATE: usize = 2048;

/// Whether anyone asks for the value of a field. Of others (cookies, say) not even the name is kept.
pub(super) fn is_wanted(name: &[u8]) -> bool {
    match name {
        [b':', rest @ ..] => matches!(rest, b"method" | b"path" | b"authority" | b"scheme" | b"status"),
        b"host"
        | b"user-agent"
        | b"traceparent"
        | b"tracestate"
        | b"grpc-trace-bin"
        | b"content-type"
        | b"content-length"
        | b"grpc-timeout"
        | b"grpc-status"
        | b"connect-protocol-version"
        | b"connect-timeout-ms" => true,
        _ => false,
    }
}

/// `traceparent` fields, or `grpc-trace-bin`.
#[derive(Debug, Default)]
enum Parent {
    #[default]
    None,
    One(Option<TraceContext>),
    /// Which one holds is not known.
    Many,
}

impl Parent {
    fn add(&mut self, context: Option<TraceContext>) {
        *self = if matches!(self, Self::None) { Self::One(context) } else { Self::Many };
    }
}

/// What a block said so far.
#[derive(Debug, Default)]
pub(super) struct Fields {
    method: Option<Cow<'static, str>>,
    target: Option<Box<[u8]>>,
    scheme: Option<Box<str>>,
    authority: Option<Rc<str>>,
    host: Option<Rc<str>>,
    user_agent: Option<Arc<str>>,
    pub(super) status: Option<u16>,
    pub(super) content: Option<Content>,
    connect: bool,
    timeout_ns: Option<u64>,
    pub(super) grpc_status: Option<u32>,
    content_length: Option<u64>,
    bad_length: bool,
    parent: Parent,
    trace_bin: Parent,
    state: Option<Vec<u8>>,
    /// Fields in all.
    pub(super) count: u32,
    /// Fields of unknown name.
    pub(super) unknown: u32,
    /// The rest of the block was not captured.
    pub(super) cut: bool,
}

impl Fields {
    /// Takes a field.
    pub(super) fn add(&mut self, field: Field<'_>) {
        self.count = self.count.saturating_add(1);
        let (name, value) = match (field.name, field.value) {
            (Text::Known(name), Text::Known(value)) => (name, value),
            (Text::Unwanted, _) | (_, Text::Unwanted) => return,
            (Text::Unknown, _) | (_, Text::Unknown) => {
                self.unknown = self.unknown.saturating_add(1);
                return;
            }
        };
        match name {
            b":method" => self.method = Some(method(value)),
            b":path" => self.target = Some(value.get(..MAX_TARGET).unwrap_or(value).into()),
            b":scheme" => self.scheme = Some(text(value, MAX_SCHEME)),
            b":authority" => self.authority = Some(host(value)),
            b":status" => self.status = status(value),
            b"host" if self.host.is_none() => self.host = Some(host(value)),
            b"user-agent" if self.user_agent.is_none() => self.user_agent = Some(text(value, MAX_USER_AGENT)),
            b"content-type" => self.content = rpc::content(value),
            b"content-length" => match (rpc::number(value), self.content_length) {
                (Some(new), None) => self.content_length = Some(new),
                (Some(new), Some(old)) if new == old => {}
                _ => self.bad_length = true,
            },
            b"grpc-timeout" => self.timeout_ns = rpc::grpc_timeout(value),
            b"connect-timeout-ms" => self.timeout_ns = rpc::connect_timeout(value),
            b"connect-protocol-version" => self.connect = true,
            b"grpc-status" => self.grpc_status = rpc::grpc_status(value),
            b"traceparent" => self.parent.add(TraceContext::parse(value, None)),
            b"grpc-trace-bin" => self.trace_bin.add(TraceContext::parse_binary(value)),
            b"tracestate" => {
                let state = self.state.get_or_insert_default();
                if !state.is_empty() {
                    state.push(b',');
                }
                state.extend_from_slice(value.get(..MAX_STATE).unwrap_or(value));
                state.truncate(MAX_STATE);
            }
            _ => {}
        }
    }

    /// Whether there may have been fields that are not known.
    pub(super) fn truncated(&self) -> bool {
        self.cut || self.unknown > 0
    }

    /// Whether a field is there that only the head of a request has.
    pub(super) fn has_request(&self) -> bool {
        self.method.is_some() || self.target.is_some() || self.scheme.is_some() || self.authority.is_some()
    }

    /// The call that a request's head is.
    pub(super) fn rpc(&self) -> Option<Rpc> {
        let system = match self.content {
            Some(content) => content.system,
            None if self.connect => RpcSystem::Connect,
            None => return None,
        };
        Some(Rpc { system, timeout_ns: self.timeout_ns })
    }

    fn length(&self) -> Option<u64> {
        self.content_length.filter(|_| !self.bad_length)
    }

    /// The head of a request.
    pub(super) fn into_request(self) -> Request {
        let truncated = self.truncated();
        let rpc = self.rpc();
        let content_length = self.length();
        let method = self.method.unwrap_or_default();
        let target = match self.target {
            Some(target) => Target::parse(method.as_bytes(), &target),
            None => Target::default(),
        };
        let context = match (self.parent, self.trace_bin) {
            (Parent::One(Some(mut parent)), _) => {
                parent.state = self.state.as_deref().and_then(context::state);
                Some(Box::new(parent))
            }
            (Parent::None, Parent::One(Some(parent))) => Some(Box::new(parent)),
            _ => None,
        };
        Request {
            path: target.path,
            query: target.query,
            authority: self.authority.or(target.authority).or(self.host).filter(|name| !name.is_empty()),
            scheme: self.scheme.or(target.scheme),
            version: Version::Http2,
            user_agent: self.user_agent,
            context,
            rpc,
            content_length,
            truncated,
            method,
        }
    }

    /// The head of a response.
    pub(super) fn to_response(&self) -> Response {
        Response {
            status: self.status.unwrap_or(0),
            version: Version::Http2,
            content_length: self.length(),
            truncated: self.truncated() || self.status.is_none(),
        }
    }

    /// Memory held beside the struct itself.
    pub(super) fn state_bytes(&self) -> usize {
        let texts = [
            self.method.as_deref(),
            self.scheme.as_deref(),
            self.authority.as_deref(),
            self.host.as_deref(),
            self.user_agent.as_deref(),
        ];
        texts.into_iter().flatten().map(str::len).sum::<usize>()
            + self.target.as_ref().map_or(0, |target| target.len())
            + self.state.as_ref().map_or(0, Vec::capacity)
    }

    /// Bound of [`Fields::state_bytes`].
    pub(super) const MAX_STATE: usize =
        MAX_METHOD + MAX_SCHEME + 2 * MAX_AUTHORITY + MAX_USER_AGENT + MAX_TARGET + 4 * MAX_STATE;
}

/// Three digits.
fn status(value: &[u8]) -> Option<u16> {
    match value {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => None,
    }
}
