//! Containers that outlived both their engine and its holder: their supervisors are in the namespaces that a new engine
//! has to find them in.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, WaitOptions, waitpid};

use super::holder::Namespaces;
use crate::os::process::{SingleThreaded, exit_now, fork};
use crate::os::{socket, user_namespace};
use crate::runtime::SHIM_LOCK;

/// The file on which the user's network namespace is mounted, in the mount namespace alone.
pub const NETWORK: &str = "rootless.net";
/// What a supervisor is called.
const SUPERVISOR: &str = "compose-shim";
/// The file system that namespaces are files of.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Supervisors without a holder, and where they are.
pub struct Survivors {
    pub processes: Vec<OwnedFd>,
    pub namespaces: Namespaces,
}

impl Survivors {
    /// Finds the supervisors of this state directory's containers, if any lives.
    pub fn find(single: &SingleThreaded, state_dir: &Path, run_dir: &Path) -> io::Result<Option<Self>> {
        let pids = supervisors(&fs::canonicalize(state_dir)?);
        let processes: Vec<OwnedFd> = pids
            .iter()
            .filter_map(|pid| rustix::process::pidfd_open(*pid, PidfdFlags::empty()).ok())
            .collect();
        let Some(pid) = pids.first() else {
            return Ok(None);
        };
        let open = |name: &str| {
            let path = format!("/proc/{}/ns/{name}", pid.as_raw_nonzero());
            rustix::fs::open(path, OFlags::CLOEXEC, Mode::empty())
        };
        let (user, mount) = (open("user")?, open("mnt")?);
        let network = network_inside(single, &user, &mount, run_dir)?;
        Ok(Some(Self {
            processes,
            namespaces: Namespaces { user, mount, network },
        }))
    }
}

/// Returns the processes of this user that have a container's lock in the state directory.
fn supervisors(state_dir: &Path) -> Vec<Pid> {
    let containers = state_dir.join("containers");
    let uid = rustix::process::geteuid().as_raw();
    let is_ours = |pid: i32| -> bool {
        let process = Path::new("/proc").join(pid.to_string());
        // The name first: it costs least and says no to nearly everything.
        let named = fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == SUPERVISOR);
        if !named || !fs::metadata(&process).is_ok_and(|status| status.uid() == uid) {
            return false;
        }
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut files = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        files.any(|file| file.starts_with(&containers) && file.file_name().is_some_and(|name| name == SHIM_LOCK))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_ours(*pid))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Fetches the network namespace from the mount namespace in which it is kept.
fn network_inside(single: &SingleThreaded, user: &OwnedFd, mount: &OwnedFd, run_dir: &Path) -> io::Result<OwnedFd> {
    let (ours, theirs) = socket::message_pair()?;
    let Some(child) = fork(single)? else {
        drop(ours);
        let sent = user_namespace::enter(user.as_fd(), mount.as_fd())
            .and_then(|()| open_network(run_dir))
            .and_then(|network| socket::send(&theirs, b"network", &[network.as_fd()]));
        exit_now(i32::from(sent.is_err()));
    };
    drop(theirs);
    let answer = socket::receive(&ours)?;
    let _ = waitpid(Some(child), WaitOptions::empty());
    answer
        .and_then(|answer| answer.descriptors.into_iter().next())
        .ok_or_else(|| io::Error::other("their network namespace is gone"))
}

fn open_network(run_dir: &Path) -> io::Result<OwnedFd> {
    let file = rustix::fs::open(run_dir.join(NETWORK), OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    // Without the mount it is an empty file.
    if rustix::fs::fstatfs(&file)?.f_type as u64 != NSFS_MAGIC {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(file)
}

/// Keeps this process's network namespace where a later holder finds it, for as long as the mount namespace lasts.
pub fn keep_network(run_dir: &Path) -> io::Result<()> {
    let place = run_dir.join(NETWORK);
    fs::File::create(&place)?;
    rustix::mount::mount_bind("/proc/self/ns/net", &place)?;
    Ok(())
}
