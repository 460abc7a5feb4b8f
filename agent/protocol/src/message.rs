//! What a parser says of one direction of a connection, in the same words for every protocol.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use crate::context::TraceContext;

/// Who speaks in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Flow {
    /// Towards the server: requests.
    Request,
    /// Towards the client: responses.
    Response,
}

/// Version of HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// As `network.protocol.version` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// Systems of remote procedure calls over HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RpcSystem {
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// The Connect protocol.
    Connect,
}

/// What a request's head says of a remote procedure call. Service and method are in the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rpc {
    /// By content type.
    pub system: RpcSystem,
    /// The deadline, in nanoseconds from the start.
    pub timeout_ns: Option<u64>,
}

/// What the rest of a message says of a remote procedure call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RpcPart {
    /// Messages (length-prefixed) that were seen in the body.
    pub messages: u32,
    /// Bytes of them, prefixes not counted.
    pub bytes: u64,
    /// `grpc-status` of the trailers (or of a head that is trailers too).
    pub status: Option<u32>,
    /// There may have been more: prefixes or trailers were not captured, or fields of them could not be decoded.
    pub truncated: bool,
}

/// Head of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// Method token as sent; empty if it could not be decoded.
    pub method: Cow<'static, str>,
    /// Path of the target, without query and fragment ("*" for an asterisk target, empty for CONNECT and if it could not be
    /// decoded).
    pub path: Box<str>,
    /// Query of the target, without the question mark.
    pub query: Option<Box<str>>,
    /// Authority: of an absolute or CONNECT target, else the Host field.
    pub authority: Option<Rc<str>>,
    /// Scheme of an absolute target.
    pub scheme: Option<Box<str>>,
    /// Version of HTTP.
    pub version: Version,
    /// User-Agent field.
    pub user_agent: Option<Arc<str>>,
    /// W3C trace context, if exactly one valid one was sent.
    pub context: Option<Box<TraceContext>>,
    /// The request is a remote procedure call.
    pub rpc: Option<Rpc>,
    /// The declared length of the body.
    pub content_length: Option<u64>,
    /// The head was longer than what was captured (fields after the cut are not known), or fields of it could not be decoded.
    pub truncated: bool,
}

/// Head of a final response.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Response {
    /// Status code; 0 if it could not be decoded.
    pub status: u16,
    /// Version of HTTP.
    pub version: Version,
    /// The declared length of the body.
    pub content_length: Option<u64>,
    /// The head was longer than what was captured (fields after the cut are not known), or fields of it could not be decoded.
    pub truncated: bool,
}

/// Systems of databases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DbSystem {
    /// PostgreSQL, and whatever speaks its protocol.
    PostgreSql,
    /// Redis, and whatever speaks its protocol.
    Redis,
}

impl DbSystem {
    /// As `db.system.name` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PostgreSql => "postgresql",
            Self::Redis => "redis",
        }
    }
}

/// What is asked of a database. Nothing in it is a literal of the statement, a parameter or a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// Which database.
    pub system: DbSystem,
    /// What is done, of few values (`SELECT`, `GET`; of a batch `BATCH INSERT`, `BATCH`, `PIPELINE`); empty if that is not known.
    pub operation: Box<str>,
    /// What is done with what, of few values (`SELECT orders`); may be empty.
    pub summary: Box<str>,
    /// The statement without its literals.
    pub text: Option<Box<str>>,
    /// The database within the system.
    pub namespace: Option<Box<str>>,
    /// Operations in the call if there are more than one, else zero.
    pub batch: u32,
    /// The statement was longer than what was captured, or parts of it were lost.
    pub truncated: bool,
}

/// What a database answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Which error, of few values (an SQLSTATE, the first word of a Redis error).
    pub error: Option<Box<str>>,
    /// The answer was longer than what was captured: an error may stand in what was not.
    pub truncated: bool,
}

/// A message's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Head {
    /// A request.
    Request(Request),
    /// A final response (interim 1xx responses are passed over).
    Response(Response),
    /// A call of a database.
    Query(Query),
    /// The answer of a database. It may come as late as the end of the answer, but before that.
    Answer(Answer),
}
