//! The OTLP senders: one thread with one runtime for all endpoints, a few workers for each.
//!
//! Comes in: encoded requests from each endpoint's queue. Goes out: requests to the endpoint, verdicts to the
//! queue's account, and now and then a line in the log.

mod answer;
mod grpc;
mod health;
mod http;
mod tls;

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ExportError;
use super::batch::{Batch, Segments};
use super::queue::{Queue, Reason};
use super::retry::Verdict;
use crate::config::{Otlp, OtlpProtocol};
use health::Health;

/// No more of an answer is read.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// Requests under way to one endpoint at a time.
const WORKERS: u64 = 4;
/// An endpoint that is there but asks to try again is asked for no longer than this. One that is not there is
/// waited for without end; its queue is bounded.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

enum Client {
    Grpc(Box<grpc::GrpcClient>),
    Http(Box<http::HttpClient>),
}

impl Client {
    fn payload(&self, body: &Segments) -> Result<Segments, String> {
        match self {
            Self::Grpc(client) => client.payload(body),
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
            OtlpProtocol::Grpc => Client::Grpc(Box::new(grpc::GrpcClient::new(otlp, uri, headers)?)),
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
            self.health.pause(&mut stopping).await;
            let Some(mut batch) = self.queue.take().await else { return };
            if self.health.is_paused() && stopping.borrow().is_none() {
                // Another worker met a failure while this one waited for a batch.
                self.queue.put_back(batch);
                continue;
            }
            let began = *batch.tried.get_or_insert_with(Instant::now);
            match self.attempt(&batch).await {
                Settled::Done(lost) => self.queue.settle(&batch, lost),
                Settled::Again { unreachable } if unreachable || began.elapsed() < LONGEST_RETRY => {
                    self.queue.count_retry();
                    // Not kept here meanwhile: as the oldest it is the first to go if the queue gets full.
                    self.queue.put_back(batch);
                }
                Settled::Again { .. } => {
                    let lost = (Reason::RetriesExhausted, batch.spans);
                    self.queue.settle(&batch, Some(lost));
                }
            }
        }
    }

    /// Sends a batch once.
    async fn attempt(&self, batch: &Batch) -> Settled {
        let verdict = match self.client.payload(&batch.body) {
            Ok(payload) => match tokio::time::timeout(self.timeout, self.client.send(&payload)).await {
                Ok(verdict) => verdict,
                Err(_) => Verdict::Retry {
                    after: None,
                    unreachable: false,
                    why: format!("it did not answer within {:?}", self.timeout),
                },
            },
            Err(why) => Verdict::Refused { why },
        };
        if let Verdict::Retry { after, unreachable, why } = verdict {
            self.health.fails(&why, after, &self.queue);
            return Settled::Again { unreachable };
        }
        self.health.works(&self.queue);
        Settled::Done(match verdict {
            Verdict::Partial { rejected, message } => {
                self.health.partial(rejected, &message);
                Some((Reason::RejectedInPart, rejected))
            }
            Verdict::Refused { why } => {
                self.health.refused(&why, batch.spans);
                Some((Reason::Refused, batch.spans))
            }
            Verdict::Unclear => {
                self.health.unclear();
                self.queue.count_unclear();
                None
            }
            Verdict::Accepted | Verdict::Retry { .. } => None,
        })
    }
}

/// What became of one attempt.
enum Settled {
    /// Over, with so many spans lost for a reason.
    Done(Option<(Reason, u64)>),
    /// To be sent again.
    Again {
        /// Nothing there that speaks.
        unreachable: bool,
    },
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

/// A body compressed.
fn gzip(body: &Segments) -> Result<Segments, String> {
    // The fastest level: the machine belongs to the programs that are traced.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    for part in body.parts() {
        encoder.write_all(part).map_err(|error| error.to_string())?;
    }
    let out = encoder.finish().map_err(|error| error.to_string())?;
    Ok(Bytes::from(out).into())
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
