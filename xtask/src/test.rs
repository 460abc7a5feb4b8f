//! `test`: everything that must hold. In: a machine with cargo and root. Out: each ring of tests in turn, cheap ones first, and
//! one closing line: how many passed, failed and were skipped.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use spanwise_tests::runner::{self, Summary};
use spanwise_tests::{golang, toolbox};

use crate::run::{self, Options};
use crate::{check, setup, verifier, vm};

/// The `test` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let only = options.value("--only")?;
    let quick = options.flag("--quick");
    let vms = !options.flag("--no-vm");
    let list = options.flag("--list");
    options.finish()?;
    if list {
        runner::names().chain(vm::TESTS.map(|(name, _)| name)).for_each(|name| println!("{name}"));
        return Ok(());
    }
    run::need_root("`cargo xtask test`")?;
    let start = Instant::now();
    let mut total = Summary::default();
    // Whatever happens, the closing line comes.
    if let Err(error) = rings(quick, only.as_deref(), vms, &mut total) {
        println!("FAILED   it could not go on: {error:#}");
        total.failed.push("going on after an error (see above)".to_owned());
    }
    println!("\ntook {:.0} s", start.elapsed().as_secs_f64());
    for name in &total.skipped {
        println!("skipped: {name}");
    }
    for name in &total.failed {
        println!("failed: {name}");
    }
    println!("{}", closing_line(&total));
    if total.failed.is_empty() { Ok(()) } else { bail!("not everything passed (see above)") }
}

/// The last line of standard output, for people and for programs.
fn closing_line(total: &Summary) -> String {
    format!("{} passed, {} failed, {} skipped", total.passed, total.failed.len(), total.skipped.len())
}

fn rings(quick: bool, only: Option<&str>, vms: bool, total: &mut Summary) -> Result<()> {
    if !quick {
        setup::main(&[])?;
        ring("check", total, || check::main(&[]));
        host(total)?;
    }
    run::build_agent("quick")?;
    run::build_exerciser()?;
    programs()?;
    if !quick {
        ring("verifier", total, verifier::check);
    }
    let chosen = |name: &str| only.is_none_or(|word| name.contains(word));
    // A word that only VMs have in their names is no mistake.
    if runner::names().any(chosen) || !vm::TESTS.iter().any(|(name, _)| chosen(name)) {
        let suites = runner::run(only)?;
        total.passed += suites.passed;
        total.failed.extend(suites.failed);
        total.skipped.extend(suites.skipped);
    }
    machines(chosen, vms, total);
    Ok(())
}

/// What the suites trace and what must be fetched and built for that.
fn programs() -> Result<()> {
    let start = Instant::now();
    toolbox::python()?;
    golang::prepare()?;
    println!("programs to trace are there ({:.0} s)", start.elapsed().as_secs_f64());
    Ok(())
}

/// The oldest and the newest kernel, in VMs.
fn machines(chosen: impl Fn(&str) -> bool, wanted: bool, total: &mut Summary) {
    let (names, series): (Vec<_>, Vec<_>) =
        vm::TESTS.iter().copied().filter(|(name, _)| chosen(name)).unzip();
    if !wanted {
        total.skipped.extend(names.iter().map(|name| format!("{name}: --no-vm")));
        return;
    }
    if names.is_empty() {
        return;
    }
    let begin = Instant::now();
    let ended = match vm::test(&series) {
        Ok(ended) => ended,
        Err(error) => return ring("vm", total, || Err(error)),
    };
    for (name, (result, took)) in names.iter().zip(ended) {
        ring(name, total, || {
            result?;
            println!("passed   {name} ({:.1} s)", took.as_secs_f64());
            Ok(())
        });
    }
    if names.len() > 1 {
        println!("{} kernels in VMs took {:.0} s", names.len(), begin.elapsed().as_secs_f64());
    }
}

/// One step that counts as one test. The others go on when it fails.
fn ring(name: &str, total: &mut Summary, step: impl FnOnce() -> Result<()>) {
    match step() {
        Ok(()) => total.passed += 1,
        Err(error) => {
            println!("FAILED   {name}: {error:#}");
            total.failed.push(name.to_owned());
        }
    }
}

/// The tests that need no root, counted from what cargo says.
fn host(total: &mut Summary) -> Result<()> {
    let mut command = run::cargo();
    // They load nothing into the kernel.
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("SPANWISE_BPF", "stub")
        .stdout(Stdio::piped());
    println!("$ cargo test --workspace --no-fail-fast");
    let mut child = command.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no standard output")?;
    let mut failed = 0;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(counts) = Counts::read(&line) {
            total.passed += counts.passed;
            failed += counts.failed;
            total.skipped.extend((0..counts.ignored).map(|_| "an ignored host test".to_owned()));
        } else if line.ends_with("FAILED") {
            total.failed.push(line.trim_start_matches("test ").trim_end_matches(" ... FAILED").to_owned());
        }
        // Hundreds of lines that say "ok" hide the one that does not.
        if !line.ends_with("... ok") && !line.trim().is_empty() && !line.starts_with("running ") {
            println!("{line}");
        }
    }
    if !child.wait()?.success() && failed == 0 {
        total.failed.push("cargo test (it does not compile, or a test program crashed)".into());
    }
    Ok(())
}

/// What a test program says at its end.
#[derive(Debug, PartialEq)]
struct Counts {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Counts {
    fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?;
        let count = |word: &str| {
            rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_has_one_form() {
        let mut total = Summary { passed: 12, ..Summary::default() };
        assert_eq!(closing_line(&total), "12 passed, 0 failed, 0 skipped");
        ring("good", &mut total, || Ok(()));
        ring("bad", &mut total, || bail!("on purpose"));
        assert_eq!(closing_line(&total), "13 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn results_are_read() {
        let line =
            "test result: ok. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.13s";
        assert_eq!(Counts::read(line), Some(Counts { passed: 12, failed: 1, ignored: 3 }));
        assert_eq!(Counts::read("test a::b ... ok"), None);
    }
}
