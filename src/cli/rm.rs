//! `compose rm`: removes stopped service containers.

use std::process::ExitCode;

use super::lifecycle::{Look, Scene, interruptible, set};
use super::{CommandError, Context};
use crate::plan::observed::{Observed, Question, State};
use crate::plan::{Action, lifecycle};
use crate::ui::{prompt, stream};

/// Removes stopped service containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rm [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Deprecated - no effect
    #[arg(short = 'a', long, hide = true)]
    pub all: bool,
    /// Don't ask to confirm removal
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Stop the containers, if required, before removing
    #[arg(short = 's', long)]
    pub stop: bool,
    /// Remove any anonymous volumes attached to containers
    #[arg(short = 'v', long)]
    pub volumes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Removes containers that do not run.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    interruptible(async {
        let mut scene = Scene::open(context, &args.services, Look::Containers).await?;
        let services = set(&args.services);
        if args.stop {
            let plan = lifecycle::stop(&scene.project, &scene.observed, &services, None)?;
            scene.execute(context, "Stopping", &plan).await?;
            if !context.globals.dry_run {
                let question = Question {
                    project: &scene.project.name,
                    ..Question::default()
                };
                scene.observed = Observed::collect(&scene.engine, &question).await?;
            }
        }
        let mut stopped: Vec<_> = scene
            .observed
            .containers
            .iter()
            .filter(|container| {
                let stands = !matches!(container.state, State::Running | State::Paused | State::Restarting);
                !container.one_off
                    && scene.project.services.contains_key(&container.service)
                    && (services.is_empty() || services.contains(&container.service))
                    && (stands || args.stop && context.globals.dry_run)
            })
            .collect();
        if stopped.is_empty() {
            stream::err("No stopped containers");
            return Ok(ExitCode::SUCCESS);
        }
        stopped.sort_by_key(|container| container.place);
        let names: Vec<&str> = stopped.iter().map(|container| container.name.as_str()).collect();
        let message = format!("Going to remove {}", names.join(", "));
        if args.force {
            stream::out(format!("{message}\n"))?;
        } else if !prompt::confirm(&message, false)? {
            return Ok(ExitCode::SUCCESS);
        }
        let plan = lifecycle::for_each(stopped, "rm", |container| Action::Remove {
            container,
            force: args.force,
            volumes: args.volumes,
            replaced: false,
        });
        scene.execute(context, "Removing", &plan).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
