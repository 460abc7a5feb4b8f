//! `spanwise run`: start a program and trace it from its first request.

use super::args::RunArgs;
use super::live::{Targets, trace};
use super::{CliError, environment};

/// Runs the command.
pub fn main(args: RunArgs) -> Result<(), CliError> {
    let settings = args.output.settings(Some(&args.capture), &environment())?;
    trace(&settings, Targets::Command(args.command))
}
