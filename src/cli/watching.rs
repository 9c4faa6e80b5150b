//! Watching a project's files and carrying out what follows a change: for `watch`, for `up --watch`, and for the
//! watch that goes on when the terminal is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use super::building::{self, BuildWishes};
use super::converge;
use super::lifecycle;
use super::{CommandError, Context};
use crate::client::events::{Event, Events, percent_encode};
use crate::client::{ClientError, Engine, labels};
use crate::model::{Dependencies, Project};
use crate::plan::execute::HookOutput;
use crate::plan::observed::{self, Container, Observed, State};
use crate::plan::{self, Execution, Options, Recreate, hooks, reconcile};
use crate::ui::logs::{Logs, Target};
use crate::ui::{Progress, stream};
use crate::watch::{Desk, Job, Mapping, News, Pending, Rules, Snapshot, Watcher, sync};

/// How many of the changed paths are named; of the others the number.
const NAMED_PATHS: usize = 3;
/// How long to wait before the engine that went away is asked again.
const ENGINE_RETRY: Duration = Duration::from_millis(200);
/// How long after the last change the snapshot is written.
const SNAPSHOT_DELAY: Duration = Duration::from_secs(1);

/// Who hears what the watch does.
#[derive(Clone)]
pub enum Voice {
    /// Standard output, which nobody else uses.
    Plain,
    /// The lines of containers are shown there too.
    Logs(Arc<Logs>),
}

impl Voice {
    fn say(&self, text: &str) {
        // A watch whose words nobody hears still watches.
        let _ = match self {
            Self::Plain => stream::out(format!("{text}\n")),
            Self::Logs(logs) => logs.aside(text),
        };
    }
}

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
    rules: Arc<Rules>,
}

