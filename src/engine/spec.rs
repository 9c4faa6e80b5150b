//! From what a container was asked to be to the OCI runtime spec that the runtime carries out.
//!
//! The values are those of moby's `oci` and `daemon` packages. Nothing is decided here that depends on the machine's
//! state beyond what devices and capabilities it has.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process, Spec};
use serde_json::{Map, Value, json};

use super::config::{HostConfig, Ulimit};
use super::container::Record;
use super::devices::devices;
use super::exec::ExecConfig;
use super::mounts::MountPoint;
use super::{EngineError, Result, merge};

/// Where things lie that a spec refers to.
#[derive(Debug, Default)]
pub struct Places {
    /// `/etc/resolv.conf`, `/etc/hostname` and `/etc/hosts` of the container, by their place inside.
    pub files: Vec<(PathBuf, &'static str)>,
    /// What each mount of the record is: a mount of the spec, ready.
    pub mounts: Vec<Value>,
    /// The namespaces to join, by kind; a kind that is missing is made anew.
    pub joined: Vec<(&'static str, String)>,
    /// The kinds that stay the host's.
    pub of_host: Vec<&'static str>,
    /// `/dev/shm` of another container or the host.
    pub shm: Option<PathBuf>,
}

/// What is asked of the system call filter.
#[derive(Debug, Clone, Default)]
pub enum SeccompChoice {
    #[default]
    Default,
    Unconfined,
    Profile(Box<LinuxSeccomp>),
}

/// What `security_opt` says.
#[derive(Debug, Clone, Default)]
pub struct Security {
    pub no_new_privileges: bool,
    pub seccomp: SeccompChoice,
    /// Nothing of `/proc` and `/sys` is hidden.
    pub all_paths: bool,
}

const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All capabilities in the kernel's order.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const MASKED: [&str; 12] = [
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
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn invalid(text: String) -> EngineError {
    EngineError::InvalidParameter(text)
}

/// Returns the capabilities of a container.
pub fn capabilities(host: &HostConfig) -> Result<Vec<&'static str>> {
    let available = available_capabilities();
    if host.privileged {
        return Ok(available);
    }
    let known = |field: &str, name: &String| -> Result<Option<&'static str>> {
        let upper = name.to_uppercase();
        if upper == "ALL" {
            return Ok(None);
        }
        let full = if upper.starts_with("CAP_") {
            upper
        } else {
            format!("CAP_{upper}")
        };
        CAPABILITIES
            .iter()
            .find(|known| **known == full)
            .map(|known| Some(*known))
            .ok_or_else(|| invalid(format!("invalid {field}: unknown capability: \"{full}\"")))
    };
    let add: Vec<_> = host
        .cap_add
        .iter()
        .flatten()
        .map(|name| known("CapAdd", name))
        .collect::<Result<_>>()?;
    let drop: Vec<_> = host
        .cap_drop
        .iter()
        .flatten()
        .map(|name| known("CapDrop", name))
        .collect::<Result<_>>()?;
    let base: Vec<&'static str> = match (add.contains(&None), drop.contains(&None)) {
        (true, _) => available,
        (false, true) => Vec::new(),
        (false, false) => DEFAULT_CAPABILITIES.to_vec(),
    };
    let mut set: Vec<&'static str> = base.into_iter().filter(|name| !drop.contains(&Some(*name))).collect();
    for name in add.into_iter().flatten() {
        if !set.contains(&name) {
            set.push(name);
        }
    }
    Ok(set)
}

/// Returns the capabilities that this process could give to another.
fn available_capabilities() -> Vec<&'static str> {
    let bounding = std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(number, _)| bounding & (1 << number) != 0)
        .map(|(_, name)| *name)
        .collect()
}

