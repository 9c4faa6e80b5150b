//! What a container sees: its root file system, what is mounted in it, its devices, and what is hidden from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount, Spec};
use rustix::fs::{AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::UnmountFlags;

use super::failure::{Attempt, Failure, words};
use crate::runtime::cgroup::{Cgroup, Layout};
use crate::runtime::in_root;
use crate::runtime::launch::Root;
use crate::runtime::mounting::{self, Options};
use crate::runtime::outside::Prepared;
use crate::runtime::overlay;

/// The devices every container has: name and number.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The links every `/dev` has.
const LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Files below `/proc` that may be mounted over (runc `checkProcMount`).
const PROC_FILES: [&str; 11] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
    "proc/net/dev",
];

/// The new root, being furnished.
pub struct Surroundings {
    root: OwnedFd,
    later: Vec<OwnedFd>,
    null: OwnedFd,
}

impl Surroundings {
    /// Attaches the root file system where only this mount namespace sees it.
    pub fn attach(
        root: &Root,
        spec: &Spec,
        place: &Path,
        prepared: Option<Prepared>,
    ) -> Result<(Self, Vec<Option<OwnedFd>>), Failure> {
        let null = host_null().attempt(|| "verify /dev/null")?;
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        // A tree that shall stay in touch with the host's is copied before this namespace turns away from it.
        let prepared = prepared.unwrap_or_default();
        let mut sources = prepared.sources;
        sources.resize_with(mounts.len(), || None);
        for (mount, source) in mounts.iter().zip(&mut sources) {
            let options = options_of(mount);
            let shared = options.propagation.is_some_and(|(kind, _)| kind == libc::MS_SHARED);
            if source.is_none() && shared && options.bind.is_some() {
                *source = Some(mounting::source_of(mount, &options).attempt(|| attempt_of(mount))?);
            }
        }
        let everything = in_root::own_root().attempt(|| "open the host's root")?;
        mounting::propagate(everything.as_fd(), libc::MS_SLAVE, true).attempt(|| "turn away from the host's mounts")?;
        let root = match prepared.root {
            Some(root) => attach_anywhere(root.as_fd())
                .attempt(|| "attach the root file system")
                .map(|()| root)?,
            None => overlay::attach_root(root, place).attempt(|| format!("mount the root file system at {place:?}"))?,
        };
        let surroundings = Self {
            root,
            later: Vec::new(),
            null,
        };
        Ok((surroundings, sources))
    }

    /// Returns the new root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Mounts what the spec lists, in its order.
    pub fn mount(
        &mut self,
        spec: &Spec,
        sources: Vec<Option<OwnedFd>>,
        groups: &CgroupView<'_>,
    ) -> Result<(), Failure> {
        for (mount, source) in spec.mounts().iter().flatten().zip(sources) {
            let options = options_of(mount);
            check_procfs(mount)?;
            if mount.typ().as_deref() == Some("cgroup") || mount.typ().as_deref() == Some("cgroup2") {
                groups
                    .mount(self.root.as_fd(), mount, &options)
                    .attempt(|| attempt_of(mount))?;
                continue;
            }
            let later =
                mounting::mount_entry(self.root.as_fd(), mount, &options, source).attempt(|| attempt_of(mount))?;
            self.later.extend(later);
        }
        Ok(())
    }

