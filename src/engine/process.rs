//! The engine as a process: one per state directory, detached from whoever started it, gone when idle.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::Engine;
use super::paths::Paths;
use crate::os::process::{SingleThreaded, take_descriptor};
use crate::os::{memory, program};
use crate::{rootless, server};

/// How long a new engine waits for its predecessor to let go of the state directory.
const ELECTION: Duration = Duration::from_secs(10);

/// How long nobody asks for anything before memory is given back.
const BREATH: Duration = Duration::from_secs(1);

/// Runs the engine process until nothing needs it any more.
pub fn main() -> ExitCode {
    program::share();
    let paths = Paths::discover(
        program::argument(std::env::args_os(), "--state-dir")
            .map(PathBuf::from)
            .as_deref(),
    );
    let outcome = if rootless::is_machine_wide() {
        run(&paths)
    } else {
        run_rootless(&paths)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            // The log is the only place left: whoever started this process waits for the socket.
            error!(%cause, "the engine could not start");
            ExitCode::FAILURE
        }
    }
}

/// Runs the engine if this process is in the user's namespaces, and otherwise sees to it that one is run there.
fn run_rootless(paths: &Paths) -> io::Result<()> {
    if let Some(number) = program::argument(std::env::args_os(), "--network") {
        let single = SingleThreaded::check()?.ok_or_else(|| io::Error::other("too many threads"))?;
        let number = number.to_str().and_then(|number| number.parse().ok());
        rootless::set_network(take_descriptor(&single, number.unwrap_or(-1))?);
        return run(paths);
    }
    create_directory(paths.state_dir(), 0o700)?;
    redirect_stdio(&paths.log())?;
    start_log();
    let arguments = if paths.is_default() {
        Vec::new()
    } else {
        vec!["--state-dir".into(), paths.state_dir().into()]
    };
    rootless::start(paths.state_dir(), paths.run_dir(), arguments)
}

fn run(paths: &Paths) -> io::Result<()> {
    // A session of its own, so that the terminal's signals do not reach it; refused only if it has one already.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Containers may map other users, who must be able to reach their layers below this directory.
    let mode = if rootless::is_machine_wide() { 0o711 } else { 0o700 };
    create_directory(paths.state_dir(), mode)?;
    create_directory(paths.run_dir(), mode)?;
    redirect_stdio(&paths.log())?;
    start_log();
    std::env::set_current_dir("/")?;
    memory::keep_small();

    let Some(_lock) = elect(paths)? else {
        return Ok(());
    };
    // Who finds the socket finds this beside it.
    super::running::Running::this().write(paths)?;
    let listener = listen(&paths.socket())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_millis(500))
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()?;
    info!(instance = paths.instance(), pid = std::process::id(), "engine starts");
    let outcome = runtime.block_on(serve(paths.clone(), listener));
    // Clients must not find a socket behind which nobody is; the lock goes with the process, after this.
    let _ = std::fs::remove_file(paths.socket());
    runtime.shutdown_timeout(Duration::from_millis(200));
    info!("engine ends");
    outcome
}

async fn serve(paths: Paths, listener: UnixListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let socket = listener.try_clone()?.into();
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let engine = Engine::open(paths, socket)
        .await
        .map_err(|cause| io::Error::other(cause.chain()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Whoever started the engine may be gone together with its terminal.
    let _hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        () = server::serve(Arc::clone(&engine), listener) => {}
        () = idle(&engine) => info!("nothing to do any more"),
        () = rest(&engine) => {}
        () = leaving(&engine) => info!("another build takes over"),
        _ = terminate.recv() => info!("asked to end"),
        _ = interrupt.recv() => info!("interrupted"),
    }
    engine.close().await;
    Ok(())
}

/// Ends when a client has asked for it and nobody uses the engine; who comes meanwhile keeps it.
async fn leaving(engine: &Engine) {
    loop {
        engine.leaving.notified().await;
        let gone = async {
            while engine.activity.users() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(BREATH, gone).await.is_ok() {
            return;
        }
    }
}

/// Gives back, whenever nobody has asked for anything for a moment, the memory that answering took. Never ends.
async fn rest(engine: &Engine) {
    let mut last = None;
    loop {
        let since = engine.activity.idle_since();
        if since.is_some() && since == last {
            memory::trim();
            memory::release_code();
            engine.activity.changed().await;
        }
        last = since;
        tokio::time::sleep(BREATH).await;
    }
}

/// Ends when, for a while, no container ran or was about to and no request came.
async fn idle(engine: &Engine) {
    let limit = std::env::var("COMPOSE_ENGINE_IDLE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60);
    let limit = Duration::from_secs(limit);
    loop {
        let since = engine.activity.idle_since();
        let busy = engine.has_live_containers();
        let elapsed = since.map_or(Duration::ZERO, |since| since.elapsed());
        if !busy && elapsed >= limit {
            return;
        }
        let rest = limit.saturating_sub(elapsed).max(Duration::from_millis(20));
        if busy || since.is_none() {
            tokio::select! {
                () = engine.activity.changed() => {}
                () = tokio::time::sleep(limit.max(Duration::from_millis(500))) => {}
            }
        } else {
            tokio::time::sleep(rest).await;
        }
    }
}

fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Takes the lock that makes this process the engine; `None` if another engine already answers.
fn elect(paths: &Paths) -> io::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(paths.lock())?;
    let deadline = Instant::now() + ELECTION;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // For people and tests that want to end this engine by its process id.
                file.set_len(0)?;
                (&file).write_all(format!("{}\n", std::process::id()).as_bytes())?;
                return Ok(Some(file));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(cause) => return Err(cause.into()),
        }
        // The holder serves already, or is about to, or is on its way out: only the last lets us in.
        if std::os::unix::net::UnixStream::connect(paths.socket()).is_ok() {
            return Ok(None);
        }
        if Instant::now() > deadline {
            warn!("another engine holds the state directory and does not answer");
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    // With the lock held, a socket file that is already there belongs to an engine that died.
    match std::fs::remove_file(socket) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(socket);
    rustix::process::umask(mask);
    let listener = listener?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn redirect_stdio(log: &Path) -> io::Result<()> {
    let null = File::options().read(true).open("/dev/null")?;
    let log = File::options().create(true).append(true).mode(0o600).open(log)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}

fn start_log() {
    let level = std::env::var("COMPOSE_ENGINE_LOG")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(tracing::Level::INFO);
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_writer(io::stderr)
        .try_init();
}
