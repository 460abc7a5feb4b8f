//! `soak`: everything at once for a long time. In: minutes. Out: one line that says what was asked and what grew; an error if
//! anything failed or grew.

use std::time::Duration;

use anyhow::Result;
use spanwise_tests::{cleanup, soak, sys};

use crate::run::{self, Options};
use crate::setup;

/// The `soak` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let minutes = options.number("--minutes", 60)?.max(1);
    options.finish()?;
    run::need_root("`cargo xtask soak`")?;
    setup::main(&[])?;
    run::build_agent("release")?;
    sys::raise_file_limit();
    let folder = tempfile::Builder::new().prefix("spanwise-soak-").tempdir()?;
    cleanup::add_folder(folder.path());
    println!(
        "soaking for {minutes} minutes: nginx, Python, Node, Go, unix sockets, curl, aborted connections"
    );
    println!("{}", soak::soak(folder.path(), Duration::from_secs(60 * minutes))?);
    Ok(())
}
