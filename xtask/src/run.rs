//! Running tools. In: commands and arguments. Out: success, or an error that names the command.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use spanwise_tests::{paths, sys};

/// Options of a task, each taken once and checked at the end.
pub(crate) struct Options(Vec<String>);

impl Options {
    /// From the command line.
    pub(crate) fn new(arguments: &[String]) -> Self {
        Self(arguments.to_vec())
    }

    /// Takes `--name`, if it is there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|argument| argument == name);
        if let Some(place) = place {
            self.0.remove(place);
        }
        place.is_some()
    }

    /// Takes `--name VALUE`, if it is there.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<String>> {
        let Some(place) = self.0.iter().position(|argument| argument == name) else { return Ok(None) };
        self.0.remove(place);
        if place >= self.0.len() {
            bail!("{name} needs a value");
        }
        Ok(Some(self.0.remove(place)))
    }

    /// Takes `--name N`, if it is there.
    pub(crate) fn number(&mut self, name: &str, otherwise: u64) -> Result<u64> {
        match self.value(name)? {
            Some(text) => text.parse().with_context(|| format!("{name} needs a number, not `{text}`")),
            None => Ok(otherwise),
        }
    }

    /// Complains about what nobody took.
    pub(crate) fn finish(self) -> Result<()> {
        match self.0.first() {
            Some(left) => bail!("unknown option `{left}`: see `cargo xtask help`"),
            None => Ok(()),
        }
    }
}

/// Fails when not root, in a sentence that says what for.
pub(crate) fn need_root(what: &str) -> Result<()> {
    if sys::effective_uid() == 0 {
        Ok(())
    } else {
        bail!(
            "{what} needs root: run it again as root (it loads programs into the kernel and installs packages)"
        )
    }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    // Set by cargo for us; a nested cargo must find its own.
    command.env_remove("CARGO_MANIFEST_DIR").env("PATH", path_with_tools());
    command
}

/// PATH with the folder in front where `cargo install` puts bpf-linker, which a package of cargo need not have set up.
pub(crate) fn path_with_tools() -> std::ffi::OsString {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folders = [cargo_home().join("bin")].into_iter().chain(std::env::split_paths(&old));
    std::env::join_paths(folders).unwrap_or(old)
}

/// Cargo's own folder.
pub(crate) fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cargo"),
        PathBuf::from,
    )
}

/// Shows a command and runs it to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = show(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if status.success() { Ok(()) } else { bail!("`{line}` failed ({status})") }
}

fn show(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    command.get_args().fold(name, |line, argument| format!("{line} {}", argument.to_string_lossy()))
}

/// Builds the agent, and names the agent to the harness. `SPANWISE_BIN` names one that is built already.
pub(crate) fn build_agent(profile: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SPANWISE_BIN").map(PathBuf::from) {
        println!("using the agent at {}", path.display());
        return Ok(path);
    }
    // An agent without its programs is of no use here.
    run(cargo()
        .args(["build", "--profile", profile, "--package", "spanwise", "--bin", "spanwise"])
        .env_remove("SPANWISE_BPF"))?;
    let path = paths::target().join(profile).join("spanwise");
    if !path.exists() {
        bail!("the build left no {}", path.display());
    }
    paths::use_agent(path.clone());
    Ok(path)
}

/// Builds the programs of the tests.
pub(crate) fn build_exerciser() -> Result<()> {
    run(cargo().args(["build", "--package", "spanwise-tests", "--bins"]))
}
