//! Spans to batches: each span is encoded at once into the buffer of its service, and a batch is those buffers
//! with a few bytes around them.
//!
//! Comes in: [`Span`]s. Goes out: a [`Batch`], one `ExportTraceServiceRequest`.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::{Limits, encode, json};
use crate::process::Service;
use crate::span::Span;

/// What a batch costs beyond its bytes: its own fields and those of its parts.
const OVERHEAD: usize = 512;
/// A buffer less full than this share is copied out and kept for the next batch.
const KEEP_BELOW: usize = 2;
/// Batches without a span after which a service's buffer is given up.
const IDLE_BATCHES: u32 = 16;

/// How spans are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// OTLP in protobuf.
    Protobuf,
    /// OTLP in JSON.
    Json,
}

/// One encoded request. A clone shares the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Its bytes in order.
    pub(crate) body: Segments,
    /// How many spans are in it.
    pub(crate) spans: u64,
    /// Memory it holds.
    pub(crate) held_bytes: usize,
    /// When it was first sent and has to be sent again.
    pub(crate) tried: Option<Instant>,
}

/// Bytes in several pieces, read as one.
#[derive(Clone, Default, Debug)]
pub(crate) struct Segments {
    parts: VecDeque<Bytes>,
    len: usize,
}

impl Segments {
    fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push_back(part);
        }
    }

    /// The same with a piece before it.
    pub(crate) fn after(mut self, part: Bytes) -> Self {
        self.len += part.len();
        self.parts.push_front(part);
        self
    }

    /// The pieces.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter()
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl From<Bytes> for Segments {
    fn from(part: Bytes) -> Self {
        let mut segments = Self::default();
        segments.push(part);
        segments
    }
}

impl Buf for Segments {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part.as_ref())
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.parts);
        pairs.map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while let Some(front) = self.parts.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.parts.pop_front();
        }
    }
}

/// Spans of one service, encoded.
struct ServiceBuffer {
    id: u32,
    /// Protobuf: the resource field. JSON: all that stands before the spans.
    prefix: Vec<u8>,
    spans: Vec<u8>,
    idle: u32,
}

/// Collects spans of all services in one format.
pub(crate) struct Batcher {
    format: Format,
    limits: Limits,
    services: Vec<ServiceBuffer>,
    by_id: HashMap<u32, usize>,
    last: usize,
    scope: Vec<u8>,
    /// Where a message is written whose length is not known before.
    scratch: Vec<u8>,
    /// Spans ever taken in.
    input: u64,
    /// Spans in the buffers.
    pending: u64,
    pending_bytes: usize,
    since: Option<Instant>,
}

