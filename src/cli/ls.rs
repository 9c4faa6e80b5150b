//! `compose ls`: list running compose projects.

use std::process::ExitCode;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::json;

use super::containers::{label, with_labels};
use super::{CommandError, Context, ps_row};
use crate::client::labels;
use crate::ui::{stream, table};

/// List running compose projects
#[derive(Debug, clap::Args)]
#[command(override_usage = "ls [OPTIONS]")]
pub struct Args {
    /// Show all stopped Compose projects
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Filter output based on conditions provided
    #[arg(long, value_name = "filter")]
    pub filter: Vec<String>,
    /// Format the output. Values: [table | json]
    #[arg(long, value_name = "string", default_value = "table")]
    pub format: String,
    /// Only display project names
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

/// What is known of one project.
#[derive(Default)]
struct Row {
    states: BTreeMap<String, usize>,
    config_files: Vec<String>,
}

/// Lists the projects that have containers.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let mut names = Vec::new();
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("name", name)) => names.push(name),
            Some((name, _)) => return Err(CommandError::message(format!("invalid filter '{name}'"))),
            None => return Err(CommandError::message("bad format of filter (expected name=value)")),
        }
    }
    let engine = context.engine().await?;
    let wanted = vec![labels::PROJECT.to_owned(), labels::CONFIG_HASH.to_owned()];
    let mut projects: BTreeMap<String, Row> = BTreeMap::new();
    for container in with_labels(&engine, wanted, args.all).await? {
        let row = projects
            .entry(label(&container, labels::PROJECT).to_owned())
            .or_default();
        *row.states.entry(ps_row::state(&container)).or_default() += 1;
        for file in label(&container, labels::CONFIG_FILES).split(',') {
            if !file.is_empty() && !row.config_files.iter().any(|known| known == file) {
                row.config_files.push(file.to_owned());
            }
        }
    }
    // As docker's: any of several patterns, each of which may match a part of the name. What is no pattern matches itself.
    let patterns: Vec<_> = names.iter().map(|wanted| (wanted, Regex::new(wanted))).collect();
    projects.retain(|name, _| {
        let mut patterns = patterns.iter();
        names.is_empty()
            || patterns.any(|(wanted, pattern)| {
                name == *wanted || pattern.as_ref().is_ok_and(|pattern| pattern.is_match(name))
            })
    });
    if args.quiet {
        let names: String = projects.keys().map(|name| format!("{name}\n")).collect();
        stream::out(names)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = projects.into_iter().map(|(name, row)| {
        let states: Vec<String> = row
            .states
            .iter()
            .map(|(state, count)| format!("{state}({count})"))
            .collect();
        let files = match row.config_files.is_empty() {
            true => "N/A".to_owned(),
            false => row.config_files.join(","),
        };
        [name, states.join(", "), files]
    });
    stream::out(match args.format.as_str() {
        "json" => {
            let rows: Vec<_> = rows
                .map(|[name, status, files]| json!({"Name": name, "Status": status, "ConfigFiles": files}))
                .collect();
            format!("{}\n", serde_json::Value::from(rows))
        }
        "table" | "pretty" | "" => {
            let rows: Vec<Vec<String>> = rows.map(Vec::from).collect();
            table::wide(&["NAME", "STATUS", "CONFIG FILES"], &rows)
        }
        other => return Err(unknown_format(other)),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses a format that is neither `table` nor `json`.
pub fn unknown_format(format: &str) -> CommandError {
    CommandError::message(format!(
        "format value {} could not be parsed: parsing failed",
        stream::quoted(format)
    ))
}
