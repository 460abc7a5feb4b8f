//! The command line. Values are taken as text; `config` checks them, so that options and variables get the
//! same rules and the same words.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::CliError;
use crate::config::{Environment, Options, Settings};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  anything that has no code of its own
  2  bad usage or configuration
  3  not permitted, or the kernel lacks what was asked for

Environment: the OTEL_* variables of the OpenTelemetry SDKs (OTEL_EXPORTER_OTLP_*, OTEL_TRACES_EXPORTER, \
OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*, OTEL_SDK_DISABLED), those named \
SPANWISE_* beside the options, and SPANWISE_LOG (error, warn, info, debug) for the agent's own log on standard error. \
Options beat the environment, the environment beats the configuration file.";

/// `spanwise`.
#[derive(Debug, Parser)]
#[command(
    name = "spanwise",
    version,
    about = "Distributed traces of running programs, from the kernel, without changing them",
    after_help = EXIT_CODES,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a program and trace it and its children from the first request
    Run(RunArgs),
    /// Attach to running processes; SIGINT or SIGTERM detaches
    Attach(AttachArgs),
    /// Say what this kernel and these privileges allow, and what to do about the rest
    Doctor(DoctorArgs),
    /// List processes: language, libraries, listening sockets, what would be captured
    Ps(PsArgs),
    /// Send a recording (made with --record) through the same pipeline
    Replay(ReplayArgs),
}

/// `spanwise run`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct RunArgs {
    /// Where spans go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// How they are captured.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Program to start, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `spanwise attach`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct AttachArgs {
    /// Processes to trace, with all their children: those they have and those they start
    #[arg(long = "pid", short = 'p', required = true, value_delimiter = ',', value_name = "PID[,PID...]",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pids: Vec<u32>,
    /// Where spans go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// How they are captured.
    #[command(flatten)]
    pub capture: CaptureArgs,
}

/// `spanwise doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct DoctorArgs {
    /// JSON instead of sentences (stable keys)
    #[arg(long)]
    pub json: bool,
}

/// `spanwise ps`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct PsArgs {
    /// JSON instead of a table (stable keys)
    #[arg(long)]
    pub json: bool,
    /// Where probes would go in this process, and why; nothing is attached
    #[arg(long, value_name = "PID")]
    pub probes: Option<u32>,
}

/// `spanwise replay`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct ReplayArgs {
    /// Recording to send through the pipeline
    #[arg(value_name = "FILE")]
    pub recording: PathBuf,
    /// Where spans go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Options of every command that makes spans.
#[derive(Debug, Default, Args)]
pub struct OutputArgs {
    /// Where spans go: otlp, file, console or none; may be given several times
    /// [default: console; otlp with --endpoint, file with --file] [env: SPANWISE_EXPORTER, OTEL_TRACES_EXPORTER]
    #[arg(long = "exporter", value_name = "NAME", help_heading = "Output")]
    pub exporters: Vec<String>,
    /// OTLP endpoint; /v1/traces is appended for HTTP. Implies --exporter otlp
    /// [default: http://localhost:4318, for gRPC http://localhost:4317] [env: OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, value_name = "URL", help_heading = "Output")]
    pub endpoint: Option<String>,
    /// Form of OTLP: grpc, http/protobuf or http/json
    /// [default: http/protobuf] [env: OTEL_EXPORTER_OTLP_PROTOCOL]
    #[arg(long, value_name = "NAME", help_heading = "Output")]
    pub protocol: Option<String>,
    /// Write OTLP/JSON, one export request a line, to this file. Implies --exporter file
    /// [default: traces.jsonl with --exporter file] [env: SPANWISE_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub file: Option<String>,
    /// Sampler: always_on, always_off, traceidratio=RATIO, or one of them after parentbased_; the ratio is 0 to 1
    /// [default: parentbased_always_on] [env: SPANWISE_SAMPLER, OTEL_TRACES_SAMPLER]
    #[arg(long, value_name = "NAME[=ARG]", help_heading = "Output")]
    pub sampler: Option<String>,
    /// Name of the service, for all processes
    /// [default: what the process's own OTEL_SERVICE_NAME says, else its script or program] [env: SPANWISE_SERVICE_NAME]
    #[arg(long, value_name = "NAME", help_heading = "Output")]
    pub service_name: Option<String>,
    /// TOML file with the same settings [default: none] [env: SPANWISE_CONFIG]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub config: Option<PathBuf>,
}

