//! What a Go program tells about itself: its compiler, its modules, its functions, the layout of its structs.
//!
//! Comes in: a program file. Goes out: a [`Binary`], kept once per build by [`Binaries`]; with [`Runtime`] the offsets that
//! tell one goroutine from another. Offsets come from a table made of real builds ([`Table`]), else from the program's own debug
//! information ([`Members`]); where neither knows, the feature that needs them is off, and [`Unknown`] says so in a sentence.

mod binary;
mod buildinfo;
mod bytes;
mod cache;
mod dwarf;
mod functions;
#[cfg(test)]
mod hostile;
mod image;
mod runtime;
mod table;

mod version;

pub use binary::{Binary, GoError, Unknown, wanted};
pub use buildinfo::BuildInfo;
pub use bytes::{Bytes, Opened};
pub use cache::{Binaries, MAX_BINARIES};
pub use dwarf::Members;
pub use functions::{Found, Function};
pub use runtime::{Runtime, load_bias};
pub use table::{Known, STD, Table};
pub use version::Version;
