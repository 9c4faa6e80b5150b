//! `compose attach`: attach local standard input, output, and error streams to a service's running container.

use std::process::ExitCode;

use std::io;

use bollard::query_parameters::WaitContainerOptionsBuilder;
use futures_util::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::containers::{self, OneOff, id};
use super::hijacked::{self, Connection, Ending};
use super::{CommandError, Context};
use crate::client::Engine;
use crate::percent;
use crate::ui::terminal::DetachKeys;

/// Attach local standard input, output, and error streams to a service's running container
#[derive(Debug, clap::Args)]
#[command(override_usage = "attach [OPTIONS] SERVICE")]
pub struct Args {
    #[arg(
        long,
        value_name = "string",
        help = "Override the key sequence for detaching from a container."
    )]
    pub detach_keys: Option<String>,
    #[arg(
        long,
        value_name = "int",
        default_value_t = 0,
        help = "index of the container if service has multiple replicas."
    )]
    pub index: i64,
    /// Do not attach STDIN
    #[arg(long)]
    pub no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, action = clap::ArgAction::Set, value_name = "bool", default_value_t = true)]
    pub sig_proxy: bool,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// docker compose takes more words and does not look at them.
    #[arg(value_name = "IGNORED", hide = true)]
    pub ignored: Vec<String>,
}

/// Attaches to a service's container.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let detach_keys = match args.detach_keys.as_deref() {
        None | Some("") => DetachKeys::default(),
        Some(keys) => DetachKeys::parse(keys)
            .map_err(|error| CommandError::message(format!("invalid detach keys ({keys}): {error}")))?,
    };
    let project = context.project_name()?;
    let engine = context.engine().await?;
    let container = containers::one(&engine, &project, &args.service, args.index, OneOff::Include, false).await?;
    let id = id(&container);
    let inspected = engine.docker.inspect_container(id, None).await?;
    let state = inspected.state.unwrap_or_default();
    for (is_so, what) in [
        (state.paused, "cannot attach to a paused container, unpause it first"),
        (
            state.restarting,
            "cannot attach to a restarting container, wait until it is running",
        ),
    ] {
        if is_so == Some(true) {
            return Err(CommandError::message(what));
        }
    }
    if context.globals.dry_run {
        return Err(CommandError::message(
            "interactive run is not supported in dry-run mode",
        ));
    }
    let config = inspected.config.unwrap_or_default();
    let tty = config.tty == Some(true);
    let stdin = !args.no_stdin && config.open_stdin == Some(true);
    let keys = percent::encoded(args.detach_keys.as_deref().unwrap_or_default());
    let path = format!(
        "/containers/{id}/attach?stream=1&stdin={}&stdout=1&stderr=1&detachKeys={keys}",
        u8::from(stdin)
    );
    let streams = engine.hijack(&path, None).await?;
    let connection = Connection {
        tty,
        stdin,
        detach_keys: (stdin && tty).then_some(detach_keys),
    };
    let resize = async |rows: u16, columns: u16| {
        let path = format!("/containers/{id}/resize?h={rows}&w={columns}");
        // The container may have ended already; its size no longer matters.
        let _ = engine.request(http::Method::POST, &path, None).await;
    };
    // A terminal in raw mode sends signals as keys, which go to the process anyway.
    let proxied = args.sig_proxy && !tty;
    let ending = tokio::select! {
        ending = hijacked::run(streams, connection, resize) => ending?,
        error = forward_signals(&engine, id), if proxied => return Err(error.into()),
    };
    match ending {
        Ending::Detached => return Ok(ExitCode::SUCCESS),
        Ending::Signalled(signal) if !proxied => return Err(CommandError::status(128 + i64::from(signal))),
        Ending::Signalled(_) | Ending::Closed => {}
    }
    match exit_code(&engine, id).await? {
        0 => Ok(ExitCode::SUCCESS),
        code => Err(CommandError::status(code)),
    }
}

/// Waits for the container to end and returns its exit code.
async fn exit_code(engine: &Engine, id: &str) -> Result<i64, CommandError> {
    let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
    match engine.docker.wait_container(id, Some(options)).next().await {
        Some(Ok(answer)) => Ok(answer.status_code),
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
        Some(Err(error)) => Err(error.into()),
        None => Ok(0),
    }
}

/// The signals that a program can be sent and that mean something to the process in the container.
const FORWARDED: [(SignalKind, &str); 7] = [
    (SignalKind::interrupt(), "INT"),
    (SignalKind::terminate(), "TERM"),
    (SignalKind::hangup(), "HUP"),
    (SignalKind::quit(), "QUIT"),
    (SignalKind::user_defined1(), "USR1"),
    (SignalKind::user_defined2(), "USR2"),
    (SignalKind::alarm(), "ALRM"),
];

/// Sends the container every signal that this program gets. Ends only if signals cannot be had.
pub async fn forward_signals(engine: &Engine, id: &str) -> io::Error {
    let mut signals: Vec<(Signal, &str)> = Vec::new();
    for (kind, name) in FORWARDED {
        match signal(kind) {
            Ok(signal) => signals.push((signal, name)),
            Err(error) => return error,
        }
    }
    loop {
        let name = std::future::poll_fn(|task| {
            for (signal, name) in &mut signals {
                if signal.poll_recv(task).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await;
        let path = format!("/containers/{id}/kill?signal={name}");
        // A container that has just ended gets no more signals.
        let _ = engine.request(http::Method::POST, &path, None).await;
    }
}
