//! Redis (RESP2 and RESP3): both directions of a connection in, commands and their answers out.
//!
//! Keys and values are passed over: of a command its name goes out, of an answer whether it is an error. Answers have no numbers,
//! they come in the order of the commands: where the order is in doubt no answer is given to any command.

mod answers;
mod command;
mod detect;
mod names;
mod pending;
mod requests;
mod scan;
mod value;

use command::Command;
use pending::Pending;
use value::Value;

use crate::message::Flow;
use crate::parser::{Detect, Input, LostReason, Parser, What};
use crate::queue::Queue;
use crate::sink::{Sink, emit, offset};

/// Where the direction of the commands stands.
#[derive(Debug, Default)]
enum Request {
    /// Between commands.
    #[default]
    Between,
    /// In a command.
    Command(Box<Command>),
    /// Skipping up to a burst that begins with a command.
    Lost,
    /// Closed.
    Closed,
}

/// Where the direction of the answers stands.
#[derive(Debug, Default)]
enum Response {
    /// Between answers.
    #[default]
    Between,
    /// In an answer, or in a message that answers nothing.
    Value {
        value: Box<Value>,
        /// It answers the first command of the queue.
        answers: bool,
    },
    /// In an answer whose end cannot be seen.
    Unsure {
        /// The last byte seen may be its last one.
        ended: bool,
        error: Option<Box<str>>,
    },
    /// Skipping up to a burst.
    Lost,
    /// Closed.
    Closed,
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    request: Request,
    response: Response,
    queue: Queue<Pending>,
    /// Number of the next command.
    next: u32,
    /// Number of the command that is being read.
    sending: u32,
    /// Answers to commands that were not seen may still come.
    doubt: bool,
    /// The client sends commands without waiting for the answers to those before: only silence removes doubt.
    pipelines: bool,
    /// The database that was selected.
    namespace: Option<Box<str>>,
    switched: bool,
}

impl Parser for Connection {
    const NAME: &'static str = "redis";
    const MAX_STATE: usize =
        size_of::<Self>() + size_of::<Command>() + size_of::<Value>() + 64 + Queue::<Pending>::MAX_STATE;

    fn detect(bytes: &[u8]) -> Detect {
        detect::detect(bytes)
    }

    fn feed(&mut self, flow: Flow, input: Input<'_>, sink: Sink<'_>) {
        if self.switched {
            return;
        }
        match (flow, input) {
            (Flow::Request, Input::Bytes { bytes, burst_start }) => {
                self.request_bytes(bytes, burst_start, sink);
            }
            (Flow::Response, Input::Bytes { bytes, burst_start }) => {
                self.response_bytes(bytes, burst_start, sink);
            }
            (Flow::Request, Input::Hole { len, .. }) => self.request_hole(len, sink),
            (Flow::Response, Input::Hole { len, tail }) => self.response_hole(len, tail, sink),
            (Flow::Request, Input::Gap) => self.request_gap(sink),
            (Flow::Response, Input::Gap) => self.response_gap(sink),
            (Flow::Request, Input::End) => self.request_end(sink),
            (Flow::Response, Input::End) => self.response_end(sink),
        }
    }

    fn idle(&mut self, sink: Sink<'_>) {
        if matches!(self.response, Response::Unsure { ended: true, .. }) {
            self.end_unsure(Response::Lost, sink);
        }
        if self.queue.is_empty() && !matches!(self.request, Request::Command(_)) {
            // Whatever was under way is over.
            self.doubt = false;
        }
    }

    fn in_flight(&self) -> usize {
        let late = matches!(self.request, Request::Command(_)) && self.queue.last(self.sending).is_none();
        self.queue.len() + usize::from(late)
    }

    fn is_switched(&self) -> bool {
        self.switched
    }

    fn state_bytes(&self) -> usize {
        let request = if matches!(self.request, Request::Command(_)) { size_of::<Command>() } else { 0 };
        let response = match &self.response {
            Response::Value { .. } => size_of::<Value>(),
            Response::Unsure { error, .. } => error.as_ref().map_or(0, |error| error.len()),
            _ => 0,
        };
        let namespace = self.namespace.as_ref().map_or(0, |name| name.len());
        size_of::<Self>() + request + response + namespace + self.queue.state_bytes()
    }
}

impl Connection {
    /// Gives up every command that waits for its answer. The offset is zero if the input is of the other direction.
    fn flush(&mut self, offset: usize, what: &What, sink: Sink<'_>) {
        while let Some(pending) = self.queue.pop() {
            emit(sink, pending.exchange, Flow::Response, offset, what.clone());
        }
    }

    /// What comes from here on is not commands and answers.
    fn switch(&mut self, offset: usize, sink: Sink<'_>) {
        self.flush(offset, &What::Lost(LostReason::Switched), sink);
        self.request = Request::Closed;
        self.response = Response::Closed;
        self.switched = true;
    }
}
