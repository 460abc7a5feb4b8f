//! The queue between the engine and one sender: bounded in bytes, oldest dropped first, every span in one account.
//!
//! Comes in: [`Batch`]es from the engine thread, which never waits. Goes out: batches to the sender's workers, and
//! the sender's [`Stage`].

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::batch::Batch;
use crate::telemetry::{Flow, Stage};

/// Why spans were not exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// The queue was full and they were the oldest.
    QueueFull,
    /// The endpoint refused the whole request for good.
    Refused,
    /// The endpoint took the request but not these.
    RejectedInPart,
    /// The endpoint asked to try again for too long.
    RetriesExhausted,
    /// The file could not be written.
    WriteFailed,
    /// The agent stopped before they were sent.
    Stopped,
}

const REASONS: [(Reason, &str); 6] = [
    (Reason::QueueFull, "queue full"),
    (Reason::Refused, "refused by the endpoint"),
    (Reason::RejectedInPart, "rejected in part by the endpoint"),
    (Reason::RetriesExhausted, "retries exhausted"),
    (Reason::WriteFailed, "write failed"),
    (Reason::Stopped, "not sent before the stop"),
];

/// Figures beside the balance.
#[derive(Clone, Copy, Default, Debug)]
struct Notes {
    batches: u64,
    bytes: u64,
    retries: u64,
    unclear: u64,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Batch>,
    waiting_bytes: usize,
    waiting_spans: u64,
    /// With a worker, not settled.
    taken_bytes: usize,
    taken_spans: u64,
    acknowledged: u64,
    dropped: [u64; REASONS.len()],
    notes: Notes,
    closed: bool,
    /// The last account was given; what a worker reports after it comes too late.
    sealed: bool,
}

impl Inner {
    fn drop_spans(&mut self, reason: Reason, spans: u64) {
        if let Some(slot) = self.dropped.get_mut(reason as usize) {
            *slot += spans;
        }
    }

    fn pop(&mut self) -> Option<Batch> {
        let batch = self.waiting.pop_front()?;
        self.waiting_bytes -= batch.held_bytes;
        self.waiting_spans -= batch.spans;
        Some(batch)
    }

    fn take(&mut self) -> Option<Batch> {
        let batch = self.pop()?;
        self.taken_bytes += batch.held_bytes;
        self.taken_spans += batch.spans;
        Some(batch)
    }
}

/// See the module.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Wakes asynchronous workers.
    ready: Notify,
    /// Wakes a worker on its own thread.
    ready_thread: Condvar,
    limit_bytes: usize,
}

impl Queue {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { inner: Mutex::default(), ready: Notify::new(), ready_thread: Condvar::new(), limit_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic half-way; the numbers are good even if a holder did.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a batch over. Batches with a worker count as held but cannot be dropped.
    pub(super) fn push(&self, batch: Batch) {
        let mut evicted = Vec::new();
        {
            let mut inner = self.lock();
            while inner.waiting_bytes + inner.taken_bytes + batch.held_bytes > self.limit_bytes {
                let Some(oldest) = inner.pop() else { break };
                inner.drop_spans(Reason::QueueFull, oldest.spans);
                evicted.push(oldest);
            }
            let fits = inner.taken_bytes + inner.waiting_bytes + batch.held_bytes <= self.limit_bytes;
            if inner.closed {
                inner.drop_spans(Reason::Stopped, batch.spans);
            } else if fits {
                inner.waiting_bytes += batch.held_bytes;
                inner.waiting_spans += batch.spans;
                inner.waiting.push_back(batch);
            } else {
                inner.drop_spans(Reason::QueueFull, batch.spans);
            }
        }
        self.ready.notify_one();
        self.ready_thread.notify_one();
    }

