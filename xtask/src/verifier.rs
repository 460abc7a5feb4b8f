//! `verifier`: how hard the BPF programs are to verify. In: the built agent, this kernel, and docs/verifier.json. Out: a table; it
//! fails when a program has grown by more than a tenth since it was recorded.
//!
//! Programs must fit into the stack that older kernels have (`stack`), too.
//!
//! The verifier gives up at a million instructions looked at, and it grows by leaps: one branch more can double it. The numbers
//! are those of one kernel; on another one they are printed only.

mod stack;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use spanwise_tests::{paths, proc};

use crate::run::{self, Options};

/// Growth that is taken without a word, in percent.
const SLACK: u64 = 10;

/// What is recorded.
#[derive(Debug, Deserialize, Serialize)]
struct Record {
    /// Release of the kernel that counted.
    kernel: String,
    /// Instructions looked at, by program.
    programs: BTreeMap<String, u64>,
}

/// The `verifier` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let write = options.flag("--write");
    options.finish()?;
    run::need_root("`cargo xtask verifier`")?;
    run::build_agent("quick")?;
    if !write {
        return check();
    }
    let now = count()?;
    ensure!(!now.programs.is_empty(), "this kernel does not tell how many instructions it looked at");
    let path = file();
    std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&now)?))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} programs on kernel {} are recorded in {}", now.programs.len(), now.kernel, path.display());
    Ok(())
}

/// Compares the built agent with the record.
pub(crate) fn check() -> Result<()> {
    let path = file();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let then: Record =
        serde_json::from_str(&text).with_context(|| format!("{} is no record", path.display()))?;
    println!("{}", stack::check()?);
    let now = count()?;
    let (lines, grown) = compare(&then, &now);
    lines.iter().for_each(|line| println!("{line}"));
    if now.kernel != then.kernel {
        println!("recorded on kernel {}; this is {}, so nothing is judged", then.kernel, now.kernel);
        return Ok(());
    }
    if !grown.is_empty() {
        bail!(
            "the verifier looks at more than {SLACK} % more in {}: make them simpler, or record it with `cargo xtask verifier --write`",
            grown.join(", ")
        );
    }
    Ok(())
}

fn file() -> PathBuf {
    paths::root().join("docs/verifier.json")
}

/// A line for each program, and the names of those that have grown too much or have no record.
fn compare(then: &Record, now: &Record) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut grown) = (Vec::new(), Vec::new());
    for (name, count) in &now.programs {
        match then.programs.get(name) {
            Some(before) => {
                let percent = (*count as f64 / *before as f64 - 1.0) * 100.0;
                lines.push(format!("{name:<16} {count:>8} of {before:>8} ({percent:+.0} %)"));
                if *count > before + before * SLACK / 100 {
                    grown.push(format!("{name} ({before} -> {count})"));
                }
            }
            None => {
                lines.push(format!("{name:<16} {count:>8}, not recorded"));
                grown.push(format!("{name} (not recorded -> {count})"));
            }
        }
    }
    (lines, grown)
}

/// Asks the agent.
fn count() -> Result<Record> {
    let mut agent = Command::new(paths::agent()?);
    let text = proc::capture(agent.args(["doctor", "--json"]))?;
    let said: serde_json::Value = serde_json::from_str(&text).context("doctor said something unexpected")?;
    let kernel = said.get("kernel").and_then(|kernel| kernel.as_str()).context("doctor names no kernel")?;
    let programs = said.get("verified_instructions").context("doctor counts no instructions")?;
    Ok(Record { kernel: kernel.to_owned(), programs: serde_json::from_value(programs.clone())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(programs: &[(&str, u64)]) -> Record {
        let programs = programs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Record { kernel: "1".into(), programs }
    }

    #[test]
    fn growth_beyond_a_tenth_is_named() {
        let then = record(&[("a", 1000), ("b", 1000), ("gone", 5)]);
        let (lines, grown) = compare(&then, &record(&[("a", 1100), ("b", 1101)]));
        assert_eq!(grown, ["b (1000 -> 1101)"]);
        assert_eq!(lines.len(), 2);
        assert_eq!(compare(&then, &record(&[("new", 1)])).1, ["new (not recorded -> 1)"]);
        assert!(compare(&then, &record(&[("a", 10)])).1.is_empty());
    }
}
