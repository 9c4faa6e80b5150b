//! Docker's defaults as an OCI runtime spec, and the usual departures from them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capability, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, User,
};

use crate::os::user_namespace;
use crate::runtime::capability;

/// The path of a container whose image sets none.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is hidden from a container (moby `oci/defaults.go`, as of Docker 28).
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What a container may not write to.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The size of `/dev/shm` where none is asked for.
pub const SHM_SIZE: u64 = 64 * 1024 * 1024;

/// Returns the spec of a container as Docker makes one that nothing was asked of: `sh` as root, Docker's capabilities,
/// mounts, masks and devices, and namespaces of its own, the network's among them.
pub fn default_spec() -> Spec {
    SpecBuilder::default()
        .version("1.2.1")
        .process(default_process())
        .root(build_root(false))
        .hostname(String::new())
        .mounts(default_mounts(SHM_SIZE))
        .linux(default_linux())
        .build()
        .expect("every field has a default")
}

fn build_root(readonly: bool) -> oci_spec::runtime::Root {
    RootBuilder::default()
        .path("rootfs")
        .readonly(readonly)
        .build()
        .expect("every field has a default")
}

/// Returns a process with Docker's defaults.
pub fn default_process() -> Process {
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(User::default())
        .args(vec!["sh".to_owned()])
        .env(vec![PATH.to_owned()])
        .cwd("/")
        .no_new_privileges(false)
        .rlimits(Vec::new())
        .build()
        .expect("every field has a default");
    set_capabilities(&mut process, &capability::DEFAULT);
    process
}

/// Returns Docker's mounts.
pub fn default_mounts(shm_size: u64) -> Vec<Mount> {
    let size = format!("size={shm_size}");
    [
        ("/proc", "proc", "proc", vec!["nosuid", "noexec", "nodev"]),
        (
            "/dev",
            "tmpfs",
            "tmpfs",
            vec!["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/sys", "sysfs", "sysfs", vec!["nosuid", "noexec", "nodev", "ro"]),
        (
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            vec!["ro", "nosuid", "noexec", "nodev"],
        ),
        ("/dev/mqueue", "mqueue", "mqueue", vec!["nosuid", "noexec", "nodev"]),
        (
            "/dev/shm",
            "tmpfs",
            "shm",
            vec!["nosuid", "noexec", "nodev", "mode=1777", &size],
        ),
    ]
    .into_iter()
    .map(|(destination, kind, source, options)| mount(destination, kind, source, &options))
    .collect()
}

/// Returns a mount.
pub fn mount(destination: impl Into<PathBuf>, kind: &str, source: impl Into<PathBuf>, options: &[&str]) -> Mount {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .expect("a mount has a destination")
}

/// Returns a bind mount as Docker makes one; `propagation` is `rprivate` where nothing else is asked for.
pub fn bind(source: impl Into<PathBuf>, destination: impl Into<PathBuf>, read_only: bool, propagation: &str) -> Mount {
    let mut options = vec!["rbind", propagation];
    if read_only {
        // Docker 25 and later: everything below is read-only too.
        options.extend(["ro", "rro"]);
    }
    mount(destination, "bind", source, &options)
}

/// Returns a tmpfs as `--tmpfs` makes one; `options` as the user gives them.
pub fn tmpfs(destination: impl Into<PathBuf>, options: &[&str]) -> Mount {
    let mut all = vec!["noexec", "nosuid", "nodev"];
    all.extend(options);
    mount(destination, "tmpfs", "tmpfs", &all)
}

/// Returns the settings with which the usual reasons for running as root inside are gone: low ports, and ping.
pub fn network_sysctls() -> [(String, String); 2] {
    // The kernel takes only groups that the user's namespace has.
    let last = user_namespace::groups().last().min(i32::MAX as u32);
    [
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
        ("net.ipv4.ping_group_range".to_owned(), format!("0 {last}")),
    ]
}

fn default_linux() -> Linux {
    let text = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    LinuxBuilder::default()
        .namespaces(
            [
                LinuxNamespaceType::Mount,
                LinuxNamespaceType::Network,
                LinuxNamespaceType::Uts,
                LinuxNamespaceType::Pid,
                LinuxNamespaceType::Ipc,
            ]
            .map(|kind| namespace(kind, None))
            .to_vec(),
        )
        .masked_paths(text(&MASKED_PATHS))
        .readonly_paths(text(&READONLY_PATHS))
        .devices(Vec::new())
        .sysctl(HashMap::from(network_sysctls()))
        .resources(default_resources())
        .build()
        .expect("every field has a default")
}

fn default_resources() -> LinuxResources {
    LinuxResourcesBuilder::default()
        .devices(default_device_rules())
        .build()
        .expect("every field has a default")
}

/// Returns a namespace, new or at a path.
pub fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let builder = LinuxNamespaceBuilder::default().typ(kind);
    let builder = match path {
        Some(path) => builder.path(path),
        None => builder,
    };
    builder.build().expect("a namespace has a kind")
}

