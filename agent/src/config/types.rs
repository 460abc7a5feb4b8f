//! Validated settings, as the stages take them.

use std::path::PathBuf;
use std::time::Duration;

/// Where spans go.
#[derive(Clone, PartialEq, Debug)]
pub enum Exporter {
    /// An OTLP endpoint.
    Otlp(Otlp),
    /// OTLP/JSON lines in a file.
    File(PathBuf),
    /// A waterfall on the terminal.
    Console,
    /// Nowhere (counted).
    None,
}

/// Wire form of OTLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtlpProtocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
    HttpProtobuf,
    /// JSON over HTTP/1.1.
    HttpJson,
}

/// Compression of OTLP requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// None.
    None,
    /// gzip.
    Gzip,
}

/// Settings of one OTLP exporter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Otlp {
    /// Full URL for traces: for HTTP with its path, for gRPC scheme, host and port.
    pub endpoint: String,
    /// Wire form.
    pub protocol: OtlpProtocol,
    /// Extra headers (names in lower case).
    pub headers: Vec<(String, String)>,
    /// Compression.
    pub compression: Compression,
    /// Limit for one request, retries not included.
    pub timeout: Duration,
    /// PEM file of certificates to trust instead of the system's.
    pub certificate: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of the client's key.
    pub client_key: Option<PathBuf>,
}

/// What decides for a trace that has no parent elsewhere.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum RootSampler {
    /// Keep all.
    AlwaysOn,
    /// Keep none.
    AlwaysOff,
    /// Keep this share, by trace id.
    TraceIdRatio(f64),
}

/// `OTEL_TRACES_SAMPLER`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sampler {
    /// Ask the root sampler for every span, whatever upstream said.
    Root(RootSampler),
    /// Honour the flag that came from upstream; ask the root sampler where none came.
    ParentBased(RootSampler),
}

/// `--plane`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaneChoice {
    /// The best that this kernel can do.
    Auto,
    /// Typed socket tracepoints.
    Sock,
    /// Trampolines at the exits of socket functions.
    Fentry,
    /// Breakpoints at the same functions.
    Kprobe,
    /// System call exits.
    Syscall,
}
