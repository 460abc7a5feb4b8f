//! What can be wrong with what was said.

use std::path::PathBuf;

use super::said::Said;

/// One sentence: where the value came from, the value, what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that is not allowed.
    #[error("{origin} is {value:?}, but {allowed}")]
    Value {
        /// Option, variable or key of the file.
        origin: String,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A value that is not allowed and may be a secret.
    #[error("{origin} is not valid: {why} (its value is not shown, it may be a secret)")]
    Secret {
        /// Option, variable or key of the file.
        origin: String,
        /// What is wrong.
        why: String,
    },
    /// Two values that do not go together.
    #[error("{0}")]
    Conflict(String),
    /// The configuration file cannot be used.
    #[error("cannot use the configuration file {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl ConfigError {
    pub(super) fn value(said: &Said, allowed: impl Into<String>) -> Self {
        Self::Value { origin: said.origin.clone(), value: said.value.clone(), allowed: allowed.into() }
    }
}
