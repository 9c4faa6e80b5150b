//! What rustix lacks of the mount calls: changing the attributes of a mount or a tree of them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to change of a mount.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    /// A user namespace for id-mapped mounts.
    pub user_namespace: u64,
}

/// Changes the mount that `mount` is a descriptor of, and with `recursive` those below it.
pub fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attributes: Attributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` is a mount_attr of the size given; the path is an empty C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            std::mem::size_of::<Attributes>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
