//! User namespaces for containers and for mounts: which ids of one side are which of the other.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::LinuxIdMapping;
use rustix::mount::MountAttrFlags;

use crate::os::mount::{Attributes, set_attributes};
use crate::os::process::{Child, Fork, SingleThreaded, clone_into, exit_now};
use crate::os::socket;

/// A user namespace, and the network namespace that belongs to it where one was wanted.
#[derive(Debug)]
pub struct Made {
    /// The user namespace.
    pub user: OwnedFd,
    /// The network namespace, in which nothing is set up yet.
    pub network: Option<OwnedFd>,
}

/// Makes a user namespace. It lasts as long as somebody is in it or holds it open.
pub fn make(
    single: &SingleThreaded,
    users: &[LinuxIdMapping],
    groups: &[LinuxIdMapping],
    with_network: bool,
) -> io::Result<Made> {
    let mut kinds = libc::CLONE_NEWUSER;
    if with_network {
        kinds |= libc::CLONE_NEWNET;
    }
    let (ours, theirs) = socket::message_pair()?;
    // Namespaces are made with a process, and only one outside may say who is who in them.
    let child = match clone_into(single, kinds as u64, None)? {
        Fork::Child => {
            drop(ours);
            let _ = socket::receive(&theirs);
            exit_now(0)
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let open = |name: &str| -> io::Result<OwnedFd> {
        Ok(File::open(format!("/proc/{}/ns/{name}", child.pid.as_raw_nonzero()))?.into())
    };
    let made = map(&child, users, groups).and_then(|()| {
        Ok(Made {
            user: open("user")?,
            network: with_network.then(|| open("net")).transpose()?,
        })
    });
    drop(ours);
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(child.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
    made
}

fn map(child: &Child, users: &[LinuxIdMapping], groups: &[LinuxIdMapping]) -> io::Result<()> {
    let text = |mappings: &[LinuxIdMapping]| {
        mappings.iter().fold(String::new(), |text, mapping| {
            let (inside, outside) = (mapping.container_id(), mapping.host_id());
            format!("{text}{inside} {outside} {}\n", mapping.size())
        })
    };
    let process = format!("/proc/{}", child.pid.as_raw_nonzero());
    fs::write(format!("{process}/uid_map"), text(users))?;
    fs::write(format!("{process}/gid_map"), text(groups))
}

/// Has a mount that is attached nowhere show the ids of its files as a user namespace maps them.
pub fn map_mount(mount: BorrowedFd<'_>, recursive: bool, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = Attributes {
        set: u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits()),
        user_namespace: u64::try_from(namespace.as_raw_fd()).unwrap_or_default(),
        ..Attributes::default()
    };
    set_attributes(mount, recursive, attributes).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => io::Error::other("its file system, or this kernel, cannot map ids"),
        _ => error,
    })
}

/// Returns the id outside of an id inside.
pub fn outside(mappings: &[LinuxIdMapping], inside: u32) -> Option<u32> {
    let of = |mapping: &LinuxIdMapping| {
        let offset = inside.checked_sub(mapping.container_id())?;
        (offset < mapping.size()).then(|| mapping.host_id() + offset)
    };
    mappings.iter().find_map(of)
}
