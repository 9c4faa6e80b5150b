//! A container's cgroups: what it may use, what it uses, and all of its processes at once.
//!
//! The unified hierarchy (v2) identifies, kills and freezes, which it does even where every controller sits in
//! hierarchies of the old kind (v1); limits are set wherever their controller is. All paths are absolute and below a
//! parent of this engine's own: a relative one would land in a cgroup somebody else made.

mod devices;
mod limits;
mod stats;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os::user_namespace;
use crate::runtime::in_root;

pub use limits::apply;
pub use stats::network;
pub use stats::{BlockStats, CpuStats, MemoryStats, NetworkStats, PidsStats, Stats};

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The old hierarchies: their controllers and mount points.
    pub legacy: Vec<(Vec<String>, PathBuf)>,
    /// The mount point of the unified hierarchy.
    pub unified: Option<PathBuf>,
}

impl Layout {
    /// Reads the layout of this mount namespace.
    pub fn read() -> Self {
        if user_namespace::is_nested() {
            return Self::handed_over();
        }
        fs::read_to_string("/proc/self/mountinfo").map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    /// Reads what of the layout somebody who is not the machine's root may change.
    pub fn handed_over() -> Self {
        let layout =
            fs::read_to_string("/proc/self/mountinfo").map_or_else(|_| Self::default(), |text| Self::parse(&text));
        layout.delegated(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
    }

    /// Keeps what somebody may change who was handed over the cgroup that they are in.
    fn delegated(mut self, own: &str) -> Self {
        let is_ours = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        self.legacy.retain(|(_, point)| is_ours(point));
        self.unified = self.unified.and_then(|point| {
            if is_ours(&point) {
                return Some(point);
            }
            let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
            let place = point.join(path);
            // The highest one: below it everything may be arranged as wanted.
            let handed_over = |path: &&Path| is_ours(path) && is_ours(&path.join("cgroup.procs"));
            place
                .ancestors()
                .take_while(|path| path.starts_with(&point))
                .filter(handed_over)
                .last()
                .map(Path::to_owned)
        });
        self
    }

    /// Returns whether there are cgroups to be made at all.
    pub fn is_empty(&self) -> bool {
        self.legacy.is_empty() && self.unified.is_none()
    }

    fn parse(mountinfo: &str) -> Self {
        const CONTROLLERS: [&str; 12] = [
            "cpu",
            "cpuacct",
            "cpuset",
            "memory",
            "pids",
            "devices",
            "freezer",
            "blkio",
            "hugetlb",
            "perf_event",
            "net_cls",
            "net_prio",
        ];
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") if layout.unified.is_none() => layout.unified = Some(point),
                Some("cgroup") => {
                    let controllers: Vec<String> = right
                        .nth(1)
                        .unwrap_or_default()
                        .split(',')
                        .filter(|option| CONTROLLERS.contains(option))
                        .map(str::to_owned)
                        .collect();
                    // The same hierarchy may be mounted twice.
                    if !controllers.is_empty() && layout.legacy.iter().all(|(known, _)| *known != controllers) {
                        layout.legacy.push((controllers, point));
                    }
                }
                _ => {}
            }
        }
        layout
    }
}

/// The cgroups of one container, one per hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    legacy: Vec<(Vec<String>, PathBuf)>,
    unified: Option<PathBuf>,
    /// How far below each hierarchy's root the container's directories are.
    depth: usize,
    /// Whether the parent goes with its last child.
    owns_parent: bool,
}

impl Cgroup {
    /// Names the cgroups of a container; nothing is made yet.
    pub fn new(layout: &Layout, parent: &str, id: &str) -> Self {
        Self {
            owns_parent: true,
            ..Self::at(layout, &Path::new(parent).join(id))
        }
    }

    /// Names the cgroups at a path below each hierarchy's root, in a parent that somebody else may have made.
    pub fn at(layout: &Layout, path: &Path) -> Self {
        let path = in_root::relative(path);
        let below = |point: &Path| point.join(&path);
        Self {
            depth: path.components().count(),
            owns_parent: false,
            legacy: layout
                .legacy
                .iter()
                .map(|(controllers, point)| (controllers.clone(), below(point)))
                .collect(),
            unified: layout.unified.as_deref().map(below),
        }
    }

