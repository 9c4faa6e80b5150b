//! `compose exec`: execute a command in a running container.

use std::process::ExitCode;

use serde_json::json;

use super::containers::{self, OneOff, id};
use super::hijacked::{self, Connection, Ending};
use super::{CommandError, Context};
use crate::ui::{stream, terminal};

/// Execute a command in a running container
#[derive(Debug, clap::Args)]
#[command(override_usage = "exec [OPTIONS] SERVICE COMMAND [ARGS...]")]
pub struct Args {
    /// Detached mode: Run command in the background
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "stringArray")]
    pub env: Vec<String>,
    /// Index of the container if service has multiple replicas
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub index: i64,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long, value_name = "bool", hide = true)]
    pub interactive: Option<bool>,
    #[arg(
        short = 'T',
        long,
        alias = "no-TTY",
        value_name = "bool",
        help = "Disable pseudo-TTY allocation. By default 'docker compose exec' allocates a TTY."
    )]
    pub no_tty: Option<bool>,
    /// Give extended privileges to the process
    #[arg(long)]
    pub privileged: bool,
    /// Allocate a pseudo-TTY
    // Accepted and without effect, as with docker compose: `--no-tty` alone decides.
    #[arg(short = 't', long, value_name = "bool", hide = true)]
    pub tty: Option<bool>,
    /// Run the command as this user
    #[arg(short = 'u', long, value_name = "string")]
    pub user: Option<String>,
    /// Path to workdir directory for this command
    #[arg(short = 'w', long, value_name = "string")]
    pub workdir: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// Runs a command in a service's container.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    // As with docker compose, `-t` says what is so anyway.
    let tty = args.no_tty.map_or_else(stream::out_is_terminal, |no_tty| !no_tty);
    let interactive = args.interactive.unwrap_or(true);
    if tty && interactive && !args.detach && !terminal::in_is_terminal() {
        return Err(CommandError::message("the input device is not a TTY"));
    }
    let project = context.project_name()?;
    let engine = context.engine().await?;
    let container = containers::one(&engine, &project, &args.service, args.index, OneOff::Include, false).await?;
    if context.globals.dry_run {
        return match args.detach {
            true => Ok(ExitCode::SUCCESS),
            false => Err(CommandError::message(
                "interactive exec is not supported in dry-run mode",
            )),
        };
    }
    let attach = !args.detach;
    let config = json!({
        "AttachStdin": attach && interactive,
        "AttachStdout": attach,
        "AttachStderr": attach,
        "Tty": tty,
        "Env": environment(&args.env, context),
        "Cmd": args.command,
        "Privileged": args.privileged,
        "User": args.user.unwrap_or_default(),
        "WorkingDir": args.workdir.unwrap_or_default(),
        "ConsoleSize": terminal::size().filter(|_| tty).map(|(rows, columns)| [rows, columns]),
    });
    let path = format!("/containers/{}/exec", id(&container));
    let answer: serde_json::Value = engine.ask(http::Method::POST, &path, Some(config)).await?;
    let exec = answer
        .get("Id")
        .and_then(|id| id.as_str())
        .unwrap_or_default()
        .to_owned();
    let start = format!("/exec/{exec}/start");
    if args.detach {
        let body = json!({"Detach": true, "Tty": tty});
        engine.request(http::Method::POST, &start, Some(body)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let streams = engine
        .hijack(&start, Some(json!({"Detach": false, "Tty": tty})))
        .await?;
    let connection = Connection {
        tty,
        stdin: interactive,
        detach_keys: None,
    };
    let resize = async |rows: u16, columns: u16| {
        let path = format!("/exec/{exec}/resize?h={rows}&w={columns}");
        // The process may have ended already; its size no longer matters.
        let _ = engine.request(http::Method::POST, &path, None).await;
    };
    if let Ending::Signalled(signal) = hijacked::run(streams, connection, resize).await? {
        return Err(CommandError::status(128 + i64::from(signal)));
    }
    let inspected = engine.docker.inspect_exec(&exec).await?;
    match inspected.exit_code.unwrap_or(0) {
        0 => Ok(ExitCode::SUCCESS),
        code => Err(CommandError::status(code)),
    }
}

/// Returns the variables to set: as given, or with the value that our own environment has.
fn environment(given: &[String], context: &Context) -> Vec<String> {
    given
        .iter()
        .map(|variable| match context.environment.get(variable) {
            Some(value) if !variable.contains('=') => format!("{variable}={value}"),
            _ => variable.clone(),
        })
        .collect()
}
