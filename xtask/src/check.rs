//! `check`: what can be said without running anything. In: the sources. Out: success, or every rule that is broken.

mod licences;
mod sources;

use anyhow::{Result, bail};
use spanwise_tests::paths;

use crate::run::{self, Options};

/// The `check` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    Options::new(arguments).finish()?;
    let mut broken = Vec::new();
    let mut note = |what: &str, result: Result<()>| {
        match &result {
            Ok(()) => println!("check: {what}: good"),
            Err(error) => println!("check: {what}: {error:#}"),
        }
        if result.is_err() {
            broken.push(what.to_owned());
        }
    };
    note("formatting", run::run(run::cargo().args(["fmt", "--all", "--check"])));
    // Not of the workspace: another target.
    note(
        "formatting of the BPF side",
        run::run(run::cargo().args(["fmt", "--check"]).current_dir(paths::root().join("ebpf"))),
    );
    note(
        "lints",
        run::run(
            run::cargo()
                .args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
                .env("SPANWISE_BPF", "stub"),
        ),
    );
    note("order of the stages", sources::stages(&paths::root().join("agent/src")));
    note("what the parsers know", sources::parsers(&paths::root().join("agent/protocol")));
    note("length of files", sources::lengths(&paths::root()));
    note("licences", licences::check());
    if broken.is_empty() { Ok(()) } else { bail!("broken: {}", broken.join(", ")) }
}