type Work<'f> = Pin<Box<dyn Future<Output = (Job, Vec<Mapping>)> + 'f>>;

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
            stream::warn(warning);
        }
        Ok(Self {
            context,
            engine,
            project,
            voice,
            prune: true,
            quiet: false,
            snapshot: None,
            rules: Arc::new(rules),
        })
    }

    /// Watches until `stop` is cancelled; what is under way then is finished.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), CommandError> {
        let rules = Arc::clone(&self.rules);
        // The walk through a large tree must not hold up the containers' output.
        let started = tokio::task::spawn_blocking(move || {
            let (roots, pruned) = (rules.roots(), Arc::clone(&rules));
            Watcher::start(roots, Box::new(move |directory| pruned.prunes(directory)))
        });
        let (mut watcher, paths) = started.await??;
        let mut containers = Containers::new(self.engine, &self.project.name).await?;
        let mut desk = Desk::default();
        self.initial_sync(&paths, &mut containers).await?;
        let mut memory = self.catch_up(paths, &mut desk).await?;
        self.voice.say("Watch enabled");
        let mut pending = Pending::default();
        let mut postponed: Vec<(String, Mapping)> = Vec::new();
        let mut works: FuturesUnordered<Work<'_>> = FuturesUnordered::new();
        while !(stop.is_cancelled() && works.is_empty()) {
            let now = Instant::now();
            let store_at = memory.as_ref().and_then(Memory::store_at).filter(|_| desk.is_idle());
            let settles_at = desk.settles_at().filter(|at| *at > now);
            let wake = [pending.next_due(), settles_at, store_at].into_iter().flatten().min();
            tokio::select! {
                () = stop.cancelled(), if !stop.is_cancelled() => continue,
                news = watcher.next() => match news {
                    Some(News::Changes(changes)) => {
                        let now = Instant::now();
                        for change in changes {
                            pending.note(change, now);
                        }
                    }
                    Some(News::Warning(text)) => stream::warn(text),
                    None => return Err(CommandError::message("the watcher ended unexpectedly")),
                },
                () = sleep_until(wake), if wake.is_some() => {}
                Some((job, undone)) = works.next(), if !works.is_empty() => {
                    if let Job::Sync { service, .. } = &job {
                        postponed.extend(undone.into_iter().map(|file| (service.clone(), file)));
                    }
                    desk.done(&job);
                }
                event = containers.event() => {
                    // What could not be deleted in a container that did not run.
                    if event.is_some_and(|event| event.action == "start") && !postponed.is_empty() {
                        let mut batch = crate::watch::Batch::default();
                        for (service, file) in postponed.drain(..) {
                            batch.sync.entry(service).or_default().push(file);
                        }
                        desk.add(batch, Instant::now());
                    }
                }
            }
            let now = Instant::now();
            let due = pending.take(now);
            if !due.is_empty() {
                if let Some(memory) = &mut memory {
                    memory.touched.extend(due.iter().cloned());
                }
                desk.add(self.rules.batch(&due), now);
            }
            if let Some(memory) = &mut memory {
                memory.last = memory.last.max((!due.is_empty()).then_some(now));
                if desk.is_idle() && memory.store_at().is_some_and(|at| at <= now) {
                    memory.store();
                }
            }
            if !stop.is_cancelled() {
                for job in desk.take(now) {
                    let containers = containers.known().await;
                    works.push(Box::pin(self.carry_out(job, containers)));
                }
            }
        }
        if let Some(mut memory) = memory {
            memory.store();
        }
        self.voice.say("Watch disabled");
        Ok(())
    }

    /// Does a job, and tells what went wrong. Returns what is left to do when the container runs.
    async fn carry_out(&self, job: Job, containers: Result<Vec<Container>, ClientError>) -> (Job, Vec<Mapping>) {
        let containers = match containers {
            Ok(containers) => containers,
            Err(error) => {
                stream::warn(format_args!("cannot ask the engine for the containers: {error}"));
                return (job, Vec::new());
            }
        };
        let mut undone = Vec::new();
        match &job {
            Job::Sync { service, files, again } => undone = self.sync(service, files, &containers, *again).await,
            Job::Rebuild(services) => {
                if let Err(error) = self.rebuild(services).await {
                    let text = error.text().unwrap_or_default();
                    stream::warn(format_args!("Error handling changed files: {text}"));
                }
            }
            Job::Restart(services) => {
                if let Err(error) = self.restart(services).await {
                    let names = names(services);
                    let text = error.text().unwrap_or_default();
                    stream::warn(format_args!("Error handling changed files: restarting {names}: {text}"));
                }
            }
            Job::Exec { service, rules } => self.exec(service, rules, &containers).await,
        }
        (job, undone)
    }

    /// Copies to all containers of a service, whatever state they are in.
    async fn sync(&self, service: &str, files: &[Mapping], containers: &[Container], compare: bool) -> Vec<Mapping> {
        let own: Vec<&Container> = containers
            .iter()
            .filter(|container| container.service == service && !container.one_off)
            .collect();
        if own.is_empty() {
            stream::warn(format_args!(
                "{service}: there is no container to sync to; run \"up\" first"
            ));
            return Vec::new();
        }
        if !compare {
            self.voice.say(&format!(
                "Syncing service \"{service}\" after {} changes were detected",
                files.len()
            ));
        }
        let begun = Instant::now();
        let results = join_all(own.iter().map(|&container| async move {
            let result = sync(self.engine, container, files, compare).await;
            (container, result)
        }))
        .await;
        let elapsed = begun.elapsed();
        let mut undone = Vec::new();
        let mut changed = 0;
        for (container, result) in results {
            match result {
                Ok(report) => {
                    changed += report.changed;
                    for (path, cause) in report.failed {
                        stream::warn(format_args!("{}: cannot sync {path}: {cause}", container.name));
                    }
                    undone.extend(report.postponed);
                }
                Err(error) => {
                    // The container may be gone: whoever removed it knows.
                    let error = CommandError::from(error).text().unwrap_or_default();
                    stream::warn(format_args!("{}: cannot sync: {error}", container.name));
                }
            }
        }
        if changed > 0 {
            let paths: Vec<&Path> = files.iter().map(|file| file.from.as_path()).collect();
            let what = self.shown(&paths);
            self.voice
                .say(&format!("{service}: sync {what} ({})", milliseconds(elapsed)));
        }
        undone
    }

    async fn rebuild(&self, services: &BTreeMap<String, PathBuf>) -> Result<(), CommandError> {
        let list: Vec<String> = services.keys().cloned().collect();
        for (service, cause) in services {
            let cause = self.shown(&[cause]);
            self.voice.say(&format!("{service}: rebuild because {cause} changed"));
        }
        let names = names(services);
        self.voice
            .say(&format!("Rebuilding service(s) {names} after changes were detected..."));
        let begun = Instant::now();
        let wishes = BuildWishes {
            quiet: self.quiet,
            ..BuildWishes::default()
        };
        if let Err(error) = building::build_images(self.context, self.engine, self.project, &list, &wishes).await {
            let text = error.text().unwrap_or_default();
            self.voice.say(&format!("Build failed. Error: {text}"));
            self.voice
                .say(&format!("{}: the container stays as it was", list.join(", ")));
            return Err(error);
        }
        self.voice.say(&format!("service(s) {names} successfully built"));
        if let Err(error) = self.recreate(&list).await {
            let text = error.text().unwrap_or_default();
            self.voice
                .say(&format!("Failed to recreate services after update. Error: {text}"));
            return Err(error);
        }
        if let Err(error) = self.start(&list).await {
            let text = error.text().unwrap_or_default();
            self.voice
                .say(&format!("Application failed to start after update. Error: {text}"));
            return Ok(());
        }
        self.voice.say(&format!(
            "{}: rebuilt ({})",
            list.join(", "),
            milliseconds(begun.elapsed())
        ));
        if self.prune {
            self.remove_dangling_images().await;
        }
        Ok(())
    }

    /// Replaces the containers of services, and restarts those that want to be restarted with them.
    async fn recreate(&self, services: &[String]) -> Result<(), CommandError> {
        let mut project = self.project.clone();
        converge::absolute_images(&mut project);
        let separator = lifecycle::separator(self.context);
        let observed = converge::observe(self.engine, &project, separator).await?;
        let options = Options {
            services: lifecycle::set(services),
            recreate: Recreate::Always,
            recreate_dependencies: Recreate::Never,
            start: false,
            orphans: reconcile::Orphans::Ignore,
            separator,
            ..Options::default()
        };
        let plan = plan::reconcile(&project, &observed, &options, &mut |_| false)?;
        self.execute(&project, &observed, &plan).await
    }

    /// Starts services, and what waits for them, in order.
    async fn start(&self, services: &[String]) -> Result<(), CommandError> {
        let project = self
            .project
            .clone()
            .with_selected_services(services, Dependencies::Dependents)?;
        let observed = self.observed().await?;
        let options = Options {
            separator: lifecycle::separator(self.context),
            ..Options::default()
        };
        let plan = reconcile::start(&project, &observed, &options)?;
        self.execute(&project, &observed, &plan).await
    }

    async fn restart(&self, services: &BTreeMap<String, PathBuf>) -> Result<(), CommandError> {
        for (service, cause) in services {
            let cause_shown = self.shown(&[cause]);
            let how = match self.rules.batch(std::slice::from_ref(cause)).sync.contains_key(service) {
                true => "sync+restart",
                false => "restart",
            };
            self.voice
                .say(&format!("{service}: {how} because {cause_shown} changed"));
        }
        let observed = self.observed().await?;
        let chosen: BTreeSet<String> = services.keys().cloned().collect();
        let plan = plan::lifecycle::restart(self.project, &observed, &chosen, false, None)?;
        self.execute(self.project, &observed, &plan).await?;
        self.voice.say(&format!("service(s) {} restarted", names(services)));
        Ok(())
    }

    async fn exec(&self, service: &str, rules: &BTreeMap<usize, PathBuf>, containers: &[Container]) {
        let running = containers
            .iter()
            .filter(|container| container.service == service && !container.one_off)
            .filter(|container| container.state == State::Running);
        for container in running {
            for (&index, cause) in rules {
                let hook = &self.rules.rules[index].hook;
                let command = hook.command.words().join(" ");
                let cause = self.shown(&[cause]);
                self.voice
                    .say(&format!("{service}: exec {command} because {cause} changed"));
                match hooks::run(self.engine, container, hook, Some(&self.hook_output())).await {
                    Ok(0) => {}
                    Ok(status) => stream::warn(format_args!(
                        "{}: {command}: exit status {status}; the container goes on as it was",
                        container.name
                    )),
                    Err(error) => stream::warn(format_args!("{}: {command}: {error}", container.name)),
                }
            }
        }
    }

    fn hook_output(&self) -> HookOutput {
        let (voice, project) = (self.voice.clone(), self.project.name.clone());
        Arc::new(move |container: &Container, line: &str| {
            // What cannot be shown is no reason to stop the hook.
            let _ = match &voice {
                Voice::Plain => stream::out(format!("{line}\n")),
                Voice::Logs(logs) => {
                    let source = logs.source(&format!("{} ->", container.log_name(&project)));
                    logs.line(source, Target::Out, line.as_bytes())
                        .and_then(|()| logs.flush())
                }
            };
        })
    }

    async fn execute(&self, project: &Project, observed: &Observed, plan: &plan::Plan) -> Result<(), CommandError> {
        let mut settings = lifecycle::settings(self.context, self.engine);
        settings.hook_output = Some(self.hook_output());
        let execution = Execution::new(self.engine, project, observed, plan, &settings);
        match &self.voice {
            Voice::Plain => {
                lifecycle::with_picture(
                    self.context,
                    |progress| async move { execution.run_all(&progress).await },
                )
                .await
            }
            // The terminal is the containers'.
            Voice::Logs(_) => Ok(execution.run_all(&Progress::quiet()).await?),
        }
    }

    async fn observed(&self) -> Result<Observed, ClientError> {
        Ok(Observed {
            containers: observed::containers(self.engine, &self.project.name).await?,
            ..Observed::default()
        })
    }

    /// Removes the project's images that have no name any more and no container.
    // docker/compose pkg/compose/watch.go: pruneDanglingImagesOnRebuild
    async fn remove_dangling_images(&self) {
        let filters = serde_json::json!({
            "dangling": ["true"],
            "label": [format!("{}={}", labels::PROJECT, self.project.name)],
        });
        let path = format!("/images/json?filters={}", percent_encode(&filters.to_string()));
        let listed = async {
            let answer = self.engine.request(http::Method::GET, &path, None).await.ok()?;
            let bytes = answer.into_body().collect().await.ok()?.to_bytes();
            serde_json::from_slice::<Vec<serde_json::Value>>(&bytes).ok()
        };
        for image in listed.await.unwrap_or_default() {
            if let Some(id) = image.get("Id").and_then(|id| id.as_str()) {
                // One that is still used stays.
                let path = format!("/images/{}", percent_encode(id));
                let _ = self.engine.request(http::Method::DELETE, &path, None).await;
            }
        }
    }

    /// Copies what rules want to be in the container from the beginning, by content: times tell nothing of what an
    /// image was made from.
    async fn initial_sync(&self, paths: &[PathBuf], containers: &mut Containers<'_>) -> Result<(), CommandError> {
        let mut files: BTreeMap<&str, Vec<Mapping>> = BTreeMap::new();
        let rules = self
            .rules
            .rules
            .iter()
            .filter(|rule| rule.initial_sync && rule.action.syncs());
        for rule in rules {
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
        let file = place.clone();
        let rules = Arc::clone(&self.rules);
        let looked = tokio::task::spawn_blocking(move || {
            let known = Snapshot::load(&file);
            let watched = paths.into_iter().filter(|path| rules.concerns(path));
            let now = Snapshot::take(watched, known.as_ref());
            let missed = known.map(|known| known.changes_to(&now)).unwrap_or_default();
            (now, missed)
        });
        let (snapshot, missed) = looked.await?;
        if !missed.is_empty() {
            let paths: Vec<&Path> = missed.iter().map(PathBuf::as_path).collect();
            self.voice.say(&format!("catching up with {}", self.shown(&paths)));
        }
        desk.add(self.rules.batch(&missed), Instant::now());
        Ok(Some(Memory {
            snapshot,
            place,
            touched: BTreeSet::new(),
            last: Some(Instant::now()),
        }))
    }

    /// Names paths as seen from the project, those that are gone as such.
    fn shown(&self, paths: &[impl AsRef<Path>]) -> String {
        let name = |path: &Path| {
            let relative = path.strip_prefix(&self.project.working_dir).unwrap_or(path);
            let gone = if path.is_symlink() || path.exists() {
                ""
            } else {
                " (deleted)"
            };
            format!("{}{gone}", relative.display())
        };
        let named: Vec<String> = paths.iter().take(NAMED_PATHS).map(|path| name(path.as_ref())).collect();
        match paths.len() {
            count if count > NAMED_PATHS => format!("{} and {} more", named.join(", "), count - NAMED_PATHS),
            _ => named.join(", "),
        }
    }
}

