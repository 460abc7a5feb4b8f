//! Bad input to the agent itself. In: pids, options, files and endpoints that are wrong. Out: the documented exit code and one
//! clear sentence, never a panic.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options, clean_environment, once};
use crate::apps::{Kind, Setup};
use crate::load::{Plan, Until};
use crate::proc::{self, Proc};
use crate::runner::{Case, Context};
use crate::{paths, sys};

/// Wrong usage or configuration.
const USAGE: i32 = 2;
/// Not permitted.
const FORBIDDEN: i32 = 3;
const OTHER: i32 = 1;

pub(super) const CASES: &[Case] = &[
    Case { name: "bad_input/dead_pid", seconds: 30, run: dead_pid },
    Case {
        name: "bad_input/kernel_thread",
        seconds: 30,
        run: |context| refused(context, &["--pid", "2"], &[OTHER, USAGE, FORBIDDEN], "2"),
    },
    Case {
        name: "bad_input/no_number",
        seconds: 30,
        run: |context| refused(context, &["--pid", "nginx"], &[USAGE], "nginx"),
    },
    Case { name: "bad_input/no_pid", seconds: 30, run: |context| refused(context, &[], &[USAGE], "--pid") },
    Case {
        name: "bad_input/unknown_option",
        seconds: 30,
        run: |context| refused(context, &["--pid", "1", "--no-such-option"], &[USAGE], "--no-such-option"),
    },
    Case {
        name: "bad_input/sampler",
        seconds: 30,
        run: |context| refused_for_self(context, &["--sampler", "sometimes"], "sometimes"),
    },
    Case {
        name: "bad_input/ratio",
        seconds: 30,
        run: |context| refused_for_self(context, &["--sampler", "traceidratio=7"], "7"),
    },
    Case {
        name: "bad_input/endpoint",
        seconds: 30,
        run: |context| {
            refused_for_self(context, &["--exporter", "otlp", "--endpoint", "nonsense://"], "nonsense")
        },
    },
    Case {
        name: "bad_input/protocol",
        seconds: 30,
        run: |context| {
            refused_for_self(
                context,
                &["--exporter", "otlp", "--protocol", "carrier-pigeon"],
                "carrier-pigeon",
            )
        },
    },
    Case {
        name: "bad_input/duration",
        seconds: 30,
        run: |context| refused_for_self(context, &["--duration", "soon"], "soon"),
    },
    Case { name: "bad_input/config_file", seconds: 30, run: config_file },
    Case { name: "bad_input/unwritable_file", seconds: 30, run: unwritable },
    Case { name: "bad_input/no_such_program", seconds: 30, run: no_such_program },
    Case { name: "bad_input/exits_during_attach", seconds: 60, run: exits_during_attach },
    Case { name: "bad_input/no_root", seconds: 30, run: no_root },
    Case { name: "bad_input/unreachable_endpoint", seconds: 60, run: unreachable_endpoint },
    Case { name: "bad_input/replay_garbage", seconds: 30, run: replay_garbage },
];

/// A complaint is short, names what is wrong, and is no panic.
pub(super) fn complaint(code: Option<i32>, stderr: &str, codes: &[i32], word: &str) -> Result<()> {
    ensure!(!stderr.contains("panicked"), "it panicked:\n{stderr}");
    ensure!(code.is_some_and(|code| codes.contains(&code)), "exit code {code:?}, not {codes:?}:\n{stderr}");
    ensure!(stderr.contains(word), "the complaint does not name `{word}`:\n{stderr}");
    let lines = stderr.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!((1..=8).contains(&lines), "{lines} lines are not one sentence:\n{stderr}");
    Ok(())
}

fn refused(context: &Context, arguments: &[&str], codes: &[i32], word: &str) -> Result<()> {
    let all: Vec<&str> = ["attach"].iter().chain(arguments).copied().collect();
    let (code, _, stderr) = once(&context.dir, &all, Duration::from_secs(10))?;
    complaint(code, &stderr, codes, word)
}

/// A good pid, so that it is the option that is refused.
fn refused_for_self(context: &Context, arguments: &[&str], word: &str) -> Result<()> {
    let sleeper = sleeper(context)?;
    let pid = sleeper.pid().to_string();
    let all: Vec<&str> = ["--pid", &pid].iter().chain(arguments).copied().collect();
    refused(context, &all, &[USAGE], word)
}

fn sleeper(context: &Context) -> Result<Proc> {
    Proc::start("sleeper", Command::new("sleep").arg("60"), &context.dir)
}

fn dead_pid(context: &Context) -> Result<()> {
    let mut gone = Proc::start("gone", &mut Command::new("true"), &context.dir)?;
    gone.wait(Duration::from_secs(5))?;
    let pid = gone.pid().to_string();
    refused(context, &["--pid", &pid], &[OTHER, USAGE], &pid)
}

fn config_file(context: &Context) -> Result<()> {
    let path = context.dir.join("bad.toml");
    std::fs::write(&path, "exporter = [unclosed\n")?;
    refused_for_self(context, &["--config", &path.to_string_lossy()], "bad.toml")?;
    refused_for_self(context, &["--config", "/no/such/file.toml"], "/no/such/file.toml")
}

