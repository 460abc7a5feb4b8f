//! Whether an endpoint works: the pause after a failure, which all its workers keep, and the lines in the log,
//! one when it begins to fail, then at most one a minute, and one when it works again.
//!
//! Comes in: what the workers met. Goes out: waiting times, log lines.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tracing::{info, warn};

use super::super::queue::{Queue, Seldom};
use super::super::retry::Backoff;

/// How often the same complaint is made.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Longest wait between attempts once the agent is stopping.
const STOPPING_WAIT: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Health {
    endpoint: String,
    /// Whether the last attempt failed.
    pub(super) failing: watch::Sender<bool>,
    state: Mutex<State>,
}

struct State {
    /// Since when it fails, and how many spans had been dropped by then.
    since: Option<(Instant, u64)>,
    until: Option<Instant>,
    /// The endpoint itself asked for that wait.
    asked: bool,
    backoff: Backoff,
    down: Seldom,
    refused: Seldom,
    partial: Seldom,
    unclear: Seldom,
}

impl Health {
    pub(super) fn new(endpoint: &str) -> Self {
        let seldom = || Seldom::new(COMPLAIN_EVERY);
        let state = State {
            since: None,
            until: None,
            asked: false,
            backoff: Backoff::new(seed()),
            down: seldom(),
            refused: seldom(),
            partial: seldom(),
            unclear: seldom(),
        };
        Self { endpoint: shown(endpoint), failing: watch::Sender::new(false), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn works(&self, queue: &Queue) {
        let mut state = self.state();
        let Some((since, dropped)) = state.since.take() else { return };
        state.until = None;
        state.backoff.reset();
        drop(state);
        self.failing.send_replace(false);
        let dropped = queue.dropped() - dropped;
        info!(
            "export to {} works again after {:.1} s; {dropped} spans were dropped meanwhile",
            self.endpoint,
            since.elapsed().as_secs_f64()
        );
    }

    /// Waits until the endpoint may be asked again; not as long when the agent is stopping, unless the endpoint said how long.
    pub(super) async fn pause(&self, stopping: &mut watch::Receiver<Option<Instant>>) {
        let (until, asked) = {
            let state = self.state();
            (state.until, state.asked)
        };
        let Some(until) = until else { return };
        if stopping.borrow().is_none() {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => return,
                _ = stopping.wait_for(Option::is_some) => {}
            }
        }
        let soon = Instant::now() + STOPPING_WAIT;
        tokio::time::sleep_until(if asked { until } else { until.min(soon) }.into()).await;
    }

    /// Whether it is too early to ask again.
    pub(super) fn is_paused(&self) -> bool {
        self.state().until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn fails(&self, why: &str, after: Option<Duration>, queue: &Queue) {
        let now = Instant::now();
        let mut state = self.state();
        // Requests that were under way together fail together; that is one step, not several.
        if state.until.is_none_or(|until| until <= now) {
            state.until = Some(now + state.backoff.next(after));
            state.asked = after.is_some();
        } else if let Some(after) = after {
            state.until = state.until.max(Some(now + after));
            state.asked = true;
        }
        let dropped = queue.dropped();
        let (since, before) = *state.since.get_or_insert((now, dropped));
        self.failing.send_replace(true);
        if state.down.due(now).is_some() {
            let seconds = now.saturating_duration_since(since).as_secs();
            let dropped = dropped - before;
            warn!(
                "export to {} fails ({why}); spans wait in memory and the oldest are dropped when the queue is \
                 full ({dropped} so far in {seconds} s); check that the endpoint is up",
                self.endpoint
            );
        }
    }

    pub(super) fn refused(&self, why: &str, spans: u64) {
        if let Some(quiet) = self.state().refused.due(Instant::now()) {
            warn!(
                "{} refused {spans} spans ({why}; {quiet} times more since the last such line); check address, \
                 protocol and headers",
                self.endpoint
            );
        }
    }

    pub(super) fn partial(&self, rejected: u64, message: &str) {
        if let Some(quiet) = self.state().partial.due(Instant::now()) {
            warn!(
                "{} rejected {rejected} spans of a batch, saying \"{message}\" ({quiet} times more since the \
                 last such line)",
                self.endpoint
            );
        }
    }

    pub(super) fn unclear(&self) {
        if self.state().unclear.due(Instant::now()).is_some() {
            warn!(
                "{} answered with success, but not as an OTLP endpoint does; check that the address is one",
                self.endpoint
            );
        }
    }
}

/// Something different for each sender and moment.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    now ^ (u64::from(std::process::id()) << 32)
}

/// The endpoint without a password or query that may be in it.
fn shown(endpoint: &str) -> String {
    let endpoint = endpoint.split(['?', '#']).next().unwrap_or_default();
    match (endpoint.split_once("://"), endpoint.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_address_are_not_shown() {
        assert_eq!(shown("https://user:pass@host:1/v1/traces?key=1#x"), "https://host:1/v1/traces");
        assert_eq!(shown("http://host:4317"), "http://host:4317");
    }

    #[test]
    fn failures_that_come_together_are_one_step() {
        let (health, queue) = (Health::new("http://x"), Queue::new(1));
        for _ in 0..100 {
            health.fails("down", None, &queue);
        }
        let until = health.state().until.unwrap();
        assert!(until <= Instant::now() + Duration::from_millis(300), "the first wait, not the hundredth");
        assert!(health.is_paused() && *health.failing.borrow());
        health.fails("busy", Some(Duration::from_secs(9)), &queue);
        assert!(health.state().until.unwrap() > until + Duration::from_secs(8));
        health.works(&queue);
        assert!(!health.is_paused() && !*health.failing.borrow());
    }
}