/// What is known of the files for the next watch.
struct Memory {
    snapshot: Snapshot,
    place: PathBuf,
    touched: BTreeSet<PathBuf>,
    last: Option<Instant>,
}

impl Memory {
    fn store_at(&self) -> Option<Instant> {
        self.last.map(|last| last + SNAPSHOT_DELAY)
    }

    fn store(&mut self) {
        self.last = None;
        for path in std::mem::take(&mut self.touched) {
            self.snapshot.update(&path);
        }
        if let Err(error) = self.snapshot.store(&self.place) {
            stream::warn(format_args!("cannot write {}: {error}", self.place.display()));
        }
    }
}

/// The project's containers, asked for again only when something happened to one.
struct Containers<'c> {
    engine: &'c Engine,
    project: &'c str,
    events: Option<Events>,
    known: Option<Vec<Container>>,
}

impl<'c> Containers<'c> {
    async fn new(engine: &'c Engine, project: &'c str) -> Result<Self, ClientError> {
        Ok(Self {
            engine,
            project,
            events: Some(engine.container_events(project).await?),
            known: None,
        })
    }

    async fn known(&mut self) -> Result<Vec<Container>, ClientError> {
        if let Some(known) = self.known.as_ref().filter(|_| self.events.is_some()) {
            return Ok(known.clone());
        }
        let containers = observed::containers(self.engine, self.project).await?;
        self.known = Some(containers.clone());
        Ok(containers)
    }

    /// Waits until something happens to a container.
    async fn event(&mut self) -> Option<Event> {
        let Some(events) = &mut self.events else {
            tokio::time::sleep(ENGINE_RETRY).await;
            self.events = self.engine.container_events(self.project).await.ok();
            self.known = None;
            return None;
        };
        match events.next().await {
            Some(Ok(event)) => {
                // What runs in a container, and what we copy ourselves, changes nothing.
                let is_inside = event.action.starts_with("exec_") || event.action.starts_with("health_status");
                if !is_inside && event.action != "extract-to-dir" {
                    self.known = None;
                }
                Some(event)
            }
            // The engine went away; a new one may come.
            _ => {
                self.events = None;
                None
            }
        }
    }
}

/// The names as Go prints a list of strings.
fn names(services: &BTreeMap<String, PathBuf>) -> String {
    let quoted: Vec<String> = services.keys().map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", quoted.join(" "))
}

fn milliseconds(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(1) {
        format!("{} ms", elapsed.as_millis())
    } else {
        format!("{:.1} s", elapsed.as_secs_f64())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