/// Reads `security_opt`.
pub fn security(host: &HostConfig) -> Result<Security> {
    let mut security = Security::default();
    for option in host.security_opt.iter().flatten() {
        let (key, value) = option
            .split_once('=')
            .or_else(|| option.split_once(':'))
            .unwrap_or((option, ""));
        match key {
            "no-new-privileges" => security.no_new_privileges = !matches!(value, "false" | "0"),
            "seccomp" if value == "unconfined" => security.seccomp = SeccompChoice::Unconfined,
            "seccomp" if value == "builtin" || value.is_empty() => security.seccomp = SeccompChoice::Default,
            "seccomp" => {
                let names = capabilities(host)?;
                security.seccomp = SeccompChoice::Profile(Box::new(super::seccomp::profile(value, &names)?));
            }
            "systempaths" if value == "unconfined" => security.all_paths = true,
            // No such security module takes part here; what they would forbid is not allowed by it either.
            "apparmor" | "label" | "writable-cgroups" => {}
            _ => return Err(invalid(format!("invalid --security-opt 2: \"{option}\""))),
        }
    }
    if host.privileged && matches!(security.seccomp, SeccompChoice::Default) {
        security.seccomp = SeccompChoice::Unconfined;
    }
    Ok(security)
}

fn user(text: &str) -> Value {
    json!({ "uid": 0, "gid": 0, "username": text })
}

fn capability_sets(names: &[&str]) -> Value {
    json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": [] })
}

fn console(size: Option<[u16; 2]>) -> Value {
    size.map_or(
        Value::Null,
        |[height, width]| json!({ "height": height, "width": width }),
    )
}

fn rlimits(ulimits: &[Ulimit]) -> Vec<Value> {
    let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    ulimits
        .iter()
        .map(|limit| {
            json!({
                "type": format!("RLIMIT_{}", limit.name.to_uppercase()),
                "soft": number(limit.soft),
                "hard": number(limit.hard),
            })
        })
        .collect()
}

fn check_ulimits(ulimits: &[Ulimit]) -> Result<()> {
    const KNOWN: [&str; 16] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
        "as",
    ];
    match ulimits.iter().find(|limit| !KNOWN.contains(&limit.name.as_str())) {
        Some(limit) => Err(invalid(format!("invalid ulimit type: {}", limit.name))),
        None => Ok(()),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|cause| invalid(format!("invalid container configuration: {cause}")))
}

/// Refuses kernel parameters that belong to no namespace of the container's own: they would be the host's.
// runc libcontainer/configs/validate: sysctl
fn check_sysctls(host: &HostConfig, places: &Places) -> Result<()> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for name in host.sysctls.keys() {
        let dotted = match (name.find('/'), name.find('.')) {
            (Some(slash), dot) if dot.is_none_or(|dot| slash < dot) => name.replace('/', "."),
            _ => name.clone(),
        };
        let problem = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            places
                .of_host
                .contains(&"ipc")
                .then_some("is not allowed in the hosts ipc namespace")
        } else if dotted.starts_with("net.") {
            None
        } else if dotted == "kernel.hostname" && !places.of_host.contains(&"uts") {
            Some("is not allowed as it conflicts with the OCI \"hostname\" field")
        } else if dotted == "kernel.domainname" && !places.of_host.contains(&"uts") {
            None
        } else {
            Some("is not in a separate kernel namespace")
        };
        if let Some(problem) = problem {
            return Err(super::EngineError::Start(format!(
                "failed to create task for container: failed to create shim task: OCI runtime create failed: runc \
                 create failed: sysctl \"{name}\" {problem}"
            )));
        }
    }
    Ok(())
}

