//! The embedded engine: owns containers, networks, volumes, images, events, health and restarts.
//!
//! It answers what exists, what state it is in and what happens to it next. It knows nothing of HTTP (that is
//! [`crate::server`]) and nothing of Compose projects beyond their labels; how a container is made of namespaces
//! and mounts is the runtime's business.

pub mod activity;
mod adopt;
mod advice;
mod api_sockets;
pub mod archive;
mod cdi;
pub mod commit;
pub mod config;
pub mod container;
pub mod containers;
mod create;
mod devices;
pub mod disk;
pub mod error;
pub mod events;
#[cfg(test)]
mod exchange;
pub mod exec;
mod files;
pub mod filters;
mod health;
mod human;
pub mod ids;
mod image_part;
pub mod images;
pub mod inspect;
mod launch;
pub mod lifecycle;
pub mod logging;
pub mod logs;
mod looking;
mod merge;
mod mounts;
pub mod networks;
pub mod paths;
mod populate;
mod process;
mod propagation;
pub mod prune;
mod restart;
pub mod running;
mod seccomp;
mod settle;
pub mod signals;
mod spec;
pub mod stats;
mod step_network;
pub mod sync;
pub mod time;
mod top;
pub mod usage;
pub mod volumes;
pub mod watches;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use error::{EngineError, Result};
pub use process::main;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use activity::Activity;
use api_sockets::ApiSockets;
use config::StringMap;
use container::Container;
use containers::Containers;
use events::Events;
use networks::Networks;
use paths::Paths;
use settle::Settling;
use volumes::Volumes;
use watches::Watches;

use crate::image::Store;
use crate::net::spec::NetworkState;
use crate::runtime::{AttachOptions, Runtime, RuntimeConfig};

/// One engine: the single writer of everything below its state directory.
pub struct Engine {
    /// Where everything lies.
    pub paths: Paths,
    /// Who uses the engine.
    pub activity: Arc<Activity>,
    pub containers: Containers,
    pub volumes: Volumes,
    pub networks: Networks,
    pub store: Store,
    pub events: Events,
    pub runtime: Runtime,
    api_sockets: ApiSockets,
    watches: Watches,
    /// Everything that goes on in the background.
    pub tasks: TaskTracker,
    /// Told when another build of the program wants to take over.
    pub leaving: tokio::sync::Notify,
    /// Cancelled when the engine ends.
    pub closing: CancellationToken,
    boot_id: String,
    settling: Arc<Settling>,
    /// Held by who looks at an image's layers.
    looking: tokio::sync::Mutex<()>,
    advice: advice::Advice,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// Asks an ext4 file system to keep the directories in this one far from each other.
///
/// It otherwise puts all of them next to each other, where the inodes of containers just removed are; ext4 leaves those
/// alone for a minute, and looks at each of them again for every file that is made. With dozens of containers coming
/// and going, a third of all work was that. Other file systems know no such flag, and do not need it.
fn spread(directory: &Path) {
    use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags};
    if let Ok(directory) = rustix::fs::open(directory, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        && let Ok(flags) = ioctl_getflags(&directory)
        && !flags.contains(IFlags::TOPDIR)
    {
        let _ = ioctl_setflags(&directory, flags | IFlags::TOPDIR);
    }
}

impl Engine {
    /// Opens the state directory and takes up what an earlier engine left running. Clients come in by `socket`.
    pub async fn open(paths: Paths, socket: OwnedFd) -> Result<Arc<Self>> {
        let directory = paths.containers();
        std::fs::create_dir_all(&directory).map_err(EngineError::file("cannot create", &directory))?;
        spread(&directory);
        let instance = paths.instance();
        let runtime = Runtime::open(RuntimeConfig {
            state_dir: paths.state_dir().to_path_buf(),
            run_dir: paths.run_dir().to_path_buf(),
            instance: instance.clone(),
        })
        .map_err(lifecycle::runtime_failure("cannot open the runtime"))?;
        let net = crate::net::Networks::open(crate::net::NetConfig {
            state_dir: paths.networks(),
            instance: instance.clone(),
            namespace: network_namespace()?,
        })
        .await
        .map_err(networks::failure)?;
        let engine = Arc::new(Self {
            containers: Containers::default(),
            volumes: Volumes::open(paths.volumes())?,
            networks: Networks::new(net, instance),
            store: Store::open(paths.images()).map_err(images::image_failure)?,
            events: Events::default(),
            runtime,
            api_sockets: ApiSockets::new(socket),
            watches: Watches::default(),
            tasks: TaskTracker::new(),
            leaving: tokio::sync::Notify::new(),
            closing: CancellationToken::new(),
            boot_id: container::boot_id(),
            settling: Arc::default(),
            looking: tokio::sync::Mutex::default(),
            advice: advice::Advice::default(),
            activity: Activity::new(),
            paths,
        });
        let settling = Arc::clone(&engine.settling).run(engine.closing.clone());
        engine.tasks.spawn(settling);
        engine.take_up().await?;
        if !engine.has_live_containers() {
            engine.store.forget_aside().map_err(images::image_failure)?;
        }
        Ok(engine)
    }