    /// Makes the cgroups. A hierarchy that cannot be written to is left out, with a warning.
    pub fn create(&mut self, mut warn: impl FnMut(String)) {
        self.legacy.retain(|(controllers, path)| {
            let result = create(path, self.depth, |path| {
                if controllers.iter().any(|controller| controller == "cpuset") {
                    inherit_cpuset(path)
                } else {
                    Ok(())
                }
            });
            if let Err(error) = &result {
                warn(format!("cannot make the cgroup {}: {error}", path.display()));
            }
            result.is_ok()
        });
        if let Some(path) = &self.unified
            && let Err(error) = create(path, self.depth, |_| Ok(()))
        {
            warn(format!("cannot make the cgroup {}: {error}", path.display()));
            self.unified = None;
        }
        if let Some(path) = &self.unified {
            delegate(path, self.depth);
        }
    }

    /// Returns the directory in the unified hierarchy.
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Returns the directory that has a controller: the old hierarchy's, or the unified one where it serves it.
    pub fn controller(&self, name: &str) -> Option<Controller<'_>> {
        if let Some((_, path)) = self
            .legacy
            .iter()
            .find(|(controllers, _)| controllers.iter().any(|controller| controller == name))
        {
            return Some(Controller::Legacy(path));
        }
        let unified = self.unified.as_deref()?;
        let served = fs::read_to_string(unified.join("cgroup.controllers")).ok()?;
        served
            .split_whitespace()
            .any(|controller| controller == name)
            .then_some(Controller::Unified(unified))
    }

    /// Returns each old hierarchy's controllers and this container's directory there.
    pub fn legacy(&self) -> &[(Vec<String>, PathBuf)] {
        &self.legacy
    }

    /// Opens what a process joins the cgroups by, before it loses sight of them.
    pub fn open(&self) -> Joinable {
        let unified = self.unified.as_deref().and_then(|path| {
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECTORY | libc::O_PATH)
                .open(path)
                .ok()
        });
        // A thread that moves itself keeps nobody from forking. For a process the kernel would lock all forks out, which
        // has it wait for every processor first: up to ten milliseconds.
        let tasks = self
            .legacy
            .iter()
            .filter_map(|(_, path)| OpenOptions::new().write(true).open(path.join("tasks")).ok())
            .collect();
        Joinable {
            unified: unified.map(OwnedFd::from),
            tasks,
        }
    }

    /// Kills every process.
    pub fn kill(&self) {
        if let Some(unified) = &self.unified
            && write(&unified.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for process in self.processes() {
            if let Some(process) = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
    }

    /// Returns whether the container has no cgroup, as where a plain user may make none.
    pub fn is_missing(&self) -> bool {
        self.legacy.is_empty() && self.unified.is_none()
    }

    /// Returns every process.
    pub fn processes(&self) -> Vec<u32> {
        let mut processes = Vec::new();
        if let Some(path) = self
            .unified
            .as_ref()
            .or_else(|| self.legacy.first().map(|(_, path)| path))
        {
            collect_processes(path, &mut processes);
        }
        processes.sort_unstable();
        processes
    }

    /// Stops every process where it is, or lets them go on.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        if let Some(unified) = &self.unified {
            write(&unified.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
            let wanted = if frozen { "frozen 1" } else { "frozen 0" };
            return settle(|| {
                Ok(fs::read_to_string(unified.join("cgroup.events"))?
                    .lines()
                    .any(|line| line == wanted))
            });
        }
        let Some(Controller::Legacy(path)) = self.controller("freezer") else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no cgroup to freeze"));
        };
        let state = path.join("freezer.state");
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        settle(|| {
            write(&state, wanted)?;
            Ok(fs::read_to_string(&state)?.trim() == wanted)
        })
    }

    /// Returns whether the processes are stopped where they are.
    pub fn is_frozen(&self) -> bool {
        let (file, frozen) = match (&self.unified, self.controller("freezer")) {
            (Some(unified), _) => (unified.join("cgroup.freeze"), "1"),
            (None, Some(Controller::Legacy(path))) => (path.join("freezer.state"), "FROZEN"),
            _ => return false,
        };
        fs::read_to_string(file).is_ok_and(|state| state.trim() == frozen)
    }

    /// Returns whether the kernel killed a process for want of memory.
    pub fn ran_out_of_memory(&self) -> bool {
        let file = match self.controller("memory") {
            Some(Controller::Legacy(path)) => path.join("memory.oom_control"),
            Some(Controller::Unified(path)) => path.join("memory.events"),
            None => return false,
        };
        fs::read_to_string(file).is_ok_and(|text| {
            text.lines()
                .filter_map(|line| line.strip_prefix("oom_kill "))
                .any(|count| count.trim() != "0")
        })
    }

    /// Removes the cgroups, and the parent's where this was its last child.
    pub fn remove(&self) {
        for path in self.legacy.iter().map(|(_, path)| path).chain(&self.unified) {
            // The kernel lets go of a killed process a moment after its parent has heard of its end.
            let removed = settle(|| match remove_tree(path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
                other => other.map(|()| true),
            });
            if removed.is_err() {
                // Somebody made it the parent of another cgroup, whose end is its end then.
                mark(path);
            }
            for parent in path.ancestors().skip(1).take(self.depth.saturating_sub(1)) {
                // Another container may be in it; and a user's own, with limits perhaps, is theirs to remove.
                if !self.owns_parent || has_children(parent) || !is_ours(parent) || fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
    }

    /// Reads what the container uses.
    pub fn stats(&self) -> Stats {
        stats::read(self)
    }
}

/// Where a controller is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller<'c> {
    /// In a hierarchy of its own.
    Legacy(&'c Path),
    /// In the unified one.
    Unified(&'c Path),
}

/// What a process joins a container's cgroups by.
#[derive(Debug)]
pub struct Joinable {
    unified: Option<OwnedFd>,
    tasks: Vec<File>,
}

impl Joinable {
    /// Returns the directory a process is cloned into.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves this process, which has one thread, into the old hierarchies.
    pub fn join(&self) -> io::Result<()> {
        for mut file in &self.tasks {
            file.write_all(b"0")?;
        }
        Ok(())
    }
}

/// Returns whether other cgroups lie in a cgroup, without asking for the lock that all changes of cgroups wait for. Who
/// leaves last sees none, having removed its own before it looks.
fn has_children(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.nlink() > 2)
}

/// The mark of cgroups that we made, as opposed to those that were there.
const MARK: &str = "trusted.compose";

fn is_ours(path: &Path) -> bool {
    is_named_after_us(path) || rustix::fs::getxattr(path, MARK, &mut [0_u8; 8]).is_ok()
}

fn mark(path: &Path) {
    let _ = rustix::fs::setxattr(path, MARK, b"made", rustix::fs::XattrFlags::empty());
}

fn is_named_after_us(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"compose-"))
}

