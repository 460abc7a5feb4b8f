//! Bytes and holes of one direction in, frames out: where each begins and ends, whatever way they are split.

use super::frame::{Frame, HEADER, PREFACE, flag, kind};
use super::half::{At, Block, MAX_HELD, Padding};
use super::{Connection, Sink, chain, emit, offset};
use crate::message::Flow;
use crate::parser::{LostReason, What};

/// The bytes are no frames.
pub(super) struct Broken;

impl Connection {
    /// Takes bytes.
    pub(super) fn bytes(&mut self, flow: Flow, bytes: &[u8], sink: Sink<'_>) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.step(flow, at, rest, sink) {
                Ok(Some(used)) => at += used,
                Ok(None) => return,
                Err(Broken) => {
                    emit(sink, 0, flow, at, What::Garbage);
                    self.lose(flow, LostReason::Malformed, at, sink);
                    return;
                }
            }
        }
    }

    /// Goes on with the rest of the input, `at` bytes into it; gives the bytes used, or None if all the rest is.
    fn step(&mut self, flow: Flow, at: usize, rest: &[u8], sink: Sink<'_>) -> Result<Option<usize>, Broken> {
        let half = self.half(flow);
        let used = match half.at {
            At::Closed => return Ok(None),
            At::Fresh => {
                self.first(flow, rest);
                0
            }
            At::Preface(have) => {
                let wanted = PREFACE.get(have..).unwrap_or_default();
                let here = wanted.len().min(rest.len());
                if wanted.get(..here) != rest.get(..here) {
                    return Err(Broken);
                }
                if here < wanted.len() {
                    half.at = At::Preface(have + here);
                } else {
                    half.start();
                    self.started = true;
                }
                here
            }
            At::Lost => {
                if self.held_leads_to(flow, at, rest, sink)? {
                    return Ok(Some(0));
                }
                let half = self.half(flow);
                if at == 0 && half.hold(rest) {
                    return Ok(None);
                }
                let Self { streams, .. } = self;
                let Some(skipped) = chain::find(rest, flow, &|id| streams.has(id)) else { return Ok(None) };
                self.half(flow).at = At::Header;
                self.stats.resyncs += 1;
                skipped
            }
            At::Header => {
                let (used, frame) = half.take_header(rest);
                if let Some(frame) = frame {
                    let end = at + used;
                    self.begin_frame(flow, frame, end, sink)?;
                }
                used
            }
            At::Frame { frame, left } => {
                let here = rest.len().min(left as usize);
                let left = left - here as u32;
                let part = rest.get(..here).unwrap_or_default();
                if left > 0 || !half.payload.is_empty() {
                    let room = MAX_HELD.saturating_sub(half.payload.len());
                    half.payload.extend_from_slice(part.get(..room).unwrap_or(part));
                    half.at = At::Frame { frame, left };
                    if left == 0 {
                        self.frame_is_there(flow, at + here, sink)?;
                    }
                } else {
                    half.at = At::Header;
                    self.frame(flow, frame, part, at + here, sink)?;
                }
                here
            }
            At::Data { stream, left, padding, end } => {
                self.data(flow, (stream, left, padding, end), at, rest, sink)?
            }
            At::Skip { left } => {
                let here = rest.len().min(left as usize);
                half.at = skip(left - here as u32);
                here
            }
        };
        Ok(Some(used))
    }

    /// Whether a frame header that came alone, as programs read it that ask for nine bytes and then for the payload, is one by what
    /// follows it.
    fn held_leads_to(&mut self, flow: Flow, at: usize, rest: &[u8], sink: Sink<'_>) -> Result<bool, Broken> {
        let half = self.half(flow);
        if std::mem::take(&mut half.have) < HEADER {
            return Ok(false);
        }
        let header = half.header;
        let joined = [&header, rest.get(..rest.len().min(MAX_HELD)).unwrap_or_default()].concat();
        let Self { streams, .. } = self;
        if !chain::begins(&joined, flow, &|id| streams.has(id)) {
            return Ok(false);
        }
        self.stats.resyncs += 1;
        self.begin_frame(flow, Frame::parse(header), at, sink)?;
        Ok(true)
    }

    /// The first bytes of a direction: decides whether it is seen from its start.
    fn first(&mut self, flow: Flow, bytes: &[u8]) {
        let here = bytes.len().min(PREFACE.len());
        let started = self.started;
        let half = self.half(flow);
        half.at = match (flow, Frame::first(bytes)) {
            (Flow::Request, _) if PREFACE.get(..here) == bytes.get(..here) => At::Preface(0),
            // What a server says first are its settings; but it may have said them before the client was heard.
            (Flow::Response, None) if started => At::Header,
            (Flow::Response, Some(frame)) if started && frame.is_valid() => {
                if frame.kind == kind::SETTINGS && !frame.has(flag::ACK) {
                    half.start();
                }
                At::Header
            }
            _ => At::Lost,
        };
    }

    /// A frame header is there, and ends at `at`.
    fn begin_frame(&mut self, flow: Flow, frame: Frame, at: usize, sink: Sink<'_>) -> Result<(), Broken> {
        let half = self.half(flow);
        if std::mem::take(&mut half.resumed) && frame.kind == kind::CONTINUATION && frame.is_valid() {
            half.at = skip(frame.len);
            half.resumed = !frame.has(flag::END_HEADERS);
            return Ok(());
        }
        let open = half.block.as_ref().map(|block| block.stream);
        let in_order = match open {
            Some(stream) => frame.kind == kind::CONTINUATION && frame.stream == stream,
            None => frame.kind != kind::CONTINUATION,
        };
        if !frame.is_valid() || !in_order || frame.kind == kind::PUSH_PROMISE && flow == Flow::Request {
            return Err(Broken);
        }
        let begin = at.saturating_sub(super::frame::HEADER);
        match frame.kind {
            kind::DATA => {
                let padding = if frame.has(flag::PADDED) { Padding::Awaited } else { Padding::Bytes(0) };
                let end = frame.has(flag::END_STREAM);
                half.at = At::Data { stream: frame.stream, left: frame.len, padding, end };
                self.body_begins(flow, frame.stream, begin, sink);
                if frame.len == 0 {
                    self.end_data(flow, frame.stream, end, at, sink);
                }
            }
            kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION | kind::RST_STREAM | kind::GOAWAY => {
                half.at = At::Frame { frame, left: frame.len };
                if frame.kind == kind::HEADERS {
                    self.block_begins(flow, frame.stream, begin, sink);
                }
                if frame.len == 0 {
                    self.frame_is_there(flow, at, sink)?;
                }
            }
            _ => half.at = skip(frame.len),
        }
        Ok(())
    }

    /// The frame that was put together is there, as far as it was captured.
    fn frame_is_there(&mut self, flow: Flow, at: usize, sink: Sink<'_>) -> Result<(), Broken> {
        let half = self.half(flow);
        let At::Frame { frame, .. } = half.at else { return Ok(()) };
        half.at = At::Header;
        let payload = std::mem::take(&mut half.payload);
        let result = self.frame(flow, frame, &payload, at, sink);
        let half = self.half(flow);
        half.payload = payload;
        half.clear_payload();
        result
    }

    /// A frame other than DATA: its payload, or the beginning of it.
    fn frame(
        &mut self,
        flow: Flow,
        frame: Frame,
        payload: &[u8],
        at: usize,
        sink: Sink<'_>,
    ) -> Result<(), Broken> {
        let word = |from: usize| {
            payload.get(from..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes))
        };
        match frame.kind {
            kind::RST_STREAM => {
                self.reset(flow, frame.stream, word(0), at, sink);
                Ok(())
            }
            kind::GOAWAY => {
                if let (Flow::Response, Some(last), Some(code)) = (flow, word(0), word(4)) {
                    self.go_away(last & 0x7fff_ffff, code, at, sink);
                }
                Ok(())
            }
            _ => self.header_frame(flow, frame, payload, at, sink),
        }
    }

    /// HEADERS, PUSH_PROMISE or CONTINUATION.
    fn header_frame(
        &mut self,
        flow: Flow,
        frame: Frame,
        payload: &[u8],
        at: usize,
        sink: Sink<'_>,
    ) -> Result<(), Broken> {
        let (fragment, whole) = if payload.is_empty() {
            (payload, frame.len == 0)
        } else {
            let (start, end) = frame.fragment(payload).ok_or(Broken)?;
            let there = payload.get(start..).unwrap_or_default();
            match there.get(..end - start) {
                Some(fragment) => (fragment, payload.len() >= start),
                None => (there, false),
            }
        };
        let half = self.half(flow);
        let mut block = match half.block.take() {
            Some(block) => block,
            None => Box::new(Block {
                stream: frame.stream,
                end_stream: frame.kind == kind::HEADERS && frame.has(flag::END_STREAM),
                promise: frame.kind == kind::PUSH_PROMISE,
                ..Block::default()
            }),
        };
        let last = frame.has(flag::END_HEADERS);
        if !block.fields.cut {
            let joined;
            let bytes = if block.rest.is_empty() {
                fragment
            } else {
                block.rest.extend_from_slice(fragment);
                joined = std::mem::take(&mut block.rest);
                &joined
            };
            let fields = &mut block.fields;
            let first = fields.count == 0;
            let read = half.decoder.decode(bytes, first, last && whole, &mut |field| fields.add(field));
            let Ok(used) = read else {
                self.block_is_broken(flow, block.stream, at, sink);
                return Err(Broken);
            };
            let rest = bytes.get(used..).unwrap_or_default();
            if !whole || rest.len() > MAX_HELD {
                // What the rest would have inserted is not known.
                block.fields.cut = true;
                half.decoder.lose();
                half.exact = false;
            } else {
                block.rest = rest.to_vec();
            }
        }
        if last {
            self.block_is_there(flow, *block, at, sink);
        } else {
            half.block = Some(block);
        }
        Ok(())
    }

    /// Bytes of a DATA frame; gives how many.
    fn data(
        &mut self,
        flow: Flow,
        (stream, left, padding, end): (u32, u32, Padding, bool),
        at: usize,
        rest: &[u8],
        sink: Sink<'_>,
    ) -> Result<usize, Broken> {
        let (here, padding) = match (padding, rest.first()) {
            (Padding::Awaited, Some(&length)) => {
                if u32::from(length) >= left {
                    return Err(Broken);
                }
                (1, Padding::Bytes(length))
            }
            _ => {
                let pad = match padding {
                    Padding::Bytes(length) => u32::from(length),
                    _ => 0,
                };
                let here = rest.len().min(left as usize);
                let body = here.min(left.saturating_sub(pad) as usize);
                let known = padding != Padding::Unknown;
                let part = rest.get(..body).unwrap_or_default();
                if let Some(stream) = self.streams.get(stream) {
                    let counted = stream.prefixed;
                    let side = stream.side(flow);
                    side.body += body as u64;
                    if counted && known {
                        side.messages.bytes(part);
                    }
                }
                (here, padding)
            }
        };
        let left = left - here as u32;
        self.half(flow).at = At::Data { stream, left, padding, end };
        if left == 0 {
            self.end_data(flow, stream, end, at + here, sink);
        }
        Ok(here)
    }

    /// A DATA frame is over.
    fn end_data(&mut self, flow: Flow, stream: u32, end: bool, at: usize, sink: Sink<'_>) {
        self.half(flow).at = At::Header;
        if end {
            self.end_message(flow, stream, at, None, sink);
        }
    }

    /// Takes a hole.
    pub(super) fn hole(&mut self, flow: Flow, len: u64, sink: Sink<'_>) {
        let mut at = 0u64;
        while at < len {
            let rest = len - at;
            let half = self.half(flow);
            at += match half.at {
                At::Closed => return,
                At::Lost => {
                    half.have = 0;
                    return;
                }
                At::Fresh => {
                    half.at = At::Lost;
                    return;
                }
                At::Preface(_) | At::Header => {
                    self.lose(flow, LostReason::Gap, offset(at), sink);
                    return;
                }
                At::Skip { left } => {
                    let here = rest.min(u64::from(left));
                    half.at = skip(left - here as u32);
                    here
                }
                At::Frame { frame, left } => {
                    let here = rest.min(u64::from(left));
                    half.at = At::Frame { frame, left: left - here as u32 };
                    // What was captured of it is read; the rest is passed over.
                    let result = self.frame_is_there(flow, offset(at + here), sink);
                    if result.is_err() {
                        self.lose(flow, LostReason::Malformed, offset(at), sink);
                        return;
                    }
                    self.half(flow).at = skip(left - here as u32);
                    here
                }
                At::Data { stream, left, padding, end } => {
                    let here = rest.min(u64::from(left));
                    let padding = if padding == Padding::Awaited { Padding::Unknown } else { padding };
                    self.data_hole(flow, (stream, left, padding), here);
                    let left = left - here as u32;
                    self.half(flow).at = At::Data { stream, left, padding, end };
                    if left == 0 {
                        self.end_data(flow, stream, end, offset(at + here), sink);
                    }
                    here
                }
            };
        }
    }

    fn data_hole(&mut self, flow: Flow, (stream, left, padding): (u32, u32, Padding), len: u64) {
        let Some(stream) = self.streams.get(stream) else { return };
        let side = stream.side(flow);
        let pad = match padding {
            Padding::Bytes(length) => u64::from(length),
            Padding::Awaited | Padding::Unknown => {
                // Which of the bytes are padding is not known.
                side.messages.hole(u64::MAX);
                0
            }
        };
        let body = len.min(u64::from(left).saturating_sub(pad));
        side.body += body;
        side.messages.hole(body);
    }

    /// Reads what was captured of a frame and of a header block that will not go on.
    pub(super) fn cut(&mut self, flow: Flow, at: usize, sink: Sink<'_>) {
        if matches!(self.half(flow).at, At::Frame { .. })
            && self.frame_is_there(flow, at, sink).is_err()
            && let Some(block) = self.half(flow).block.take()
        {
            self.block_is_broken(flow, block.stream, at, sink);
        }
        if let Some(mut block) = self.half(flow).block.take() {
            block.fields.cut = true;
            self.block_is_there(flow, *block, at, sink);
        }
    }

    /// The boundary between frames is known again.
    pub(super) fn resume(&mut self, flow: Flow, ahead: u32) {
        let half = self.half(flow);
        half.have = 0;
        half.at = skip(ahead);
        half.resumed = true;
        self.stats.resyncs += 1;
    }

    /// Gives up the boundary between frames. What was captured of a header block counts, unless it is broken.
    pub(super) fn lose(&mut self, flow: Flow, reason: LostReason, at: usize, sink: Sink<'_>) {
        if reason == LostReason::Gap {
            self.cut(flow, at, sink);
        }
        if let Some(block) = self.half(flow).block.take() {
            self.block_is_broken(flow, block.stream, at, sink);
        }
        let half = self.half(flow);
        if !matches!(half.at, At::Fresh | At::Closed | At::Lost) {
            half.lose();
            self.stats.losses += 1;
        }
        let begun = self.begun;
        self.streams.doubt(flow, begun);
    }
}

/// The state before `left` bytes that tell nothing.
fn skip(left: u32) -> At {
    if left == 0 { At::Header } else { At::Skip { left } }
}
