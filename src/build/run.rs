//! `RUN`: a command in a container whose writable layer becomes the step's layer.
//!
//! The container sees the stage's files, the network it may use, and nothing else of this machine: no environment, no sockets,
//! no other directory. What the runtime needs as places to mount on lies in a bottom layer of its own, so that nothing of it is
//! ever part of the image.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxNamespaceType;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;

use super::error::Problem;
use super::mounted::Held;
use super::network::{Network, Plug};
use super::progress::{BuildEvent, BuildSink};
use crate::image::{Scratch, View};
use crate::runtime::{Container, Launch, Log, Root, Runtime, spec};

/// A command to run.
pub(super) struct Command {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub directory: String,
    pub user: String,
    /// Name and text of a here-document with a first line that chooses its program.
    pub script: Option<(String, String)>,
    pub network: Network,
    /// The network side, where it has one of its own.
    pub plug: Option<Plug>,
    pub extra_hosts: Vec<(String, String)>,
    pub shm_size: Option<u64>,
    /// Name, soft and hard limit.
    pub ulimits: Vec<(String, i64, i64)>,
    pub privileged: bool,
}

/// Something mounted into the container besides what every container has.
pub(super) enum Mounted {
    Bind {
        source: PathBuf,
        target: PathBuf,
        is_directory: bool,
        read_only: bool,
    },
    Tmpfs {
        target: PathBuf,
        size: Option<u64>,
    },
    /// Several directories as one, top first. What is written goes with the step.
    Merged {
        layers: Vec<PathBuf>,
        scratch: PathBuf,
        target: PathBuf,
        read_only: bool,
    },
}

/// Where the scripts of here-documents lie in the container.
pub(super) const SCRIPTS: &str = "/dev/pipes";

/// How many of the last lines an error shows.
const LAST_LINES: usize = 20;

/// What became of a command.
pub(super) struct Outcome {
    pub code: i32,
    pub last_lines: Vec<String>,
}

/// Runs a command over the layers (top first); what it writes is in the scratch layer afterwards.
pub(super) async fn run(
    runtime: &Runtime,
    layers: &[PathBuf],
    scratch: &Scratch,
    command: Command,
    held: &mut Held,
    step: usize,
    sink: &BuildSink,
) -> Result<Outcome, Problem> {
    let shown = command.arguments.join(" ");
    let prepare = |source| Problem::Write {
        path: scratch.path().to_owned(),
        source,
    };
    let (spec, lower) = surroundings(layers, scratch, &command, &held.mounts).map_err(prepare)?;
    let log = scratch.path().join("output.log");
    let name = scratch
        .path()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let root = Root::Overlay {
        lower,
        upper: scratch.upper(),
        work: scratch.work(),
    };
    let mut launch = Launch::new(format!("build-{name}"), scratch.path().join("container"), spec, root);
    launch.log = Log::JsonFile {
        path: log.clone(),
        max_size: None,
        max_files: 1,
    };
    if let Some(plug) = &command.plug {
        launch.netns = Some(plug.namespace.try_clone().map_err(prepare)?);
    }
    let container = runtime
        .start(launch)
        .await
        .map_err(|source| Problem::Run { command: shown, source })?;
    held.started();
    let mut guard = KillOnDrop::of(&container);
    let mut output = Output::new(log, step, sink.clone());
    let ended = container.wait();
    tokio::pin!(ended);
    let record = loop {
        tokio::select! {
            record = &mut ended => break record,
            () = tokio::time::sleep(Duration::from_millis(30)) => output.pump(),
        }
    };
    guard.0 = None;
    output.pump();
    // The shim's own farewell: its directory goes with the scratch layer.
    let _ = container.farewell().await;
    Ok(Outcome {
        code: record.code,
        last_lines: output.last,
    })
}

/// Ends a step's processes when nobody waits for it any more.
struct KillOnDrop(Option<OwnedFd>);

impl KillOnDrop {
    fn of(container: &Container) -> Self {
        let first = i32::try_from(container.pid()).ok().and_then(Pid::from_raw);
        // It may have ended already.
        Self(first.and_then(|first| pidfd_open(first, PidfdFlags::empty()).ok()))
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let Some(first) = self.0.take() else { return };
        // The others end with the first process, which is the one of their namespace that all depend on.
        if pidfd_send_signal(&first, Signal::KILL).is_ok() {
            // What it wrote to is removed next. One that takes longer is not waited for.
            let limit = Timespec { tv_sec: 2, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&first, PollFlags::IN)], Some(&limit));
        }
    }
}

impl Mounted {
    /// Returns the mount as a spec has it, and whether it is of a directory.
    fn mount(&self) -> io::Result<(oci_spec::runtime::Mount, bool)> {
        Ok(match self {
            Self::Bind {
                source,
                target,
                is_directory,
                read_only,
            } => (spec::bind(source, target, *read_only, "rprivate"), *is_directory),
            Self::Tmpfs { target, size } => {
                let size = size.map(|size| format!("size={size}"));
                let options: Vec<&str> = ["nosuid", "mode=1777"].into_iter().chain(size.as_deref()).collect();
                (spec::mount(target, "tmpfs", "tmpfs", &options), true)
            }
            Self::Merged {
                layers,
                scratch,
                target,
                read_only,
            } => {
                let mut options: Vec<String> = layers
                    .iter()
                    .map(|layer| format!("lowerdir+={}", layer.display()))
                    .collect();
                if *read_only {
                    options.push("ro".to_owned());
                } else {
                    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
                    fs::create_dir_all(&upper)?;
                    fs::create_dir_all(&work)?;
                    options.push(format!("upperdir={}", upper.display()));
                    options.push(format!("workdir={}", work.display()));
                }
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                (spec::mount(target, "overlay", "overlay", &options), true)
            }
        })
    }
}

