//! Safe wrappers on system calls: the only module with `unsafe` code.
pub mod memory;
