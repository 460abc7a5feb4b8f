//! `spanwise replay`.

use super::CliError;
use super::args::ReplayArgs;

/// Runs the command.
pub fn main(_args: ReplayArgs) -> Result<(), CliError> {
    Err(CliError::failed("this build cannot replay yet"))
}
