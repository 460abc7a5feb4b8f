//! `fuzz`: hostile bytes for the parsers and the stages behind them. In: the fuzz targets of the packages below. Out: success after the
//! given time with no finding.

use std::process::Command;

use anyhow::{Context, Result, bail};
use spanwise_tests::{paths, proc};

use crate::run::{self, Options};

const CARGO_FUZZ: &str = "0.13.2";
/// Each is a workspace of its own.
const PACKAGES: [&str; 2] = ["agent/protocol/fuzz", "agent/fuzz"];

/// The `fuzz` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let seconds = options.number("--seconds", 600)?;
    let only = options.value("--target")?;
    options.finish()?;

    if paths::which("cargo-fuzz").is_none() && !run::cargo_home().join("bin/cargo-fuzz").exists() {
        println!("fuzz: installing cargo-fuzz {CARGO_FUZZ}: it builds and drives the fuzz targets");
        run::run(run::cargo().args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"]))?;
    }
    let mut all = Vec::new();
    for package in PACKAGES {
        let package = paths::root().join(package);
        let listed = proc::capture(fuzz(&mut run::cargo()).arg("list").current_dir(&package))
            .with_context(|| format!("cannot list the fuzz targets of {}", package.display()))?;
        all.extend(listed.lines().map(|name| (package.clone(), name.to_owned())));
    }
    let wanted = |name: &str| only.as_deref().is_none_or(|wanted| wanted == name);
    let targets: Vec<_> = all.iter().filter(|(_, name)| wanted(name)).collect();
    if targets.is_empty() {
        let names: Vec<&str> = all.iter().map(|(_, name)| name.as_str()).collect();
        bail!("there is no such fuzz target; there are: {}", names.join(", "));
    }
    let each = (seconds / targets.len() as u64).max(1);
    for (package, target) in targets {
        println!("fuzz: {target} for {each} seconds");
        let mut command = run::cargo();
        fuzz(&mut command).args(["run", target, "--", &format!("-max_total_time={each}")]);
        command.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]).current_dir(package);
        run::run(&mut command)
            .with_context(|| format!("fuzz target {target} found something (see above)"))?;
    }
    println!("fuzz: no finding");
    Ok(())
}

/// Sanitizer flags are unstable; this lets the stable compiler take them, for this one build.
fn fuzz(command: &mut Command) -> &mut Command {
    command.arg("fuzz").env("RUSTC_BOOTSTRAP", "1").env("SPANWISE_BPF", "stub")
}
