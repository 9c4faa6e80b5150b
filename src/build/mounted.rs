//! `RUN --mount=…` at work: what is mounted into a step's container, and what of it makes the step another one.

use std::path::{Path, PathBuf};

use super::cache::{self, Cache};
use super::copy::Target;
use super::error::Problem;
use super::files::{absolute, blocking, reading};
use super::instruction::Run;
use super::mount::{Kind, Mount};
use super::run::Mounted;
use super::secrets::{Agent, Memory};
use super::source::Source;
use super::stage::{Build, From, State};
use crate::image::{FileKind, Hasher};

/// A mount with everything looked up.
pub(super) struct Wanted {
    mount: Mount,
    target: PathBuf,
    /// Where a bind mount's, or a new cache's, files come from.
    from: Option<From>,
}

/// What is mounted, and what must live as long as it is.
#[derive(Default)]
pub(super) struct Held {
    pub mounts: Vec<Mounted>,
    /// Variables that have secrets.
    pub variables: Vec<(String, String)>,
    caches: Vec<Cache>,
    memory: Option<Memory>,
    agents: Vec<Agent>,
}

impl Held {
    /// Takes the files away that the container has by now; sockets stay as long as their agents are needed.
    pub fn started(&mut self) {
        if self.agents.is_empty() {
            self.memory = None;
        }
    }

    fn memory(&mut self) -> Result<&mut Memory, Problem> {
        if self.memory.is_none() {
            self.memory = Some(Memory::new().map_err(reading("/dev/shm"))?);
        }
        Ok(self.memory.as_mut().expect("it was made just now"))
    }
}

impl Build {
    /// Reads a RUN's mounts.
    pub(super) fn mounts(&self, state: &State, run: &Run, stage: usize) -> Result<Vec<Wanted>, Problem> {
        let expand = |text: &str| self.word(state, text).map_err(|problem| problem.to_string());
        let mut wanted = Vec::new();
        for text in &run.mounts {
            let mount = Mount::parse(text, Some(&expand)).map_err(Problem::Mount)?;
            let target = absolute(&state.config.config.working_dir, &mount.target);
            if matches!(mount.kind, Kind::Bind | Kind::Cache | Kind::Tmpfs) && target == Path::new("/") {
                return Err(Problem::Mount(format!("invalid mount target {:?}", "/")));
            }
            let from = match (mount.kind, mount.from.as_str()) {
                (Kind::Bind | Kind::Cache, from) if !from.is_empty() => Some(self.from(from, stage)?),
                _ => None,
            };
            wanted.push(Wanted { mount, target, from });
        }
        Ok(wanted)
    }

    /// Adds what a mount gives to a step to the step's key. Caches, secrets and keys do not count, only that they are there.
    pub(super) async fn digest_mount(&self, hasher: &mut Hasher, wanted: &Wanted) -> Result<(), Problem> {
        let mount = &wanted.mount;
        hasher.field(mount.kind.name().as_bytes());
        hasher.field(wanted.target.as_os_str().as_encoded_bytes());
        let rest = (
            &mount.id,
            mount.read_only,
            mount.size,
            &mount.variable,
            (mount.mode, mount.uid, mount.gid),
            &mount.source,
        );
        hasher.field(format!("{rest:?}").as_bytes());
        if mount.kind != Kind::Bind {
            return Ok(());
        }
        let source = self.mount_source(wanted).await?;
        let path = absolute("/", &mount.source);
        let mut inner = Hasher::default();
        let digest = blocking(move || {
            let found = find(&source, &path)?;
            source
                .digest(&mut inner, &found, "", &found.path)
                .map_err(reading(path.display().to_string()))?;
            Ok(inner.finish().0)
        });
        hasher.field(digest.await?.as_bytes());
        Ok(())
    }

    async fn mount_source(&self, wanted: &Wanted) -> Result<Source, Problem> {
        match &wanted.from {
            None => self.context(),
            Some(from) => self.tree(from).await,
        }
    }

