//! Safe wrappers on system calls: the only module with `unsafe` code.
pub mod datagram;
pub mod memory;
pub mod netlink;
pub mod netns;
