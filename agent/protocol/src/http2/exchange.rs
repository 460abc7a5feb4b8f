//! Frames of streams in, what they say of requests and responses out.

use super::fields::Fields;
use super::half::{At, Block};
use super::streams::{Stage, Stream};
use super::{Connection, Sink, emit};
use crate::message::{Flow, Head, Response, RpcPart, Version};
use crate::parser::{LostReason, What};

/// A message whose end may have been lost is given up when so many streams have begun since.
const PATIENCE: u32 = 256;

impl Connection {
    /// A header block of a stream begins.
    pub(super) fn block_begins(&mut self, flow: Flow, id: u32, at: usize, sink: Sink<'_>) {
        let fresh = id > self.newest;
        if id % 2 == 1 {
            self.newest = self.newest.max(id);
        }
        if let Some(stream) = self.streams.get(id) {
            let side = stream.side(flow);
            side.doubt = None;
            if side.stage == Stage::None {
                side.stage = Stage::Begun;
                emit(sink, id, flow, at, What::Begin);
            }
        } else if flow == Flow::Request && id % 2 == 1 && fresh {
            if let Some(victim) = self.streams.victim() {
                self.give_up(victim, LostReason::Overflow, sink);
            }
            self.begun = self.begun.wrapping_add(1);
            if self.begun.is_multiple_of(PATIENCE / 4) {
                self.give_up_old(sink);
            }
            self.streams.add(id);
            if let Some(stream) = self.streams.get(id) {
                stream.request.stage = Stage::Begun;
            }
            emit(sink, id, Flow::Request, at, What::Begin);
        }
    }

    /// A header block is there, or as much of it as was captured.
    pub(super) fn block_is_there(&mut self, flow: Flow, block: Block, at: usize, sink: Sink<'_>) {
        let Block { stream: id, end_stream, promise, fields, .. } = block;
        self.stats.blocks += 1;
        self.stats.cut_blocks += u64::from(fields.cut);
        self.stats.fields += u64::from(fields.count);
        self.stats.unknown_names += u64::from(fields.unknown);
        if promise {
            self.stats.pushes += 1;
            return;
        }
        let history = self.request.exact;
        let Some(stream) = self.streams.get(id) else {
            // A response whose request was not seen, or one that was reset while it was on its way.
            if flow == Flow::Response
                && id % 2 == 1
                && fields.status.is_some_and(|status| status >= 200)
                && !history
            {
                emit(sink, id, Flow::Response, at, What::HalfSeen);
            }
            return;
        };
        match (flow, stream.side(flow).stage) {
            (Flow::Request, Stage::Begun) => self.request_head(id, fields, end_stream, at, sink),
            (Flow::Response, Stage::Begun) => self.response_head(id, &fields, end_stream, at, sink),
            // Trailers end the message.
            (_, Stage::Head) if end_stream => self.end_message(flow, id, at, Some(&fields), sink),
            _ => {}
        }
    }

    fn request_head(&mut self, id: u32, fields: Fields, end: bool, at: usize, sink: Sink<'_>) {
        if !fields.has_request() && !fields.truncated() || fields.status.is_some() {
            // Trailers of a request that was not seen, or nothing that anyone sends.
            self.block_is_broken(Flow::Request, id, at, sink);
            return;
        }
        let Some(stream) = self.streams.get(id) else { return };
        stream.request.stage = Stage::Head;
        stream.learn(&fields);
        emit(sink, id, Flow::Request, at, What::Head(Head::Request(fields.into_request())));
        if end {
            self.end_message(Flow::Request, id, at, None, sink);
        }
    }

    fn response_head(&mut self, id: u32, fields: &Fields, end: bool, at: usize, sink: Sink<'_>) {
        if !end && fields.status.is_some_and(|status| status < 200) {
            // The final response follows.
            return;
        }
        let Some(stream) = self.streams.get(id) else { return };
        stream.response.stage = Stage::Head;
        stream.learn(fields);
        emit(sink, id, Flow::Response, at, What::Head(Head::Response(fields.to_response())));
        if end {
            self.end_message(Flow::Response, id, at, Some(fields), sink);
        }
    }

    /// A header block is none: the exchange is over.
    pub(super) fn block_is_broken(&mut self, flow: Flow, id: u32, at: usize, sink: Sink<'_>) {
        let Some(stream) = self.streams.get(id) else { return };
        let headless = stream.request.stage == Stage::Begun;
        let mut lose = |side: Flow| {
            let at = if side == flow { at } else { 0 };
            emit(sink, id, side, at, What::Lost(LostReason::Malformed));
        };
        if stream.request.stage != Stage::Over && stream.request.stage != Stage::None {
            lose(Flow::Request);
        }
        if !headless && stream.response.stage != Stage::Over {
            lose(Flow::Response);
        }
        self.streams.remove(id);
    }

    /// A DATA frame begins.
    pub(super) fn body_begins(&mut self, flow: Flow, id: u32, at: usize, sink: Sink<'_>) {
        let Some(stream) = self.streams.get(id) else { return };
        let side = stream.side(flow);
        side.doubt = None;
        if flow == Flow::Response && side.stage < Stage::Head {
            // The head was lost.
            if side.stage == Stage::None {
                emit(sink, id, flow, at, What::Begin);
            }
            side.stage = Stage::Head;
            stream.response.messages.hole(u64::MAX);
            let response = Response { version: Version::Http2, truncated: true, ..Response::default() };
            emit(sink, id, flow, at, What::Head(Head::Response(response)));
        }
    }

