//! The engine's way to containers: starts them by way of the zygote, and finds those an earlier engine started.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci_spec::runtime::{Capability, LinuxIdMapping, Mount, Spec};
use tokio::sync::oneshot;

use crate::os::{memfd, socket};
use crate::runtime::capability;
use crate::runtime::cgroup::{Cgroup, Layout};
use crate::runtime::composed;
use crate::runtime::connection::Connection;
use crate::runtime::container::{Adoption, Container};
use crate::runtime::error::RuntimeError;
use crate::runtime::launch::{AttachOptions, ExitRecord, Launch, Root, RuntimeConfig, Seccomp};
use crate::runtime::protocol::{
    self, Answer, Command, InitPlan, Request, RootPlan, ShimPlan, UserNamespacePlan, ZygoteRequest,
};
use crate::runtime::record;
use crate::runtime::root::RootHandle;
use crate::runtime::seccomp;

/// Makes containers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RuntimeConfig,
    program: PathBuf,
    layout: Layout,
    zygote: Mutex<Option<Zygote>>,
    filters: Mutex<HashMap<u64, Arc<[u8]>>>,
}

/// The process that forks shims.
#[derive(Debug)]
struct Zygote {
    socket: Option<OwnedFd>,
    child: Child,
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // The end of its socket ends it; its shims live on.
        drop(self.socket.take());
        let _ = self.child.wait();
    }
}

impl Runtime {
    /// Opens the runtime of an engine whose own program serves as zygote and shim.
    pub fn open(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        Self::open_with_program(config, PathBuf::from("/proc/self/exe"))
    }

    /// Opens the runtime with another program as zygote and shim: `compose` for a process that is not.
    pub fn open_with_program(config: RuntimeConfig, program: PathBuf) -> Result<Self, RuntimeError> {
        let runtime = Self {
            inner: Arc::new(Inner {
                config,
                program,
                layout: Layout::read(),
                zygote: Mutex::default(),
                filters: Mutex::default(),
            }),
        };
        runtime.with_zygote(|_| Ok(()))?;
        Ok(runtime)
    }

    /// Starts a container and returns once the user's process runs in it.
    pub async fn start(&self, launch: Launch) -> Result<Container, RuntimeError> {
        self.beget(launch, None)?.born().await
    }

    /// Begins to start a container whose network namespace and descriptors to keep are being made: what needs neither
    /// is done meanwhile.
    pub fn begin(&self, launch: Launch) -> Result<Unborn, RuntimeError> {
        let (word, theirs) = socket::message_pair().map_err(RuntimeError::Socket)?;
        Ok(Unborn {
            shim: self.beget(launch, Some(&theirs))?,
            word,
        })
    }

    /// Has a shim made for a container; `later` is what its network namespace comes by, if it comes later.
    fn beget(&self, launch: Launch, later: Option<&OwnedFd>) -> Result<NewShim, RuntimeError> {
        let dir = launch.dir.clone();
        let directory_error = |source| RuntimeError::Directory {
            path: dir.clone(),
            source,
        };
        prepare_directory(&dir).map_err(directory_error)?;
        let filter = self.filter(&launch.spec, &launch.seccomp)?;
        let id = launch.id.clone();
        let parent = launch.cgroup_parent.clone();
        let (ours, theirs) = socket::message_pair().map_err(RuntimeError::Socket)?;
        queue_descriptors(&ours, &launch.fds).map_err(RuntimeError::Send)?;
        queue_attachments(&ours, &launch.attached).map_err(RuntimeError::Send)?;

        let shim = self.shim_plan(&launch, filter.is_some(), later.is_some());
        let shim = plan_file("shim", &shim)?;
        let (netns, userns) = (launch.netns, launch.userns);
        let init = plan_file(
            "init",
            &InitPlan {
                spec: launch.spec,
                root: launch.root,
                groups: launch.groups,
                init: launch.init,
            },
        )?;
        let filter = filter
            .map(|filter| memfd::with_bytes("seccomp", &filter).map_err(RuntimeError::Socket))
            .transpose()?;
        let mut descriptors = vec![theirs.as_fd(), shim.as_fd(), init.as_fd()];
        descriptors.extend(filter.as_ref().map(AsFd::as_fd));
        descriptors.extend(later.or(netns.as_ref()).map(AsFd::as_fd));
        descriptors.extend(userns.as_ref().map(AsFd::as_fd));
        self.request(&ZygoteRequest::Shim, &descriptors)?;
        Ok(NewShim {
            cgroup: self.cgroup(&id, parent.as_deref()),
            id,
            dir: launch.dir,
            socket: ours,
        })
    }

