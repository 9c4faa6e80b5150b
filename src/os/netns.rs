//! Network namespaces. A thread has its own: entering one changes the calling thread alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Puts the calling thread into a new, empty network namespace.
pub fn unshare() -> io::Result<()> {
    // SAFETY: only a file table that is no longer shared could take descriptors from other threads; this leaves
    // the file table shared and changes the thread's network namespace alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Puts the calling thread into the network namespace that `namespace` refers to.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Returns the calling thread's network namespace.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}
