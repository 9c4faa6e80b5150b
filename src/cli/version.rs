//! `compose version`: show the Compose version information.

use std::process::ExitCode;

use super::{CommandError, Context};
use crate::client::labels;
use crate::ui::stream;

/// Show the Compose version information
#[derive(Debug, clap::Args)]
#[command(override_usage = "version [OPTIONS]")]
pub struct Args {
    /// Format the output. Values: [pretty | json]. (Default: pretty)
    #[arg(short = 'f', long, value_name = "string")]
    pub format: Option<String>,
    /// Shows only Compose's version number
    #[arg(long)]
    pub short: bool,
}

/// Prints the version.
pub async fn run(args: Args, _context: &Context) -> Result<ExitCode, CommandError> {
    let version = labels::COMPATIBLE_VERSION;
    stream::out(match args.format.as_deref() {
        _ if args.short => format!("{version}\n"),
        Some("json") => format!("{{\"version\":\"{version}\"}}\n"),
        _ => format!("Docker Compose version {version}\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns what this program is, and whose place it takes.
pub fn own() -> String {
    format!(
        "compose version {}, compatible with docker compose {}\n",
        env!("CARGO_PKG_VERSION"),
        labels::COMPATIBLE_VERSION
    )
}
