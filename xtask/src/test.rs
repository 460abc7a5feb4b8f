//! `test`: being written.
use anyhow::Result;
/// The `test` task.
pub(crate) fn main(_arguments: &[String]) -> Result<()> {
    anyhow::bail!("not there yet")
}
