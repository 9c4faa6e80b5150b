//! `compose volumes`: list volumes.

use std::process::ExitCode;

use std::collections::{HashMap, HashSet};

use bollard::models::Volume;
use bollard::query_parameters::ListVolumesOptionsBuilder;
use serde_json::{Value, json};

use super::containers::{self, OneOff};
use super::{CommandError, Context};
use crate::client::labels;
use crate::ui::list::{self, Layout};
use crate::ui::stream;

/// List volumes
#[derive(Debug, clap::Args)]
#[command(override_usage = "volumes [OPTIONS] [SERVICE...]")]
pub struct Args {
    #[arg(
        long,
        value_name = "string",
        default_value = "table",
        help = "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
    )]
    pub format: String,
    /// Only display volume names
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

const LAYOUT: Layout<'_> = Layout {
    headings: &[("Name", "VOLUME NAME")],
    table: "{{.Driver}}\t{{.Name}}",
    raw: "",
    kind: "*volume.volumeContext",
};

/// Lists the project's volumes.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let scope = context.scope()?;
    scope.check_services(&args.services)?;
    let engine = context.engine().await?;
    let filters = HashMap::from([("label", vec![format!("{}={}", labels::PROJECT, scope.name)])]);
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let mut volumes = engine
        .docker
        .list_volumes(Some(options))
        .await?
        .volumes
        .unwrap_or_default();
    if !args.services.is_empty() {
        let containers = containers::list(&engine, &scope.name, &args.services, OneOff::Include, true).await?;
        let used: HashSet<&str> = containers
            .iter()
            .flat_map(|container| container.mounts.iter().flatten())
            .filter_map(|mount| mount.name.as_deref())
            .collect();
        volumes.retain(|volume| used.contains(volume.name.as_str()));
    }
    volumes.sort_by(|left, right| left.name.cmp(&right.name));
    if args.quiet {
        stream::out(
            volumes
                .iter()
                .map(|volume| format!("{}\n", volume.name))
                .collect::<String>(),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Value> = volumes.iter().map(fields).collect();
    let methods = |row: &Value, name: &str, arguments: &[Value]| match (name, arguments) {
        ("Label", [Value::String(label)]) => {
            let volume = volumes
                .iter()
                .find(|volume| Some(volume.name.as_str()) == row["Name"].as_str())?;
            Some(json!(volume.labels.get(label).map(String::as_str).unwrap_or_default()))
        }
        _ => None,
    };
    stream::out(list::render(&LAYOUT, &args.format, &rows, &methods)?)?;
    Ok(ExitCode::SUCCESS)
}

fn fields(volume: &Volume) -> Value {
    let mut pairs: Vec<String> = volume
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.sort();
    json!({
        "Availability": "N/A",
        "Driver": volume.driver,
        "Group": "N/A",
        "Labels": pairs.join(","),
        "Links": "N/A",
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": volume.scope.map(|scope| scope.to_string()).unwrap_or_default(),
        "Size": "N/A",
        "Status": "N/A",
    })
}