    /// Fills `/dev`, unless it is the host's.
    pub fn make_devices(&self, spec: &Spec) -> Result<(), Failure> {
        let is_foreign = spec.mounts().iter().flatten().any(|mount| {
            in_root::relative(mount.destination()) == Path::new("dev") && options_of(mount).bind.is_some()
        });
        if is_foreign {
            return Ok(());
        }
        let directory = in_root::make_directories(self.root(), Path::new("/dev"), Mode::from_raw_mode(0o755))
            .attempt(|| "open /dev")?;
        for (name, major, minor) in DEVICES {
            make_device(
                directory.as_fd(),
                name,
                FileType::CharacterDevice,
                (major, minor),
                0o666,
                (0, 0),
            )
            .attempt(|| format!("error creating device nodes: mknod /dev/{name}"))?;
        }
        for device in spec
            .linux()
            .iter()
            .filter_map(|linux| linux.devices().as_ref())
            .flatten()
        {
            self.make_spec_device(device)
                .attempt(|| format!("error creating device nodes: mknod {}", device.path().display()))?;
        }
        for (to, name) in LINKS {
            // Whatever the image has of that name gives way, as long as it is no directory.
            let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
            match rustix::fs::symlinkat(to, &directory, name) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(Failure::of(format!("symlink {to} /dev/{name}"), &error.into())),
            }
        }
        if Path::new("/proc/kcore").exists() {
            let _ = rustix::fs::symlinkat("/proc/kcore", &directory, "core");
        }
        Ok(())
    }

    fn make_spec_device(&self, device: &LinuxDevice) -> io::Result<()> {
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::C | LinuxDeviceType::U | LinuxDeviceType::A => FileType::CharacterDevice,
        };
        let number = |number: i64| u32::try_from(number).unwrap_or(0);
        let (parent, name) = in_root::parent(self.root(), device.path(), true)?;
        let name = name.to_string_lossy();
        make_device(
            parent.as_fd(),
            &name,
            kind,
            (number(device.major()), number(device.minor())),
            device.file_mode().unwrap_or(0o666) & 0o7777,
            (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
        )
    }

    /// Opens a terminal of the container's own and makes it `/dev/console`; returns both of its sides.
    pub fn open_console(&self) -> Result<(OwnedFd, OwnedFd), Failure> {
        let (master, slave) = open_terminal(self.root())?;
        let put = || -> io::Result<()> {
            let target = in_root::make_file(self.root(), Path::new("/dev/console"))?;
            let terminal = mounting::copy_of_file(slave.as_fd(), false)?;
            mounting::attach(terminal.as_fd(), target.as_fd())
        };
        put().attempt(|| "mount console")?;
        Ok((master, slave))
    }

    /// Makes the working directory where it is missing, as runc does.
    pub fn make_directory(&self, path: &Path) -> Result<(), Failure> {
        if path.as_os_str().is_empty() || in_root::open(self.root(), path, OFlags::PATH).is_ok() {
            return Ok(());
        }
        in_root::make_directories(self.root(), path, Mode::from_raw_mode(0o755))
            .map(drop)
            .attempt(|| format!("mkdir {}", path.display()))
    }

    /// Hides what shall be hidden, write-protects what shall be, and makes this the root.
    pub fn enter(self, spec: &Spec) -> Result<(), Failure> {
        if let Some(linux) = spec.linux() {
            for path in linux.readonly_paths().iter().flatten() {
                self.protect(Path::new(path))
                    .attempt(|| format!("make {path} read-only"))?;
            }
            let mut empty = None;
            for path in linux.masked_paths().iter().flatten() {
                self.mask(Path::new(path), &mut empty)
                    .attempt(|| format!("can't mask path {path:?}"))?;
            }
        }
        for mount in &self.later {
            mounting::make_read_only(mount.as_fd(), false).attempt(|| "remount a tmpfs read-only")?;
        }
        if spec.root().as_ref().and_then(|root| root.readonly()) == Some(true) {
            mounting::make_read_only(self.root(), false).attempt(|| "remount the root read-only")?;
        }
        pivot(self.root()).attempt(|| "pivot_root")
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        let Some(target) = existing(self.root(), path)? else {
            return Ok(());
        };
        let copy = mounting::copy_of_file(target.as_fd(), true)?;
        mounting::make_read_only(copy.as_fd(), false)?;
        mounting::attach(copy.as_fd(), target.as_fd())
    }

    /// Covers a directory with an empty one and anything else with the host's own `/dev/null`, whose identity was
    /// checked; the image's may be anything (CVE-2025-31133).
    fn mask(&self, path: &Path, empty: &mut Option<OwnedFd>) -> io::Result<()> {
        let Some(target) = existing(self.root(), path)? else {
            return Ok(());
        };
        let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode) == FileType::Directory;
        if !is_directory {
            let cover = mounting::copy_of_file(self.null.as_fd(), false)?;
            return mounting::attach(cover.as_fd(), target.as_fd());
        }
        // Before Linux 6.15 only what is attached can be copied, so the first one is attached before it is.
        if let Some(first) = empty {
            let cover = mounting::copy_of_file(first.as_fd(), false)?;
            return mounting::attach(cover.as_fd(), target.as_fd());
        }
        let data = [
            ("nr_inodes".to_owned(), Some("1".to_owned())),
            ("size".to_owned(), Some("4k".to_owned())),
            ("ro".to_owned(), None),
        ];
        let first = mounting::new_file_system("tmpfs", "tmpfs", &data, 0)?;
        mounting::make_read_only(first.as_fd(), false)?;
        mounting::attach(first.as_fd(), target.as_fd())?;
        *empty = Some(first);
        Ok(())
    }
}

