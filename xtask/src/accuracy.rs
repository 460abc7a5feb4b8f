//! `accuracy`: being written.
use anyhow::Result;
/// The `accuracy` task.
pub(crate) fn main(_arguments: &[String]) -> Result<()> {
    anyhow::bail!("not there yet")
}
