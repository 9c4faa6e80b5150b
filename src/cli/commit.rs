//! `compose commit`: create a new image from a service container's changes.

use std::process::ExitCode;

use super::containers::{self, OneOff, id};
use super::{CommandError, Context};
use crate::image::Reference;
use crate::percent;
use crate::ui::Status;

/// Create a new image from a service container's changes
#[derive(Debug, clap::Args)]
#[command(override_usage = "commit [OPTIONS] SERVICE [REPOSITORY[:TAG]]")]
pub struct Args {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short = 'a', long, value_name = "string")]
    pub author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short = 'c', long, value_name = "list")]
    pub change: Vec<String>,
    #[arg(
        long,
        value_name = "int",
        default_value_t = 0,
        help = "index of the container if service has multiple replicas."
    )]
    pub index: i64,
    /// Commit message
    #[arg(short = 'm', long, value_name = "string")]
    pub message: Option<String>,
    /// Pause container during commit
    #[arg(short = 'p', long, action = clap::ArgAction::Set, value_name = "bool", default_value_t = true)]
    pub pause: bool,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

/// Makes an image of a container.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let project = context.project_name()?;
    let engine = context.engine().await?;
    let container = containers::one(&engine, &project, &args.service, args.index, OneOff::Include, false).await?;
    let name = containers::name(&container);
    let text = format!("Commit {name}");
    context.progress.begin("Committing");
    context.progress.event(name, Status::Working, &text, "Committing");
    if context.globals.dry_run {
        context.progress.event(name, Status::Done, &text, "Committed");
        return Ok(ExitCode::SUCCESS);
    }
    let reference = args.reference.as_deref().unwrap_or_default();
    if !reference.is_empty() {
        Reference::parse(reference)?;
    }
    let (repository, tag) = split_tag(reference);
    let mut path = format!(
        "/commit?container={}&repo={}&tag={}&comment={}&author={}&pause={}",
        id(&container),
        percent::encoded(repository),
        percent::encoded(tag),
        percent::encoded(args.message.as_deref().unwrap_or_default()),
        percent::encoded(args.author.as_deref().unwrap_or_default()),
        u8::from(args.pause),
    );
    for change in &args.change {
        path.push_str(&format!("&changes={}", percent::encoded(change)));
    }
    let answer: serde_json::Value = engine.ask(http::Method::POST, &path, None).await?;
    let image = answer.get("Id").and_then(|id| id.as_str()).unwrap_or_default();
    context
        .progress
        .event(name, Status::Done, text, format!("Committed as {image}"));
    Ok(ExitCode::SUCCESS)
}

/// Splits a reference at its tag; a colon before a slash belongs to a registry's port.
pub fn split_tag(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (reference, ""),
    }
}
