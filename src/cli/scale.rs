//! `compose scale`: scale services.

use std::process::ExitCode;

use super::converge::{Converge, ImageWishes};
use super::lifecycle::{self, interruptible, set};
use super::{CommandError, Context};
use crate::model::Dependencies;
use crate::plan::Options;

/// Scale services
#[derive(Debug, clap::Args)]
#[command(override_usage = "scale [SERVICE=REPLICAS...]")]
pub struct Args {
    /// Don't start linked services
    #[arg(long)]
    pub no_deps: bool,
    #[arg(value_name = "SERVICE=REPLICAS", required = true)]
    pub scales: Vec<String>,
}

/// Makes services have as many containers as asked for.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let mut wanted = Vec::new();
    for scale in &args.scales {
        let (service, replicas) = scale
            .split_once('=')
            .filter(|(service, replicas)| !service.is_empty() && !replicas.is_empty())
            .ok_or_else(|| CommandError::message(format!("invalid scale specifier: {scale}")))?;
        let replicas: u32 = replicas.parse().map_err(|_| {
            CommandError::message(format!(
                "invalid scale specifier: can't parse replica value as int: {scale}"
            ))
        })?;
        wanted.push((service.to_owned(), i64::from(replicas)));
    }
    let services: Vec<String> = wanted.iter().map(|(service, _)| service.clone()).collect();
    interruptible(async {
        let mut project = context.load_project(&services)?.project;
        if args.no_deps {
            project = project.with_selected_services(&services, Dependencies::Ignore)?;
        }
        for (service, replicas) in &wanted {
            if let Some(service) = project.services.get_mut(service) {
                service.set_replicas(*replicas);
            }
        }
        let options = Options {
            services: set(&services),
            separator: lifecycle::separator(context),
            ..Options::default()
        };
        let converge = Converge::plan(context, project, &ImageWishes::default(), options, false).await?;
        let execution = converge.execution();
        lifecycle::with_picture(context, "Running", |progress| async move {
            execution.run_all(&progress).await
        })
        .await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
