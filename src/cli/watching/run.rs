//! The course of a watch: changes come in, what follows them is laid down, done, and noted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::super::{CommandError, Context};
use super::containers::{Containers, Happening};
use super::jobs::Outcome;
use super::memory::Memory;
use super::voice::Voice;
use crate::client::{Engine, labels};
use crate::model::Project;
use crate::watch::{Batch, Desk, Job, Mapping, News, Pending, Rules, Watcher};

/// A watch: what it is about and how it is carried out.
pub struct Watching<'w> {
    pub context: &'w Context,
    pub engine: &'w Engine,
    pub project: &'w Project,
    pub voice: Voice,
    /// Images that a rebuild leaves without a name are removed.
    pub prune: bool,
    /// What builds print is not shown.
    pub quiet: bool,
    /// Where it is kept what the files contained, so that the next watch can catch up.
    pub snapshot: Option<PathBuf>,
    rules: RwLock<Arc<Rules>>,
    /// Held by whoever replaces or restarts containers: two plans at a time would be made of what the other changes.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Read by whoever builds: what a build has made so far may have no name yet, and is not to be removed.
    pub(super) building: tokio::sync::RwLock<()>,
}

type Work<'f> = Pin<Box<dyn Future<Output = (Job, Outcome)> + 'f>>;

impl<'w> Watching<'w> {
    /// Reads the rules of the project.
    pub fn new(
        context: &'w Context,
        engine: &'w Engine,
        project: &'w Project,
        voice: Voice,
    ) -> Result<Self, CommandError> {
        let rules = Rules::of(project)?;
        for warning in &rules.warnings {
            voice.warn(warning);
        }
        Ok(Self {
            context,
            engine,
            project,
            voice,
            prune: true,
            quiet: false,
            snapshot: None,
            rules: RwLock::new(Arc::new(rules)),
            changing: tokio::sync::Mutex::new(()),
            building: tokio::sync::RwLock::new(()),
        })
    }