/// Returns the spec of a container.
pub fn build(record: &Record, places: &Places) -> Result<Spec> {
    let (config, host) = (&record.config, &record.host);
    let security = security(host)?;
    let names = capabilities(host)?;
    check_ulimits(&host.ulimits)?;
    let mut arguments = vec![record.path.clone()];
    arguments.extend(record.args.iter().cloned());
    let working_dir = if config.working_dir.is_empty() {
        "/"
    } else {
        &config.working_dir
    };
    let size = Some([
        u16::try_from(host.console_size[0]).unwrap_or_default(),
        u16::try_from(host.console_size[1]).unwrap_or_default(),
    ])
    .filter(|size| config.tty && *size != [0, 0]);

    let process = without_nulls(json!({
        "terminal": config.tty,
        "consoleSize": console(size),
        "user": user(&config.user),
        "args": arguments,
        "env": merge::environment(config),
        "cwd": working_dir,
        "capabilities": capability_sets(&names),
        "rlimits": rlimits(&host.ulimits),
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    }));

    let hide = !host.privileged && !security.all_paths;
    let paths = |own: &Option<Vec<String>>, usual: &[&str]| -> Vec<String> {
        if !hide {
            return Vec::new();
        }
        own.clone()
            .unwrap_or_else(|| usual.iter().map(|path| (*path).to_owned()).collect())
    };
    let (devices, rules) = devices(host)?;
    let mut resources = resources_json(host);
    resources.insert("devices".to_owned(), Value::Array(rules));
    let own_uts = !places.of_host.contains(&"uts") && !places.joined.iter().any(|(kind, _)| *kind == "uts");
    check_sysctls(host, places)?;
    // Network settings belong to the namespace and are made with it.
    let sysctl: Map<String, Value> = host
        .sysctls
        .iter()
        .filter(|(name, _)| !name.starts_with("net."))
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();

    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": { "path": "rootfs", "readonly": host.readonly_rootfs },
        "hostname": if own_uts { json!(config.hostname) } else { Value::Null },
        "domainname": if own_uts && !config.domainname.is_empty() { json!(config.domainname) } else { Value::Null },
        "mounts": mounts(record, places)?,
        "linux": {
            "namespaces": namespaces(host, places),
            "devices": devices,
            "resources": resources,
            "sysctl": sysctl,
            "maskedPaths": paths(&host.masked_paths, &MASKED),
            "readonlyPaths": paths(&host.readonly_paths, &READ_ONLY),
        },
        "annotations": host.annotations,
    });
    if let Some(ids) = record.ids {
        ids.put_into(&mut spec["linux"]);
    }
    super::cdi::apply(&mut spec, host.device_requests.as_deref().unwrap_or_default())?;
    parsed(without_nulls(spec))
}

fn without_nulls(value: Value) -> Value {
    super::config::without_nulls(value)
}

fn namespaces(host: &HostConfig, places: &Places) -> Vec<Value> {
    let mut kinds = vec!["pid", "network", "ipc", "uts", "mount"];
    if host.cgroupns_mode == "private" {
        kinds.push("cgroup");
    }
    kinds
        .into_iter()
        .filter(|kind| !places.of_host.contains(kind))
        .map(|kind| match places.joined.iter().find(|(joined, _)| *joined == kind) {
            Some((_, path)) => json!({ "type": kind, "path": path }),
            None => json!({ "type": kind }),
        })
        .collect()
}

fn mounts(record: &Record, places: &Places) -> Result<Vec<Value>> {
    let host = &record.host;
    let entry = |destination: &str, kind: &str, source: &str, options: &[&str]| -> Value {
        json!({ "destination": destination, "type": kind, "source": source, "options": options })
    };
    let sys = if host.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        entry("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        entry(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        entry(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        entry("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        entry(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[sys, "nosuid", "noexec", "nodev"],
        ),
        entry("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    let covered = |destination: &str| {
        record.mounts.iter().any(|mount| mount.destination == destination)
            || host.tmpfs.keys().any(|path| super::mounts::clean(path) == destination)
    };
    if !covered("/dev/shm") && host.ipc_mode != "none" {
        mounts.push(match &places.shm {
            Some(path) => json!({
                "destination": "/dev/shm", "type": "bind", "source": path, "options": ["rbind", "rprivate"],
            }),
            None => json!({
                "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", format!("size={}", host.shm_size)],
            }),
        });
    }
    for (path, destination) in &places.files {
        if !covered(destination) {
            let access = if host.readonly_rootfs { "ro" } else { "rw" };
            mounts.push(json!({
                "destination": destination, "type": "bind", "source": path, "options": ["bind", "rprivate", access],
            }));
        }
    }
    // All of this is ours, so it is the container's.
    for mount in mounts.iter_mut().filter(|mount| mount["type"] == "bind") {
        if let (Some(ids), Some(options)) = (record.ids, mount["options"].as_array_mut()) {
            options.push(json!("idmap"));
            ids.put_into(mount);
        }
    }
    let mut own = places.mounts.clone();
    for (path, options) in &host.tmpfs {
        let options: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
        own.push(tmpfs(&super::mounts::clean(path), &options)?);
    }
    // Outer mounts before those inside them.
    own.sort_by_key(|mount| {
        Path::new(mount["destination"].as_str().unwrap_or("/"))
            .components()
            .count()
    });
    // A mount of the user's covers one of ours at the same place.
    mounts.retain(|mount| !own.iter().any(|other| other["destination"] == mount["destination"]));
    mounts.extend(own);
    // Outer mounts before those inside them: a volume at /etc must not cover /etc/hosts.
    mounts.sort_by_key(|mount| {
        Path::new(mount["destination"].as_str().unwrap_or("/"))
            .components()
            .count()
    });
    Ok(mounts)
}

