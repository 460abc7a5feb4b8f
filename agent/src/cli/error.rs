//! How a command ends when it does not end well.

use crate::config::ConfigError;

/// Exit code: anything that has no code of its own.
pub const FAILED: u8 = 1;
/// Exit code: bad usage or configuration.
pub const USAGE: u8 = 2;
/// Exit code: not permitted, or the kernel lacks what was asked for.
pub const NOT_POSSIBLE: u8 = 3;

/// One sentence (what, why, what to do) and the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct CliError {
    /// Exit code.
    pub code: u8,
    /// What, why, what to do.
    pub sentence: String,
}

impl CliError {
    /// Ends with [`FAILED`].
    pub fn failed(sentence: impl Into<String>) -> Self {
        Self { code: FAILED, sentence: sentence.into() }
    }

    /// Ends with [`USAGE`].
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self { code: USAGE, sentence: sentence.into() }
    }

    /// Ends with [`NOT_POSSIBLE`].
    pub fn not_possible(sentence: impl Into<String>) -> Self {
        Self { code: NOT_POSSIBLE, sentence: sentence.into() }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}
