//! `demo`: being written.
use anyhow::Result;
/// The `demo` task.
pub(crate) fn main(_arguments: &[String]) -> Result<()> {
    anyhow::bail!("not there yet")
}
