//! `compose kill`: force stop service containers.

use std::process::ExitCode;

use super::lifecycle::{Look, Scene, interruptible, set};
use super::{CommandError, Context};
use crate::plan::Action;
use crate::plan::lifecycle;
use crate::plan::observed::State;
use crate::ui::stream;

/// Force stop service containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "kill [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    /// SIGNAL to send to the container
    #[arg(short = 's', long, value_name = "string", default_value = "SIGKILL")]
    pub signal: String,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Sends running containers a signal.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    interruptible(async {
        let scene = Scene::open(context, &args.services, Look::Containers).await?;
        let services = set(&args.services);
        let remove_orphans = args.remove_orphans || context.flag_variable("COMPOSE_REMOVE_ORPHANS");
        let chosen: Vec<_> = scene
            .observed
            .containers
            .iter()
            .filter(|container| {
                matches!(container.state, State::Running | State::Paused | State::Restarting)
                    && (services.is_empty() || services.contains(&container.service))
                    && (remove_orphans || scene.project.services.contains_key(&container.service))
            })
            .collect();
        if chosen.is_empty() {
            stream::err("no container to kill");
        }
        let plan = lifecycle::for_each(chosen, "kill", |container| Action::Kill {
            container,
            signal: args.signal.clone(),
        });
        scene.execute(context, "Killing", &plan).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