    /// Returns the rules as they are now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches until `stop` is cancelled; what is under way then is finished.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), CommandError> {
        let (mut watcher, paths) = start_watcher(self.rules()).await?;
        let mut containers = Containers::new(self.context, self.engine, &self.project.name).await?;
        let mut desk = Desk::default();
        self.initial_sync(&paths, &mut containers).await?;
        let mut memory = self.catch_up(paths, &mut desk).await?;
        self.voice.say("Watch enabled");
        if let Voice::Journal(journal) = &self.voice {
            journal.watches(&self.rules());
            journal.is_watching();
        }
        let mut pending = Pending::default();
        let mut postponed: Vec<(String, Mapping)> = Vec::new();
        // What the engine went away from.
        let mut waiting: Vec<Job> = Vec::new();
        let mut works: FuturesUnordered<Work<'_>> = FuturesUnordered::new();
        for job in desk.take(Instant::now()) {
            let known = containers.known().await;
            works.push(Box::pin(self.carry_out(job, known)));
        }
        while !(stop.is_cancelled() && works.is_empty()) {
            let now = Instant::now();
            let settles_at = desk.settles_at().filter(|at| *at > now);
            let wake = [pending.next_due(), settles_at].into_iter().flatten().min();
            tokio::select! {
                () = stop.cancelled(), if !stop.is_cancelled() => continue,
                news = watcher.next() => match news {
                    Some(News::Changes(changes)) => {
                        let now = Instant::now();
                        for change in changes {
                            pending.note(change, now);
                        }
                    }
                    Some(News::Warning(text)) => self.voice.warn(text),
                    None => return Err(CommandError::message("the watcher ended unexpectedly")),
                },
                () = sleep_until(wake), if wake.is_some() => {}
                Some((job, outcome)) = works.next(), if !works.is_empty() => {
                    if let Job::Sync { service, .. } = &job {
                        postponed.extend(outcome.undone.into_iter().map(|file| (service.clone(), file)));
                    }
                    desk.done(&job);
                    if outcome.engine_lost {
                        containers.lose();
                        waiting.push(job);
                    }
                }
                happening = containers.next() => match happening {
                    Happening::Event(event) => match (event.action.as_str(), event.attribute(labels::SERVICE)) {
                        // A new container was made without what was copied into the others.
                        ("create", Some(service)) => desk.copy_again(service),
                        // What could not be deleted in a container that did not run.
                        ("start", _) if !postponed.is_empty() => {
                            let mut batch = Batch::default();
                            for (service, file) in postponed.drain(..) {
                                batch.sync.entry(service).or_default().push(file);
                            }
                            desk.add(batch, Instant::now());
                        }
                        _ => {}
                    },
                    Happening::Back => {
                        for job in waiting.drain(..) {
                            desk.give_back(job, Instant::now());
                        }
                    }
                    Happening::Nothing => {}
                }
            }
            let now = Instant::now();
            let due = pending.take(now);
            if !due.is_empty() {
                if let Some(memory) = &mut memory {
                    memory.begin(&due);
                }
                if due.iter().any(|path| self.rules().ignore_files.contains(path)) {
                    self.read_rules_again(&mut watcher, &mut pending).await?;
                }
                desk.add(self.rules().batch(&due), now);
            }
            if !stop.is_cancelled() {
                for job in desk.take(now) {
                    let known = containers.known().await;
                    works.push(Box::pin(self.carry_out(job, known)));
                }
            }
            if desk.is_idle()
                && waiting.is_empty()
                && let Some(memory) = &mut memory
            {
                memory.done();
            }
        }
        self.voice.say("Watch disabled");
        Ok(())
    }

    /// Reads the rules again, since a file changed that says what is ignored, and watches what they say now.
    async fn read_rules_again(&self, watcher: &mut Watcher, pending: &mut Pending) -> Result<(), CommandError> {
        let rules = match Rules::of(self.project) {
            Ok(rules) => Arc::new(rules),
            Err(error) => {
                let text = CommandError::from(error).text().unwrap_or_default();
                self.voice
                    .warn(format_args!("{text}; the ignore files stay as they were"));
                return Ok(());
            }
        };
        // The new watcher sees what the old one does not any more.
        let (new, _) = start_watcher(Arc::clone(&rules)).await?;
        let mut old = std::mem::replace(watcher, new);
        while let Some(news) = old.next_of_old() {
            if let News::Changes(changes) = news {
                let now = Instant::now();
                changes.into_iter().for_each(|change| pending.note(change, now));
            }
        }
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        self.voice.say(".dockerignore has been read again");
        Ok(())
    }

    /// Copies what rules want to be in the container from the beginning, by content: times tell nothing of what an
    /// image was made from.
    async fn initial_sync(&self, paths: &[PathBuf], containers: &mut Containers<'_>) -> Result<(), CommandError> {
        let rules = self.rules();
        let mut files: BTreeMap<&str, Vec<Mapping>> = BTreeMap::new();
        let wanted = rules
            .rules
            .iter()
            .filter(|rule| rule.initial_sync && rule.action.syncs());
        for rule in wanted {
            let own = paths
                .iter()
                .filter(|path| !path.is_dir() || path.is_symlink())
                .filter_map(|path| rule.matches(path));
            files.entry(&rule.service).or_default().extend(own);
        }
        let known = containers.known().await?;
        for (service, files) in files {
            self.sync(service, &files, &known, true).await;
        }
        Ok(())
    }

    /// Acts upon what changed while nobody watched, if it is known what was there before.
    async fn catch_up(&self, paths: Vec<PathBuf>, desk: &mut Desk) -> Result<Option<Memory>, CommandError> {
        let Some(place) = self.snapshot.clone() else {
            return Ok(None);
        };
        let (rules, voice) = (self.rules(), self.voice.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let watched = paths.into_iter().filter(|path| rules.concerns(path)).collect();
            Memory::open(&place, watched, voice)
        });
        let (mut memory, missed) = looked.await??;
        if !missed.is_empty() {
            let paths: Vec<&Path> = missed.iter().map(PathBuf::as_path).collect();
            self.voice.say(&format!("catching up with {}", self.shown(&paths)));
        }
        memory.begin(&missed);
        desk.add(self.rules().batch(&missed), Instant::now());
        Ok(Some(memory))
    }
}

/// Begins to watch. The walk through a large tree must not hold up the containers' output.
async fn start_watcher(rules: Arc<Rules>) -> Result<(Watcher, Vec<PathBuf>), CommandError> {
    let started = tokio::task::spawn_blocking(move || {
        let (roots, pruned) = (rules.roots(), Arc::clone(&rules));
        Watcher::start(roots, Box::new(move |directory| pruned.prunes(directory)))
    });
    Ok(started.await??)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