/// Returns the spec, and the layers with one below them that has what is mounted on.
fn surroundings(
    layers: &[PathBuf],
    scratch: &Scratch,
    command: &Command,
    mounted: &[Mounted],
) -> io::Result<(oci_spec::runtime::Spec, Vec<PathBuf>)> {
    let mut spec = spec::default_spec();
    if command.privileged {
        spec::make_privileged(&mut spec);
    }
    if let Some(size) = command.shm_size {
        spec.set_mounts(Some(spec::default_mounts(size)));
    }
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(command.arguments.clone()));
        process.set_env(Some(command.environment.clone()));
        process.set_cwd(PathBuf::from(&command.directory));
        process
            .user_mut()
            .set_username(Some(command.user.clone()).filter(|user| !user.is_empty()));
    }
    if let Some(process) = spec.process_mut() {
        for (name, soft, hard) in &command.ulimits {
            spec::set_ulimit(process, name, *soft, *hard);
        }
    }
    spec.set_hostname(Some("buildkitsandbox".to_owned()));
    let mut files: Vec<(&str, String)> = Vec::new();
    let plug = command.plug.as_ref();
    match (command.network, plug) {
        (Network::Own, Some(plug)) => files.push(("/etc/resolv.conf", plug.resolv_conf.clone())),
        (Network::Host | Network::Own, _) => {
            spec::set_namespace(&mut spec, LinuxNamespaceType::Network, None);
            // These would be the machine's own.
            if let Some(linux) = spec.linux_mut() {
                linux.set_sysctl(None);
            }
            files.push((
                "/etc/resolv.conf",
                fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            ));
        }
        (Network::None, _) => files.push(("/etc/resolv.conf", String::new())),
    }
    let mut hosts = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for (name, address) in &command.extra_hosts {
        let gateway = plug.and_then(|plug| plug.gateway);
        let address = match (address.as_str(), gateway) {
            ("host-gateway", Some(gateway)) => gateway.to_string(),
            ("host-gateway", None) => Ipv4Addr::LOCALHOST.to_string(),
            (address, _) => address.to_owned(),
        };
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    files.push(("/etc/hosts", hosts));
    let directory = scratch.path().join("mounts");
    fs::create_dir(&directory)?;
    let mounts = spec.mounts_mut().get_or_insert_default();
    let mut targets: Vec<(PathBuf, bool)> = mounts.iter().map(|mount| (mount.destination().clone(), true)).collect();
    for (path, text) in files {
        let file = directory.join(path.trim_start_matches('/').replace('/', "-"));
        fs::write(&file, text)?;
        mounts.push(spec::bind(file, path, true, "rprivate"));
        targets.push((PathBuf::from(path), false));
    }
    if let Some((name, script)) = &command.script {
        use std::os::unix::fs::PermissionsExt as _;
        let scripts = directory.join("scripts");
        fs::create_dir(&scripts)?;
        let file = scripts.join(name);
        fs::write(&file, script)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        mounts.push(spec::bind(scripts, SCRIPTS, true, "rprivate"));
    }
    for mounted in mounted {
        let (mount, is_directory) = mounted.mount()?;
        targets.push((mount.destination().clone(), is_directory));
        mounts.push(mount);
    }
    let scaffold = scaffold(layers, &scratch.path().join("scaffold"), &targets)?;
    let mut lower = layers.to_vec();
    lower.push(scaffold);
    Ok((spec, lower))
}

/// Makes a bottom layer that has, of the places to mount on, those that no layer has.
fn scaffold(layers: &[PathBuf], scaffold: &Path, targets: &[(PathBuf, bool)]) -> io::Result<PathBuf> {
    fs::create_dir(scaffold)?;
    let view = View::open(layers)?;
    for (target, is_directory) in targets {
        // `/dev` and the like are covered before anything is mounted in them.
        // (`starts_with` goes by components: `/sys` starts with `/sys/`.)
        let is_inside = |parent: &str| target.starts_with(parent) && target != Path::new(parent);
        if is_inside("/dev") || is_inside("/sys") {
            continue;
        }
        // A link that leads nowhere yet is followed to where it would lead.
        let resolved = view.resolve(target)?;
        if view.find_link(&resolved)?.is_some() {
            continue;
        }
        let place = scaffold.join(resolved.strip_prefix("/").unwrap_or(&resolved));
        if *is_directory {
            fs::create_dir_all(&place)?;
        } else {
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&place, "")?;
        }
    }
    Ok(scaffold.to_owned())
}

/// Passes on what a command prints while it runs.
struct Output {
    path: PathBuf,
    read: u64,
    rest: String,
    step: usize,
    sink: BuildSink,
    last: Vec<String>,
}

#[derive(Deserialize)]
struct Record {
    log: String,
    stream: String,
}

impl Output {
    fn new(path: PathBuf, step: usize, sink: BuildSink) -> Self {
        Self {
            path,
            read: 0,
            rest: String::new(),
            step,
            sink,
            last: Vec::new(),
        }
    }

    fn pump(&mut self) {
        // The file appears with the first line; until then there is nothing to tell.
        let Ok(mut file) = fs::File::open(&self.path) else {
            return;
        };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.read)).is_err() || file.read_to_end(&mut bytes).is_err() {
            return;
        }
        self.read += bytes.len() as u64;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            let Ok(record) = serde_json::from_str::<Record>(&line) else {
                continue;
            };
            self.last
                .extend(record.log.lines().map(|line| line.trim_end_matches('\r').to_owned()));
            let surplus = self.last.len().saturating_sub(LAST_LINES);
            self.last.drain(..surplus);
            (self.sink)(BuildEvent::Output {
                step: self.step,
                stderr: record.stream == "stderr",
                text: record.log,
            });
        }
    }
}
