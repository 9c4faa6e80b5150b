//! The last step before a container runs: everything it needs is gathered and handed to the runtime.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::api_sockets::stands_for_docker;
use super::container::{Container, Record, Status};
use super::mounts::MountPoint;
use super::spec::{self, Places, SeccompChoice};
use super::{Engine, EngineError, Result, image_part, logging, networks, propagation};
use crate::net::Sandbox;
use crate::os::program;
use crate::runtime::{self, Launch, Respawn, Root, RuntimeError, Seccomp};

/// The files that tell a container of its network, and where it finds them: resolver, name, names.
const FILES: [(&str, &str); 3] = [
    ("resolv.conf", "/etc/resolv.conf"),
    ("hostname", "/etc/hostname"),
    ("hosts", "/etc/hosts"),
];

impl Engine {
    /// Starts a container's process.
    pub(super) async fn launch(self: &Arc<Self>, container: &Arc<Container>) -> Result<runtime::Container> {
        let image = self.image_of(&container.record())?;
        image.check().map_err(super::images::image_failure)?;
        self.look_at(&image);
        self.check_mounts(container)?;
        self.mount_events(container);
        let ids = self.give_ids(container)?;
        let (userns, network) = match ids {
            Some(ids) => self
                .namespaces_of(ids)
                .await
                .map(|(user, network)| (Some(user), Some(network)))?,
            None => (None, None),
        };
        self.share_hostname(container);
        let record = container.record().clone();
        let places = self.places(container, &record, &self.layers(&image))?;
        let spec = spec::build(&record, &places)?;
        let security = spec::security(&record.host)?;
        let root = Root::Overlay {
            lower: self.layers(&image),
            upper: container.dir.join("upper"),
            work: container.dir.join("work"),
        };
        let socket = self.api_sockets.kept_for(&record, &self.paths);
        let socket = socket.map_err(EngineError::file("cannot duplicate", &self.paths.socket()))?;
        let launch = Launch {
            groups: record.host.group_add.clone().unwrap_or_default(),
            seccomp: match security.seccomp {
                SeccompChoice::Default => Seccomp::Default,
                SeccompChoice::Unconfined => Seccomp::Unconfined,
                SeccompChoice::Profile(profile) => Seccomp::Profile(profile),
            },
            cgroup_parent: spec::cgroup_parent(&record.host),
            stdin_open: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            log: logging::kept(&record, container.log_path()),
            forward: logging::forward(&record)?,
            init: record.host.init.unwrap_or(false),
            userns,
            fds: socket.into_iter().collect(),
            engine_respawn: Some(self.respawn()),
            attached: container.take_attachments(),
            ..Launch::new(record.id.clone(), container.dir.clone(), spec, root)
        };
        let live = if launch.userns.is_none() && networks::has_namespace(&record) {
            self.launch_beside_network(container, launch).await?
        } else {
            // Who has ids of their own has a network that belongs to them; others, one that is there already.
            let sandbox = self.join(container, network).await?;
            let mut launch = launch;
            launch.netns = sandbox.netns;
            launch.fds.extend(sandbox.fds);
            self.runtime.start(launch).await.map_err(start_failure)?
        };
        for warning in live.warnings() {
            tracing::warn!(container = container.id, warning);
        }
        Ok(live)
    }

    /// Starts a container's process, its network being made meanwhile.
    async fn launch_beside_network(&self, container: &Container, launch: Launch) -> Result<runtime::Container> {
        let unborn = self.runtime.begin(launch).map_err(start_failure)?;
        let joined = self.join(container, None).await.and_then(|sandbox| {
            let missing = || EngineError::Start("the container's network has no namespace".to_owned());
            Ok((sandbox.netns.ok_or_else(missing)?, sandbox.fds))
        });
        match joined {
            Ok((netns, fds)) => unborn.go_on(netns, &fds).await.map_err(start_failure),
            Err(cause) => {
                unborn.give_up().await;
                Err(cause)
            }
        }
    }

    /// Makes the container's network side, and writes its files.
    async fn join(&self, container: &Container, namespace: Option<OwnedFd>) -> Result<Sandbox> {
        let sandbox = self
            .join_networks(container, namespace)
            .await
            .map_err(|cause| cause.while_attempting("failed to set up container networking"))?;
        let files = &sandbox.files;
        let texts = [&files.resolv_conf, &files.hostname, &files.hosts];
        for ((name, _), text) in FILES.into_iter().zip(texts) {
            let path = container.dir.join(name);
            // A disk takes longer to write a file anew than to read it, and a container that starts again has the same.
            if !std::fs::read(&path).is_ok_and(|written| written == text.as_bytes()) {
                std::fs::write(&path, text).map_err(EngineError::file("cannot write", &path))?;
            }
        }
        Ok(sandbox)
    }

