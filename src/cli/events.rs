//! `compose events`: receive real time events from containers.

use std::process::ExitCode;

use std::collections::BTreeMap;

use serde_json::json;

use super::{CommandError, Context, engine_time};
use crate::client::events::Event;
use crate::client::labels;
use crate::ui::stream;

/// Receive real time events from containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "events [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Output events as a stream of json objects
    #[arg(long)]
    pub json: bool,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string")]
    pub since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string")]
    pub until: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Shows what happens to the project's containers.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let scope = context.scope()?;
    scope.check_services(&args.services)?;
    let since = engine_time::parse("", args.since.as_deref())?;
    let until = engine_time::parse("", args.until.as_deref())?;
    let engine = context.engine().await?;
    let mut events = engine.container_events_between(&scope.name, &since, &until).await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => return Err(CommandError::interrupted()),
        };
        let Some(event) = event else {
            // With `--until` too: docker compose takes the end of the stream for a failure, and scripts know it so.
            return Err(CommandError::message("EOF"));
        };
        let event = event?;
        let service = event.attribute(labels::SERVICE).unwrap_or_default();
        if event.kind != "container" || event.attribute(labels::ONE_OFF) == Some("True") {
            continue;
        }
        if !args.services.is_empty() && !args.services.iter().any(|wanted| wanted == service) {
            continue;
        }
        stream::out(if args.json {
            as_json(&event, service)
        } else {
            as_text(&event)
        })?;
    }
}

/// Returns the attributes without compose's own labels.
fn attributes(event: &Event) -> BTreeMap<&str, &str> {
    event
        .actor
        .attributes
        .iter()
        .filter(|(name, _)| !name.starts_with("com.docker.compose."))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn time(event: &Event) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(event.time_nano)).unwrap_or_default()
}

fn as_json(event: &Event, service: &str) -> String {
    let event = json!({
        "action": event.action,
        "attributes": attributes(event),
        "id": event.actor.id,
        "service": service,
        "time": time(event).to_string(),
        "type": event.kind,
    });
    format!("{event}\n")
}

fn as_text(event: &Event) -> String {
    let attributes: Vec<String> = attributes(event)
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    // The empty line is docker compose's.
    format!(
        "{} {} {} {} ({})\n\n",
        time(event).strftime("%Y-%m-%d %H:%M:%S.%6f"),
        event.kind,
        event.action,
        event.actor.id,
        attributes.join(", ")
    )
}
