//! The console: finished traces as waterfalls, live.
//!
//! Comes in: spans from the engine's thread, which never waits. Goes out: pictures on the standard output. A
//! terminal shows a few traces a second; the rest is counted and said.

mod collect;
mod text;
pub mod waterfall;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::span::{Span, TraceId};
use crate::telemetry::{Flow, Stage};
use collect::Collector;

/// Spans that may be held between the engine and the screen, collected ones included.
const MOST_HELD: u64 = 4_000;
/// Spans a second that the engine lets through.
const SPANS_A_SECOND: u64 = 1_000;
/// Traces a second that are drawn.
const TRACES_A_SECOND: u32 = 20;
/// How often traces are looked at for having become quiet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the engine and the screen share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    incoming: Vec<Span>,
    /// With the screen, not yet drawn.
    collected: u64,
    shown: u64,
    traces: u64,
    not_shown: u64,
    failed: u64,
    stopped: u64,
    /// Turned away by the engine since the screen last said so.
    unsaid: u64,
    closed: bool,
    sealed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's side.
pub(super) struct Console {
    shared: Arc<Shared>,
    input: u64,
    gate: Gate,
}

impl Console {
    pub(super) fn new() -> Self {
        Self { shared: Arc::default(), input: 0, gate: Gate::new(Instant::now()) }
    }

    /// The other side.
    pub(super) fn screen(&self) -> Screen {
        Screen { shared: self.shared.clone() }
    }

    pub(super) fn span(&mut self, span: &Span) {
        self.input += 1;
        let passes = self.gate.passes(&span.trace_id);
        let mut state = self.shared.lock();
        if !passes || state.closed || state.incoming.len() as u64 + state.collected >= MOST_HELD {
            state.not_shown += 1;
            state.unsaid += 1;
            return;
        }
        state.incoming.push(span.clone());
        let first = state.incoming.len() == 1;
        drop(state);
        if first {
            self.shared.arrived.notify_one();
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.gate.tick(now);
    }

    pub(super) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_one();
    }

    pub(super) fn seal(&self) {
        let mut state = self.shared.lock();
        state.stopped += state.incoming.len() as u64 + state.collected;
        state.incoming.clear();
        state.collected = 0;
        state.sealed = true;
    }

    pub(super) fn stage(&self) -> Stage {
        let state = self.shared.lock();
        Stage {
            name: "export console: spans",
            input: self.input,
            rows: vec![
                (Flow::Out, "shown", state.shown),
                (Flow::Drop, "not shown (too many for a terminal)", state.not_shown),
                (Flow::Drop, "write failed", state.failed),
                (Flow::Drop, "not sent before the stop", state.stopped),
                (Flow::Held, "waiting", state.incoming.len() as u64 + state.collected),
            ],
            notes: vec![("traces shown", state.traces)],
        }
    }
}

/// Thins out by trace id, so that what passes is whole traces. Each second with too many spans halves the share,
/// each second with few doubles it.
struct Gate {
    since: Instant,
    passed: u64,
    level: u32,
}

impl Gate {
    fn new(now: Instant) -> Self {
        Self { since: now, passed: 0, level: 0 }
    }

    fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) < Duration::from_secs(1) {
            return;
        }
        if self.passed > SPANS_A_SECOND {
            self.level = (self.level + 1).min(24);
        } else if self.passed < SPANS_A_SECOND / 4 {
            self.level = self.level.saturating_sub(1);
        }
        (self.since, self.passed) = (now, 0);
    }

    fn passes(&mut self, trace_id: &TraceId) -> bool {
        let low = trace_id.iter().rev().take(4).fold(0u32, |low, byte| low << 8 | u32::from(*byte));
        if low & ((1 << self.level) - 1) != 0 {
            return false;
        }
        self.passed += 1;
        // Until the share has adapted, an upper bound on the work.
        self.passed <= SPANS_A_SECOND * 4
    }
}

/// The background thread's side.
pub(super) struct Screen {
    shared: Arc<Shared>,
}

impl Screen {
    /// Collects and draws until closed.
    pub(super) fn run(&self) {
        let out = std::io::stdout();
        let color = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        self.draw_to(&mut out.lock(), columns.unwrap_or(100), color);
    }

    fn draw_to(&self, out: &mut impl Write, width: usize, color: bool) {
        let mut collector = Collector::default();
        let mut second = Second::new(Instant::now());
        let mut complained = false;
        loop {
            let (spans, closed) = self.wait(collector.is_empty() && second.is_clear());
            let now = Instant::now();
            for span in spans {
                collector.add(span, now);
            }
            let ready = if closed { collector.all() } else { collector.quiet(now) };
            let mut text = String::new();
            let mut counts = (0, 0, 0);
            for trace in ready {
                let spans = trace.len() as u64;
                if second.may_draw(now) {
                    text.push_str(&waterfall::render(&trace, width, color));
                    counts = (counts.0 + 1, counts.1 + spans, counts.2);
                } else {
                    second.traces_left_out += 1;
                    counts.2 += spans;
                }
            }
            second.spans_left_out += counts.2 + std::mem::take(&mut self.shared.lock().unsaid);
            if let Some(line) = second.left_out(now, closed) {
                text.push_str(&line);
            }
            let failed = match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => false,
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        warn!("cannot write traces to the standard output ({error}); they are only counted");
                    }
                    true
                }
            };
            self.settle(counts, failed);
            if closed {
                return;
            }
        }
    }

    /// New spans, and whether no more will come. Waits without end if nothing else is to do.
    fn wait(&self, idle: bool) -> (Vec<Span>, bool) {
        let mut state = self.shared.lock();
        if idle {
            while state.incoming.is_empty() && !state.closed && state.unsaid == 0 {
                let waited = self.shared.arrived.wait_timeout(state, Duration::from_secs(1));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        } else if state.incoming.is_empty() && !state.closed {
            let waited = self.shared.arrived.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let spans = std::mem::take(&mut state.incoming);
        state.collected += spans.len() as u64;
        (spans, state.closed)
    }

    fn settle(&self, (traces, drawn, left_out): (u64, u64, u64), failed: bool) {
        let mut state = self.shared.lock();
        if state.sealed {
            return;
        }
        state.collected = state.collected.saturating_sub(drawn + left_out);
        state.not_shown += left_out;
        if failed {
            state.failed += drawn;
        } else {
            state.shown += drawn;
            state.traces += traces;
        }
    }
}

/// What was drawn and left out within a second.
struct Second {
    since: Instant,
    drawn: u32,
    traces_left_out: u64,
    spans_left_out: u64,
}

impl Second {
    fn new(now: Instant) -> Self {
        Self { since: now, drawn: 0, traces_left_out: 0, spans_left_out: 0 }
    }

    fn is_clear(&self) -> bool {
        self.spans_left_out == 0
    }

    fn may_draw(&mut self, now: Instant) -> bool {
        // While something is left out, the second ends only when that has been said.
        if self.is_clear() && now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.drawn += 1;
        self.drawn <= TRACES_A_SECOND
    }

    /// The line about what was left out, at most once a second.
    fn left_out(&mut self, now: Instant, at_once: bool) -> Option<String> {
        let over = now.saturating_duration_since(self.since) >= Duration::from_secs(1);
        if self.is_clear() || !(over || at_once) {
            return None;
        }
        let spans = self.spans_left_out;
        let traces = match self.traces_left_out {
            0 => String::new(),
            traces => format!(" ({traces} traces and parts of others)"),
        };
        *self = Self::new(now);
        Some(format!("… {spans} spans more{traces}, too many for a terminal; they are counted\n\n"))
    }
}

#[cfg(test)]
mod tests;
