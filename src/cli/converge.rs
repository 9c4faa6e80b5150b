//! From a project to a plan that makes the engine agree with it: what `up`, `create`, `scale` and `run` begin with.

use std::collections::BTreeSet;

use super::building::{self, BuildWishes};
use super::lifecycle;
use super::models;
use super::providers::{self, Request};
use super::{CommandError, Context};
use crate::client::{Engine, EngineKind};
use crate::image::Source;
use crate::model::{Duration, Project, Service, placed};
use crate::plan::observed::{self, Question};
use crate::plan::{Execution, Observed, Options, Plan, Settings, reconcile};
use crate::ui::stream;

/// What the command line says about images.
#[derive(Debug, Clone, Copy)]
pub struct ImageWishes<'a> {
    /// `always`, `missing`, `never`, `build`, or `policy`: as the files say.
    pub pull: &'a str,
    pub build: bool,
    pub no_build: bool,
    pub quiet_pull: bool,
    pub quiet_build: bool,
}

impl Default for ImageWishes<'_> {
    fn default() -> Self {
        Self {
            pull: "policy",
            build: false,
            no_build: false,
            quiet_pull: false,
            quiet_build: false,
        }
    }
}

impl ImageWishes<'_> {
    /// Writes the wishes into the services' pull policies.
    // docker/compose cmd/compose/create.go: createOptions.Apply
    pub fn apply(&self, project: &mut Project) -> Result<(), CommandError> {
        let policy = match self.pull {
            "" | "policy" => None,
            "always" | "never" | "build" | "missing" | "if_not_present" => Some(self.pull),
            other => {
                return Err(CommandError::message(format!(
                    "invalid --pull option {}",
                    stream::quoted(other)
                )));
            }
        };
        let names: Vec<String> = project.services.keys().cloned().collect();
        for name in names {
            let Some(service) = project.services.get_mut(&name) else {
                continue;
            };
            if let Some(policy) = policy {
                service.pull_policy = policy.to_owned();
            }
            if self.build && service.build.is_some() {
                service.pull_policy = "build".to_owned();
            }
        }
        Ok(())
    }
}

/// A project, what was observed, and the plan that brings them together.
pub struct Converge {
    pub engine: Engine,
    pub project: Project,
    pub observed: Observed,
    pub plan: Plan,
    pub settings: Settings,
}

impl Converge {
    /// Makes sure of the images, looks at the engine, and plans. Says what the plan warns of.
    pub async fn plan(
        context: &Context,
        mut project: Project,
        images: &ImageWishes<'_>,
        options: Options,
        yes: bool,
    ) -> Result<Self, CommandError> {
        for service in project.services.values() {
            if service.image.is_empty() && service.build.is_none() && service.provider.is_none() {
                return Err(CommandError::message(format!(
                    "invalid service \"{}\". Must specify either image or build",
                    service.name
                )));
            }
        }
        absolute_images(&mut project);
        provide(context, &mut project).await?;
        let engine = context.engine().await?;
        check_local_images(&engine, &project, project.services.values())?;
        let mut observed = observe(&engine, &project, options.separator).await?;
        let all = |_: &Service| true;
        ensure_images(context, &engine, &project, all, &mut observed, images).await?;
        let plan = reconcile(&project, &observed, &options, &mut lifecycle::answers(yes))?;
        lifecycle::announce(context, &plan);
        let settings = lifecycle::settings(context, &engine);
        Ok(Self {
            engine,
            project,
            observed,
            plan,
            settings,
        })
    }

    /// Returns the execution of the plan.
    pub fn execution(&self) -> Execution<'_> {
        Execution::new(&self.engine, &self.project, &self.observed, &self.plan, &self.settings)
    }
}

/// Makes sure of all that services are given by programs, and puts into their environments where it is.
pub async fn provide(context: &Context, project: &mut Project) -> Result<(), CommandError> {
    let progress = &context.progress;
    progress.begin("Running");
    let provided = async {
        providers::run(context, project, Request::Up, progress).await?;
        models::ensure(context, project, progress).await?;
        Ok(())
    };
    let provided = provided.await;
    progress.end();
    provided
}

/// Makes the paths of images that are files or directories absolute, as the engine works elsewhere.
pub fn absolute_images(project: &mut Project) {
    let directory = project.working_dir.clone();
    for service in project.services.values_mut() {
        let steps = service.pre_start.iter_mut().map(|step| &mut step.image);
        for image in steps.chain([&mut service.image]) {
            if let Some(source) = local_source(image) {
                *image = source.absolute(&directory).to_string();
            }
        }
    }
}

/// Returns the file or directory that an image's name stands for, if it does for one.
pub fn local_source(image: &str) -> Option<Source> {
    Source::parse(image).ok().filter(|source| source.local_path().is_some())
}

/// Refuses images that are files or directories of this machine on an engine that takes none.
pub fn check_local_images<'p>(
    engine: &Engine,
    project: &'p Project,
    services: impl IntoIterator<Item = &'p Service>,
) -> Result<(), CommandError> {
    if engine.kind() == EngineKind::Embedded {
        return Ok(());
    }
    for service in services {
        let images = std::iter::once((&service.image, "image".to_owned()));
        let steps = service.pre_start.iter().enumerate();
        let steps = steps.map(|(index, step)| (&step.image, format!("pre_start[{index}]")));
        for (image, attribute) in images.chain(steps) {
            let Some(source) = local_source(image) else { continue };
            let what = match source {
                Source::Rootfs(_) => "a directory",
                _ => "an image in files",
            };
            let message = format!(
                "service {:?}: {image} is {what} of this machine, which only the embedded engine takes for an image, not \
                 the one at {}",
                service.name,
                engine.address()
            );
            let place = project.places.of_service(&service.name, &attribute);
            return Err(CommandError::message(placed(&message, place)).hint(
                "use the embedded engine (--engine embedded, the default), or an image that this one can pull or build",
            ));
        }
    }
    Ok(())
}

