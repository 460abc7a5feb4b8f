//! What a parser says of one direction of a connection, in the same words for every protocol.

use crate::context::TraceContext;

/// Who speaks in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Flow {
    /// Towards the server: requests.
    Request,
    /// Towards the client: responses.
    Response,
}

/// Head of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// Method token as sent.
    pub method: Box<str>,
    /// Path of the target, without query and fragment ("*" for an asterisk target, empty for CONNECT).
    pub path: Box<str>,
    /// Query of the target, without the question mark.
    pub query: Option<Box<str>>,
    /// Authority: of an absolute or CONNECT target, else the Host field.
    pub authority: Option<Box<str>>,
    /// Scheme of an absolute target.
    pub scheme: Option<Box<str>>,
    /// Minor version of HTTP/1 (0 or 1).
    pub minor_version: u8,
    /// User-Agent field.
    pub user_agent: Option<Box<str>>,
    /// W3C trace context, if exactly one valid one was sent.
    pub context: Option<Box<TraceContext>>,
    /// The declared length of the body.
    pub content_length: Option<u64>,
    /// The head was longer than what was captured: fields after the cut are not known.
    pub truncated: bool,
}

/// Head of a final response.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Minor version of HTTP/1 (0 or 1).
    pub minor_version: u8,
    /// The declared length of the body.
    pub content_length: Option<u64>,
    /// The head was longer than what was captured: fields after the cut are not known.
    pub truncated: bool,
}

/// A message's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Head {
    /// A request.
    Request(Request),
    /// A final response (interim 1xx responses are passed over).
    Response(Response),
}