fn unwritable(context: &Context) -> Result<()> {
    let sleeper = sleeper(context)?;
    let pid = sleeper.pid().to_string();
    let file = ["--exporter", "file", "--file", "/proc/no-such-folder/traces.jsonl"];
    let all: Vec<&str> = ["--pid", &pid].iter().chain(&file).copied().collect();
    refused(context, &all, &[OTHER, USAGE], "/proc/no-such-folder/traces.jsonl")
}

fn no_such_program(context: &Context) -> Result<()> {
    let (code, _, stderr) = once(&context.dir, &["run", "--", "/no/such/program"], Duration::from_secs(10))?;
    complaint(code, &stderr, &[OTHER, USAGE, 127], "/no/such/program")
}

/// Programs that end anywhere between the agent's start and its probes: an exit in good time, or a complaint, never a hang.
fn exits_during_attach(context: &Context) -> Result<()> {
    for milliseconds in [0_u32, 5, 15, 30, 60, 100, 150, 250] {
        let seconds = format!("{:.3}", f64::from(milliseconds) / 1_000.0);
        let short = Proc::start("short", Command::new("sleep").arg(&seconds), &context.dir)?;
        let pid = short.pid().to_string();
        let reaper = std::thread::spawn(move || {
            let mut short = short;
            short.wait(Duration::from_secs(5)).map(drop)
        });
        let (code, _, stderr) = once(
            &context.dir,
            &["attach", "--pid", &pid, "--exporter", "none", "--duration", "3s"],
            Duration::from_secs(10),
        )?;
        reaper.join().map_err(|_| anyhow::anyhow!("waiting for the short program panicked"))??;
        ensure!(
            !stderr.contains("panicked"),
            "it panicked when the program ended after {seconds} s:\n{stderr}"
        );
        ensure!(
            code.is_some_and(|code| [0, OTHER, USAGE].contains(&code)),
            "exit code {code:?} when the program ended after {seconds} s:\n{stderr}"
        );
        ensure!(code == Some(0) || stderr.contains(&pid), "the complaint does not name pid {pid}:\n{stderr}");
    }
    Ok(())
}

fn no_root(context: &Context) -> Result<()> {
    // A copy where anybody may run it.
    let copy = context.dir.join("spanwise");
    std::fs::copy(paths::agent()?, &copy)?;
    for (path, mode) in [(&context.dir, "755"), (&copy, "755")] {
        proc::capture(Command::new("chmod").arg(mode).arg(path))?;
    }
    let mut victim = Command::new("setpriv");
    victim.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sleep", "60"]);
    let victim = Proc::start("victim", &mut victim, &context.dir)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy);
    command.args(["attach", "--pid", &victim.pid().to_string(), "--exporter", "none", "--duration", "1s"]);
    clean_environment(&mut command);
    let (status, _, stderr) =
        proc::run("nobody", command.current_dir("/"), &context.dir, Duration::from_secs(10))?;
    complaint(status.code(), &stderr, &[FORBIDDEN], "root")
}

/// Nobody listens there: the agent goes on, says so, counts, and ends in time.
fn unreachable_endpoint(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let endpoint = format!("http://127.0.0.1:{}", paths::free_port()?);
        let options = Options::default().without_file().arg(&[
            "--exporter",
            "otlp",
            "--endpoint",
            &endpoint,
            "--protocol",
            protocol,
        ]);
        let agent = Agent::attach(&context.dir, &app.pids(), &options)?;
        Plan::new(app.target(), 4, Until::Requests(500), "/leaf/{n}").run()?.all_good()?;
        std::thread::sleep(SETTLE);
        let report = agent.stop()?;
        ensure!(
            report.stopped_after < Duration::from_secs(4),
            "{protocol}: it took {:?} to end",
            report.stopped_after
        );
        ensure!(
            report.stderr.contains("127.0.0.1"),
            "{protocol}: it does not say that nobody listens:\n{}",
            report.stderr
        );
        report.stats.check_balance()?;
        ensure!(
            report.stats.drops() >= 500,
            "{protocol}: 500 spans are not counted\n{}",
            report.stats.table()
        );
        ensure!(report.stderr.len() < 20_000, "{protocol}: it says so in {} bytes", report.stderr.len());
    }
    ensure!(sys::effective_uid() == 0, "this suite needs root");
    Ok(())
}

fn replay_garbage(context: &Context) -> Result<()> {
    let path = context.dir.join("garbage.rec");
    std::fs::write(&path, crate::load::body(1, 10_000))?;
    let text = path.to_string_lossy().into_owned();
    let (code, _, stderr) = once(&context.dir, &["replay", &text], Duration::from_secs(10))?;
    complaint(code, &stderr, &[OTHER, USAGE], "garbage.rec")?;
    let (code, _, stderr) = once(&context.dir, &["replay", "/no/such.rec"], Duration::from_secs(10))?;
    complaint(code, &stderr, &[OTHER, USAGE], "/no/such.rec")
}
