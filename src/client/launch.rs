//! Starting the embedded engine: only if nothing listens, and never two of them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::transport::{self, Connection};
use super::{Address, ClientError};
use crate::engine::paths::Paths;
use crate::engine::running::Running;
use crate::os::program;

/// How long a new engine may take until it listens; it adopts running containers first.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long to wait between two looks at the socket. A look costs some microseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// How long an engine that was asked to leave may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// The embedded engine of one state directory, whether it runs or not.
pub(super) struct Embedded {
    paths: Paths,
}

impl Embedded {
    /// Names the engine of `state_dir`, or of the default one.
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        Self {
            paths: Paths::discover(state_dir),
        }
    }

    /// Connects as [`Self::connect_or_start`] does, and looks at which build the engine is.
    ///
    /// One whose program was replaced by this one since, as by an update, is replaced, too, if nobody else uses it:
    /// containers run on, and the new engine takes them up. Any other engine of another build goes on, and is returned.
    pub(super) async fn connect_to_this_build(&self) -> Result<(Address, Connection, Option<Running>), ClientError> {
        let (address, connection) = self.connect_or_start().await?;
        let other = Running::read(&self.paths).filter(|running| running.build != program::build());
        let Some(other) = other else {
            return Ok((address, connection, None));
        };
        let is_updated = std::env::current_exe().is_ok_and(|ours| ours == other.program);
        if !is_updated || !leaves(connection).await {
            let (address, connection) = self.connect_or_start().await?;
            return Ok((address, connection, Some(other)));
        }
        let deadline = Instant::now() + LEAVE_LIMIT;
        while transport::open(&address).await.is_ok() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let (address, connection) = self.connect_or_start().await?;
        // Somebody may have come in time to keep it.
        let kept = Running::read(&self.paths).filter(|running| running.build != program::build());
        Ok((address, connection, kept))
    }

    /// Connects to the engine, starting it if nothing listens.
    pub(super) async fn connect_or_start(&self) -> Result<(Address, Connection), ClientError> {
        let address = Address::Unix(self.paths.socket());
        match transport::open(&address).await {
            Ok(connection) => return Ok((address, connection)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::connecting(&address, error));
            }
            // No socket, or one that a dead engine left.
            Err(_) => {}
        }
        let mut child = spawn(&self.paths).map_err(ClientError::Spawn)?;
        let connection = await_listening(&address, &mut child, &self.paths.log()).await?;
        Ok((address, connection))
    }
}

/// Asks an engine to leave to this build, and returns whether it does. It waits for the connection to close.
async fn leaves(mut connection: Connection) -> bool {
    let request = http::Request::post("/compose/leave").header(http::header::HOST, "engine");
    let Ok(request) = request.body(transport::Body::Left(http_body_util::Full::default())) else {
        return false;
    };
    let answer = connection.send_request(request).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// Runs the engine with its output in its log. It makes a session of its own, so that no key pressed here reaches it.
fn spawn(paths: &Paths) -> io::Result<Child> {
    fs_err::create_dir_all(paths.state_dir())?;
    let log: File = File::options().create(true).append(true).open(paths.log())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("__engine");
    if !paths.is_default() {
        command.arg("--state-dir").arg(paths.state_dir());
    }
    command
        .env_clear()
        .envs(program::engine_s_environment())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Waits until the socket accepts. The child may lose the election for the state directory and end well: then the
/// winner is about to listen.
async fn await_listening(address: &Address, child: &mut Child, log: &Path) -> Result<Connection, ClientError> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Ok(connection) = transport::open(address).await {
            return Ok(connection);
        }
        let failed = matches!(child.try_wait(), Ok(Some(status)) if !status.success());
        if failed || Instant::now() > deadline {
            return Err(ClientError::Silent {
                log: PathBuf::from(log),
                words: last_line(log),
            });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn last_line(log: &Path) -> String {
    std::fs::read_to_string(log)
        .ok()
        .and_then(|text| Some(text.trim_end().lines().next_back()?.trim().to_owned()))
        .unwrap_or_default()
}
