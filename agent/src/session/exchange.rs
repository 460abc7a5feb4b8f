//! A request with its response, and the edges in time that tell which request caused which call.

use std::rc::Rc;
use std::sync::Arc;

use spanwise_protocol::context::TraceContext;
use spanwise_protocol::message::{Answer, Query, Request, Response, RpcPart};

use crate::conn::{ConnInfo, MessageName, Side};
use crate::process::Service;

/// Identity of an exchange within this run of the agent; ascending in order of first sight, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct ExchangeKey(pub u64);

/// Who did something: process, thread, and what runs on the thread where that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Task {
    /// Process (thread group) id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Goroutine id or the like; zero where there is none.
    pub task: u64,
}

/// What happened to an exchange, as far as its parent can depend on it.
#[derive(Clone, Debug)]
pub enum Edge {
    /// First bytes of the request: read by a server, written by a client.
    Began {
        /// The connection.
        conn: Rc<ConnInfo>,
        /// Name of the message, the same at the other end.
        message: Option<MessageName>,
    },
    /// The request's head is complete and carried this context.
    Context(Box<TraceContext>),
    /// A client's request or query was understood.
    Asked {
        /// The same for calls that ask the same server for the same with other values.
        kind: u64,
        /// It is the first one that was seen on its connection.
        first: bool,
    },
    /// Bytes of the response were written by a server or read by a client (one edge for each transfer).
    Answer {
        /// First bytes of the response.
        first: bool,
        /// The response is complete with these bytes.
        last: bool,
    },
}

/// An [`Edge`] of one exchange. Signals of one process arrive in the order in which they happened.
#[derive(Clone, Debug)]
pub struct Signal {
    /// Which exchange.
    pub key: ExchangeKey,
    /// Which end of it the process is.
    pub side: Side,
    /// Who did it.
    pub task: Task,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub at_ns: u64,
    /// What happened.
    pub edge: Edge,
}

/// How an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The response was seen to its end.
    Complete,
    /// The connection closed before the response was complete (or began).
    Aborted,
    /// The connection switched to another protocol (Upgrade, CONNECT).
    Upgraded,
    /// The agent stopped before the end was seen, or the close of a process's connection was not seen after its end.
    Unfinished,
    /// The capture lost bytes in the middle of the exchange; its end is the last that was seen.
    Gap,
    /// What came in the place of the answer is of another protocol: nothing was lost.
    Foreign,
    /// The head of the request was never understood: nothing to make a span of. Counted, not exported.
    Headless,
}

/// What the bodies and trailers of a remote procedure call said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RpcSeen {
    /// From the client.
    pub request: RpcPart,
    /// From the server, with the status.
    pub response: RpcPart,
}

/// A call of a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DbSeen {
    /// What was asked.
    pub query: Query,
    /// What was answered, if anything was.
    pub answer: Option<Answer>,
}

/// A request and its response as one process saw them. Exactly one follows each `Began` signal.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Identity in this run.
    pub key: ExchangeKey,
    /// Which end the process is.
    pub side: Side,
    /// Who began it.
    pub task: Task,
    /// The service the process belongs to.
    pub service: Arc<Service>,
    /// The connection.
    pub conn: Rc<ConnInfo>,
    /// Name of the message, the same at the other end.
    pub message: Option<MessageName>,
    /// Head of the request; nothing if it is a call of a database.
    pub request: Request,
    /// Head of the response, if one came.
    pub response: Option<Response>,
    /// Of a remote procedure call.
    pub rpc: Option<Box<RpcSeen>>,
    /// Of a call of a database.
    pub db: Option<Box<DbSeen>>,
    /// The stream was reset with this error code (HTTP/2).
    pub reset: Option<u32>,
    /// The pattern that the server's router matched the request with, where the router tells.
    pub route: Option<Box<str>>,
    /// Bytes of the request's body seen moved.
    pub request_body: u64,
    /// Bytes of the response's body seen moved.
    pub response_body: u64,
    /// First bytes of the request, `CLOCK_BOOTTIME` ns.
    pub began_ns: u64,
    /// First bytes of the response, `CLOCK_BOOTTIME` ns; zero if there was none.
    pub answered_ns: u64,
    /// End of the response (or of what was seen), `CLOCK_BOOTTIME` ns.
    pub ended_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
}
