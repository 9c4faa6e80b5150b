//! What a watch does: copies, rebuilds, restarts, hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::super::building::{self, BuildWishes};
use super::super::{CommandError, converge, lifecycle};
use super::run::Watching;
use super::voice::Voice;
use crate::client::{ClientError, labels};
use crate::model::{Dependencies, Project};
use crate::percent;
use crate::plan::observed::{self, Container, Observed, State};
use crate::plan::{self, Execution, ExecutionError, Options, Recreate, hooks, reconcile};
use crate::ui::Progress;
use crate::watch::{Job, Mapping, SyncError, sync};

/// What became of a job.
#[derive(Default)]
pub(super) struct Outcome {
    /// What is left to do when the container runs.
    pub undone: Vec<Mapping>,
    /// The engine did not answer: all of it is left to do.
    pub engine_lost: bool,
}

/// How many of the changed paths are named; of the others the number.
const NAMED_PATHS: usize = 3;

impl Watching<'_> {
    /// Does a job, and tells what went wrong.
    pub(super) async fn carry_out(&self, job: Job, containers: Result<Vec<Container>, ClientError>) -> (Job, Outcome) {
        let containers = match containers {
            Ok(containers) => containers,
            Err(error) => {
                let error = CommandError::from(error);
                let engine_lost = is_lost(&error);
                if !engine_lost {
                    let text = error.text().unwrap_or_default();
                    self.voice
                        .warn(format_args!("cannot ask the engine for the containers: {text}"));
                }
                return (
                    job,
                    Outcome {
                        engine_lost,
                        ..Outcome::default()
                    },
                );
            }
        };
        let result = match &job {
            Job::Sync { service, files, again } => self.sync_alone(service, files, &containers, *again).await,
            Job::Rebuild(services) => self.rebuild(services).await.map(|()| Outcome::default()),
            Job::Restart(services) => self.restart(services).await.map(|()| Outcome::default()),
            Job::Exec { service, rules } => Ok(self.exec(service, rules, &containers).await),
        };
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) if is_lost(&error) => Outcome {
                engine_lost: true,
                ..Outcome::default()
            },
            Err(error) => {
                let text = error.text().unwrap_or_default();
                let what = match &job {
                    Job::Restart(services) => format!("restarting {}: ", names(services)),
                    _ => String::new(),
                };
                self.voice
                    .warn(format_args!("Error handling changed files: {what}{text}"));
                Outcome::default()
            }
        };
        (job, outcome)
    }

    /// Copies as [`sync`](Self::sync) does; into Podman's containers while none of them is replaced or restarted. It
    /// mounts a container's files to copy into them, and cannot remove a container meanwhile.
    async fn sync_alone(
        &self,
        service: &str,
        files: &[Mapping],
        containers: &[Container],
        compare: bool,
    ) -> Result<Outcome, CommandError> {
        if !self.engine.is_podman() {
            return Ok(self.sync(service, files, containers, compare).await);
        }
        let _alone = self.changing.lock().await;
        let containers = self.observed().await?.containers;
        Ok(self.sync(service, files, &containers, compare).await)
    }

    /// Copies to all containers of a service, whatever state they are in.
    pub(super) async fn sync(
        &self,
        service: &str,
        files: &[Mapping],
        containers: &[Container],
        compare: bool,
    ) -> Outcome {
        let own: Vec<&Container> = containers
            .iter()
            .filter(|container| container.service == service && !container.one_off)
            .collect();
        if own.is_empty() {
            if compare {
                // It is being replaced.
                return Outcome::default();
            }
            self.voice.warn(format_args!(
                "{service}: there is no container to sync to; run \"up\" first"
            ));
            return Outcome::default();
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
        let mut outcome = Outcome::default();
        let mut changed = 0;
        for (container, result) in results {
            match result {
                Ok(report) => {
                    changed += report.changed;
                    for (path, cause) in report.failed {
                        self.voice
                            .warn(format_args!("{}: cannot sync {path}: {cause}", container.name));
                    }
                    outcome.undone.extend(report.postponed);
                }
                // It has been replaced, and what was copied before is copied into its successor.
                Err(SyncError::Client(error)) if error.is_not_found() => {}
                Err(error) => {
                    let error = CommandError::from(error);
                    if is_lost(&error) {
                        outcome.engine_lost = true;
                        continue;
                    }
                    let error = error.text().unwrap_or_default();
                    self.voice
                        .warn(format_args!("{}: cannot sync: {error}", container.name));
                }
            }
        }
        if changed > 0 {
            let paths: Vec<&Path> = files.iter().map(|file| file.from.as_path()).collect();
            let what = self.shown(&paths);
            self.voice
                .say(&format!("{service}: sync {what} ({})", milliseconds(elapsed)));
        }
        outcome
    }

    pub(super) async fn rebuild(&self, services: &BTreeMap<String, PathBuf>) -> Result<(), CommandError> {
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
        let building = self.building.read().await;
        let built = building::build_images(self.context, self.engine, self.project, &list, &wishes).await;
        drop(building);
        if let Err(error) = built {
            if is_lost(&error) {
                return Err(error);
            }
            let text = error.text().unwrap_or_default();
            self.voice.say(&format!("Build failed. Error: {text}"));
            self.voice
                .say(&format!("{}: the container stays as it was", list.join(", ")));
            return Err(error);
        }
        self.voice.say(&format!("service(s) {names} successfully built"));
        let alone = self.changing.lock().await;
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
        drop(alone);
        self.voice.say(&format!(
            "{}: rebuilt ({})",
            list.join(", "),
            milliseconds(begun.elapsed())
        ));
        // Where another build goes on, its end is the time for it.
        if self.prune
            && let Ok(_nobody) = self.building.try_write()
        {
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

    pub(super) async fn restart(&self, services: &BTreeMap<String, PathBuf>) -> Result<(), CommandError> {
        for (service, cause) in services {
            let cause_shown = self.shown(&[cause]);
            let how = match self
                .rules()
                .batch(std::slice::from_ref(cause))
                .sync
                .contains_key(service)
            {
                true => "sync+restart",
                false => "restart",
            };
            self.voice
                .say(&format!("{service}: {how} because {cause_shown} changed"));
        }
        let _alone = self.changing.lock().await;
        let observed = self.observed().await?;
        let chosen: BTreeSet<String> = services.keys().cloned().collect();
        let plan = plan::lifecycle::restart(self.project, &observed, &chosen, false, None)?;
        self.execute(self.project, &observed, &plan).await?;
        self.voice.say(&format!("service(s) {} restarted", names(services)));
        Ok(())
    }

    pub(super) async fn exec(
        &self,
        service: &str,
        rules: &BTreeMap<usize, PathBuf>,
        containers: &[Container],
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let rules_now = self.rules();
        let running = containers
            .iter()
            .filter(|container| container.service == service && !container.one_off)
            .filter(|container| container.state == State::Running);
        for container in running {
            for (&index, cause) in rules {
                let Some(rule) = rules_now.rules.get(index) else {
                    continue;
                };
                let hook = &rule.hook;
                let command = hook.command.words().join(" ");
                let cause = self.shown(&[cause]);
                self.voice
                    .say(&format!("{service}: exec {command} because {cause} changed"));
                match hooks::run(
                    self.engine,
                    container,
                    hook,
                    Some(&self.voice.of_hooks(&self.project.name)),
                )
                .await
                {
                    Ok(0) => {}
                    Ok(status) => self.voice.warn(format_args!(
                        "{}: {command}: exit status {status}; the container goes on as it was",
                        container.name
                    )),
                    Err(error) => {
                        let error = CommandError::from(error);
                        outcome.engine_lost |= is_lost(&error);
                        let text = error.text().unwrap_or_default();
                        self.voice.warn(format_args!("{}: {command}: {text}", container.name));
                    }
                }
            }
        }
        outcome
    }

    async fn execute(&self, project: &Project, observed: &Observed, plan: &plan::Plan) -> Result<(), CommandError> {
        let mut settings = lifecycle::settings(self.context, self.engine);
        settings.hook_output = Some(self.voice.of_hooks(&self.project.name));
        let execution = Execution::new(self.engine, project, observed, plan, &settings);
        match &self.voice {
            Voice::Plain => {
                lifecycle::with_picture(self.context, "Running", |progress| async move {
                    execution.run_all(&progress).await
                })
                .await
            }
            // The terminal is the containers', or there is none.
            Voice::Logs(_) | Voice::Journal(_) => Ok(execution.run_all(&Progress::quiet()).await?),
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
        let path = format!("/images/json?filters={}", percent::encoded(&filters.to_string()));
        let listed: Vec<serde_json::Value> = self
            .engine
            .ask(http::Method::GET, &path, None)
            .await
            .unwrap_or_default();
        for image in listed {
            if let Some(id) = image.get("Id").and_then(|id| id.as_str()) {
                // One that is still used stays.
                let path = format!("/images/{}", percent::encoded(id));
                let _ = self.engine.request(http::Method::DELETE, &path, None).await;
            }
        }
    }

    /// Names paths as seen from the project, those that are gone as such.
    pub(super) fn shown(&self, paths: &[impl AsRef<Path>]) -> String {
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

/// Returns whether a failure is one of the connection to the engine, so that it is to be tried again.
fn is_lost(error: &CommandError) -> bool {
    let mut next = error.error.as_deref().map(|error| error as &(dyn Error + 'static));
    while let Some(error) = next {
        let client = match (error.downcast_ref(), error.downcast_ref()) {
            (Some(error), _) => Some(error),
            (None, Some(SyncError::Client(error))) => Some(error),
            _ => None,
        };
        let is_lost = client.is_some_and(ClientError::is_lost_connection)
            || error.downcast_ref().is_some_and(ExecutionError::is_lost_connection)
            || error.is::<hyper::Error>();
        if is_lost {
            return true;
        }
        next = error.source();
    }
    false
}
