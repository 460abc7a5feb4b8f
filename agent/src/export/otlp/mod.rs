//! The OTLP senders: one thread with one runtime for all endpoints, a few workers for each.
//!
//! Comes in: encoded requests from each endpoint's queue. Goes out: requests to the endpoint, verdicts to the
//! queue's account, and now and then a line in the log.

mod answer;
mod grpc;
mod http;
mod tls;

use std::error::Error;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::ExportError;
use super::batch::{Batch, Segments};
use super::queue::{Queue, Reason, Seldom};
use super::retry::{Backoff, Verdict};
use crate::config::{Otlp, OtlpProtocol};

/// No more of an answer is read.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// Requests under way to one endpoint at a time.
const WORKERS: u64 = 4;
/// An endpoint that is there but asks to try again is asked for no longer than this. One that is not there is
/// waited for without end; its queue is bounded.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// How often the same complaint is made.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Longest wait between attempts once the agent is stopping.
const STOPPING_WAIT: Duration = Duration::from_millis(100);

enum Client {
    Grpc(grpc::GrpcClient),
    Http(Box<http::HttpClient>),
}

impl Client {
    fn payload(&self, body: &Segments) -> Result<Segments, String> {
        match self {
            Self::Grpc(_) => Ok(body.clone()),
            Self::Http(client) => client.payload(body),
        }
    }

    async fn send(&self, payload: &Segments) -> Verdict {
        match self {
            Self::Grpc(client) => client.send(payload).await,
            Self::Http(client) => client.send(payload).await,
        }
    }
}

/// One endpoint with its queue.
pub(super) struct Sender {
    client: Client,
    queue: Arc<Queue>,
    timeout: Duration,
    health: Health,
}

impl Sender {
    /// Must be called inside the runtime that will send.
    pub(super) fn new(otlp: &Otlp, queue: Arc<Queue>) -> Result<Self, ExportError> {
        let bad = |why: &str| ExportError::Endpoint { endpoint: otlp.endpoint.clone(), why: why.to_owned() };
        let uri: Uri = otlp.endpoint.parse().map_err(|_| bad("it is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(bad("it must begin with http:// or https:// and name a host"));
        }
        let headers = headers(&otlp.headers)?;
        let client = match otlp.protocol {
            OtlpProtocol::Grpc => Client::Grpc(grpc::GrpcClient::new(otlp, uri, headers)?),
            OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => {
                Client::Http(Box::new(http::HttpClient::new(otlp, uri, headers)?))
            }
        };
        Ok(Self { client, queue, timeout: otlp.timeout, health: Health::new(&otlp.endpoint) })
    }

    async fn work(self: Arc<Self>, index: u64, mut stopping: watch::Receiver<Option<Instant>>) {
        let mut failing = self.health.failing.subscribe();
        loop {
            if index > 0 {
                // While the endpoint is away one worker knocks, the others wait.
                tokio::select! {
                    _ = failing.wait_for(|failing| !failing) => {}
                    _ = stopping.wait_for(Option::is_some) => {}
                }
            }
            let Some(batch) = self.queue.take().await else { return };
            let lost = self.deliver(&batch, index, &mut stopping).await;
            self.queue.settle(&batch, lost);
        }
    }

    /// Sends a batch until it is settled; what was lost of it.
    async fn deliver(
        &self,
        batch: &Batch,
        index: u64,
        stopping: &mut watch::Receiver<Option<Instant>>,
    ) -> Option<(Reason, u64)> {
        let payload = match self.client.payload(&batch.body) {
            Ok(payload) => payload,
            Err(why) => {
                self.health.refused(&why, batch.spans);
                return Some((Reason::Refused, batch.spans));
            }
        };
        let began = Instant::now();
        let mut backoff = Backoff::new(seed(index));
        loop {
            let verdict = match tokio::time::timeout(self.timeout, self.client.send(&payload)).await {
                Ok(verdict) => verdict,
                Err(_) => Verdict::Retry {
                    after: None,
                    unreachable: false,
                    why: format!("it did not answer within {:?}", self.timeout),
                },
            };
            match verdict {
                Verdict::Accepted => {
                    self.health.works(&self.queue);
                    return None;
                }
                Verdict::Unclear => {
                    self.health.works(&self.queue);
                    self.health.unclear();
                    self.queue.count_unclear();
                    return None;
                }
                Verdict::Partial { rejected, message } => {
                    self.health.works(&self.queue);
                    self.health.partial(rejected, &message);
                    return Some((Reason::RejectedInPart, rejected));
                }
                Verdict::Refused { why } => {
                    self.health.works(&self.queue);
                    self.health.refused(&why, batch.spans);
                    return Some((Reason::Refused, batch.spans));
                }
                Verdict::Retry { after, unreachable, why } => {
                    self.health.fails(&why, &self.queue);
                    if !unreachable && began.elapsed() >= LONGEST_RETRY {
                        return Some((Reason::RetriesExhausted, batch.spans));
                    }
                    self.queue.count_retry();
                    let wait = backoff.next(after);
                    if stopping.borrow().is_some() {
                        tokio::time::sleep(wait.min(STOPPING_WAIT)).await;
                        continue;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = stopping.wait_for(Option::is_some) => {}
                    }
                }
            }
        }
    }
}

/// Runs all senders until their queues are closed and empty, or the deadline passes.
pub(super) async fn run(senders: Vec<Sender>, stopping: watch::Receiver<Option<Instant>>) {
    let mut workers = JoinSet::new();
    for sender in senders {
        let sender = Arc::new(sender);
        for index in 0..WORKERS {
            workers.spawn(sender.clone().work(index, stopping.clone()));
        }
    }
    tokio::select! {
        () = async { while workers.join_next().await.is_some() {} } => {}
        () = deadline(stopping) => {}
    }
}

async fn deadline(mut stopping: watch::Receiver<Option<Instant>>) {
    // An error means that the exporters are gone, which is a deadline too.
    let at = stopping.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Something different for each sender and moment.
fn seed(index: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    now ^ (u64::from(std::process::id()) << 32) ^ index
}

fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, ExportError> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        // The value is not shown: it is most often a secret.
        let bad = || ExportError::Header { name: name.clone() };
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        map.append(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, value);
    }
    Ok(map)
}

