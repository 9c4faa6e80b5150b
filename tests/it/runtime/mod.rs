//! The container runtime against the kernel: what a process in a container sees, and what the host sees of it.

mod hostile;
mod inside;
mod life;
mod support;
