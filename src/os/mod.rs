//! Safe wrappers on system calls: the only module with `unsafe` code.
pub mod crew;
pub mod datagram;
pub mod device_filter;
pub mod held;
pub mod memfd;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod process;
pub mod program;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod user_namespace;
