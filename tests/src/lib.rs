//! End-to-end tests of Spanwise on real programs: what starts them, loads them, and reads what the agent said about them.

pub mod cleanup;
pub mod paths;
pub mod proc;
pub mod sys;
