//! What a program pays that nobody traces, while an agent traces another one. In: a plane, seconds. Out: the cost of a cheap
//! system call and of an echo over loopback, with the agent by without it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;
use spanwise_tests::agent::{Agent, Options};
use spanwise_tests::proc::{Proc, capture};
use spanwise_tests::{cleanup, paths};

/// Runs with and without in alternation.
const ROUNDS: u64 = 7;

/// What one plane costs.
#[derive(Serialize)]
pub(super) struct Tax {
    plane: &'static str,
    /// Nanoseconds of a call without the agent.
    call_ns: f64,
    /// With by without, and without by without.
    call: (f64, f64),
    /// Nanoseconds of an echo without the agent.
    echo_ns: f64,
    /// With by without, and without by without.
    echo: (f64, f64),
}

/// Measures every plane that this kernel has.
pub(super) fn measure(seconds: u64) -> Result<Vec<Tax>> {
    let folder = tempfile::Builder::new().prefix("spanwise-harm-").tempdir()?;
    cleanup::add_folder(folder.path());
    let mut taxes = Vec::new();
    for plane in ["sock", "syscall"] {
        println!("untraced, plane {plane}: {ROUNDS} runs with and without an agent on another process");
        match tax(plane, folder.path(), seconds) {
            Ok(tax) => taxes.push(tax),
            Err(error) => println!("  not measured: {error:#}"),
        }
    }
    Ok(taxes)
}

fn tax(plane: &'static str, dir: &Path, seconds: u64) -> Result<Tax> {
    // It does nothing, so what is seen is what everybody else pays.
    let other = Proc::start("other", Command::new("sleep").arg("3600"), dir)?;
    let (mut off, mut on, mut off_again) = (Vec::new(), Vec::new(), Vec::new());
    // Each round runs three times, with two parts each.
    let time = (seconds * 1_000 / (ROUNDS * 6)).max(200);
    for _ in 0..ROUNDS {
        off.push(once(time)?);
        let options = Options::default().without_file().arg(&["--exporter", "none", "--plane", plane]);
        let agent = Agent::attach(dir, &[other.pid()], &options)?;
        on.push(once(time)?);
        agent.stop()?;
        off_again.push(once(time)?);
    }
    // The fastest run of each: whatever else the machine does only makes runs slower.
    let fastest = |runs: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
        runs.iter().map(of).min_by(f64::total_cmp).unwrap_or(0.0)
    };
    let ratios = |of: fn(&(f64, f64)) -> f64| {
        let (first, with, last) = (fastest(&off, of), fastest(&on, of), fastest(&off_again, of));
        (with / f64::midpoint(first, last).max(1e-9), last / first.max(1e-9))
    };
    Ok(Tax {
        plane,
        call_ns: fastest(&off, |run| run.0),
        call: ratios(|run| run.0),
        echo_ns: fastest(&off, |run| run.1),
        echo: ratios(|run| run.1),
    })
}

/// One run: nanoseconds of a call and of an echo.
fn once(milliseconds: u64) -> Result<(f64, f64)> {
    let text = capture(Command::new(paths::untraced()?).arg(milliseconds.to_string()))?;
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.with_context(|| format!("no `{name}` in `{text}`"))
    };
    Ok((figure("getppid")?, figure("echo")?))
}

pub(super) fn print(taxes: &[Tax]) {
    for tax in taxes {
        println!(
            "untraced, plane {:<8} getppid {:.0} ns, ratio {:.3} (A-A {:.3}); echo {:.0} ns, ratio {:.3} (A-A {:.3})",
            tax.plane, tax.call_ns, tax.call.0, tax.call.1, tax.echo_ns, tax.echo.0, tax.echo.1
        );
    }
}
