//! [2] Who: processes, their programs, and the service each belongs to.

mod service;

pub use service::{Language, Service};
