//! `spanwise doctor`.

use super::CliError;
use super::args::DoctorArgs;

/// Runs the command.
pub fn main(_args: DoctorArgs) -> Result<(), CliError> {
    Err(CliError::failed("this build has no doctor yet"))
}