    /// Finds a container that an earlier engine started, with the cgroup parent it was launched with.
    pub async fn adopt(&self, id: &str, dir: &Path, cgroup_parent: Option<&str>) -> Result<Adoption, RuntimeError> {
        let directory_error = |source| RuntimeError::Directory {
            path: dir.to_owned(),
            source,
        };
        let cgroup = self.cgroup(id, cgroup_parent);
        let bury = || bury(id.to_owned(), dir.to_owned(), cgroup.clone());
        // Between its fork and its first breath a shim holds its lock but does not listen yet.
        for _ in 0..200 {
            if let Some(record) = record::read(dir).map_err(|source| RuntimeError::ExitRecord {
                path: dir.join(protocol::EXIT),
                source,
            })? && !record::is_alive(dir)
            {
                return Ok(Adoption::Exited(record));
            }
            let directory = fs::File::open(dir).map_err(directory_error)?;
            match socket::connect(directory.as_fd(), protocol::SOCKET) {
                Ok(socket) => {
                    let connection = Connection::open(socket, None, bury())?;
                    // Another answer, or none: it ended while we spoke. Look again.
                    if let Ok((Ok(Answer::State(state)), _)) = connection.ask(Command::Hello, &[]).await {
                        if let Some(record) = state.exit.clone() {
                            return Ok(Adoption::Exited(record));
                        }
                        let container = Container::new(dir.to_owned(), state, cgroup, connection);
                        return Ok(Adoption::Running(container));
                    }
                }
                Err(_) if !record::is_alive(dir) => {
                    let record = tokio::task::spawn_blocking(bury())
                        .await
                        .map_err(|_| RuntimeError::ShimGone)?;
                    return Ok(Adoption::Exited(record));
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(RuntimeError::ShimGone)
    }

    /// Opens a root file system with what is mounted in it, for a container that does not run. Everything goes with
    /// the handle; no other process sees the mounts.
    pub async fn open_root(&self, dir: &Path, root: &Root, mounts: Vec<Mount>) -> Result<RootHandle, RuntimeError> {
        if mounts.is_empty() && composed::refused_layer(root).is_none() {
            let root = root.clone();
            let detached = tokio::task::spawn_blocking(move || RootHandle::detached(&root))
                .await
                .map_err(|_| RuntimeError::ShimGone)?;
            match detached {
                // An older kernel wants it attached somewhere, so it goes to where mounts are.
                Err(RuntimeError::OpenRoot(error)) if error.raw_os_error() == Some(libc::EINVAL) => {}
                other => return other,
            }
        }
        prepare_directory(dir).map_err(|source| RuntimeError::Directory {
            path: dir.to_owned(),
            source,
        })?;
        let (ours, theirs) = socket::message_pair().map_err(RuntimeError::Socket)?;
        let plan = plan_file(
            "root",
            &RootPlan {
                dir: dir.to_owned(),
                root: root.clone(),
                mounts,
            },
        )?;
        self.request(&ZygoteRequest::Root, &[theirs.as_fd(), plan.as_fd()])?;
        drop(theirs);
        tokio::task::spawn_blocking(move || RootHandle::from_helper(ours))
            .await
            .map_err(|_| RuntimeError::ShimGone)?
    }

    /// Makes a user namespace for a container, and a network namespace that belongs to it.
    pub async fn user_namespace(
        &self,
        users: Vec<LinuxIdMapping>,
        groups: Vec<LinuxIdMapping>,
    ) -> Result<(OwnedFd, OwnedFd), RuntimeError> {
        let (ours, theirs) = socket::message_pair().map_err(RuntimeError::Socket)?;
        let request = ZygoteRequest::UserNamespace(UserNamespacePlan { users, groups });
        self.request(&request, &[theirs.as_fd()])?;
        drop(theirs);
        let answer = tokio::task::spawn_blocking(move || socket::receive(&ours)).await;
        let failed = |text: String| RuntimeError::UserNamespace(io::Error::other(text));
        let answer = answer
            .map_err(|error| failed(error.to_string()))?
            .map_err(RuntimeError::UserNamespace)?
            .ok_or_else(|| RuntimeError::UserNamespace(io::ErrorKind::UnexpectedEof.into()))?;
        let mut made = answer.descriptors.into_iter();
        match (made.next(), made.next()) {
            (Some(user), Some(network)) => Ok((user, network)),
            _ => Err(failed(String::from_utf8_lossy(&answer.bytes).into_owned())),
        }
    }

    /// Returns whether containers get cgroups, without which no limit on what they use has an effect.
    pub fn has_cgroups(&self) -> bool {
        !self.inner.layout.is_empty()
    }

    /// Returns the cgroups of a container.
    pub fn cgroup(&self, id: &str, parent: Option<&str>) -> Cgroup {
        Cgroup::new(&self.inner.layout, &self.cgroup_parent(parent), id)
    }

    /// Returns the cgroup that a container's lies in: the one asked for, or this engine's own.
    fn cgroup_parent(&self, asked: Option<&str>) -> String {
        asked.map_or_else(|| format!("compose-{}", self.inner.config.instance), str::to_owned)
    }

    fn shim_plan(&self, launch: &Launch, has_seccomp: bool, awaits_netns: bool) -> ShimPlan {
        let has_netns = awaits_netns || launch.netns.is_some();
        ShimPlan {
            stdin_open: launch.stdin_open,
            stdin_once: launch.stdin_once,
            log: launch.log.clone(),
            forward: launch.forward.clone(),
            respawn: launch.engine_respawn.clone(),
            has_seccomp,
            awaits_netns,
            has_userns: launch.userns.is_some(),
            ..ShimPlan::of(
                &launch.spec,
                launch.id.clone(),
                launch.dir.clone(),
                self.cgroup_parent(launch.cgroup_parent.as_deref()),
                has_netns,
            )
        }
    }

    /// Returns the compiled filter of a container.
    fn filter(&self, spec: &Spec, wanted: &Seccomp) -> Result<Option<Arc<[u8]>>, RuntimeError> {
        let own = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let profile = match (own, wanted) {
            (Some(profile), _) => seccomp::Profile::from_oci(profile)?,
            (None, Seccomp::Profile(profile)) => seccomp::Profile::from_oci(profile)?,
            (None, Seccomp::Unconfined) => return Ok(None),
            (None, Seccomp::Default) => {
                let bounding = bounding_set(spec);
                let has = |held: Capability| bounding & capability::bit(held) != 0;
                let key = bounding;
                let mut filters = self.inner.filters.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(filter) = filters.get(&key) {
                    return Ok(Some(Arc::clone(filter)));
                }
                let filter: Arc<[u8]> = seccomp::assemble(&seccomp::default_profile(has))?.into();
                filters.insert(key, Arc::clone(&filter));
                return Ok(Some(filter));
            }
        };
        Ok(Some(seccomp::assemble(&profile)?.into()))
    }

    fn request(&self, request: &ZygoteRequest, descriptors: &[BorrowedFd<'_>]) -> Result<(), RuntimeError> {
        let request = serde_json::to_vec(request).map_err(RuntimeError::Encode)?;
        self.with_zygote(|socket| socket::send(socket, &request, descriptors))
    }

    /// Lends the zygote's socket, starting a zygote first where there is none (any more).
    fn with_zygote(&self, mut act: impl FnMut(&OwnedFd) -> io::Result<()>) -> Result<(), RuntimeError> {
        let mut zygote = self.inner.zygote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = zygote.as_ref().and_then(|zygote| zygote.socket.as_ref()) {
            match act(socket) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => *zygote = None,
                other => return other.map_err(RuntimeError::AskZygote),
            }
        }
        let started = zygote.insert(self.start_zygote()?);
        let socket = started.socket.as_ref().expect("a new zygote has its socket");
        act(socket).map_err(RuntimeError::AskZygote)
    }

    fn start_zygote(&self) -> Result<Zygote, RuntimeError> {
        use std::os::fd::AsRawFd;
        use std::os::unix::process::CommandExt;
        let program = memfd::sealed_program(&self.inner.program).map_err(RuntimeError::SealProgram)?;
        let (ours, theirs) = socket::message_pair().map_err(RuntimeError::StartZygote)?;
        let child = std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("compose")
            .arg("__zygote")
            // The engine's environment is nobody's business in a process that containers descend from.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(RuntimeError::StartZygote)?;
        Ok(Zygote {
            socket: Some(ours),
            child,
        })
    }
}

/// A shim that was just made.
#[derive(Debug)]
struct NewShim {
    id: String,
    dir: PathBuf,
    cgroup: Cgroup,
    socket: OwnedFd,
}

impl NewShim {
    /// Waits until the user's process runs.
    async fn born(self) -> Result<Container, RuntimeError> {
        let (sender, started) = oneshot::channel();
        let bury = bury(self.id, self.dir.clone(), self.cgroup.clone());
        let connection = Connection::open(self.socket, Some(sender), bury)?;
        let state = started.await.map_err(|_| RuntimeError::ShimGone)??;
        Ok(Container::new(self.dir, state, self.cgroup, connection))
    }
}

/// A container that waits for its network. Dropped, it comes to nothing.
#[derive(Debug)]
pub struct Unborn {
    shim: NewShim,
    word: OwnedFd,
}

impl Unborn {
    /// Gives the container its network namespace and what to keep for the engine, and returns once the user's process
    /// runs in it.
    pub async fn go_on(self, netns: OwnedFd, fds: &[(String, OwnedFd)]) -> Result<Container, RuntimeError> {
        let sent = queue_descriptors(&self.shim.socket, fds)
            .and_then(|()| socket::send(&self.word, b"netns", &[netns.as_fd()]));
        match sent {
            // A shim that could not go on hangs up, and has said why.
            Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.give_up().await;
                return Err(RuntimeError::Send(error));
            }
            _ => {}
        }
        let Self { shim, word } = self;
        drop(word);
        shim.born().await
    }

    /// Returns once nothing is left of it.
    pub async fn give_up(self) {
        let Self { shim, word } = self;
        drop(word);
        if let Ok(container) = shim.born().await {
            // It had its word already.
            let _ = container.kill(libc::SIGKILL).await;
        }
    }
}

fn bounding_set(spec: &Spec) -> u64 {
    let process = spec.process().as_ref();
    let capabilities = process.and_then(|process| process.capabilities().as_ref());
    capability::bits(capabilities.and_then(|capabilities| capabilities.bounding().as_ref()))
}

fn plan_file(name: &str, plan: &impl serde::Serialize) -> Result<OwnedFd, RuntimeError> {
    let plan = serde_json::to_vec(plan).map_err(RuntimeError::Encode)?;
    memfd::with_bytes(name, &plan).map_err(RuntimeError::Socket)
}

/// Puts the descriptors to keep into the socket before there is a shim to read them.
fn queue_descriptors(socket: &OwnedFd, fds: &[(String, OwnedFd)]) -> io::Result<()> {
    for chunk in fds.chunks(socket::DESCRIPTORS / 2) {
        let request = Request {
            sequence: 0,
            command: Command::Store(chunk.iter().map(|(name, _)| name.clone()).collect()),
        };
        let descriptors: Vec<_> = chunk.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
        socket::send(socket, &serde_json::to_vec(&request)?, &descriptors)?;
    }
    Ok(())
}

/// Puts the streams to attach into the socket, which the shim reads before it reads what the process writes.
fn queue_attachments(socket: &OwnedFd, attached: &[(AttachOptions, OwnedFd)]) -> io::Result<()> {
    for (options, stream) in attached {
        let request = Request {
            sequence: 0,
            command: Command::Attach(*options),
        };
        socket::send(socket, &serde_json::to_vec(&request)?, &[stream.as_fd()])?;
    }
    Ok(())
}

/// Makes a container's directory and takes away what an earlier run left in it.
fn prepare_directory(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join(protocol::ROOT))?;
    match fs::remove_file(dir.join(protocol::SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    record::set_aside(dir)
}

/// Returns what to do when a shim is gone without having told how its container ended.
fn bury(id: String, dir: PathBuf, cgroup: Cgroup) -> impl FnOnce() -> ExitRecord + Send + 'static {
    move || {
        // The shim may have written the record but not lived to announce it.
        if let Ok(Some(record)) = record::read(&dir) {
            cgroup.kill();
            cgroup.remove();
            return record;
        }
        tracing::warn!(container = %id, "the container's supervising process is gone");
        let oom = cgroup.ran_out_of_memory();
        cgroup.kill();
        cgroup.remove();
        let record = record::lost(&dir, oom);
        if let Err(error) = record::write(&dir, &record).and_then(|file| file.sync_data()) {
            tracing::warn!(container = %id, %error, "cannot write the exit record");
        }
        record
    }
}
