//! Stage 2: who: processes, their programs, and the service each belongs to.
//!
//! Comes in: process ids. Goes out: what `/proc` and the program file tell about them, or in one sentence why they cannot be
//! traced, and the resource their spans are exported under. Program files are looked at in pieces, never read whole; of the
//! environment only the OpenTelemetry variables are kept.

pub mod command;
mod container;
mod datagrams;
mod elf;
mod goroutines;
mod inspect;
mod language;
mod listing;
pub mod maps;
mod name;
mod procfs;
mod registry;
mod service;
mod services;
mod sockets;
mod tasks;

pub use datagrams::{Datagrams, QuicSockets};
pub use goroutines::Goroutines;
pub use inspect::{InspectError, Process};
pub use listing::{Row, listing};
pub use procfs::Proc;
pub use registry::{Registry, descendants};
pub use service::{Language, Service};
pub use services::{Naming, Services};
pub use sockets::closed_sockets;
pub use tasks::Goroutine;