/// Returns a tmpfs with Docker's defaults, which the options given may contradict.
pub fn tmpfs(destination: &str, options: &[&str]) -> Result<Value> {
    let mut all = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "suid" | "dev" | "exec" => all.retain(|other| *other != format!("no{name}")),
            "size" => {
                let size = value.to_lowercase();
                let size = size.strip_suffix('b').unwrap_or(&size);
                all.push(format!("size={size}"));
                continue;
            }
            "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "huge" | "mpol" => {}
            "rw" | "ro" | "nosuid" | "nodev" | "noexec" | "noatime" | "nodiratime" | "relatime" | "strictatime"
            | "atime" | "sync" | "async" | "dirsync" | "norelatime" | "private" | "rprivate" | "tmpcopyup" => {}
            _ => return Err(invalid(format!("Invalid tmpfs option [\"{option}\"]"))),
        }
        if !all.iter().any(|other| other == option) {
            all.push((*option).to_owned());
        }
    }
    Ok(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": all }))
}

/// Returns the bind mount of a directory or file for one of a container's mounts.
pub fn bind(mount: &MountPoint, source: &Path) -> Value {
    let mut options = vec![if mount.recursive || mount.kind == "volume" {
        "rbind"
    } else {
        "bind"
    }];
    options.push(match (mount.writable, mount.read_only_top) {
        (true, _) => "rw",
        (false, true) => "ro",
        // Mounts below it are made read-only too, where the kernel can.
        (false, false) => "rro",
    });
    options.push(if mount.propagation.is_empty() {
        "rprivate"
    } else {
        &mount.propagation
    });
    json!({ "destination": mount.destination, "type": "bind", "source": source, "options": options })
}

/// Returns the cgroup that the container's is to lie in, if the request names one.
pub fn cgroup_parent(host: &HostConfig) -> Option<String> {
    Some(host.cgroup_parent.trim_matches('/').to_owned()).filter(|parent| !parent.is_empty())
}

/// Returns the limits of a container.
pub fn resources(host: &HostConfig) -> Result<LinuxResources> {
    parsed(without_nulls(Value::Object(resources_json(host))))
}

fn resources_json(host: &HostConfig) -> Map<String, Value> {
    let given = |value: i64| if value == 0 { Value::Null } else { json!(value) };
    let mut resources = Map::new();
    let mut put = |name: &str, value: Value| {
        let value = without_nulls(value);
        if value.as_object().is_some_and(|fields| !fields.is_empty()) {
            resources.insert(name.to_owned(), value);
        }
    };
    put(
        "memory",
        json!({
            "limit": given(host.memory),
            "swap": given(host.memory_swap),
            "reservation": given(host.memory_reservation),
            "swappiness": host.memory_swappiness.filter(|value| *value >= 0),
            "disableOOMKiller": host.oom_kill_disable.filter(|disabled| *disabled),
        }),
    );
    let (quota, period) = if host.nano_cpus > 0 {
        // moby: a period of 100 ms, and the share of it that so many processors have.
        (host.nano_cpus * 100_000 / 1_000_000_000, 100_000)
    } else {
        (host.cpu_quota, host.cpu_period)
    };
    put(
        "cpu",
        json!({
            "shares": given(host.cpu_shares),
            "quota": given(quota),
            "period": given(period),
            "realtimePeriod": given(host.cpu_realtime_period),
            "realtimeRuntime": given(host.cpu_realtime_runtime),
            "cpus": Some(&host.cpuset_cpus).filter(|cpus| !cpus.is_empty()),
            "mems": Some(&host.cpuset_mems).filter(|mems| !mems.is_empty()),
        }),
    );
    put("pids", json!({ "limit": host.pids_limit }));
    let throttle = |devices: &[super::config::ThrottleDevice]| -> Value {
        devices
            .iter()
            .filter_map(|device| {
                let (major, minor) = device_numbers(&device.path)?;
                Some(json!({ "major": major, "minor": minor, "rate": device.rate }))
            })
            .collect()
    };
    let some = |value: Value| {
        if value.as_array().is_some_and(Vec::is_empty) {
            Value::Null
        } else {
            value
        }
    };
    put(
        "blockIO",
        json!({
            "weight": Some(host.blkio_weight).filter(|weight| *weight > 0),
            "weightDevice": some(host.blkio_weight_device.iter().filter_map(|device| {
                let (major, minor) = device_numbers(&device.path)?;
                Some(json!({ "major": major, "minor": minor, "weight": device.weight }))
            }).collect()),
            "throttleReadBpsDevice": some(throttle(&host.blkio_device_read_bps)),
            "throttleWriteBpsDevice": some(throttle(&host.blkio_device_write_bps)),
            "throttleReadIOPSDevice": some(throttle(&host.blkio_device_read_iops)),
            "throttleWriteIOPSDevice": some(throttle(&host.blkio_device_write_iops)),
        }),
    );
    resources
}

