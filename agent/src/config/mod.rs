//! What was said (options, environment, file) -> what it means.
//!
//! Comes in: [`Options`] from the command line, the environment as a map, the text of the configuration file.
//! Goes out: validated [`Settings`], or one sentence about the first thing that is wrong. Options beat
//! the environment, the environment beats the file, the file beats the defaults; of two variables the one named
//! after Spanwise or after traces beats the general one. Nothing here touches the kernel or a socket.

mod budget;
mod error;
mod file;
mod otlp;
mod pairs;
mod said;
mod settings;
mod types;
mod values;

pub use budget::Budgets;
pub use error::ConfigError;
pub use pairs::{parse_pairs, percent_decode};
pub use said::Environment;
pub use settings::{Batch, Options, Settings};
pub use types::{Compression, Exporter, Otlp, OtlpProtocol, PlaneChoice, RootSampler, Sampler};
pub use values::parse_duration;