    /// Returns whether a container runs or is about to run again.
    pub fn has_live_containers(&self) -> bool {
        self.containers
            .all()
            .iter()
            .any(|container| container.status().is_running())
    }

    /// Lets go of everything without ending any container.
    pub async fn close(&self) {
        self.closing.cancel();
        for container in self.containers.all() {
            if let Some(live) = container.live() {
                let _ = live.farewell().await;
            }
        }
        if !self.has_live_containers() {
            self.networks.put_away().await;
        }
        self.tasks.close();
        // Removals under way are finished; what cannot be finished now is taken up by the next engine.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
        // Nobody asked for it by name, so nobody would ever remove it.
        self.networks.net.remove_unused("bridge").await;
    }

    /// Runs code that waits for the disk where it does not hold up anybody.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.tasks
            .spawn_blocking(work)
            .await
            .map_err(|cause| EngineError::Runtime {
                attempt: "the work was not finished",
                text: cause.to_string(),
            })
    }

    /// Runs work that hashes and unpacks while it waits for the network on a thread of its own.
    pub async fn on_own_thread<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        self.blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(work()))
        })
        .await?
        .map_err(EngineError::file("cannot start", Path::new("a thread")))
    }

    /// Says that something happened to a container.
    pub fn container_event(&self, container: &Container, action: &str, more: &[(&str, &str)]) {
        let mut attributes = container.record().attributes();
        for (key, value) in more {
            attributes.insert((*key).to_owned(), (*value).to_owned());
        }
        self.events.publish("container", action, &container.id, attributes);
    }

    /// Says that something happened to a volume.
    pub fn volume_event(&self, name: &str, action: &str, more: &[(&str, &str)]) {
        let mut attributes: StringMap = [("driver".to_owned(), "local".to_owned())].into();
        for (key, value) in more {
            attributes.insert((*key).to_owned(), (*value).to_owned());
        }
        self.events.publish("volume", action, name, attributes);
    }

    /// Says that something happened to a network.
    pub fn network_event(&self, network: &NetworkState, action: &str, container: Option<&str>) {
        let mut attributes: StringMap = [
            ("name".to_owned(), network.spec.name.clone()),
            ("type".to_owned(), network.spec.driver.name().to_owned()),
        ]
        .into();
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.to_owned());
        }
        self.events.publish("network", action, &network.spec.id, attributes);
    }

    /// Returns a stream that will be the container's when it starts.
    pub fn attach_later(&self, container: &Container, options: AttachOptions) -> Result<UnixStream> {
        let failed = |cause| EngineError::file("cannot open", Path::new("socket"))(cause);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        theirs.set_nonblocking(true).map_err(failed)?;
        container.attach_later(options, OwnedFd::from(theirs));
        UnixStream::from_std(ours).map_err(failed)
    }
}

/// Returns the namespace that bridges lie in, where it is not the engine's own.
fn network_namespace() -> Result<Option<OwnedFd>> {
    crate::rootless::network()
        .map(|namespace| namespace.try_clone_to_owned())
        .transpose()
        .map_err(EngineError::file("cannot keep", Path::new("the network namespace")))
}

/// Returns a moment of the runtime's clock.
fn moment(at: crate::runtime::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(at.nanoseconds())).unwrap_or_default()
}

/// Refuses drivers of volumes that are not here.
fn check_volume_driver(name: &str) -> Result<()> {
    match name {
        "" | "local" | "default" => Ok(()),
        other => Err(EngineError::NotFound(format!(
            "error looking up volume plugin {other}: plugin \"{other}\" not found"
        ))),
    }
}