fn existing(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match in_root::open(root, path, OFlags::PATH) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the host's `/dev/null`, having checked that it is that.
fn host_null() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
    let status = rustix::fs::fstat(&null)?;
    let is_null = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev)) == (1, 3);
    if is_null {
        Ok(null)
    } else {
        Err(io::Error::other("not the null device"))
    }
}

/// Opens a terminal of the devpts that is mounted in a root; returns both of its sides.
pub fn open_terminal(root: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd), Failure> {
    let open = || -> io::Result<(OwnedFd, OwnedFd)> {
        let master = in_root::open(root, Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)?;
        let kind = rustix::fs::fstatfs(&master)?.f_type;
        if kind != libc::DEVPTS_SUPER_MAGIC {
            return Err(io::Error::other("/dev/pts is not a devpts"));
        }
        rustix::pty::unlockpt(&master)?;
        let flags =
            rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        Ok((master, slave))
    };
    open().attempt(|| "open a terminal")
}

fn make_device(
    directory: BorrowedFd<'_>,
    name: &str,
    kind: FileType,
    (major, minor): (u32, u32),
    mode: u32,
    (uid, gid): (u32, u32),
) -> io::Result<()> {
    use rustix::io::Errno;
    let number: Dev = rustix::fs::makedev(major, minor);
    let path_flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(mode), number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let file = rustix::fs::openat(directory, name, path_flags, Mode::empty())?;
            let status = rustix::fs::fstat(&file)?;
            let is_same = FileType::from_raw_mode(status.st_mode) == kind && status.st_rdev == number;
            return if is_same { Ok(()) } else { Err(Errno::EXIST.into()) };
        }
        // In a user namespace there is no mknod; the host's device is bound instead.
        Err(Errno::PERM) => {
            let device = mounting::copy_of_path(&host_device(name, kind, number)?, false)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
            let target = rustix::fs::openat(directory, name, path_flags, Mode::empty())?;
            return mounting::attach(device.as_fd(), target.as_fd());
        }
        Err(error) => return Err(error.into()),
    }
    // Made a moment ago in a file system that only this process sees; still, links are not followed.
    rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    if (uid, gid) != (0, 0) {
        rustix::fs::chownat(
            directory,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(())
}

/// Finds the host's node of a device: the one of that name, if it is that, or else whichever is.
fn host_device(name: &str, kind: FileType, number: Dev) -> io::Result<PathBuf> {
    let is_it = |path: &Path| {
        rustix::fs::lstat(path)
            .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == kind && status.st_rdev == number)
    };
    let likely = Path::new("/dev").join(name);
    if is_it(&likely) {
        return Ok(likely);
    }
    let mut directories = vec![PathBuf::from("/dev")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_it(&path) {
                return Ok(path);
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path);
            }
        }
    }
    Err(io::Error::other(format!(
        "a plain user cannot make device nodes, and the host has none of that number below /dev ({name})"
    )))
}

/// Makes the given mount the root of this namespace and lets go of everything else.
fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    let old = rustix::fs::open("/", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".").map_err(|error| {
        if error == rustix::io::Errno::INVAL {
            io::Error::other("the host's root is an initial ramdisk, which cannot be exchanged")
        } else {
            error.into()
        }
    })?;
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}

/// Attaches a root file system where this process, who is nobody outside, may: no matter where, it is `/` soon.
fn attach_anywhere(root: BorrowedFd<'_>) -> io::Result<()> {
    let places = ["/mnt", "/tmp", "/usr", "/run"];
    let place = places
        .iter()
        .find_map(|place| overlay::open_place(Path::new(place)).ok());
    mounting::attach(root, place.ok_or(io::ErrorKind::NotFound)?.as_fd())
}

/// Reads the options of a mount.
pub fn options_of(mount: &Mount) -> Options {
    let options = mount.options().as_deref().unwrap_or_default();
    let mut options = Options::parse(options.iter().map(String::as_str));
    if mount.typ().as_deref() == Some("bind") && options.bind.is_none() {
        options.bind = Some(true);
    }
    options
}

/// Says what mounting it is called when it fails.
pub fn attempt_of(mount: &Mount) -> String {
    let kind = mount.typ().as_deref().unwrap_or("");
    let source = mount
        .source()
        .as_deref()
        .map_or_else(|| kind.to_owned(), |source| source.display().to_string());
    let destination = mount.destination().display();
    format!("error mounting {source:?} to rootfs at \"{destination}\": mount src={source}, dst={destination}")
}

