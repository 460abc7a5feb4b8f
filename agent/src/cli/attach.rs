//! `spanwise attach`: trace processes that run.

use super::args::AttachArgs;
use super::live::{Targets, trace};
use super::{CliError, environment};
use crate::kernel::privilege;
use crate::process::{InspectError, Process};

/// Runs the command.
pub fn main(args: AttachArgs) -> Result<(), CliError> {
    let settings = args.output.settings(Some(&args.capture), &environment())?;
    if !settings.disabled {
        // Before processes are looked at: with other ids or privileges, what is found of them would mislead.
        privilege::check_load(false)?;
    }
    let mut processes: Vec<Process> = Vec::with_capacity(args.pids.len());
    for pid in args.pids {
        if pid == std::process::id() {
            return Err(CliError::usage("the agent cannot trace itself; give the ids of other processes"));
        }
        let process = Process::inspect(pid).map_err(|error| match (&error, privilege::cannot_look(pid)) {
            (InspectError::NotPermitted(_) | InspectError::Gone(_), Some(why)) => why.into(),
            (InspectError::NotPermitted(_), None) => CliError::not_possible(error.to_string()),
            _ => CliError::usage(error.to_string()),
        })?;
        if !processes.iter().any(|known| known.tgid == process.tgid) {
            processes.push(process);
        }
    }
    trace(&settings, Targets::Processes(processes))
}
