//! The streams that are open: where each of their two messages stands.

use std::collections::VecDeque;

use crate::message::{Flow, RpcSystem};
use crate::rpc::Messages;

/// Streams of a connection that are followed at once.
pub(super) const MAX_STREAMS: usize = 1024;

/// Where a message stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug, Default)]
pub(super) enum Stage {
    #[default]
    None,
    Begun,
    Head,
    Over,
}

/// One message of a stream.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) stage: Stage,
    /// Its end may have been lost, when so many streams had begun.
    pub(super) doubt: Option<u32>,
    /// Bytes of the body so far.
    pub(super) body: u64,
    pub(super) messages: Messages,
}

/// A stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) request: Side,
    pub(super) response: Side,
    /// The call that it is, as far as its heads told.
    pub(super) rpc: Option<RpcSystem>,
    /// Bodies may be messages with lengths before them.
    pub(super) prefixed: bool,
}

impl Stream {
    pub(super) fn side(&mut self, flow: Flow) -> &mut Side {
        match flow {
            Flow::Request => &mut self.request,
            Flow::Response => &mut self.response,
        }
    }

    /// Nothing more is to be told of it.
    pub(super) fn is_over(&self) -> bool {
        self.request.stage == Stage::Over && self.response.stage == Stage::Over
    }

    fn doubtful(&self) -> Option<u32> {
        self.response.doubt.or(self.request.doubt)
    }
}

/// The streams, by number.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: VecDeque<Stream>,
}

impl Streams {
    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.place(id).ok()?;
        self.open.get_mut(at)
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.place(id).is_ok()
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        self.open.binary_search_by_key(&id, |stream| stream.id)
    }

    /// Adds a stream, which is not there yet.
    pub(super) fn add(&mut self, id: u32) {
        if let Err(at) = self.place(id) {
            self.open.insert(at, Stream { id, ..Stream::default() });
        }
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        self.open.remove(self.place(id).ok()?)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The numbers of those that pass a test.
    pub(super) fn which(&self, test: impl Fn(&Stream) -> bool) -> Vec<u32> {
        self.open.iter().filter(|stream| test(stream)).map(|stream| stream.id).collect()
    }

    /// The stream that is missed least, if there is no room for another.
    pub(super) fn victim(&self) -> Option<u32> {
        if self.open.len() < MAX_STREAMS {
            return None;
        }
        let over = |stream: &&Stream| stream.response.stage == Stage::Over;
        self.open
            .iter()
            .find(over)
            .or_else(|| self.open.iter().filter(|s| s.doubtful().is_some()).min_by_key(|s| s.doubtful()))
            .or_else(|| self.open.front())
            .map(|stream| stream.id)
    }

    /// The ends of messages of this direction may have been missed.
    pub(super) fn doubt(&mut self, flow: Flow, begun: u32) {
        for stream in &mut self.open {
            let side = stream.side(flow);
            if side.stage != Stage::Over {
                side.doubt.get_or_insert(begun);
                // Nor is it known what of the body was missed.
                side.messages.hole(u64::MAX);
            }
        }
    }

    /// Memory held beside the struct itself.
    pub(super) fn state_bytes(&self) -> usize {
        let messages =
            |stream: &Stream| stream.request.messages.state_bytes() + stream.response.messages.state_bytes();
        self.open.capacity() * size_of::<Stream>() + self.open.iter().map(messages).sum::<usize>()
    }

    /// Bound of [`Streams::state_bytes`].
    pub(super) const MAX_STATE: usize =
        2 * MAX_STREAMS * size_of::<Stream>() + MAX_STREAMS * 2 * Messages::MAX_STATE;
}
