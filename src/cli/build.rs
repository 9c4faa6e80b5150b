//! `compose build`: build or rebuild services.

use std::process::ExitCode;

use super::building::{self, BuildWishes};
use super::{CommandError, Context, bake, checking, pushing};
use crate::model::{Dependencies, Project};
use crate::ui::{Progress, stream};

/// Build or rebuild services
#[derive(Debug, clap::Args)]
#[command(override_usage = "build [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Set build-time variables for services
    #[arg(long, value_name = "stringArray")]
    pub build_arg: Vec<String>,
    /// Set builder to use
    #[arg(long, value_name = "string")]
    pub builder: Option<String>,
    /// Check build configuration
    #[arg(long)]
    pub check: bool,
    /// Compress the build context using gzip. DEPRECATED
    #[arg(long, value_name = "bool", hide = true)]
    pub compress: Option<bool>,
    /// Always remove intermediate containers. DEPRECATED
    #[arg(long, value_name = "bool", hide = true)]
    pub force_rm: Option<bool>,
    #[arg(
        short = 'm',
        long,
        value_name = "bytes",
        help = "Set memory limit for the build container. Not supported by BuildKit."
    )]
    pub memory: Option<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    pub no_cache: bool,
    /// Do not remove intermediate containers after a successful build. DEPRECATED
    #[arg(long, hide = true)]
    pub no_rm: bool,
    /// Build images in parallel. DEPRECATED
    #[arg(long, value_name = "bool", hide = true)]
    pub parallel: Option<bool>,
    /// Print equivalent bake file
    #[arg(long)]
    pub print: bool,
    /// Set type of ui output (auto, tty, plain, json, quiet)
    #[arg(long, value_name = "string", hide = true)]
    pub progress: Option<String>,
    /// Add a provenance attestation
    #[arg(long, value_name = "string")]
    pub provenance: Option<String>,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pub pull: bool,
    /// Push service images
    #[arg(long)]
    pub push: bool,
    /// Suppress the build output
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Add a SBOM attestation
    #[arg(long, value_name = "string")]
    pub sbom: Option<String>,
    /// Set SSH authentications used when building service images. (use 'default' for using your default SSH Agent)
    #[arg(long, value_name = "string")]
    pub ssh: Option<String>,
    /// Also build dependencies (transitively)
    #[arg(long)]
    pub with_dependencies: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Builds the images of services.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let mut context = context.clone();
    if args.quiet {
        context.progress = Progress::quiet();
    }
    let context = &context;
    if let Some(progress) = args.progress.as_deref()
        && !matches!(
            progress,
            "" | "auto" | "tty" | "plain" | "json" | "rawjson" | "quiet" | "none"
        )
    {
        return Err(CommandError::message(format!(
            "unsupported --progress value {}",
            stream::quoted(progress)
        )));
    }
    for (asked, flag) in [(&args.sbom, "--sbom"), (&args.provenance, "--provenance")] {
        if asked.as_deref().is_some_and(|value| value != "false") {
            stream::warn(format_args!("{flag} has no effect: attestations are not written"));
        }
    }
    if args.builder.as_deref().is_some_and(|builder| !builder.is_empty()) {
        stream::warn("--builder has no effect: the engine builds by itself");
    }
    let project = context.load_project(&[])?.project;
    let services = chosen(&project, &args.services, args.with_dependencies)?;
    if services.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if args.print {
        let file = bake::file(&project, &services, &args.build_arg, args.no_cache, args.pull);
        bake::print(&file)?;
        return Ok(ExitCode::SUCCESS);
    }
    let wishes = BuildWishes {
        no_cache: args.no_cache,
        pull: args.pull,
        quiet: args.quiet,
        arguments: args.build_arg,
        ssh: args.ssh.into_iter().collect(),
        memory: args.memory.and_then(|memory| memory.parse().ok()).unwrap_or(0),
    };
    let engine = context.engine().await?;
    if args.check {
        return checking::check_services(context, &engine, &project, &services, &wishes).await;
    }
    building::build_images(context, &engine, &project, &services, &wishes).await?;
    if args.push {
        pushing::push_images(context, &engine, &project, &services, false, args.quiet).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the services to build: those named or all, and what they depend on if that is wanted too.
fn chosen(project: &Project, named: &[String], with_dependencies: bool) -> Result<Vec<String>, CommandError> {
    let names: Vec<String> = match named.is_empty() {
        true => project.services.keys().cloned().collect(),
        false => named.to_vec(),
    };
    let dependencies = match with_dependencies {
        true => Dependencies::Include,
        false => Dependencies::Ignore,
    };
    let mut services = project.closure(&names, dependencies)?;
    services.retain(|name| {
        project
            .services
            .get(name)
            .is_some_and(|service| service.build.is_some())
    });
    Ok(services)
}