/// Refuses mounts into `/proc`, where they would deceive what trusts it.
fn check_procfs(mount: &Mount) -> Result<(), Failure> {
    let destination = in_root::relative(mount.destination());
    let mut components = destination.components();
    let inside = components.next() == Some(Component::Normal("proc".as_ref())) && components.next().is_some();
    if inside && !PROC_FILES.iter().any(|file| destination == Path::new(file)) {
        let source = mount.source().as_deref().unwrap_or(Path::new("")).display().to_string();
        let destination = mount.destination().display();
        return Err(Failure::Runtime(format!(
            "error mounting {source:?} to rootfs at \"{destination}\": \"{destination}\" cannot be mounted because it \
             is inside /proc"
        )));
    }
    Ok(())
}

/// What a container sees of its cgroups.
pub struct CgroupView<'v> {
    /// The host's hierarchies.
    pub layout: &'v Layout,
    /// The container's own.
    pub cgroup: &'v Cgroup,
}

impl CgroupView<'_> {
    /// Mounts the container's part of every hierarchy: the container's own directories are all there is to see,
    /// whatever its cgroup namespace.
    fn mount(&self, root: BorrowedFd<'_>, mount: &Mount, options: &Options) -> io::Result<()> {
        let target = in_root::make_directories(root, mount.destination(), Mode::from_raw_mode(0o755))?;
        if self.layout.legacy.is_empty() {
            let Some(path) = self.cgroup.unified() else {
                return Ok(());
            };
            return bind_directory(path, target.as_fd(), options);
        }
        let data = [("mode".to_owned(), Some("755".to_owned()))];
        let writable = Options {
            set: options.set & !(rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64),
            ..options.clone()
        };
        let directory = mounting::new_file_system("tmpfs", "tmpfs", &data, writable.set)?;
        mounting::attach(directory.as_fd(), target.as_fd())?;
        for (controllers, path) in self.cgroup.legacy() {
            let Some((_, point)) = self.layout.legacy.iter().find(|(known, _)| known == controllers) else {
                continue;
            };
            let Some(name) = point.file_name() else {
                continue;
            };
            // Nobody else has been in there: no link leads out.
            match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let own = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
            bind_directory(path, own.as_fd(), options)?;
            for controller in controllers.iter().filter(|controller| name != controller.as_str()) {
                let _ = rustix::fs::symlinkat(name, &directory, controller.as_str());
            }
        }
        Ok(())
    }
}

fn bind_directory(path: &Path, target: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
    let tree = mounting::copy_of_path(path, false)?;
    crate::os::mount::set_attributes(
        tree.as_fd(),
        false,
        crate::os::mount::Attributes {
            set: options.set,
            ..Default::default()
        },
    )?;
    mounting::attach(tree.as_fd(), target)
}

/// Writes kernel parameters of the container's namespaces, by the host's own procfs.
pub fn set_sysctls(procfs: BorrowedFd<'_>, spec: &Spec) -> Result<(), Failure> {
    for (name, value) in spec
        .linux()
        .iter()
        .filter_map(|linux| linux.sysctl().as_ref())
        .flatten()
    {
        // `net.ipv4.conf.eth0/1.x` and `net/ipv4/conf/eth0.1/x` are the same: the first separator decides.
        let slashes = name.find('/').unwrap_or(usize::MAX) < name.find('.').unwrap_or(usize::MAX);
        let path: String = name
            .chars()
            .map(|character| match character {
                '.' if !slashes => '/',
                '/' if !slashes => '.',
                other => other,
            })
            .collect();
        let write = || -> io::Result<()> {
            let file = in_root::open(
                procfs,
                &Path::new("sys").join(in_root::relative(Path::new(&path))),
                OFlags::WRONLY,
            )?;
            if !in_root::is_procfs(&file) {
                return Err(io::Error::other("unsafe procfs detected"));
            }
            rustix::io::write(&file, value.as_bytes())?;
            Ok(())
        };
        write().map_err(|error| {
            let what = if error.kind() == io::ErrorKind::NotFound {
                "open"
            } else {
                "write"
            };
            Failure::Runtime(format!("{what} sysctl {name} file: {}", words(&error)))
        })?;
    }
    Ok(())
}

/// Opens the host's procfs, having checked that it is one.
pub fn host_procfs() -> io::Result<OwnedFd> {
    let procfs = rustix::fs::openat(
        CWD,
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if in_root::is_procfs(&procfs) {
        Ok(procfs)
    } else {
        Err(io::Error::other("/proc is not a procfs"))
    }
}
