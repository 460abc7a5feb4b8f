//! Stage 7: export: batches, OTLP over gRPC and HTTP, OTLP/JSON lines in a file, a waterfall on the terminal.
//!
//! Comes in: finished [`Span`]s, on the engine's thread, which never waits here. Goes out: requests to endpoints,
//! lines in files, pictures on the terminal, and for each exporter an account that balances.
//!
//! A span is encoded at once, once for each format in use, and is then only bytes. Batches go through a bounded
//! queue for each exporter to background threads.

mod batch;
pub mod console;
mod encode;
mod file;
mod json;
mod otlp;
mod queue;
pub mod retry;
mod wire;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::{Exporter, OtlpProtocol};
use crate::span::Span;
use crate::telemetry::{Flow, Stage};
use batch::{Batcher, Format};
use console::Console;
use queue::{Queue, Reason};

/// Name of the instrumentation scope of all spans.
pub const SCOPE_NAME: &str = "spanwise";
/// Version of the instrumentation scope of all spans.
pub const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the OTLP exporters call themselves.
const USER_AGENT: &str =
    concat!("Spanwise/", env!("CARGO_PKG_VERSION"), " OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));
/// How long a stop may take unless said otherwise.
pub const STOP_WITHIN: Duration = Duration::from_millis(1500);
/// What a background thread may be late at the deadline.
const GRACE: Duration = Duration::from_millis(100);

/// Sizes and times of batches and queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most spans in a batch (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
    pub batch_spans: u64,
    /// A batch is sent when it has this many bytes.
    pub batch_bytes: usize,
    /// Longest wait of a span for its batch to fill (`OTEL_BSP_SCHEDULE_DELAY`).
    pub delay: Duration,
    /// Memory for batches that wait or are under way, all exporters together.
    pub queue_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_spans: 2048,
            batch_bytes: 1024 * 1024,
            delay: Duration::from_secs(1),
            queue_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Why export cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Not an address that can be sent to.
    #[error("cannot export to \"{endpoint}\": {why}; give a URL such as http://localhost:4318/v1/traces")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// A header that HTTP does not allow.
    #[error(
        "the OTLP header \"{name}\" has characters that HTTP does not allow in its name or value; correct it"
    )]
    Header {
        /// Its name.
        name: String,
    },
    /// A file of the TLS settings cannot be read.
    #[error("cannot read the {what} for OTLP from {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// What the file holds.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Certificate without key, or key without certificate.
    #[error("a client certificate for OTLP needs a client key and the other way round; give both or none")]
    HalfIdentity,
    /// The TLS settings do not work.
    #[error(
        "the {what} for TLS to the OTLP endpoint cannot be used: {why}; give PEM files that belong together"
    )]
    Tls {
        /// Which part.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// No certificates on this system.
    #[error(
        "cannot check the OTLP endpoint's certificate, because this system has no root certificates; install them \
         or name a file by OTEL_EXPORTER_OTLP_CERTIFICATE"
    )]
    NoRoots,
    /// The output file cannot be opened.
    #[error("cannot write spans to {}: {source}; check that the folder exists and can be written", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No thread or no runtime.
    #[error("cannot start the export thread: {0}; check the limits on processes and open files")]
    Thread(#[source] io::Error),
}

/// An exporter behind a queue of batches.
struct Destination {
    name: &'static str,
    format: Format,
    queue: Arc<Queue>,
    reasons: &'static [Reason],
}

const OTLP_REASONS: &[Reason] =
    &[Reason::QueueFull, Reason::Refused, Reason::RejectedInPart, Reason::RetriesExhausted, Reason::Stopped];
const FILE_REASONS: &[Reason] = &[Reason::QueueFull, Reason::WriteFailed, Reason::Stopped];

/// All exporters of this run.
pub struct Exporters {
    limits: Limits,
    batchers: Vec<Batcher>,
    destinations: Vec<Destination>,
    console: Vec<Console>,
    /// One count for each exporter `none`.
    none: Vec<u64>,
    stopping: watch::Sender<Option<Instant>>,
    /// One for each background thread; closed when it ends.
    threads: Vec<Receiver<()>>,
}

