//! One file per command.
//!
//! Comes in: the command line. Goes out: settings for the pipeline, text for people, JSON for programs, and an
//! exit code: 0 done, 1 anything else, 2 bad usage or configuration, 3 not permitted or the kernel lacks what
//! was asked for.

pub mod args;
pub mod attach;
pub mod doctor;
mod engine;
mod error;
pub mod fault;
mod live;
pub mod ps;
mod ready;
pub mod replay;
pub mod run;
mod source;
mod stop;

use std::io::{self, Write};

pub use error::{CliError, FAILED, NOT_POSSIBLE, USAGE};

use crate::config::Environment;

/// The agent's environment. Variables that are not UTF-8 are left out: none that is read here can be.
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Writes to standard output. A reader that went away (`| head`) is not an error.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
