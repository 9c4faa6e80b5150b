//! `compose prune`: remove what nothing uses.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use bollard::query_parameters::{
    PruneBuildOptions, PruneContainersOptions, PruneImagesOptionsBuilder, PruneNetworksOptions, PruneVolumesOptions,
};

use super::{CommandError, Context};
use crate::ui::{human, prompt, stream};

/// Remove stopped containers, and networks, images and build cache that nothing uses
///
/// Removes stopped containers of all projects, networks that no container has, images without a name, and the build cache. Named
/// volumes are never removed.
#[derive(Debug, clap::Args)]
#[command(override_usage = "prune [OPTIONS]")]
pub struct Args {
    /// Remove all images that no container has, not just those without a name
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Remove anonymous volumes that no container has as well
    #[arg(long)]
    pub volumes: bool,
}

/// Removes what nothing uses.
// docker/cli command/system/prune.go
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    if !args.force && !confirmed(&args)? {
        stream::err(format_args!("system prune has been cancelled"));
        return Ok(ExitCode::FAILURE);
    }
    if context.globals.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let docker = &context.engine().await?.docker;
    let mut text = String::new();
    let mut freed = 0;
    let containers = docker.prune_containers(None::<PruneContainersOptions>).await?;
    freed += containers.space_reclaimed.unwrap_or(0);
    list(
        &mut text,
        "Deleted Containers",
        containers.containers_deleted.unwrap_or_default(),
    );
    let networks = docker.prune_networks(None::<PruneNetworksOptions>).await?;
    list(
        &mut text,
        "Deleted Networks",
        networks.networks_deleted.unwrap_or_default(),
    );
    if args.volumes {
        let volumes = docker.prune_volumes(None::<PruneVolumesOptions>).await?;
        freed += volumes.space_reclaimed.unwrap_or(0);
        list(
            &mut text,
            "Deleted Volumes",
            volumes.volumes_deleted.unwrap_or_default(),
        );
    }
    let filters = HashMap::from([("dangling", vec![if args.all { "false" } else { "true" }])]);
    let options = PruneImagesOptionsBuilder::new().filters(&filters).build();
    let images = docker.prune_images(Some(options)).await?;
    freed += images.space_reclaimed.unwrap_or(0);
    let lines = images
        .images_deleted
        .unwrap_or_default()
        .into_iter()
        .filter_map(|item| {
            let untagged = item.untagged.map(|name| format!("untagged: {name}"));
            untagged.or(item.deleted.map(|id| format!("deleted: {id}")))
        });
    list(&mut text, "Deleted Images", lines.collect());
    let cache = docker.prune_build(None::<PruneBuildOptions>).await?;
    freed += cache.space_reclaimed.unwrap_or(0);
    list(
        &mut text,
        "Deleted build cache objects",
        cache.caches_deleted.unwrap_or_default(),
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Total reclaimed space: {}", human::size(freed as f64));
    stream::out(text)?;
    Ok(ExitCode::SUCCESS)
}

fn confirmed(args: &Args) -> io::Result<bool> {
    let mut warning =
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
            .to_owned();
    if args.volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(match args.all {
        true => "  - all images without at least one container associated to them\n  - all build cache\n",
        false => "  - all dangling images\n  - unused build cache\n",
    });
    stream::out(format!("{warning}\n"))?;
    prompt::confirm("Are you sure you want to continue?", false)
}

fn list(text: &mut String, heading: &str, items: Vec<String>) {
    if !items.is_empty() {
        let _ = writeln!(text, "{heading}:\n{}\n", items.join("\n"));
    }
}
