//! `compose restart`: restart service containers.

use std::process::ExitCode;

use super::lifecycle::{Look, Scene, interruptible, set};
use super::{CommandError, Context};
use crate::plan::lifecycle;

/// Restart service containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "restart [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Don't restart dependent services
    #[arg(long)]
    pub no_deps: bool,
    /// Specify a shutdown timeout in seconds
    #[arg(short = 't', long, value_name = "int")]
    pub timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Restarts containers, and those of services that want to be restarted with them.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    interruptible(async {
        let scope = context.scope()?;
        let mut project = scope.project;
        if let Some(project) = &mut project {
            project.enable_services(&args.services);
            // Refuses what is no service.
            project.closure(&args.services, crate::model::Dependencies::Ignore)?;
        }
        let scene = Scene::look(context, scope.name, project, Look::Containers).await?;
        let unknown = args
            .services
            .iter()
            .find(|name| !scene.project.services.contains_key(*name));
        if let Some(name) = unknown.filter(|_| !scene.from_file) {
            return Err(CommandError::message(format!("no such service: {name}")));
        }
        let plan = lifecycle::restart(
            &scene.project,
            &scene.observed,
            &set(&args.services),
            args.no_deps,
            args.timeout,
        )?;
        scene.execute(context, "Restarting", &plan).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
