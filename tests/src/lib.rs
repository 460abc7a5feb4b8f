//! End-to-end tests of Spanwise on real programs.
