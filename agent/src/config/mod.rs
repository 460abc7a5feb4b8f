//! What was said (options, environment, file) -> what it means.

mod types;

pub use types::{Compression, Exporter, Otlp, OtlpProtocol, PlaneChoice, RootSampler, Sampler};
