//! `compose top`: display the running processes.

use std::process::ExitCode;

use futures_util::future::try_join_all;

use super::containers::{self, OneOff, id, label};
use super::{CommandError, Context};
use crate::client::labels;
use crate::ui::{stream, table};

/// Display the running processes
#[derive(Debug, clap::Args)]
#[command(override_usage = "top [SERVICES...]")]
pub struct Args {
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Lists the processes of the project's containers.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let project = context.project_name()?;
    let engine = context.engine().await?;
    let containers = containers::list(&engine, &project, &args.services, OneOff::Include, false).await?;
    let processes = try_join_all(
        containers
            .iter()
            .map(|container| engine.docker.top_processes(id(container), None)),
    )
    .await?;
    // Engines may answer with different columns for different containers.
    let mut headings = vec!["SERVICE".to_owned(), "#".to_owned()];
    for title in processes.iter().flat_map(|answer| answer.titles.iter().flatten()) {
        if !headings.contains(title) {
            headings.push(title.clone());
        }
    }
    if let Some(at) = headings.iter().position(|title| title == "CMD") {
        // The longest column stands where it cannot push others away.
        let command = headings.remove(at);
        headings.push(command);
    }
    let mut rows = Vec::new();
    for (container, answer) in containers.iter().zip(&processes) {
        let titles = answer.titles.as_deref().unwrap_or_default();
        let number = label(container, labels::CONTAINER_NUMBER);
        for process in answer.processes.iter().flatten() {
            let cell = |heading: &String| match heading.as_str() {
                "SERVICE" => label(container, labels::SERVICE).to_owned(),
                "#" => number.to_owned(),
                heading => titles
                    .iter()
                    .position(|title| title == heading)
                    .and_then(|at| process.get(at))
                    .cloned()
                    .unwrap_or_else(|| "-".to_owned()),
            };
            rows.push(headings.iter().map(cell).collect::<Vec<String>>());
        }
    }
    if !rows.is_empty() {
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        stream::out(table::table(&headings, &rows, 4, 2))?;
    }
    Ok(ExitCode::SUCCESS)
}
