//! End-to-end tests of Spanwise on real programs: what starts them, loads them, and reads what the agent said about them.

pub mod agent;
pub mod apps;
pub mod bpf;
pub mod certs;
pub mod cleanup;
pub mod clients;
pub mod databases;
pub mod golang;
pub mod harm;
pub mod judge;
pub mod load;
pub mod memory;
pub mod paths;
pub mod proc;
pub mod rounds;
pub mod runner;
pub mod secure;
pub mod sink;
pub mod soak;
pub mod spans;
pub mod stats;
pub mod suites;
pub mod sys;
pub mod told;
pub mod toolbox;
pub mod traces;
