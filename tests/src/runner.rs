//! Runs the end-to-end cases. In: suites and a word to choose by. Out: a line per case, and how many passed, failed and were
//! skipped. One case at a time; what a case started and made is gone before the next one begins.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cleanup;
use crate::suites::SUITES;

/// What a case is given.
pub struct Context {
    /// A folder of its own, gone afterwards.
    pub dir: PathBuf,
}

/// A test.
pub struct Case {
    /// Its name, `suite/case`.
    pub name: &'static str,
    /// Longest time it may take, in seconds.
    pub seconds: u64,
    /// What it does.
    pub run: fn(&Context) -> Result<()>,
}

/// Why a case cannot be run on this machine.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Leaves a case that this machine cannot run.
pub fn skip(why: impl Into<String>) -> Result<()> {
    Err(Skip(why.into()).into())
}

/// How a run went.
#[derive(Clone, Default, Debug)]
pub struct Summary {
    /// Cases that passed.
    pub passed: u32,
    /// Names of those that failed.
    pub failed: Vec<String>,
    /// Names of those that were skipped, and why.
    pub skipped: Vec<String>,
}

/// Whether cases run at their full size, which takes much longer: `SPANWISE_TEST_FULL` is set.
pub fn full() -> bool {
    std::env::var_os("SPANWISE_TEST_FULL").is_some()
}

/// Names of all cases.
pub fn names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().flat_map(|suite| suite.iter()).map(|case| case.name)
}

/// Runs all cases whose name holds `only`.
pub fn run(only: Option<&str>) -> Result<Summary> {
    let mut summary = Summary::default();
    let chosen: Vec<&'static Case> = SUITES
        .iter()
        .flat_map(|suite| suite.iter())
        .filter(|case| only.is_none_or(|word| case.name.contains(word)))
        .collect();
    if chosen.is_empty() {
        bail!("no end-to-end case has `{}` in its name", only.unwrap_or_default());
    }
    crate::sys::raise_file_limit();
    for case in chosen {
        let start = Instant::now();
        let result = one(case);
        let took = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("passed   {} ({took:.1} s)", case.name);
                summary.passed += 1;
            }
            Err(error) if error.is::<Skip>() => {
                println!("skipped  {}: {error}", case.name);
                summary.skipped.push(format!("{}: {error}", case.name));
            }
            Err(error) => {
                println!("FAILED   {} ({took:.1} s): {error:#}", case.name);
                summary.failed.push(case.name.to_owned());
            }
        }
    }
    Ok(summary)
}

/// Runs one case on a thread of its own, so that one that hangs can be given up.
fn one(case: &'static Case) -> Result<()> {
    let folder =
        tempfile::Builder::new().prefix("spanwise-e2e-").tempdir().context("cannot make a folder")?;
    let keep = std::env::var_os("SPANWISE_KEEP").is_some();
    if !keep {
        cleanup::add_folder(folder.path());
    }
    let context = Context { dir: folder.path().to_owned() };
    let (tell, told) = channel();
    let thread = std::thread::Builder::new().name(case.name.to_owned()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| (case.run)(&context)));
        // Nobody listens any more when the case was given up.
        let _ = tell.send(result);
    })?;
    let result = match told.recv_timeout(Duration::from_secs(case.seconds)) {
        Ok(Ok(result)) => {
            let _ = thread.join();
            result
        }
        Ok(Err(panic)) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(anyhow!("it panicked: {}", words.unwrap_or_default()))
        }
        Err(RecvTimeoutError::Timeout) => Err(anyhow!("it took longer than {} seconds", case.seconds)),
        Err(RecvTimeoutError::Disconnected) => Err(anyhow!("its thread ended without a result")),
    };
    cleanup::now();
    if result.is_err() && keep {
        println!("    its files are left in {}", folder.keep().display());
    }
    result
}
