//! `compose viz`: draw a graphviz graph from your compose file.

use std::process::ExitCode;

use super::{CommandError, Context};

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

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("alpha viz"))
}
