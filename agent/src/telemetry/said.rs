//! Sentences for whoever started the agent. In: words. Out: standard error, if somebody still takes them there.
//!
//! A full disk behind standard error, or a reader that is gone, must never end the agent, as `eprintln` would.

use std::fmt;
use std::io::{self, Write as _};

/// Writes a line to standard error, or nothing if that can't be.
pub fn line(words: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{words}");
}

/// The same for words that end their lines themselves.
pub fn lines(words: fmt::Arguments<'_>) {
    let _ = write!(io::stderr().lock(), "{words}");
}

/// Tells whoever started the agent a sentence.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => { $crate::telemetry::said::line(format_args!($($words)*)) };
}
