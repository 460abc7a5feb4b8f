//! `spanwise run`.

use super::CliError;
use super::args::RunArgs;

/// Runs the command.
pub fn main(_args: RunArgs) -> Result<(), CliError> {
    Err(CliError::failed("this build cannot run yet"))
}
