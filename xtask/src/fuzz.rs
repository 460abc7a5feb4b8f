//! `fuzz`: hostile bytes for the parsers. In: the fuzz targets of `agent/protocol/fuzz`. Out: success after the given time
//! with no finding.

use std::process::Command;

use anyhow::{Context, Result, bail};
use spanwise_tests::{paths, proc};

use crate::run::{self, Options};

const CARGO_FUZZ: &str = "0.13.2";

/// The `fuzz` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let seconds = options.number("--seconds", 600)?;
    let only = options.value("--target")?;
    options.finish()?;

    let package = paths::root().join("agent/protocol/fuzz");
    if !package.join("Cargo.toml").exists() {
        bail!("there is no fuzz package at agent/protocol/fuzz");
    }
    if paths::which("cargo-fuzz").is_none() && !run::cargo_home().join("bin/cargo-fuzz").exists() {
        println!("fuzz: installing cargo-fuzz {CARGO_FUZZ}: it builds and drives the fuzz targets");
        run::run(run::cargo().args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"]))?;
    }
    let listed = proc::capture(fuzz(&mut run::cargo()).arg("list").current_dir(&package))
        .context("cannot list the fuzz targets")?;
    let targets: Vec<&str> =
        listed.lines().filter(|name| only.as_deref().is_none_or(|wanted| wanted == *name)).collect();
    if targets.is_empty() {
        bail!("there is no such fuzz target; there are: {}", listed.lines().collect::<Vec<_>>().join(", "));
    }
    let each = (seconds / targets.len() as u64).max(1);
    for target in targets {
        println!("fuzz: {target} for {each} seconds");
        let mut command = run::cargo();
        fuzz(&mut command).args(["run", target, "--", &format!("-max_total_time={each}")]);
        command.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]).current_dir(&package);
        run::run(&mut command)
            .with_context(|| format!("fuzz target {target} found something (see above)"))?;
    }
    println!("fuzz: no finding");
    Ok(())
}

/// Sanitizer flags are unstable; this lets the stable compiler take them, for this one build.
fn fuzz(command: &mut Command) -> &mut Command {
    command.arg("fuzz").env("RUSTC_BOOTSTRAP", "1")
}
