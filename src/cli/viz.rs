//! `compose viz`: draw a graphviz graph from your compose file.

use std::process::ExitCode;

use super::{CommandError, Context};
use crate::model::{Port, Service};
use crate::ui::stream;

/// Generate a graphviz graph from your compose file
#[derive(Debug, clap::Args)]
#[command(override_usage = "alpha viz [OPTIONS]")]
pub struct Args {
    /// Include service's image name in output graph
    #[arg(long)]
    pub image: bool,
    /// Number of tabs or spaces to use for indentation
    #[arg(long, value_name = "int", default_value_t = 1)]
    pub indentation_size: i64,
    /// Include service's attached networks in output graph
    #[arg(long)]
    pub networks: bool,
    /// Include service's exposed ports in output graph
    #[arg(long)]
    pub ports: bool,
    /// If given, space character ' ' will be used to indent, otherwise tab character '\t' will be used
    #[arg(long)]
    pub spaces: bool,
}

/// Draws the project's services and what they depend on, for graphviz.
// docker/compose pkg/compose/viz.go
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    stream::err("viz command is EXPERIMENTAL");
    let project = context.load_project(&[])?.project;
    let step = match args.spaces {
        true => " ".repeat(usize::try_from(args.indentation_size).unwrap_or(0).min(80)),
        false => "\t".repeat(usize::try_from(args.indentation_size).unwrap_or(0).min(80)),
    };
    let mut graph = format!("digraph {} {{\n{step}layout=dot;\n", stream::quoted(&project.name));
    for service in project.services.values() {
        graph.push_str(&format!(
            "{step}{} [style=\"filled\" label=<{}>];\n",
            stream::quoted(&service.name),
            label(&args, service)
        ));
    }
    graph.push('\n');
    for service in project.services.values() {
        for dependency in service.depends_on.keys() {
            graph.push_str(&format!(
                "{step}{} -> {};\n",
                stream::quoted(&service.name),
                stream::quoted(dependency)
            ));
        }
    }
    graph.push_str("}\n\n");
    stream::out(graph)?;
    Ok(ExitCode::SUCCESS)
}

fn label(args: &Args, service: &Service) -> String {
    let mut label = format!("<font point-size=\"15\">{}</font>", escaped(&service.name));
    let mut add = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            label.push_str(&format!(
                "<font point-size=\"10\"><br/><br/><b>{title}:</b><br/>{}</font>",
                lines.join("<br/>")
            ));
        }
    };
    if args.networks {
        add("Networks", service.networks.keys().map(|name| escaped(name)).collect());
    }
    if args.ports {
        let port = |port: &Port| {
            let host = match port.host_ip.as_str() {
                "" => String::new(),
                host => format!("{host}:"),
            };
            format!(
                "{}{}:{} ({}, {})",
                escaped(&host),
                escaped(&port.published),
                port.target,
                escaped(&port.protocol),
                escaped(&port.mode)
            )
        };
        add("Ports", service.ports.iter().map(port).collect());
    }
    if args.image {
        add("Image", vec![escaped(&service.image)]);
    }
    label
}

/// Writes a text so that graphviz does not read it as markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