    /// A message is complete. `last`: the block that ended it.
    pub(super) fn end_message(
        &mut self,
        flow: Flow,
        id: u32,
        at: usize,
        last: Option<&Fields>,
        sink: Sink<'_>,
    ) {
        let Some(stream) = self.streams.get(id) else { return };
        let side = stream.side(flow);
        if !matches!(side.stage, Stage::Begun | Stage::Head) {
            return;
        }
        side.stage = Stage::Over;
        let body = side.body;
        if flow == Flow::Response && stream.request.doubt.is_some() && stream.request.stage != Stage::Over {
            // Its end was in what was lost.
            stream.request.stage = Stage::Over;
            let body = stream.request.body;
            tell_call(stream, Flow::Request, 0, None, sink);
            emit(sink, id, Flow::Request, 0, What::End { body });
        }
        tell_call(stream, flow, at, last, sink);
        emit(sink, id, flow, at, What::End { body });
        if stream.is_over() {
            self.streams.remove(id);
        }
    }

    /// A stream was reset; the code is None if it was not captured.
    pub(super) fn reset(&mut self, by: Flow, id: u32, code: Option<u32>, at: usize, sink: Sink<'_>) {
        let Some(mut stream) = self.streams.remove(id) else { return };
        let place = |flow: Flow| if flow == by { at } else { 0 };
        if stream.request.stage != Stage::Over {
            let body = stream.request.body;
            tell_call(&mut stream, Flow::Request, place(Flow::Request), None, sink);
            emit(sink, id, Flow::Request, place(Flow::Request), What::Aborted { body });
        }
        if stream.response.stage != Stage::Over {
            let body = stream.response.body;
            let at = place(Flow::Response);
            if let Some(code) = code {
                emit(sink, id, Flow::Response, at, What::Reset { code, by });
            }
            tell_call(&mut stream, Flow::Response, at, None, sink);
            emit(sink, id, Flow::Response, at, What::Aborted { body });
        }
    }

    /// The server will not answer streams above `last`.
    pub(super) fn go_away(&mut self, last: u32, code: u32, at: usize, sink: Sink<'_>) {
        for id in self.streams.which(|stream| stream.id > last) {
            self.reset(Flow::Response, id, Some(code), at, sink);
        }
    }

    /// A direction is closed.
    pub(super) fn close(&mut self, flow: Flow, sink: Sink<'_>) {
        let unanswered = flow == Flow::Response || matches!(self.response.at, At::Closed);
        for id in self.streams.which(|_| true) {
            let Some(stream) = self.streams.get(id) else { continue };
            let headless = stream.request.stage == Stage::Begun;
            if stream.request.stage != Stage::Over {
                let body = stream.request.body;
                let what = if stream.request.doubt.is_some() && !headless {
                    What::End { body }
                } else {
                    What::Aborted { body }
                };
                stream.request.stage = Stage::Over;
                tell_call(stream, Flow::Request, 0, None, sink);
                emit(sink, id, Flow::Request, 0, what);
            }
            if unanswered && stream.response.stage != Stage::Over && !headless {
                let body = stream.response.body;
                let what = if stream.response.doubt.is_some() {
                    What::Lost(LostReason::Gap)
                } else {
                    What::Aborted { body }
                };
                tell_call(stream, Flow::Response, 0, None, sink);
                emit(sink, id, Flow::Response, 0, what);
                stream.response.stage = Stage::Over;
            }
            if headless || stream.is_over() {
                self.streams.remove(id);
            }
        }
    }

    /// Gives up a stream.
    fn give_up(&mut self, id: u32, reason: LostReason, sink: Sink<'_>) {
        let Some(stream) = self.streams.remove(id) else { return };
        if stream.request.stage != Stage::Over {
            emit(sink, id, Flow::Request, 0, What::Lost(reason));
        }
        if stream.response.stage != Stage::Over && stream.request.stage != Stage::Begun {
            emit(sink, id, Flow::Response, 0, What::Lost(reason));
        }
    }

    /// Gives up what should have gone on long ago.
    fn give_up_old(&mut self, sink: Sink<'_>) {
        let begun = self.begun;
        let is_old = |doubt: Option<u32>| doubt.is_some_and(|then| begun.wrapping_sub(then) > PATIENCE);
        for id in self.streams.which(|stream| is_old(stream.request.doubt) || is_old(stream.response.doubt)) {
            self.give_up(id, LostReason::Gap, sink);
        }
    }

    /// Gives up responses that had begun, whose end may have been lost, and that do not go on.
    pub(super) fn give_up_silent(&mut self, sink: Sink<'_>) {
        let silent = |stream: &Stream| {
            stream.response.doubt.is_some() && matches!(stream.response.stage, Stage::Begun | Stage::Head)
        };
        for id in self.streams.which(silent) {
            self.give_up(id, LostReason::Gap, sink);
        }
    }
}

impl Stream {
    /// Takes what a head says of a call.
    fn learn(&mut self, fields: &Fields) {
        if let Some(rpc) = fields.rpc() {
            self.rpc = Some(rpc.system);
        }
        match fields.content {
            Some(content) => self.prefixed = content.prefixed,
            // It may be a call.
            None => self.prefixed |= fields.truncated(),
        }
    }
}

/// Tells what was seen of a call in a direction that ends.
fn tell_call(stream: &mut Stream, flow: Flow, at: usize, last: Option<&Fields>, sink: Sink<'_>) {
    let (id, known, prefixed) = (stream.id, stream.rpc.is_some(), stream.prefixed);
    let side = stream.side(flow);
    let seen = side.messages.part();
    let part = RpcPart {
        status: last.and_then(|fields| fields.grpc_status).or(seen.status),
        truncated: seen.truncated || last.is_some_and(Fields::truncated),
        ..seen
    };
    if known && prefixed || part.status.is_some() && flow == Flow::Response {
        emit(sink, id, flow, at, What::Rpc(part));
    }
}