impl Exporters {
    /// Starts the background threads. Everything that can be found wrong without the network is found here.
    pub fn start(exporters: &[Exporter], limits: Limits) -> Result<Self, ExportError> {
        let queues = exporters.iter().filter(|kind| matches!(kind, Exporter::Otlp(_) | Exporter::File(_)));
        let queue_bytes = limits.queue_bytes / queues.count().max(1);
        let (stopping, stopping_seen) = watch::channel(None);
        let mut this = Self {
            limits,
            batchers: Vec::new(),
            destinations: Vec::new(),
            console: Vec::new(),
            none: Vec::new(),
            stopping,
            threads: Vec::new(),
        };
        let runtime = if exporters.iter().any(|kind| matches!(kind, Exporter::Otlp(_))) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            Some(runtime.map_err(ExportError::Thread)?)
        } else {
            None
        };
        let mut senders = Vec::new();
        let mut files = Vec::new();
        for kind in exporters {
            let queue = Arc::new(Queue::new(queue_bytes));
            match kind {
                Exporter::Otlp(settings) => {
                    let _inside = runtime.as_ref().map(tokio::runtime::Runtime::enter);
                    senders.push(otlp::Sender::new(settings, queue.clone())?);
                    let (name, format) = match settings.protocol {
                        OtlpProtocol::Grpc => ("export otlp grpc: spans", Format::Protobuf),
                        OtlpProtocol::HttpProtobuf => ("export otlp http/protobuf: spans", Format::Protobuf),
                        OtlpProtocol::HttpJson => ("export otlp http/json: spans", Format::Json),
                    };
                    this.send_to(Destination { name, format, queue, reasons: OTLP_REASONS });
                }
                Exporter::File(path) => {
                    files.push((file::LineFile::open(path)?, queue.clone()));
                    let (name, format) = ("export file: spans", Format::Json);
                    this.send_to(Destination { name, format, queue, reasons: FILE_REASONS });
                }
                Exporter::Console => this.console.push(Console::new()),
                Exporter::None => this.none.push(0),
            }
        }
        for (file, queue) in files {
            this.spawn("spanwise-file", move || file::run(file, &queue))?;
        }
        let screens: Vec<_> = this.console.iter().map(Console::screen).collect();
        for screen in screens {
            this.spawn("spanwise-screen", move || screen.run())?;
        }
        if let Some(runtime) = runtime {
            this.spawn("spanwise-otlp", move || {
                runtime.block_on(otlp::run(senders, stopping_seen));
                // A name look-up may hang in a thread of its own; it is not waited for.
                runtime.shutdown_background();
            })?;
        }
        Ok(this)
    }

    fn send_to(&mut self, destination: Destination) {
        if self.batchers.iter().all(|batcher| batcher.format() != destination.format) {
            self.batchers.push(Batcher::new(destination.format, self.limits));
        }
        self.destinations.push(destination);
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ExportError> {
        let (ended, end) = channel();
        let work = move || {
            let _ended = ended;
            work();
        };
        thread::Builder::new().name(name.to_owned()).spawn(work).map_err(ExportError::Thread)?;
        self.threads.push(end);
        Ok(())
    }

    /// Takes a span. Never waits for I/O.
    pub fn span(&mut self, span: &Span) {
        for batcher in &mut self.batchers {
            if batcher.add(span) {
                hand_over(batcher, &self.destinations);
            }
        }
        for console in &mut self.console {
            console.span(span);
        }
        for count in &mut self.none {
            *count += 1;
        }
    }

    /// Hands over what has waited long enough. To be called several times within [`Limits::delay`].
    pub fn tick(&mut self, now: Instant) {
        for batcher in &mut self.batchers {
            if batcher.is_old(now, self.limits.delay) {
                hand_over(batcher, &self.destinations);
            }
        }
        for console in &mut self.console {
            console.tick(now);
        }
    }

    /// Whether a queue is half full: spans come faster than they can be sent.
    pub fn is_behind(&self) -> bool {
        self.destinations.iter().any(|destination| destination.queue.is_half_full())
    }

    /// The account of each exporter.
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = Vec::new();
        for destination in &self.destinations {
            let batcher = self.batchers.iter().find(|batcher| batcher.format() == destination.format);
            let (input, pending) = batcher.map_or((0, 0), |batcher| (batcher.input(), batcher.pending()));
            stages.push(destination.queue.stage(destination.name, destination.reasons, input, pending));
        }
        stages.extend(self.console.iter().map(Console::stage));
        stages.extend(self.none.iter().map(|&input| Stage {
            name: "export none: spans",
            input,
            rows: vec![(Flow::Out, "counted only", input)],
            notes: Vec::new(),
        }));
        stages
    }

    /// Sends what is left, for at most `within` ([`STOP_WITHIN`]), stops the threads, and gives the last account,
    /// in which nothing is held any more.
    pub fn flush_and_stop(mut self, within: Duration) -> Vec<Stage> {
        let deadline = Instant::now() + within;
        for batcher in &mut self.batchers {
            hand_over(batcher, &self.destinations);
        }
        self.close(deadline);
        for thread in &self.threads {
            let left = (deadline + GRACE).saturating_duration_since(Instant::now());
            // An error is the end of the thread, or of the time.
            let _ = thread.recv_timeout(left);
        }
        for destination in &self.destinations {
            destination.queue.seal();
        }
        for console in &self.console {
            console.seal();
        }
        self.stages()
    }

    fn close(&self, deadline: Instant) {
        for destination in &self.destinations {
            destination.queue.close();
        }
        for console in &self.console {
            console.close();
        }
        self.stopping.send_if_modified(|at| {
            let open = at.is_none();
            at.get_or_insert(deadline);
            open
        });
    }
}

impl Drop for Exporters {
    /// Lets the threads end where nobody asked for a flush.
    fn drop(&mut self) {
        self.close(Instant::now());
    }
}

fn hand_over(batcher: &mut Batcher, destinations: &[Destination]) {
    if let Some(batch) = batcher.take() {
        for destination in destinations.iter().filter(|to| to.format == batcher.format()) {
            destination.queue.push(batch.clone());
        }
    }
}

#[cfg(test)]
mod tests;