    /// Refuses what cannot be mounted any more, and makes missing sources of binds that want it.
    pub(super) fn check_mounts(&self, container: &Container) -> Result<()> {
        let record = container.record();
        for mount in &record.mounts {
            if mount.kind != "bind" || stands_for_docker(&mount.source) {
                continue;
            }
            let source = Path::new(&mount.source);
            if source.symlink_metadata().is_ok() {
                continue;
            }
            if !mount.create_source {
                return Err(EngineError::InvalidParameter(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    mount.source
                )));
            }
            std::fs::create_dir_all(source)
                .map_err(EngineError::file("error while creating mount source path", source))?;
        }
        Ok(())
    }

    fn places(&self, container: &Container, record: &Record, layers: &[PathBuf]) -> Result<Places> {
        let host = &record.host;
        let mut places = Places::default();
        for (name, inside) in FILES {
            places.files.push((container.dir.join(name), inside));
        }
        let all: Vec<PathBuf> = [container.dir.join("upper")]
            .into_iter()
            .chain(layers.iter().cloned())
            .collect();
        for mount in &record.mounts {
            let mut value = self.mount_of(mount)?;
            self.map_mount(record, mount, &all, &mut value)?;
            places.mounts.push(value);
        }
        self.namespace("pid", &host.pid_mode, &mut places)?;
        self.namespace("ipc", &host.ipc_mode, &mut places)?;
        self.namespace("uts", &host.uts_mode, &mut places)?;
        if host.network_mode == "host" {
            places.of_host.push("network");
        }
        if let Some(other) = host.ipc_mode.strip_prefix("container:") {
            self.running_pid(other, "ipc")?;
            let shared = self.containers.find(other)?.dir.join("shm");
            if !shared.is_dir() {
                return Err(EngineError::Conflict(format!(
                    "cannot join IPC of container {other}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
                     container)"
                )));
            }
            places.shm = Some(shared);
        } else if host.ipc_mode == "shareable" {
            // A directory that others can mount as well; what an earlier run left in it is gone with that run.
            let shared = container.dir.join("shm");
            let _ = std::fs::remove_dir_all(&shared);
            std::fs::create_dir(&shared).map_err(EngineError::file("cannot create", &shared))?;
            std::fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o1777))
                .map_err(EngineError::file("cannot change", &shared))?;
            places.shm = Some(shared);
        } else if host.ipc_mode == "host" {
            places.shm = Some("/dev/shm".into());
        }
        Ok(places)
    }

    fn namespace(&self, kind: &'static str, mode: &str, places: &mut Places) -> Result<()> {
        if mode == "host" {
            places.of_host.push(kind);
        } else if let Some(other) = mode.strip_prefix("container:") {
            let pid = self.running_pid(other, kind)?;
            places.joined.push((kind, format!("/proc/{pid}/ns/{kind}")));
        }
        Ok(())
    }

    fn running_pid(&self, other: &str, kind: &str) -> Result<i32> {
        let container = self.containers.find(other)?;
        let record = container.record();
        match record.state.status {
            Status::Running | Status::Paused => Ok(record.state.pid),
            _ => Err(EngineError::Conflict(format!(
                "cannot join {} namespace of a non running container: {}",
                kind.to_uppercase(),
                record.id
            ))),
        }
    }

    /// Returns one of a container's mounts as the spec says it.
    pub(super) fn mount_of(&self, mount: &MountPoint) -> Result<Value> {
        match mount.kind.as_str() {
            "bind" => {
                let source = Path::new(&mount.source);
                if stands_for_docker(&mount.source) {
                    return Ok(spec::bind(mount, &self.paths.socket()));
                }
                propagation::check(mount)?;
                Ok(spec::bind(mount, source))
            }
            "volume" => self.volume_mount(mount),
            "tmpfs" => {
                let mut options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
                if !mount.writable {
                    options.push("ro");
                }
                spec::tmpfs(&mount.destination, &options)
            }
            "image" => {
                let image = self.image(&mount.source)?;
                let closed = MountPoint {
                    writable: false,
                    ..mount.clone()
                };
                let mut layers = self.layers(&image);
                if !mount.subpath.is_empty() {
                    let part = image_part::find(&layers, &mount.subpath).map_err(|cause| {
                        EngineError::InvalidParameter(format!(
                            "cannot mount {:?} of image {}: {cause}",
                            mount.subpath, mount.source
                        ))
                    })?;
                    layers = match part {
                        image_part::Part::Directory(layers) => layers,
                        image_part::Part::File(file) => return Ok(spec::bind(&closed, &file)),
                    };
                }
                if let [only] = layers.as_slice() {
                    // One directory alone is no overlay to the kernel.
                    return Ok(spec::bind(&closed, only));
                }
                let layers: Vec<String> = layers.iter().map(|path| path.display().to_string()).collect();
                Ok(json!({
                    "destination": mount.destination,
                    "type": "overlay",
                    "source": "overlay",
                    "options": ["ro", format!("lowerdir={}", layers.join(":"))],
                }))
            }
            other => Err(EngineError::NotImplemented(format!("mounts of type {other:?}"))),
        }
    }

    fn volume_mount(&self, mount: &MountPoint) -> Result<Value> {
        let volume = self.volumes.find(&mount.name)?;
        let kind = volume.option("type").unwrap_or_default();
        let device = volume.option("device").unwrap_or_default();
        let options: Vec<&str> = volume
            .option("o")
            .unwrap_or_default()
            .split(',')
            .filter(|option| !option.is_empty())
            .collect();
        if device.is_empty() {
            let data = self.volumes.data_dir(&volume.name);
            return bind_part(mount, &data);
        }
        if options.iter().any(|option| matches!(*option, "bind" | "rbind")) || kind == "none" {
            let source = Path::new(device);
            if !source.exists() {
                return Err(EngineError::Start(format!(
                    "error while mounting volume '{}': failed to mount local volume: mount {device}:{}, flags: 0x1000: \
                     no such file or directory",
                    self.volumes.data_dir(&volume.name).display(),
                    self.volumes.data_dir(&volume.name).display(),
                )));
            }
            return bind_part(mount, source);
        }
        let mut all: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        if !mount.writable {
            all.push("ro".to_owned());
        }
        Ok(json!({ "destination": mount.destination, "type": kind, "source": device, "options": all }))
    }

    /// Says how a shim brings the engine back.
    fn respawn(&self) -> Respawn {
        let program = program::path().display().to_string();
        let arguments = program::arguments("__engine").map(|argument| argument.display().to_string());
        let mut argv: Vec<String> = std::iter::once(program).chain(arguments).collect();
        if !self.paths.is_default() {
            argv.push("--state-dir".to_owned());
            argv.push(self.paths.state_dir().display().to_string());
        }
        let env = program::engine_s_environment();
        Respawn { argv, env }
    }

    fn mount_events(&self, container: &Container) {
        let record = container.record();
        for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
            self.volume_event(
                &mount.name,
                "mount",
                &[
                    ("container", &container.id),
                    ("destination", &mount.destination),
                    ("propagation", &mount.propagation),
                    ("read/write", if mount.writable { "true" } else { "false" }),
                ],
            );
        }
    }

    /// Says that the container's volumes are not in use by it any more.
    pub(super) fn unmount_events(&self, container: &Container) {
        let record = container.record();
        for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
            self.volume_event(&mount.name, "unmount", &[("container", &container.id)]);
        }
    }
}

