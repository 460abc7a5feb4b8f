//! The `spanwise` command: reads the command line, runs one command, turns its end into an exit code.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;
use spanwise::cli::args::{Cli, Command};
use spanwise::cli::{CliError, USAGE, attach, doctor, fault, ps, replay, run};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with code 0. If the reader is gone there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    fault::announce();
    // Whatever was attached is detached on the way out of a panic.
    let ended = catch_unwind(AssertUnwindSafe(|| log().and_then(|()| dispatch(cli.command))));
    match ended.unwrap_or_else(|_| Err(fault::error())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            spanwise::tell!("spanwise: {error}");
            ExitCode::from(error.code)
        }
    }
}

fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::main(args),
        Command::Attach(args) => attach::main(args),
        Command::Doctor(args) => doctor::main(args),
        Command::Ps(args) => ps::main(args),
        Command::Replay(args) => replay::main(args),
    }
}

/// The agent's own log: standard error, warnings and worse unless `SPANWISE_LOG` says otherwise.
fn log() -> Result<(), CliError> {
    let wanted = std::env::var("SPANWISE_LOG").ok().filter(|level| !level.trim().is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or("warn")).map_err(|_| {
        CliError::usage("SPANWISE_LOG is not understood; give it a level: error, warn, info, debug or trace")
    })?;
    // A log line that can't be written is lost; to say so on standard error, which is where it went, would end the agent.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .log_internal_errors(false)
        .init();
    Ok(())
}