/// Options of the commands that capture.
#[derive(Debug, Default, Args)]
pub struct CaptureArgs {
    /// Hooks to use: auto, sock (typed socket tracepoints, Linux 6.3), fentry, or syscall (works everywhere, but
    /// every system call of the host pays for it) [default: auto] [env: SPANWISE_PLANE]
    #[arg(long, value_name = "NAME", help_heading = "Capture")]
    pub plane: Option<String>,
    /// Stop by itself after this time, with its unit: 500ms, 10s, 2m, 1h
    /// [default: until the program ends or a signal comes] [env: SPANWISE_DURATION]
    #[arg(long, value_name = "TIME", help_heading = "Capture")]
    pub duration: Option<String>,
    /// Also write what the kernel side ships to this file, for `spanwise replay`; it holds request heads as
    /// they were sent, secrets included [default: none] [env: SPANWISE_RECORD]
    #[arg(long, value_name = "FILE", help_heading = "Capture")]
    pub record: Option<String>,
    /// Create this file when the probes are live, so that a script can wait for it
    /// [default: none] [env: SPANWISE_READY_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Capture")]
    pub ready_file: Option<String>,
    /// CPU time the agent may take, its programs in the kernel included, as a share of one core (0.5 or 50%); above it,
    /// it captures less, step by step, and says so. `off` for no bound [default: 1] [env: SPANWISE_MAX_CPU]
    #[arg(long, value_name = "SHARE", help_heading = "Capture")]
    pub max_cpu: Option<String>,
    /// Resident memory the agent may take, with its unit: 256MiB, 1GiB, 300MB; above it, it captures less in the same
    /// steps. `off` for no bound [default: 256MiB] [env: SPANWISE_MAX_RSS]
    #[arg(long, value_name = "BYTES", help_heading = "Capture")]
    pub max_rss: Option<String>,
    /// Do without the filter that leaves the agent only the system calls it needs, for systems whose libraries make unusual
    /// ones [default: the filter is on] [env: SPANWISE_NO_SECCOMP=true]
    #[arg(long, help_heading = "Capture")]
    pub no_seccomp: bool,
}

impl OutputArgs {
    /// Settings from these options, the environment and the configuration file.
    pub fn settings(&self, capture: Option<&CaptureArgs>, env: &Environment) -> Result<Settings, CliError> {
        let of =
            |pick: fn(&CaptureArgs) -> &Option<String>| capture.and_then(|capture| pick(capture).clone());
        let options = Options {
            config: self.config.clone(),
            exporters: self.exporters.clone(),
            endpoint: self.endpoint.clone(),
            protocol: self.protocol.clone(),
            file: self.file.clone(),
            sampler: self.sampler.clone(),
            service_name: self.service_name.clone(),
            plane: of(|c| &c.plane),
            duration: of(|c| &c.duration),
            record: of(|c| &c.record),
            ready_file: of(|c| &c.ready_file),
            max_cpu: of(|c| &c.max_cpu),
            max_rss: of(|c| &c.max_rss),
            no_seccomp: capture.is_some_and(|capture| capture.no_seccomp),
        };
        Ok(Settings::resolve(&options, env)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::{Exporter, PlaneChoice};

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from([&["spanwise"], args].concat()).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_the_rest_as_it_is() {
        for args in [
            ["run", "--file", "x", "--plane", "sock", "--", "app", "--file", "y"],
            ["run", "--file", "x", "--plane=sock", "app", "--file", "y", "--", "z"],
        ] {
            let Command::Run(run) = parse(&args).unwrap() else { panic!("not run") };
            assert_eq!(run.command[..3], ["app", "--file", "y"]);
            let settings = run.output.settings(Some(&run.capture), &Environment::new()).unwrap();
            assert_eq!(settings.exporters, [Exporter::File("x".into())]);
            assert_eq!(settings.plane, PlaneChoice::Sock);
        }
        assert_eq!(parse(&["run", "--file", "x"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn attach_takes_lists_of_pids() {
        let Command::Attach(attach) = parse(&["attach", "--pid", "1,22", "-p", "3"]).unwrap() else {
            panic!("not attach")
        };
        assert_eq!(attach.pids, [1, 22, 3]);
        for bad in ["0", "-1", "x", "1,,2", "5000000"] {
            assert_eq!(parse(&["attach", "--pid", bad]).unwrap_err().exit_code(), 2, "{bad}");
        }
        assert!(parse(&["attach"]).is_err());
    }

    #[test]
    fn a_wrong_value_names_its_option() {
        let Command::Replay(replay) = parse(&["replay", "rec", "--sampler", "some"]).unwrap() else {
            panic!("not replay")
        };
        let error = replay.output.settings(None, &Environment::new()).unwrap_err();
        assert_eq!(error.code, 2);
        assert!(error.sentence.starts_with("--sampler is \"some\", but it must be one of"), "{error}");
        assert!(parse(&["replay", "rec", "--plane", "sock"]).is_err(), "a recording has no plane to choose");
    }

    #[test]
    fn every_option_is_explained_with_its_default() {
        for command in ["run", "attach", "replay"] {
            let cli = Cli::command();
            let command = cli.find_subcommand(command).unwrap();
            for arg in command.get_arguments().filter(|a| !a.is_positional() && a.get_id() != "help") {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("[default:") || arg.get_id() == "pids", "{}: {help}", arg.get_id());
            }
        }
    }
}