/// Returns the bind mount of a directory, or of the part of it that the mount names.
///
/// What is looked at here may be something else a moment later, whoever may write to the directory: the runtime looks
/// again, and never out of it. Here it is only to say so in time.
fn bind_part(mount: &MountPoint, directory: &Path) -> Result<Value> {
    if mount.subpath.is_empty() {
        return Ok(spec::bind(mount, directory));
    }
    let path = directory.join(mount.subpath.trim_start_matches('/'));
    let wrong = || {
        EngineError::InvalidParameter(format!(
            "failed to access volume subpath: cannot access path {}: no such file or directory",
            path.display()
        ))
    };
    let resolved = path.canonicalize().map_err(|_| wrong())?;
    let root = directory.canonicalize().map_err(|_| wrong())?;
    if !resolved.starts_with(&root) {
        return Err(wrong());
    }
    let mut value = spec::bind(mount, &path);
    if let Some(options) = value["options"].as_array_mut() {
        options.push(json!(format!("{}{}", runtime::BELOW, directory.display())));
    }
    Ok(value)
}

fn start_failure(cause: RuntimeError) -> EngineError {
    match cause {
        // Whom Docker asks on the way, scripts have got used to.
        RuntimeError::Start(text) if text.starts_with("OCI runtime") => EngineError::Start(format!(
            "failed to create task for container: failed to create shim task: {text}"
        )),
        RuntimeError::Start(text) => EngineError::Start(text),
        cause => EngineError::Runtime {
            attempt: "cannot start the container",
            text: super::error::chain(&cause),
        },
    }
}
