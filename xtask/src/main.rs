//! Tasks of the project: `cargo xtask help`. In: a command's name and its arguments. Out: the work done, and an exit code.

mod accuracy;
mod bench;
mod check;
mod demo;
mod fuzz;
mod harm;
mod instructions;
mod offsets;
mod run;
mod setup;
mod soak;
mod test;
mod verifier;
mod vm;

use std::process::ExitCode;

use spanwise_tests::cleanup;

const HELP: &str = "\
cargo xtask COMMAND [options]

  setup                 install what is missing to build and test (as root; nothing when all is there)
  check                 formatting, lints, order of the stages, file lengths, licences
  test [--only WORD] [--quick] [--no-vm] [--list]
                        everything: setup, check, host tests, build, end-to-end suites, two kernels in VMs (as root)
                        --only runs the end-to-end cases and VMs whose name holds WORD; --quick leaves out setup, check and
                        host tests; --no-vm leaves out the VMs
  vm [--kernel SERIES]... [--json FILE] [--read FILE] [--write]
                        boots Debian's kernels (5.10, 6.1, 6.12, 6.18, 7.x) in an emulator and tries every capture plane there;
                        --write puts what it found into docs/kernels.md; --read shows what --json wrote, and boots nothing
  demo                  two applications behind nginx, traced while they run (as root)
  bench [--seconds N] [--rounds N] [--json FILE] [--only WORD]
                        with and without the agent, in alternation; prints the ratios (as root). --only takes `probes` (what a
                        hit costs by the instruction under it), one of the servers nginx, go-direct, go-http, go-https, go-grpc,
                        nginx-https, node-https, nginx-h2c, nginx-h2, or a part of their names
  harm [--seconds N] [--only WORD] [--json FILE] [--rounds N]
                        applications and an untraced program without, with and without the agent: failures, answers, ratios;
                        --rounds attaches and leaves so many times instead (as root)
  soak [--minutes N]    everything at once, 60 minutes unless told otherwise: nothing fails, nothing grows (as root)
  accuracy [--requests N] [--warm N] [--only WORD] [--json FILE] [--record FOLDER]
                        right, wrong and abstained parents per program and concurrency (as root)
  fuzz [--seconds N] [--target NAME]
                        fuzz the parsers, 600 seconds unless told otherwise
  go-offsets [--write]  layouts of Go structs, measured in programs built with every minor release of Go, against
                        agent/golang/src/offsets.txt; --write renews it
  verifier [--write]    instructions that the verifier looked at in each BPF program, against docs/verifier.json (as root);
                        --write records those of this kernel
  instructions --recording FILE [--top N] [--exporter otlp|none]
                        instructions that the agent takes for each span of a recording (`spanwise attach --record FILE`), by
                        function; counted by valgrind, so that nothing else that runs changes them
";

fn main() -> ExitCode {
    if let Err(error) = cleanup::on_signals() {
        eprintln!("cannot watch for signals: {error}");
        return ExitCode::FAILURE;
    }
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_else(|| "help".into());
    let rest: Vec<String> = arguments.collect();
    let result = match command.as_str() {
        "setup" => setup::main(&rest),
        "check" => check::main(&rest),
        "test" => test::main(&rest),
        "demo" => demo::main(&rest),
        "bench" => bench::main(&rest),
        "accuracy" => accuracy::main(&rest),
        "harm" => harm::main(&rest),
        "soak" => soak::main(&rest),
        "fuzz" => fuzz::main(&rest),
        "go-offsets" => offsets::main(&rest),
        "verifier" => verifier::main(&rest),
        "instructions" => instructions::main(&rest),
        "vm" => vm::main(&rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("there is no task `{other}`: see `cargo xtask help`")),
    };
    cleanup::now();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