/// Returns the images of `pre_start` steps that have one of their own, each as a service that would be made from it.
fn step_images<'p>(services: impl Iterator<Item = &'p Service>) -> impl Iterator<Item = Service> {
    services.flat_map(|service| {
        let steps = service.pre_start.iter().filter(|step| !step.image.is_empty());
        steps.map(|step| Service {
            name: service.name.clone(),
            image: step.image.clone(),
            platform: service.platform.clone(),
            ..Service::default()
        })
    })
}

/// Looks at all that a plan for the project depends on, at once.
pub async fn observe(engine: &Engine, project: &Project, separator: &str) -> Result<Observed, CommandError> {
    let images: BTreeSet<String> = project
        .services
        .values()
        .map(|service| project.image_name(service, separator))
        .chain(step_images(project.services.values()).map(|step| step.image))
        .collect();
    let question = Question {
        project: &project.name,
        networks: project.networks.values().map(|network| network.name.as_str()).collect(),
        volumes: project.volumes.values().map(|volume| volume.name.as_str()).collect(),
        images: images.iter().map(String::as_str).collect(),
        by_label: false,
    };
    Ok(Observed::collect(engine, &question).await?)
}

/// Pulls and builds the images that are wanted anew or missing, of those services that `is_chosen` says.
pub async fn ensure_images(
    context: &Context,
    engine: &Engine,
    project: &Project,
    is_chosen: impl Fn(&Service) -> bool,
    observed: &mut Observed,
    wishes: &ImageWishes<'_>,
) -> Result<(), CommandError> {
    let separator = lifecycle::separator(context);
    let chosen: Vec<&Service> = project.services.values().filter(|service| is_chosen(service)).collect();
    let there = |service: &Service| observed.images.get(&project.image_name(service, separator));
    let now = jiff::Timestamp::now().as_second();
    let mut renewed = BTreeSet::new();
    let of_steps: Vec<Service> = step_images(chosen.iter().copied()).collect();
    let pulled: Vec<&Service> = chosen
        .iter()
        .copied()
        .chain(&of_steps)
        .filter(|service| must_pull(service, there(service).map(|image| image.tagged), now))
        .collect();
    if !pulled.is_empty() {
        super::pulling::pull_images(context, engine, project, &pulled, wishes.quiet_pull).await?;
        renewed.extend(pulled.iter().map(|service| project.image_name(service, separator)));
        observed
            .images
            .extend(observed::images(engine, renewed.iter().map(String::as_str)).await?);
    }
    let built: Vec<&Service> = chosen
        .into_iter()
        .filter(|service| {
            let is_there = observed.images.contains_key(&project.image_name(service, separator));
            !wishes.no_build && service.build.is_some() && (service.pull_policy == "build" || !is_there)
        })
        .collect();
    if !built.is_empty() {
        let wants = BuildWishes {
            quiet: wishes.quiet_build,
            ..BuildWishes::default()
        };
        let names: Vec<String> = built.iter().map(|service| service.name.clone()).collect();
        building::build_images(context, engine, project, &names, &wants).await?;
        let images: BTreeSet<String> = built
            .iter()
            .map(|service| project.image_name(service, separator))
            .collect();
        observed
            .images
            .extend(observed::images(engine, images.iter().map(String::as_str)).await?);
    }
    Ok(())
}

/// Returns whether the service's image has to be asked of a registry. `there` says of an image that is here when it was last pulled,
/// if that is known.
// docker/compose pkg/compose/pull.go: mustPull; compose-go types/types.go: GetPullPolicy
fn must_pull(service: &Service, there: Option<Option<i64>>, now: i64) -> bool {
    if service.image.is_empty() || service.provider.is_some() {
        return false;
    }
    let policy = service.pull_policy.as_str();
    let every = match policy {
        "always" => return true,
        "never" | "build" => return false,
        "daily" => "1d",
        "weekly" => "1w",
        other => match other.strip_prefix("every_") {
            Some(span) => span,
            None => return there.is_none(),
        },
    };
    // What is no span asks every time: better too often than never.
    let every: Duration = every.parse().unwrap_or_default();
    match there {
        None => true,
        Some(tagged) => now > tagged.unwrap_or(0).saturating_add(every.0 / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_pulled_by_policy() {
        let pulled = |image: &str, policy: &str, is_there: bool| {
            let service = Service {
                image: image.into(),
                pull_policy: policy.into(),
                ..Service::default()
            };
            must_pull(&service, is_there.then_some(Some(1_000_000)), 1_000_000 + 3 * 24 * 3600)
        };
        for (image, policy, is_there, expected) in [
            ("i", "", true, false),
            ("i", "", false, true),
            ("i", "missing", false, true),
            ("i", "always", true, true),
            ("i", "never", false, false),
            ("i", "build", false, false),
            ("", "always", false, false),
            ("i", "daily", true, true),
            ("i", "weekly", true, false),
            ("i", "weekly", false, true),
            ("i", "every_2d12h", true, true),
            ("i", "every_73h", true, false),
        ] {
            assert_eq!(pulled(image, policy, is_there), expected, "{image} {policy} {is_there}");
        }
    }
}
