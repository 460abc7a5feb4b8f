//! `vm`: does the agent work on kernels other than this one? In: Debian's archive, and programs built here. Out: for each kernel,
//! booted in an emulator, what every capture plane can do: a table, JSON, `docs/kernels.md`; an error if anything is at fault.

mod archive;
mod image;
mod machine;
mod mirror;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use spanwise_tests::proc::{capture, last_lines};
use spanwise_tests::{cleanup, paths};

use crate::run::{self, Options};
use archive::Archive;
use image::Image;
use machine::Qemu;
use table::{Report, State};

/// Series of kernels that Debian has: the oldest that can be, those of its releases, and the newest.
const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.x"];
/// What `cargo xtask test` tries: name of the test, series.
pub(crate) const TESTS: [(&str, &str); 2] = [("vm/5.10", "5.10"), ("vm/7.x", "7.x")];
/// Longest time for one kernel; two to five minutes are usual on a machine that does nothing else. Whatever hangs inside is given up
/// inside, by the VM's own time.
const LIMIT: Duration = Duration::from_secs(1_800);

/// The `vm` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let mut series = Vec::new();
    while let Some(one) = options.value("--kernel")? {
        series.push(one);
    }
    let json = options.value("--json")?;
    let read = options.value("--read")?;
    let write = options.flag("--write");
    options.finish()?;
    if write && !series.is_empty() {
        bail!("--write is for all kernels: leave out --kernel");
    }
    if series.is_empty() {
        series = SERIES.map(str::to_owned).to_vec();
    }
    let (reports, mut failed) = match read {
        Some(file) => {
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
            let reports: Vec<Report> =
                serde_json::from_str(&text).with_context(|| format!("{file} is not what --json wrote"))?;
            (reports, vec![])
        }
        None => boot(&series)?,
    };
    println!("\n{}", table::terminal(&reports));
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&reports)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {file}"))?;
    }
    // A table with faults is true; one that lacks kernels is not.
    if write && failed.is_empty() {
        let day = capture(std::process::Command::new("date").args(["-u", "+%F"]))?;
        fs::write(paths::root().join("docs/kernels.md"), table::document(&reports, day.trim()))?;
        println!("written: docs/kernels.md");
    }
    failed.extend(
        reports.iter().filter(|report| report.faults().next().is_some()).map(|report| report.kernel.clone()),
    );
    if !failed.is_empty() {
        bail!("not everything works on {} (see above)", failed.join(", "));
    }
    Ok(())
}

/// Boots one kernel after the other. Returns what was found, and the series of which nothing could be.
fn boot(series: &[String]) -> Result<(Vec<Report>, Vec<String>)> {
    build()?;
    let lab = Lab::open()?;
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for one in series {
        match lab.examine(one) {
            Ok(report) => reports.push(report),
            Err(error) => {
                println!("vm: {one}: {error:#}");
                failed.push(one.clone());
            }
        }
    }
    Ok((reports, failed))
}

/// Builds what runs inside.
fn build() -> Result<()> {
    run::build_agent("quick")?;
    run::build_exerciser()
}

/// Kernels as tests of `cargo xtask test`, which has built everything: each on a processor of its own, at the same time. A VM goes
/// by its own time, so it minds nobody else. Goes out: for each what came of it, and how long it took.
pub(crate) fn test(series: &[&str]) -> Result<Vec<(Result<()>, Duration)>> {
    let lab = Lab::open()?;
    let images: Vec<_> = series.iter().map(|one| image::get(one, &lab.archive, &lab.dir)).collect();
    let lab = &lab;
    Ok(std::thread::scope(|scope| {
        let machines: Vec<_> = images
            .into_iter()
            .map(|image| {
                scope.spawn(move || {
                    let begin = Instant::now();
                    (
                        image.and_then(|image| lab.run(image)).and_then(|report| verdict(&report)),
                        begin.elapsed(),
                    )
                })
            })
            .collect();
        let ended = |machine: std::thread::ScopedJoinHandle<'_, (Result<()>, Duration)>| {
            machine.join().unwrap_or_else(|_| (Err(anyhow::anyhow!("its thread panicked")), Duration::ZERO))
        };
        machines.into_iter().map(ended).collect()
    }))
}

fn verdict(report: &Report) -> Result<()> {
    let faults: Vec<String> = report.faults().map(|row| format!("{}: {}", row.name(), row.note)).collect();
    if faults.is_empty() { Ok(()) } else { bail!("on {}: {}", report.kernel, faults.join("; ")) }
}

/// What VMs need.
struct Lab {
    dir: PathBuf,
    archive: Archive,
    qemu: Qemu,
}

impl Lab {
    fn open() -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            bail!("the kernels for VMs are those of x86_64: run this on such a machine");
        }
        let dir = paths::target().join("vm");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let archive = Archive::open(&dir.join("apt"))?;
        let qemu = Qemu::get(&archive, &dir)?;
        Ok(Self { dir, archive, qemu })
    }

    /// Boots a kernel and tries everything in it.
    fn examine(&self, series: &str) -> Result<Report> {
        self.run(image::get(series, &self.archive, &self.dir)?)
    }

    fn run(&self, image: Image) -> Result<Report> {
        println!("vm: {} ({}) in qemu {}", image.release, image.package, self.qemu.version);
        let begin = Instant::now();
        let ended = machine::run(&self.qemu, &image, &command()?, LIMIT)?;
        let file = ended.folder.path().join("result.json");
        if ended.code != 0 || !file.exists() {
            bail!("the tests inside ended with {}:\n{}", ended.code, last_lines(&ended.output, 60));
        }
        let mut report = Report::read(&fs::read_to_string(file)?)?;
        report.package = image.package;
        report.seconds = begin.elapsed().as_secs();
        let count = |state: State| report.rows.iter().filter(|row| row.state == state).count();
        println!(
            "vm: {}: {} ok, {} gaps, {} faults, in {} s; inside: {}",
            report.kernel,
            count(State::Ok),
            count(State::Gap),
            count(State::Fault),
            report.seconds,
            // By its own clock, which another load of this machine does not slow down.
            last_lines(&ended.output, 1).trim()
        );
        if report.faults().next().is_some() {
            println!("{}", ended.output);
        }
        Ok(report)
    }
}

/// The line of shell that a VM runs: the tests' program, with the host's agent and build folder.
fn command() -> Result<String> {
    let guest = paths::target().join("debug/guest");
    if !guest.exists() {
        bail!("there is no {}: run `cargo build -p spanwise-tests --bins`", guest.display());
    }
    let agent = fs::canonicalize(paths::agent()?).context("there is no agent")?;
    Ok(format!(
        "SPANWISE_BIN={} CARGO_TARGET_DIR={} exec {} /run/vm/result.json\n",
        quoted(&agent),
        quoted(&paths::target()),
        quoted(&guest)
    ))
}

/// A folder for what is under way, gone at the latest when the task ends, by a signal too.
fn scratch(dir: &Path) -> Result<tempfile::TempDir> {
    let folder =
        tempfile::tempdir_in(dir).with_context(|| format!("cannot make a folder in {}", dir.display()))?;
    cleanup::add_folder(folder.path());
    Ok(folder)
}

/// For a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_shell() {
        let path = Path::new("/a b/it's $HOME");
        let said =
            capture(std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(path))]));
        assert_eq!(said.unwrap(), "/a b/it's $HOME");
    }

    #[test]
    fn tests_are_of_known_series() {
        assert!(TESTS.iter().all(|(_, series)| SERIES.contains(series)));
    }
}
