//! `spanwise attach`.

use super::CliError;
use super::args::AttachArgs;

/// Runs the command.
pub fn main(_args: AttachArgs) -> Result<(), CliError> {
    Err(CliError::failed("this build cannot attach yet"))
}