impl Batcher {
    pub(crate) fn new(format: Format, limits: Limits) -> Self {
        let (mut scope, mut scratch) = (Vec::new(), Vec::new());
        encode::scope(&mut scope, &mut scratch);
        Self {
            format,
            limits,
            services: Vec::new(),
            by_id: HashMap::new(),
            last: 0,
            scope,
            scratch,
            input: 0,
            pending: 0,
            pending_bytes: 0,
            since: None,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn input(&self) -> u64 {
        self.input
    }

    pub(crate) fn pending(&self) -> u64 {
        self.pending
    }

    /// Services with a buffer.
    #[cfg(test)]
    pub(crate) fn services(&self) -> usize {
        self.services.len()
    }

    /// Encodes a span. True if a batch is due by size.
    pub(crate) fn add(&mut self, span: &Span) -> bool {
        let format = self.format;
        self.input += 1;
        let mut scratch = std::mem::take(&mut self.scratch);
        let Some(buffer) = self.buffer(&span.service) else {
            // Cannot be, the buffer was just made; if it were, the account would show it.
            return false;
        };
        let before = buffer.spans.len();
        match format {
            Format::Protobuf => encode::span(&mut buffer.spans, &mut scratch, span),
            Format::Json => {
                if before > 0 {
                    buffer.spans.push(b',');
                }
                json::span(&mut buffer.spans, span);
            }
        }
        let written = buffer.spans.len() - before;
        self.scratch = scratch;
        self.pending_bytes += written;
        self.pending += 1;
        if self.pending == 1 {
            self.since = Some(Instant::now());
        }
        self.pending >= self.limits.batch_spans || self.pending_bytes >= self.limits.batch_bytes
    }

    /// Whether the oldest span has waited for `delay`.
    pub(crate) fn is_old(&self, now: Instant, delay: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= delay)
    }

    fn buffer(&mut self, service: &Arc<Service>) -> Option<&mut ServiceBuffer> {
        let id = service.id;
        if self.services.get(self.last).is_none_or(|buffer| buffer.id != id) {
            self.last = match self.by_id.get(&id) {
                Some(index) => *index,
                None => {
                    let mut prefix = Vec::new();
                    match self.format {
                        Format::Protobuf => encode::resource(&mut prefix, &mut Vec::new(), service),
                        Format::Json => json::open_service(&mut prefix, service),
                    }
                    self.services.push(ServiceBuffer { id, prefix, spans: Vec::new(), idle: 0 });
                    self.by_id.insert(id, self.services.len() - 1);
                    self.services.len() - 1
                }
            };
        }
        self.services.get_mut(self.last)
    }

    /// All that is pending as one batch; none if nothing is.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if self.pending == 0 {
            return None;
        }
        let mut body = Segments::default();
        // Written before the spans of a service, and in JSON after those of the one before.
        let mut between = Vec::new();
        let mut held_bytes = OVERHEAD;
        if self.format == Format::Json {
            between.extend_from_slice(json::OPEN);
        }
        let mut first = true;
        for buffer in &mut self.services {
            if buffer.spans.is_empty() {
                buffer.idle += 1;
                continue;
            }
            buffer.idle = 0;
            match self.format {
                Format::Protobuf => {
                    encode::open_service(&mut between, &buffer.prefix, &self.scope, buffer.spans.len());
                }
                Format::Json => {
                    if !first {
                        between.extend_from_slice(json::CLOSE_SERVICE);
                        between.push(b',');
                    }
                    between.extend_from_slice(&buffer.prefix);
                }
            }
            first = false;
            held_bytes += between.capacity();
            body.push(Bytes::from(std::mem::take(&mut between)));
            let spans = hand_over(&mut buffer.spans);
            held_bytes += spans.1;
            body.push(spans.0);
        }
        if self.format == Format::Json {
            between.extend_from_slice(json::CLOSE_SERVICE);
            between.extend_from_slice(json::CLOSE);
            body.push(Bytes::from(between));
        }
        if self.services.iter().any(|buffer| buffer.idle >= IDLE_BATCHES) {
            self.services.retain(|buffer| buffer.idle < IDLE_BATCHES);
            self.by_id = self.services.iter().enumerate().map(|(index, buffer)| (buffer.id, index)).collect();
        }
        self.pending_bytes = 0;
        self.since = None;
        Some(Batch { body, spans: std::mem::take(&mut self.pending), held_bytes, tried: None })
    }
}

/// The bytes of a buffer, and the memory they hold. A full buffer is given away and replaced; a nearly empty one
/// is copied, so that a small batch in the queue does not hold a large buffer.
fn hand_over(buffer: &mut Vec<u8>) -> (Bytes, usize) {
    if buffer.len() < buffer.capacity() / KEEP_BELOW {
        let copy = Bytes::copy_from_slice(buffer);
        // What one busy moment needed is not kept for ever.
        let keep = buffer.len() * 4;
        buffer.clear();
        buffer.shrink_to(keep);
        let held = copy.len();
        return (copy, held);
    }
    // The next batch will be about as large.
    let next = Vec::with_capacity(buffer.len() + buffer.len() / 16);
    let full = std::mem::replace(buffer, next);
    let held = full.capacity();
    (Bytes::from(full), held)
}