    /// The oldest batch, when there is one; none when closed and empty.
    pub(super) async fn take(&self) -> Option<Batch> {
        loop {
            let ready = self.ready.notified();
            let mut ready = std::pin::pin!(ready);
            // Registered before looking, so that a batch pushed in between wakes us.
            ready.as_mut().enable();
            {
                let mut inner = self.lock();
                if let Some(batch) = inner.take() {
                    if !inner.waiting.is_empty() {
                        // One wake-up may have stood for several batches.
                        self.ready.notify_one();
                    }
                    return Some(batch);
                }
                if inner.closed {
                    return None;
                }
            }
            ready.await;
        }
    }

    /// Like `take`, for a worker on its own thread.
    pub(super) fn take_blocking(&self) -> Option<Batch> {
        let mut inner = self.lock();
        loop {
            if let Some(batch) = inner.take() {
                return Some(batch);
            }
            if inner.closed {
                return None;
            }
            let waited = self.ready_thread.wait_timeout(inner, Duration::from_secs(1));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Settles a taken batch: `lost` of its spans for a reason, the rest acknowledged.
    pub(super) fn settle(&self, batch: &Batch, lost: Option<(Reason, u64)>) {
        let mut inner = self.lock();
        if inner.sealed {
            return;
        }
        inner.taken_bytes = inner.taken_bytes.saturating_sub(batch.held_bytes);
        inner.taken_spans = inner.taken_spans.saturating_sub(batch.spans);
        let mut kept = batch.spans;
        if let Some((reason, spans)) = lost {
            let spans = spans.min(batch.spans);
            inner.drop_spans(reason, spans);
            kept -= spans;
        }
        inner.acknowledged += kept;
        if kept > 0 {
            inner.notes.batches += 1;
            inner.notes.bytes += batch.body.len() as u64;
        }
    }

    /// Gives a taken batch back, to be sent again. It is the oldest again, the first to go if the queue is full.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut inner = self.lock();
        if inner.sealed {
            return;
        }
        inner.taken_bytes = inner.taken_bytes.saturating_sub(batch.held_bytes);
        inner.taken_spans = inner.taken_spans.saturating_sub(batch.spans);
        inner.waiting_bytes += batch.held_bytes;
        inner.waiting_spans += batch.spans;
        inner.waiting.push_front(batch);
        drop(inner);
        self.ready.notify_one();
    }

    /// Counts an attempt that has to be made again.
    pub(super) fn count_retry(&self) {
        self.lock().notes.retries += 1;
    }

    /// Counts a success whose body was no OTLP answer.
    pub(super) fn count_unclear(&self) {
        self.lock().notes.unclear += 1;
    }

    /// Whether half of the bound is used.
    pub(super) fn is_half_full(&self) -> bool {
        let inner = self.lock();
        inner.waiting_bytes + inner.taken_bytes > self.limit_bytes / 2
    }

    /// Spans dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped.iter().sum()
    }

    /// No batch comes after this; workers end when the queue is empty.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_waiters();
        self.ready.notify_one();
        self.ready_thread.notify_all();
    }

    /// What has not been sent by now is dropped for good.
    pub(super) fn seal(&self) {
        let mut inner = self.lock();
        let left = inner.waiting_spans + inner.taken_spans;
        inner.drop_spans(Reason::Stopped, left);
        inner.waiting.clear();
        (inner.waiting_bytes, inner.waiting_spans) = (0, 0);
        (inner.taken_bytes, inner.taken_spans) = (0, 0);
        inner.closed = true;
        inner.sealed = true;
    }

