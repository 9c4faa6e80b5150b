//! `compose wait`: block until containers of all (or specified) services stop.

use std::process::ExitCode;

use bollard::query_parameters::WaitContainerOptions;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::lifecycle::{Look, Scene, interruptible, set};
use super::{CommandError, Context};
use crate::client::{ClientError, Engine};
use crate::plan::lifecycle::{DownOptions, down};
use crate::plan::observed::{Container, State};
use crate::ui::stream;

/// Block until containers of all (or specified) services stop
#[derive(Debug, clap::Args)]
#[command(override_usage = "wait SERVICE [SERVICE...] [OPTIONS]")]
pub struct Args {
    /// Drops project when the first container stops
    #[arg(long)]
    pub down_project: bool,
    #[arg(value_name = "SERVICE", required = true)]
    pub services: Vec<String>,
}

/// Waits for the services' containers to end.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    interruptible(async {
        let scene = Scene::open(context, &[], Look::Everything).await?;
        let services = set(&args.services);
        let containers: Vec<&Container> = scene
            .observed
            .containers
            .iter()
            .filter(|container| {
                matches!(container.state, State::Running | State::Paused | State::Restarting)
                    && services.contains(&container.service)
            })
            .collect();
        if containers.is_empty() {
            return Err(CommandError::message(format!(
                "no containers for project \"{}\"",
                scene.project.name
            )));
        }
        let mut ends: FuturesUnordered<_> = containers
            .iter()
            .map(|container| end(&scene.engine, &container.id))
            .collect();
        let mut status = 0;
        while let Some(ended) = ends.next().await {
            let (id, code) = ended?;
            stream::out(format!("container \"{id}\" exited with status code {code}\n"))?;
            status = code;
            if args.down_project {
                break;
            }
        }
        drop(ends);
        if args.down_project {
            let options = DownOptions {
                remove_orphans: true,
                ..DownOptions::default()
            };
            let plan = down(&scene.project, &scene.observed, &options)?;
            scene.execute(context, "Running", &plan).await?;
        }
        if status == 0 {
            Ok(ExitCode::SUCCESS)
        } else {
            Err(CommandError::status(status))
        }
    })
    .await
}

/// Waits for a container to end, and returns its id with its exit code.
async fn end<'c>(engine: &Engine, id: &'c str) -> Result<(&'c str, i64), ClientError> {
    let options = WaitContainerOptions {
        condition: "not-running".to_owned(),
    };
    match engine.docker.wait_container(id, Some(options)).next().await {
        Some(Ok(answer)) => Ok((id, answer.status_code)),
        // bollard takes a code other than zero for a failure of the request.
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok((id, code)),
        Some(Err(error)) => Err(error.into()),
        None => Ok((id, 0)),
    }
}