    /// Makes ready what is mounted. A secret or key that is not there is left out, unless it is required.
    pub(super) async fn hold(&self, wanted: Vec<Wanted>, scratch: &Path) -> Result<Held, Problem> {
        let mut held = Held::default();
        let secrets = &self.request.secrets;
        for (number, wanted) in wanted.into_iter().enumerate() {
            let mount = wanted.mount.clone();
            let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
            match mount.kind {
                Kind::Bind => {
                    let mounted = self.bind(&wanted, &scratch.join(format!("bind-{number}"))).await?;
                    held.mounts.push(mounted);
                }
                Kind::Tmpfs => held.mounts.push(Mounted::Tmpfs {
                    target: wanted.target,
                    size: mount.size,
                }),
                Kind::Cache => {
                    let store = self.request.store.clone();
                    let target = wanted.target.display().to_string();
                    let opening = mount.clone();
                    let cache = blocking(move || {
                        cache::open(&store, &opening, &target).map_err(|source| Problem::Write {
                            path: store.root().join("mounts"),
                            source,
                        })
                    })
                    .await?;
                    if cache.is_new && wanted.from.is_some() {
                        self.fill(&wanted, &cache).await?;
                    }
                    held.mounts.push(Mounted::Bind {
                        source: cache.directory.clone(),
                        target: wanted.target,
                        is_directory: true,
                        read_only: mount.read_only,
                    });
                    held.caches.push(cache);
                }
                Kind::Secret => {
                    let (id, target) = mount.secret();
                    let Some(value) = secrets.values.get(&id) else {
                        if mount.required {
                            return Err(Problem::SecretNotFound(format!("secret {id}")));
                        }
                        continue;
                    };
                    if let Some(variable) = &mount.variable {
                        let text = String::from_utf8_lossy(value).into_owned();
                        held.variables.push((variable.clone(), text));
                    }
                    if let Some(target) = target {
                        let mode = mount.mode.unwrap_or(0o400);
                        let source = held
                            .memory()?
                            .file(value, mode, uid, gid)
                            .map_err(reading("/dev/shm"))?;
                        held.mounts.push(Mounted::Bind {
                            source,
                            target: absolute("/", &target),
                            is_directory: false,
                            read_only: true,
                        });
                    }
                }
                Kind::Ssh => {
                    let id = if mount.id.is_empty() { "default" } else { &mount.id };
                    let Some(agent) = secrets.agents.get(id) else {
                        if mount.required {
                            return Err(Problem::KeyNotFound(id.to_owned()));
                        }
                        continue;
                    };
                    let target = match mount.target.as_str() {
                        "" => format!("/run/buildkit/ssh_agent.{}", held.agents.len()),
                        target => target.to_owned(),
                    };
                    let mode = mount.mode.unwrap_or(0o600);
                    let listening = held.memory()?.agent(agent.clone(), mode, uid, gid);
                    let (source, agent) = listening.map_err(reading("/dev/shm"))?;
                    if held.agents.is_empty() {
                        held.variables.push(("SSH_AUTH_SOCK".to_owned(), target.clone()));
                    }
                    held.agents.push(agent);
                    held.mounts.push(Mounted::Bind {
                        source,
                        target: absolute("/", &target),
                        is_directory: false,
                        read_only: true,
                    });
                }
            }
        }
        Ok(held)
    }

    /// Finds the directories whose merged content a bind mount shows. What is of this machine is copied first: a step neither
    /// sees what the context leaves out, nor what becomes of the files while it runs.
    async fn bind(&self, wanted: &Wanted, scratch: &Path) -> Result<Mounted, Problem> {
        let source = self.mount_source(wanted).await?;
        let path = absolute("/", &wanted.mount.source);
        let found = find(&source, &path)?;
        let is_directory = found.is_directory();
        let is_copied = source.is_context;
        let source = match is_copied {
            true => {
                let layer = self.layer_of(source, &found.path.display().to_string()).await?;
                Source::of(&[self.request.store.layer_directory(&layer)])?
            }
            false => source,
        };
        let place = match (is_copied, is_directory) {
            (false, _) => path.clone(),
            (true, true) => PathBuf::from("/"),
            (true, false) => Path::new("/").join(found.path.file_name().unwrap_or_default()),
        };
        let found = find(&source, &place)?;
        let layers = found.places().map_err(reading(place.display().to_string()))?;
        let read_only = wanted.mount.read_only;
        if is_directory && (!read_only || layers.len() > 1) {
            return Ok(Mounted::Merged {
                layers,
                scratch: scratch.to_owned(),
                target: wanted.target.clone(),
                read_only,
            });
        }
        let mut source = layers.into_iter().next().unwrap_or_default();
        if !is_directory && !read_only {
            // What is written to it is nobody's afterwards.
            std::fs::copy(&source, scratch).map_err(reading(place.display().to_string()))?;
            source = scratch.to_owned();
        }
        Ok(Mounted::Bind {
            source,
            target: wanted.target.clone(),
            is_directory,
            read_only,
        })
    }

    /// Copies what a new cache begins with.
    async fn fill(&self, wanted: &Wanted, cache: &Cache) -> Result<(), Problem> {
        let source = self.mount_source(wanted).await?;
        let path = absolute("/", &wanted.mount.source);
        let directory = cache.directory.clone();
        blocking(move || {
            let found = find(&source, &path)?;
            let nothing = Source::of(&[])?;
            let mut target =
                Target::new(&directory, &nothing.view).map_err(reading(directory.display().to_string()))?;
            target.base.clone_from(&found.path);
            target.copy(&source, &found, Path::new("/"))
        })
        .await
    }
}

fn find(source: &Source, path: &Path) -> Result<crate::image::Found, Problem> {
    let found = source.view.find(path).map_err(reading(path.display().to_string()))?;
    found
        .filter(|found| matches!(found.kind(), FileKind::Directory | FileKind::RegularFile))
        .ok_or_else(|| Problem::MissingSource(path.display().to_string()))
}