fn device_numbers(path: &str) -> Option<(u32, u32)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())))
}

/// Returns the process of an exec, and the groups it is to have besides its own.
pub fn exec_process(record: &Record, config: &ExecConfig, size: Option<[u16; 2]>) -> Result<(Process, Vec<String>)> {
    let host = &record.host;
    let names = if config.privileged {
        available_capabilities()
    } else {
        capabilities(host)?
    };
    let mut environment = merge::environment(&record.config);
    if config.tty && !environment.iter().any(|variable| variable.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
    }
    merge::overlay(&mut environment, &config.env);
    let working_dir = [config.working_dir.as_str(), record.config.working_dir.as_str(), "/"]
        .into_iter()
        .find(|directory| !directory.is_empty())
        .unwrap_or("/");
    let name = if config.user.is_empty() {
        &record.config.user
    } else {
        &config.user
    };
    let process = without_nulls(json!({
        "terminal": config.tty,
        "consoleSize": console(size),
        "user": user(name),
        "args": config.cmd,
        "env": environment,
        "cwd": working_dir,
        "capabilities": capability_sets(&names),
        "rlimits": rlimits(&host.ulimits),
        "noNewPrivileges": security(host)?.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    }));
    Ok((parsed(process)?, host.group_add.clone().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn capabilities_are_added_to_and_dropped_from_docker_s() {
        let names = capabilities(&host(r#"{"CapAdd":["net_admin"],"CapDrop":["CAP_CHOWN"]}"#)).unwrap();
        assert!(names.contains(&"CAP_NET_ADMIN") && !names.contains(&"CAP_CHOWN"));
        assert_eq!(names.len(), 14);
        let names = capabilities(&host(r#"{"CapAdd":["KILL"],"CapDrop":["ALL"]}"#)).unwrap();
        assert_eq!(names, ["CAP_KILL"]);
        let error = capabilities(&host(r#"{"CapAdd":["ODD"]}"#)).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_ODD\"");
    }

    #[test]
    fn a_tmpfs_may_contradict_the_defaults() {
        let mount = tmpfs("/x", &["exec", "size=64m", "mode=1777"]).unwrap();
        assert_eq!(
            mount["options"],
            json!(["nosuid", "nodev", "exec", "size=64m", "mode=1777"])
        );
        assert!(tmpfs("/x", &["odd"]).is_err());
    }

    #[test]
    fn limits_are_said_in_the_spec_s_words() {
        let resources = resources(&host(
            r#"{"Memory":1048576,"NanoCpus":500000000,"PidsLimit":10,"CpusetCpus":"0-1"}"#,
        ))
        .unwrap();
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(1_048_576));
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
        assert!(resources.block_io().is_none());
    }

    #[test]
    fn security_options_are_read() {
        let security = security(&host(
            r#"{"SecurityOpt":["no-new-privileges:true","seccomp=unconfined"]}"#,
        ))
        .unwrap();
        assert!(security.no_new_privileges);
        assert!(matches!(security.seccomp, SeccompChoice::Unconfined));
        assert!(super::security(&host(r#"{"SecurityOpt":["odd=1"]}"#)).is_err());
    }
}
