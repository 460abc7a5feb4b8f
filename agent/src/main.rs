//! The `spanwise` command.
fn main() {}
