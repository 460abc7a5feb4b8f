//! `bench`: being written.
use anyhow::Result;
/// The `bench` task.
pub(crate) fn main(_arguments: &[String]) -> Result<()> {
    anyhow::bail!("not there yet")
}