/// Makes a container's cgroup and what is above it up to the hierarchy's root, `depth` levels up, trying again where
/// the parent was just removed by a container's end.
fn create(path: &Path, depth: usize, prepare: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut levels: Vec<&Path> = path.ancestors().take(depth).collect();
    levels.reverse();
    for attempt in 0.. {
        let made = levels
            .iter()
            .try_for_each(|level| create_one(level, *level != path, &prepare));
        match made {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < 10 => {}
            other => return other,
        }
    }
    Ok(())
}

fn create_one(path: &Path, is_parent: bool, prepare: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {
            // Without the mark, it stays when the last container has left it.
            if is_parent && !is_named_after_us(path) {
                mark(path);
            }
            prepare(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => prepare(path),
        Err(error) => Err(error),
    }
}

/// An old cpuset cgroup begins with no processors, and takes no process before it has some.
fn inherit_cpuset(path: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(path.join(name))?.trim().is_empty()
            && let Some(parent) = path.parent()
        {
            write(&path.join(name), fs::read_to_string(parent.join(name))?.trim())?;
        }
    }
    Ok(())
}

/// Turns on, on the way from the root to a cgroup, every controller the unified hierarchy has. What cannot be
/// turned on is missed later, by name, when a limit needs it.
fn delegate(path: &Path, depth: usize) {
    let mut above: Vec<&Path> = path.ancestors().skip(1).take(depth).collect();
    above.reverse();
    for directory in above {
        let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        let enabled = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
        for controller in available.split_whitespace() {
            let wanted = ["cpu", "cpuset", "io", "memory", "pids"].contains(&controller);
            if wanted && !enabled.split_whitespace().any(|name| name == controller) {
                let _ = write(&directory.join("cgroup.subtree_control"), &format!("+{controller}"));
            }
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

fn collect_processes(path: &Path, processes: &mut Vec<u32>) {
    if let Ok(text) = fs::read_to_string(path.join("cgroup.procs")) {
        processes.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    for child in children(path) {
        collect_processes(&child, processes);
    }
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            for child in children(path) {
                remove_tree(&child)?;
            }
            fs::remove_dir(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Asks until it is so, for two seconds at most.
fn settle(mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let mut pause = Duration::from_micros(50);
    let mut waited = Duration::ZERO;
    while !is_so()? {
        if waited > Duration::from_secs(2) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(pause);
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_read_from_the_mounts() {
        let layout = Layout::parse(
            "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             34 30 0:27 / /mnt/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n",
        );
        assert_eq!(
            layout,
            Layout {
                legacy: vec![(
                    vec!["cpu".to_owned(), "cpuacct".to_owned()],
                    PathBuf::from("/sys/fs/cgroup/cpu")
                )],
                unified: Some(PathBuf::from("/sys/fs/cgroup/unified")),
            }
        );
    }
}