/// An error with its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some wrappers repeat their cause.
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    answer::clean(&text)
}

/// Whether the endpoint works, and the lines about it: one when it begins to fail, then at most one a minute, one
/// when it works again.
struct Health {
    endpoint: String,
    failing: watch::Sender<bool>,
    state: Mutex<State>,
}

struct State {
    since: Option<(Instant, u64)>,
    down: Seldom,
    refused: Seldom,
    partial: Seldom,
    unclear: Seldom,
}

impl Health {
    fn new(endpoint: &str) -> Self {
        let seldom = || Seldom::new(COMPLAIN_EVERY);
        let state = State {
            since: None,
            down: seldom(),
            refused: seldom(),
            partial: seldom(),
            unclear: seldom(),
        };
        Self { endpoint: shown(endpoint), failing: watch::Sender::new(false), state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn works(&self, queue: &Queue) {
        let Some((since, dropped)) = self.state().since.take() else { return };
        self.failing.send_replace(false);
        let dropped = queue.dropped() - dropped;
        info!(
            "export to {} works again after {:.1} s; {dropped} spans were dropped meanwhile",
            self.endpoint,
            since.elapsed().as_secs_f64()
        );
    }

    fn fails(&self, why: &str, queue: &Queue) {
        let now = Instant::now();
        let mut state = self.state();
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

    fn refused(&self, why: &str, spans: u64) {
        if let Some(quiet) = self.state().refused.due(Instant::now()) {
            warn!(
                "{} refused {spans} spans ({why}; {quiet} times more since the last such line); check address, \
                 protocol and headers",
                self.endpoint
            );
        }
    }

    fn partial(&self, rejected: u64, message: &str) {
        if let Some(quiet) = self.state().partial.due(Instant::now()) {
            warn!(
                "{} rejected {rejected} spans of a batch, saying \"{message}\" ({quiet} times more since the \
                 last such line)",
                self.endpoint
            );
        }
    }

    fn unclear(&self) {
        if self.state().unclear.due(Instant::now()).is_some() {
            warn!(
                "{} answered with success, but not as an OTLP endpoint does; check that the address is one",
                self.endpoint
            );
        }
    }
}

/// The endpoint without a password or query that may be in it.
fn shown(endpoint: &str) -> String {
    let endpoint = endpoint.split(['?', '#']).next().unwrap_or_default();
    match (endpoint.split_once("://"), endpoint.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => endpoint.to_owned(),
    }
}
