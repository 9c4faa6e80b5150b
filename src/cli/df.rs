//! `compose df`: show what images, containers, volumes and the build cache take on the disk.

use std::process::ExitCode;

use serde_json::Value;

use super::{CommandError, Context, ls};
use crate::client::EngineKind;
use crate::ui::{human, stream, table};

/// Show disk usage, to the block
///
/// Shows what images, containers, volumes and the build cache of the engine take on the disk. The sizes are what the files
/// occupy, so their sum is what `du` says of the engine's directory.
#[derive(Debug, clap::Args)]
#[command(override_usage = "df [OPTIONS]")]
pub struct Args {
    /// Format the output. Values: [table | json]
    #[arg(long, value_name = "string", default_value = "table")]
    pub format: String,
    /// Read all images and name what is damaged
    #[arg(long)]
    pub verify: bool,
}

const PARTS: [(&str, &str); 4] = [
    ("Images", "Images"),
    ("Containers", "Containers"),
    ("Local Volumes", "Volumes"),
    ("Build Cache", "BuildCache"),
];

/// Shows what everything takes.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    if !matches!(args.format.as_str(), "table" | "" | "json") {
        return Err(ls::unknown_format(&args.format));
    }
    let engine = context.engine().await?;
    if engine.kind() != EngineKind::Embedded {
        return Err(CommandError::message(
            "only the built-in engine can be measured so; use \"docker system df\" or \"podman system df\"",
        ));
    }
    let path = if args.verify {
        "/compose/df?verify=1"
    } else {
        "/compose/df"
    };
    let usage: Value = engine.ask(http::Method::GET, path, None).await?;
    if args.format == "json" {
        stream::out(format!("{usage}\n"))?;
    } else {
        stream::out(as_table(&usage))?;
    }
    let damaged = usage["Damaged"].as_array().map(Vec::as_slice).unwrap_or_default();
    for damage in damaged {
        let text = |field: &str| damage[field].as_str().unwrap_or_default().to_owned();
        let images: Vec<&str> = damage["Images"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let of = match images.as_slice() {
            [] => "the build cache".to_owned(),
            images => images.join(", "),
        };
        stream::err(format_args!("{} of {of} is damaged: {}", text("What"), text("Problem")));
    }
    if damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    stream::err(format_args!(
        "What is damaged is not used any more: pull or build these images again to mend them."
    ));
    Ok(ExitCode::FAILURE)
}

fn as_table(usage: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let size = |bytes: u64| human::size(bytes as f64);
    let mut rows: Vec<Vec<String>> = PARTS
        .iter()
        .map(|(label, field)| {
            let part = &usage[*field];
            let (taken, reclaimable) = (number(&part["Size"]), number(&part["Reclaimable"]));
            // docker/cli command/formatter/disk_usage.go: the share is shown where there is one.
            let share = match taken {
                0 => String::new(),
                _ => format!(" ({}%)", reclaimable * 100 / taken),
            };
            vec![
                (*label).to_owned(),
                number(&part["Count"]).to_string(),
                number(&part["Active"]).to_string(),
                size(taken),
                format!("{}{share}", size(reclaimable)),
            ]
        })
        .collect();
    let blank = || String::new();
    rows.push(vec![
        "Logs, records".to_owned(),
        blank(),
        blank(),
        size(number(&usage["Other"])),
        blank(),
    ]);
    rows.push(vec![
        "Total".to_owned(),
        blank(),
        blank(),
        size(number(&usage["Total"])),
        blank(),
    ]);
    table::docker(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], &rows)
}