    /// The account. `input` and `pending` are the engine's: spans in, and spans not yet in a batch.
    pub(super) fn stage(&self, name: &'static str, reasons: &[Reason], input: u64, pending: u64) -> Stage {
        let inner = self.lock();
        let mut rows = vec![(Flow::Out, "acknowledged", inner.acknowledged)];
        for ((reason, text), count) in REASONS.iter().zip(inner.dropped) {
            // A reason that a sender cannot have is left out, unless it had it.
            if reasons.contains(reason) || count > 0 {
                rows.push((Flow::Drop, *text, count));
            }
        }
        rows.push((Flow::Held, "waiting", pending + inner.waiting_spans));
        rows.push((Flow::Held, "in flight", inner.taken_spans));
        let notes = inner.notes;
        let held = (inner.waiting_bytes + inner.taken_bytes) as u64;
        let mut figures = vec![("batches", notes.batches), ("bytes", notes.bytes), ("bytes held", held)];
        if reasons.contains(&Reason::Refused) {
            figures.push(("retries", notes.retries));
            figures.push(("answers not understood", notes.unclear));
        }
        Stage { name, input, rows, notes: figures }
    }
}

/// Says yes at most once in a while, and how often it said no since.
#[derive(Debug)]
pub(super) struct Seldom {
    every: Duration,
    last: Option<Instant>,
    quiet: u64,
}

impl Seldom {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, last: None, quiet: 0 }
    }

    /// `Some(times it was not said since)` if it may be said now.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            self.quiet += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.quiet))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn batch(spans: u64, bytes: usize) -> Batch {
        Batch { body: Bytes::from(vec![0; bytes]).into(), spans, held_bytes: bytes, tried: None }
    }

    fn stage(queue: &Queue, input: u64) -> Stage {
        queue.stage("test", &[Reason::QueueFull, Reason::Stopped], input, 0)
    }

    fn row(stage: &Stage, name: &str) -> u64 {
        stage.rows.iter().find(|row| row.1 == name).map(|row| row.2).unwrap()
    }

    #[test]
    fn the_oldest_is_dropped_and_counted() {
        let queue = Queue::new(100);
        for spans in [1, 2, 4, 8] {
            queue.push(batch(spans, 40));
        }
        let account = stage(&queue, 15);
        assert!(account.balances());
        assert_eq!((row(&account, "queue full"), row(&account, "waiting")), (3, 12));
        // One in flight cannot be dropped, so a new one too large for the rest is.
        let taken = queue.take_blocking().unwrap();
        assert_eq!(taken.spans, 4);
        queue.push(batch(16, 90));
        let account = stage(&queue, 31);
        assert!(account.balances());
        assert_eq!((row(&account, "queue full"), row(&account, "in flight")), (27, 4));
        queue.settle(&taken, None);
        let account = stage(&queue, 31);
        assert!(account.balances());
        assert_eq!(row(&account, "acknowledged"), 4);
    }

    #[test]
    fn a_batch_given_back_is_the_oldest_again() {
        let queue = Queue::new(100);
        queue.push(batch(1, 40));
        queue.push(batch(2, 40));
        let taken = queue.take_blocking().unwrap();
        queue.put_back(taken);
        assert!(stage(&queue, 3).balances());
        queue.push(batch(4, 40));
        let account = stage(&queue, 7);
        assert!(account.balances());
        assert_eq!((row(&account, "queue full"), row(&account, "waiting")), (1, 6));
        assert_eq!(queue.take_blocking().unwrap().spans, 2);
    }

    #[test]
    fn a_late_report_does_not_upset_the_last_account() {
        let queue = Queue::new(1000);
        queue.push(batch(5, 10));
        queue.push(batch(6, 10));
        let taken = queue.take_blocking().unwrap();
        queue.close();
        queue.seal();
        queue.settle(&taken, None);
        let account = stage(&queue, 11);
        assert!(account.balances());
        assert_eq!(row(&account, "not sent before the stop"), 11);
        assert!(queue.take_blocking().is_none());
    }

    #[test]
    fn seldom_is_seldom() {
        let mut seldom = Seldom::new(Duration::from_secs(60));
        let start = Instant::now();
        assert_eq!(seldom.due(start), Some(0));
        assert_eq!(seldom.due(start + Duration::from_secs(59)), None);
        assert_eq!(seldom.due(start + Duration::from_secs(60)), Some(1));
    }
}