/// Changes where a namespace comes from: a new one, one at a path, or (`None`) the host's.
pub fn set_namespace(spec: &mut Spec, kind: LinuxNamespaceType, source: Option<LinuxNamespace>) {
    let namespaces = linux(spec).namespaces_mut().get_or_insert_default();
    namespaces.retain(|namespace| namespace.typ() != kind);
    namespaces.extend(source);
}

fn linux(spec: &mut Spec) -> &mut Linux {
    spec.linux_mut().get_or_insert_with(default_linux)
}

/// Returns the default rules on devices: nothing but the harmless ones.
pub fn default_device_rules() -> Vec<LinuxDeviceCgroup> {
    let character = |major, minor| device_rule(true, Some(LinuxDeviceType::C), Some(major), Some(minor), "rwm");
    vec![
        device_rule(false, None, None, None, "rwm"),
        // Making a device node does no harm where it cannot be opened.
        device_rule(true, Some(LinuxDeviceType::C), None, None, "m"),
        device_rule(true, Some(LinuxDeviceType::B), None, None, "m"),
        character(1, 5),
        character(1, 3),
        character(1, 9),
        character(1, 8),
        character(1, 7),
        character(5, 0),
        character(5, 1),
        character(5, 2),
        device_rule(true, Some(LinuxDeviceType::C), Some(136), None, "rwm"),
    ]
}

/// Returns a rule on devices.
pub fn device_rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(allow).access(access);
    if let Some(kind) = kind {
        builder = builder.typ(kind);
    }
    if let Some(major) = major {
        builder = builder.major(major);
    }
    if let Some(minor) = minor {
        builder = builder.minor(minor);
    }
    builder.build().expect("every field has a default")
}

/// Gives a process the capabilities of Docker's default set, changed as `--cap-add` and `--cap-drop` say: names in any
/// case, with or without `CAP_`, or `ALL`. Returns the first name that is none.
pub fn change_capabilities(process: &mut Process, add: &[String], drop: &[String]) -> Result<(), String> {
    let known = |name: &String| {
        if name.eq_ignore_ascii_case("all") {
            return Ok(None);
        }
        capability::by_name(name).map(Some).ok_or_else(|| name.clone())
    };
    let added = add.iter().map(known).collect::<Result<Vec<_>, _>>()?;
    let dropped = drop.iter().map(known).collect::<Result<Vec<_>, _>>()?;
    // moby oci/caps/utils.go TweakCapabilities: `ALL` decides what one starts from.
    let mut set: Vec<Capability> = if added.contains(&None) {
        capability::available()
    } else if dropped.contains(&None) {
        Vec::new()
    } else {
        capability::DEFAULT.to_vec()
    };
    set.retain(|capability| !dropped.contains(&Some(*capability)));
    for capability in added.into_iter().flatten() {
        if !set.contains(&capability) {
            set.push(capability);
        }
    }
    set_capabilities(process, &set);
    Ok(())
}

/// Gives a process these capabilities; inheritable and ambient ones it never has.
pub fn set_capabilities(process: &mut Process, set: &[Capability]) {
    let set: oci_spec::runtime::Capabilities = set.iter().copied().collect();
    let mut sets = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .build()
        .expect("every field has a default");
    sets.set_inheritable(None).set_ambient(None);
    process.set_capabilities(Some(sets));
}

/// Takes away what keeps a container from the host, as `--privileged` does. Its seccomp filter is the launch's affair.
pub fn make_privileged(spec: &mut Spec) {
    if let Some(process) = spec.process_mut() {
        set_capabilities(process, &capability::available());
        process.set_apparmor_profile(None);
    }
    for mount in spec.mounts_mut().get_or_insert_default() {
        let is_kernel = matches!(mount.typ().as_deref(), Some("sysfs" | "cgroup" | "cgroup2"));
        if let Some(options) = mount.options_mut().as_mut().filter(|_| is_kernel) {
            options.retain(|option| option != "ro");
        }
    }
    let linux = linux(spec);
    linux.set_masked_paths(None).set_readonly_paths(None);
    linux.set_devices(Some(host_devices()));
    linux
        .resources_mut()
        .get_or_insert_default()
        .set_devices(Some(vec![device_rule(true, None, None, None, "rwm")]));
}

/// Makes the root file system read-only.
pub fn make_root_read_only(spec: &mut Spec) {
    spec.set_root(Some(build_root(true)));
}

/// Sets a ulimit by the name Docker knows it by (`nofile`); returns whether there is one of that name. -1 means none.
pub fn set_ulimit(process: &mut Process, name: &str, soft: i64, hard: i64) -> bool {
    let Some((_, kind)) = ULIMITS.iter().find(|(known, _)| *known == name) else {
        return false;
    };
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let limit: PosixRlimit = PosixRlimitBuilder::default()
        .typ(*kind)
        .soft(value(soft))
        .hard(value(hard))
        .build()
        .expect("every field has a default");
    let mut limits = process.rlimits().clone().unwrap_or_default();
    limits.retain(|known| known.typ() != *kind);
    limits.push(limit);
    process.set_rlimits(Some(limits));
    true
}

