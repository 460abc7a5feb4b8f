//! The Spanwise agent. Modules stand in the order of the data flow; a stage imports from the stages before it,
//! never after.

#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

pub mod conn;
pub mod export;
pub mod instrument;
pub mod kernel;
pub mod process;
pub mod sample;
pub mod session;
pub mod span;

pub mod attribute;
pub mod cli;
pub mod config;
pub mod governor;
mod numbers;
pub mod pipeline;
pub mod placement;
pub mod telemetry;
