//! Spans to traces: a trace is complete when nothing new has come for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::span::{Span, TraceId};

/// Quiet time after which a trace is taken to be complete.
const QUIET: Duration = Duration::from_millis(300);
/// The same once its root is there.
const QUIET_WITH_ROOT: Duration = Duration::from_millis(100);
/// A trace that is never quiet is shown in pieces of this age.
const OLDEST: Duration = Duration::from_secs(5);
const MOST_TRACES: usize = 500;
const MOST_SPANS: usize = 3_000;
/// A larger trace is shown in pieces.
const LARGEST_TRACE: usize = 500;

struct Pending {
    spans: Vec<Span>,
    began: Instant,
    last: Instant,
    root_seen: bool,
}

/// Traces that are not complete.
#[derive(Default)]
pub(super) struct Collector {
    traces: HashMap<TraceId, Pending>,
    spans: usize,
}

impl Collector {
    pub(super) fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    pub(super) fn add(&mut self, span: Span, now: Instant) {
        let pending = self.traces.entry(span.trace_id).or_insert_with(|| Pending {
            spans: Vec::new(),
            began: now,
            last: now,
            root_seen: false,
        });
        pending.root_seen |= span.parent_span_id.is_none();
        pending.last = now;
        pending.spans.push(span);
        self.spans += 1;
    }

    /// Complete traces, and the oldest where too much is held; oldest first.
    pub(super) fn quiet(&mut self, now: Instant) -> Vec<Vec<Span>> {
        let mut by_age: Vec<_> = self.traces.iter().map(|(id, pending)| (pending.began, *id)).collect();
        by_age.sort_unstable();
        let mut ready = Vec::new();
        for (_, id) in by_age {
            let crowded = self.traces.len() > MOST_TRACES || self.spans > MOST_SPANS;
            let is_ready = self.traces.get(&id).is_some_and(|pending| {
                let quiet = now.saturating_duration_since(pending.last);
                quiet >= QUIET
                    || pending.root_seen && quiet >= QUIET_WITH_ROOT
                    || now.saturating_duration_since(pending.began) >= OLDEST
                    || pending.spans.len() >= LARGEST_TRACE
            });
            if is_ready || crowded {
                self.release(&id, &mut ready);
            }
        }
        ready
    }

    /// Everything, oldest first.
    pub(super) fn all(&mut self) -> Vec<Vec<Span>> {
        let mut by_age: Vec<_> = self.traces.iter().map(|(id, pending)| (pending.began, *id)).collect();
        by_age.sort_unstable();
        let mut ready = Vec::new();
        for (_, id) in by_age {
            self.release(&id, &mut ready);
        }
        ready
    }

    fn release(&mut self, id: &TraceId, to: &mut Vec<Vec<Span>>) {
        if let Some(pending) = self.traces.remove(id) {
            self.spans -= pending.spans.len();
            to.push(pending.spans);
        }
    }
}