const ULIMITS: [(&str, PosixRlimitType); 15] = [
    ("core", PosixRlimitType::RlimitCore),
    ("cpu", PosixRlimitType::RlimitCpu),
    ("data", PosixRlimitType::RlimitData),
    ("fsize", PosixRlimitType::RlimitFsize),
    ("locks", PosixRlimitType::RlimitLocks),
    ("memlock", PosixRlimitType::RlimitMemlock),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue),
    ("nice", PosixRlimitType::RlimitNice),
    ("nofile", PosixRlimitType::RlimitNofile),
    ("nproc", PosixRlimitType::RlimitNproc),
    ("rss", PosixRlimitType::RlimitRss),
    ("rtprio", PosixRlimitType::RlimitRtprio),
    ("rttime", PosixRlimitType::RlimitRttime),
    ("sigpending", PosixRlimitType::RlimitSigpending),
    ("stack", PosixRlimitType::RlimitStack),
];

/// Adds a device of the host as `--device HOST:CONTAINER:ACCESS` does; a directory stands for all devices in it.
pub fn add_device(spec: &mut Spec, host: &Path, inside: &Path, access: &str) -> std::io::Result<()> {
    let host = fs::canonicalize(host)?;
    let mut found = Vec::new();
    if host.is_dir() {
        collect_devices(&host, &mut |path, device| {
            let relative = path.strip_prefix(&host).unwrap_or(path);
            found.push(with_path(device, inside.join(relative)));
        });
    } else {
        let device = device_at(&host).ok_or_else(|| std::io::Error::other("not a device node"))?;
        found.push(with_path(device, inside.to_owned()));
    }
    let linux = linux(spec);
    let rules = linux
        .resources_mut()
        .get_or_insert_default()
        .devices_mut()
        .get_or_insert_default();
    rules.extend(found.iter().map(|device| {
        device_rule(
            true,
            Some(device.typ()),
            Some(device.major()),
            Some(device.minor()),
            access,
        )
    }));
    linux.devices_mut().get_or_insert_default().extend(found);
    Ok(())
}

fn with_path(mut device: LinuxDevice, path: PathBuf) -> LinuxDevice {
    *device.path_mut() = path;
    device
}

/// Returns every device of the host that a privileged container gets.
fn host_devices() -> Vec<LinuxDevice> {
    let mut devices = Vec::new();
    collect_devices(Path::new("/dev"), &mut |path, device| {
        // moby's list of what belongs to the container itself.
        let own = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
        let first = path.strip_prefix("/dev").ok().and_then(|path| path.iter().next());
        if first.is_some_and(|first| !own.iter().any(|name| first == *name)) && path != Path::new("/dev/console") {
            devices.push(device);
        }
    });
    devices
}

fn collect_devices(directory: &Path, take: &mut impl FnMut(&Path, LinuxDevice)) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && !["pts", "shm", "mqueue"].iter().any(|name| entry.file_name() == *name) {
            collect_devices(&path, take);
        } else if let Some(device) = device_at(&path) {
            take(&path, device);
        }
    }
}

fn device_at(path: &Path) -> Option<LinuxDevice> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let kind = if metadata.file_type().is_block_device() {
        LinuxDeviceType::B
    } else if metadata.file_type().is_char_device() {
        LinuxDeviceType::C
    } else {
        return None;
    };
    let number = metadata.rdev();
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind)
        .major(i64::from(rustix::fs::major(number)))
        .minor(i64::from(rustix::fs::minor(number)))
        .file_mode(metadata.mode() & 0o777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(add: &[&str], drop: &[&str]) -> u64 {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut process = default_process();
        change_capabilities(&mut process, &owned(add), &owned(drop)).unwrap();
        capability::bits(
            process
                .capabilities()
                .as_ref()
                .and_then(|sets| sets.effective().as_ref()),
        )
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let net_admin = capability::bit(Capability::NetAdmin);
        let chown = capability::bit(Capability::Chown);
        assert_eq!(capabilities(&[], &[]), 0xA804_25FB);
        assert_eq!(
            capabilities(&["net_admin"], &["CHOWN"]),
            0xA804_25FB & !chown | net_admin
        );
        assert_eq!(capabilities(&["CAP_NET_ADMIN"], &["all"]), net_admin);
        assert_eq!(capabilities(&["ALL"], &["CHOWN"]) & chown, 0);
        let mut process = default_process();
        assert_eq!(
            change_capabilities(&mut process, &["NOSUCH".to_owned()], &[]),
            Err("NOSUCH".to_owned())
        );
    }

    #[test]
    fn a_spec_survives_its_json() {
        let spec = default_spec();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }

    #[test]
    fn ulimits_go_by_docker_s_names() {
        let mut process = default_process();
        assert!(set_ulimit(&mut process, "nofile", 10, 20));
        assert!(set_ulimit(&mut process, "nofile", 5, -1));
        assert!(!set_ulimit(&mut process, "nosuch", 1, 1));
        let limits = process.rlimits().as_deref().unwrap();
        assert_eq!((limits.len(), limits[0].soft(), limits[0].hard()), (1, 5, u64::MAX));
    }
}
