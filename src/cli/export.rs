//! `compose export`: export a service container's filesystem as a tar archive.

use std::process::ExitCode;

use std::io::Write;

use futures_util::StreamExt;

use super::containers::{self, OneOff, id};
use super::{CommandError, Context};
use crate::ui::{Status, stream};

/// Export a service container's filesystem as a tar archive
#[derive(Debug, clap::Args)]
#[command(override_usage = "export [OPTIONS] SERVICE")]
pub struct Args {
    #[arg(
        long,
        value_name = "int",
        default_value_t = 0,
        help = "index of the container if service has multiple replicas."
    )]
    pub index: i64,
    /// Write to a file, instead of STDOUT
    #[arg(short = 'o', long, value_name = "string")]
    pub output: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// Writes a container's file system as a tar archive.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let project = context.project_name()?;
    let engine = context.engine().await?;
    let container = containers::one(&engine, &project, &args.service, args.index, OneOff::Include, false).await?;
    let output = args.output.unwrap_or_default();
    if output.is_empty() && stream::out_is_terminal() {
        return Err(CommandError::message(
            "output option is required when exporting to terminal",
        ));
    }
    // Beside its place at first, so that nobody takes half an archive for a whole one.
    let path = context.absolute(&output);
    let directory = path.parent().unwrap_or(&context.working_directory);
    if !output.is_empty() && !directory.is_dir() {
        return Err(CommandError::message(format!(
            "failed to export container: invalid output path: directory {} does not exist",
            stream::quoted(&directory.display().to_string())
        )));
    }
    let name = containers::name(&container);
    let text = format!("export {name} to {output}");
    context.progress.begin("Exporting");
    context.progress.event(name, Status::Working, &text, "Exporting");
    if context.globals.dry_run {
        context.progress.event(name, Status::Done, &text, "Exported");
        return Ok(ExitCode::SUCCESS);
    }
    let mut archive = engine.docker.export_container(id(&container));
    if output.is_empty() {
        while let Some(piece) = archive.next().await {
            stream::out(piece?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut file = tempfile::NamedTempFile::new_in(directory)
        .map_err(|error| CommandError::message(format!("failed to export container: {error}")))?;
    while let Some(piece) = archive.next().await {
        file.write_all(&piece?)?;
    }
    file.persist(&path).map_err(|error| error.error)?;
    Ok(ExitCode::SUCCESS)
}
