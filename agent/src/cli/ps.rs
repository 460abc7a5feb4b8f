//! `spanwise ps`.

use super::CliError;
use super::args::PsArgs;

/// Runs the command.
pub fn main(_args: PsArgs) -> Result<(), CliError> {
    Err(CliError::failed("this build has no ps yet"))
}
