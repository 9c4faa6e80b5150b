//! `compose ps`: list containers.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::containers::{self, OneOff, id, label};
use super::{CommandError, Context, ps_row};
use crate::client::labels;
use crate::ui::list::{self, Layout};
use crate::ui::stream;

/// List containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "ps [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Show all stopped containers (including those created by the run command)
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Filter services by a property (supported filters: status)
    #[arg(long, value_name = "string")]
    pub filter: Option<String>,
    #[arg(
        long,
        value_name = "string",
        help = "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
    )]
    pub format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Include orphaned services (not declared by project)
    #[arg(long, action = clap::ArgAction::Set, value_name = "bool", default_value_t = true)]
    pub orphans: bool,
    /// Only display IDs
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Display services
    #[arg(long = "services")]
    pub list_services: bool,
    /// Filter services by status. Values: [paused | restarting | removing | running | dead | created | exited]
    #[arg(long, value_name = "stringArray")]
    pub status: Vec<String>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

const LAYOUT: Layout<'_> = Layout {
    headings: &[
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("ID", "CONTAINER ID"),
        ("RunningFor", "CREATED"),
        ("Name", "NAME"),
        // What docker compose has no heading for.
        ("ExitCode", "<no value>"),
        ("Health", "<no value>"),
        ("LocalVolumes", "<no value>"),
        ("Mounts", "<no value>"),
        ("Names", "<no value>"),
        ("Networks", "<no value>"),
        ("Publishers", "<no value>"),
    ],
    table: "{{.Name}}\t{{.Image}}\t{{.Command}}\t{{.Service}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}",
    raw: "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n",
    kind: "*formatter.ContainerContext",
};

/// Lists the project's containers.
pub async fn run(mut args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    if let Some(filter) = args.filter.as_deref().filter(|filter| !filter.is_empty()) {
        match filter.split_once('=') {
            None => {
                return Err(CommandError::message("arguments to --filter should be in form KEY=VAL"));
            }
            Some(("status", status)) => args.status.push(status.to_owned()),
            Some(("source", _)) => return Err(CommandError::message("not implemented")),
            Some((name, _)) => return Err(CommandError::message(format!("unknown filter {name}"))),
        }
    }
    let scope = context.scope()?;
    scope.check_services(&args.services)?;
    let mut services = args.services;
    if let Some(project) = scope.project.as_ref().filter(|_| services.is_empty() && !args.orphans) {
        services = project.services.keys().cloned().collect();
    }
    let all = args.all || !args.status.is_empty();
    let one_off = if all { OneOff::Include } else { OneOff::Exclude };
    let engine = context.engine().await?;
    let mut containers = containers::list(&engine, &scope.name, &services, one_off, all).await?;
    if !args.status.is_empty() {
        containers.retain(|container| args.status.contains(&ps_row::state(container)));
    }
    if args.quiet {
        let ids: String = containers
            .iter()
            .map(|container| format!("{}\n", id(container)))
            .collect();
        stream::out(ids)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.list_services {
        let mut names: Vec<&str> = Vec::new();
        for container in &containers {
            let name = label(container, labels::SERVICE);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        stream::out(format!("{}\n", names.join("\n")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Value> = containers
        .iter()
        .map(|container| ps_row::fields(container, !args.no_trunc))
        .collect();
    let methods = |row: &Value, name: &str, arguments: &[Value]| match (name, arguments) {
        ("Label", [Value::String(label)]) => {
            let id = row.get("ID")?.as_str()?;
            let container = containers
                .iter()
                .find(|container| containers::id(container).starts_with(id))?;
            Some(json!(containers::label(container, label)))
        }
        _ => None,
    };
    let format = args.format.unwrap_or_default();
    stream::out(list::render(&LAYOUT, &format, &rows, &methods)?)?;
    Ok(ExitCode::SUCCESS)
}
