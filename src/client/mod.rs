//! The one Engine API client: finds or starts the engine, and speaks to it through bollard.
//!
//! [`connect`] answers one question: where is the engine of this command, and does it listen? It knows nothing of
//! projects; what is said to the engine is decided by `plan` and by the commands.

mod choice;
mod error;
pub mod events;
pub mod filesync;
mod grpc;
pub mod labels;
mod launch;
mod listing;
pub mod protobuf;
pub mod session;
pub mod solve;
pub mod stream;
mod transport;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;

use crate::engine::running::Running;

pub use choice::{Address, EngineChoice, InvalidEngine};
pub use error::ClientError;

/// Requests may take as long as a container takes to stop; nothing here is cut short by a clock of the client's.
const REQUEST_TIMEOUT_SECONDS: u64 = 365 * 24 * 3600;

/// How soon Podman is asked again where it failed inside, and what the last of the doubling pauses is at most.
const SETTLES_FIRST: Duration = Duration::from_millis(50);
const SETTLES_LAST: Duration = Duration::from_secs(1);

/// What kind of engine answers: only the embedded one knows our extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// This same binary, started on demand.
    Embedded,
    /// Docker, Podman, or whatever listens at the address given.
    Foreign,
}

/// A connection to an engine. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Engine {
    /// The Engine API.
    pub docker: Docker,
    kind: EngineKind,
    transport: Arc<transport::Transport>,
    other_build: Option<Running>,
}

impl Engine {
    /// Returns what kind of engine this is.
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Returns the embedded engine if it is of another build than this program.
    pub fn other_build(&self) -> Option<&Running> {
        self.other_build.as_ref()
    }

    /// Returns where the engine listens.
    pub fn address(&self) -> &Address {
        self.transport.address()
    }

    /// Returns whether the engine's API is at least `1.minor`. Every response says which version answered, so this
    /// costs nothing; before the first response the newest is assumed.
    pub fn api_at_least(&self, minor: u32) -> bool {
        self.transport.api_minor().is_none_or(|version| version >= minor)
    }

    /// Returns whether the engine is Podman, as every response of it says. Its interface is Docker's but for some of
    /// what it does.
    pub fn is_podman(&self) -> bool {
        self.transport.is_podman()
    }

    /// Asks, and asks Podman again where it fails inside: it does so while a container's process or mounts come and
    /// go, and says 500. Only for what may be asked twice.
    pub async fn settled<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut pause = SETTLES_FIRST;
        loop {
            match ask().await {
                Err(error) if self.is_podman() && error.status() == Some(500) && pause <= SETTLES_LAST => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                answer => return answer,
            }
        }
    }

    /// Sends a request that bollard has no call for and returns the response, whose body is still to be read.
    pub async fn request(
        &self,
        method: http::Method,
        path_and_query: &str,
        body: Option<serde_json::Value>,
    ) -> Result<http::Response<hyper::body::Incoming>, ClientError> {
        self.transport.json_request(method, path_and_query, body, &[]).await
    }

    /// Posts a JSON document with headers of its own.
    pub async fn post_json(
        &self,
        path_and_query: &str,
        headers: &[(&str, &str)],
        body: serde_json::Value,
    ) -> Result<http::Response<hyper::body::Incoming>, ClientError> {
        self.transport
            .json_request(http::Method::POST, path_and_query, Some(body), headers)
            .await
    }

    /// Sends a request that bollard has no call for and reads the JSON answer.
    pub async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: http::Method,
        path_and_query: &str,
        body: Option<serde_json::Value>,
    ) -> Result<T, ClientError> {
        json(self.request(method, path_and_query, body).await?).await
    }

    /// Sends an empty POST request with headers of its own.
    pub async fn post_with_headers(
        &self,
        path_and_query: &str,
        headers: &[(&str, &str)],
    ) -> Result<http::Response<hyper::body::Incoming>, ClientError> {
        self.transport
            .json_request(http::Method::POST, path_and_query, None, headers)
            .await
    }
}

/// Reads an answer's body, which is JSON.
pub async fn json<T: serde::de::DeserializeOwned>(
    answer: http::Response<hyper::body::Incoming>,
) -> Result<T, ClientError> {
    use http_body_util::BodyExt;

    let body = answer.into_body().collect().await.map_err(ClientError::Connection)?;
    serde_json::from_slice(&body.to_bytes()).map_err(ClientError::Answer)
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("kind", &self.kind)
            .field("address", self.address())
            .finish()
    }
}

/// Connects to the chosen engine, starting the embedded one if it does not run.
///
/// `state_dir` is the state directory of the embedded engine (`None`: the default one); other engines ignore it.
pub async fn connect(choice: &EngineChoice, state_dir: Option<&Path>) -> Result<Engine, ClientError> {
    let mut other_build = None;
    let (kind, address, connection, embedded) = match choice {
        EngineChoice::Embedded => {
            let embedded = launch::Embedded::new(state_dir);
            let (address, connection, other) = embedded.connect_to_this_build().await?;
            other_build = other;
            (EngineKind::Embedded, address, connection, Some(embedded))
        }
        _ => {
            let address = choice.address();
            let connection = transport::open(&address)
                .await
                .map_err(|cause| ClientError::connecting(&address, cause))?;
            (EngineKind::Foreign, address, connection, None)
        }
    };
    let transport = Arc::new(transport::Transport::new(address, connection, embedded));
    let shared = Arc::clone(&transport);
    let docker = Docker::connect_with_custom_transport(
        move |request| {
            let transport = Arc::clone(&shared);
            async move { transport.send(request).await }
        },
        Some("http://engine"),
        REQUEST_TIMEOUT_SECONDS,
        bollard::API_DEFAULT_VERSION,
    )?;
    Ok(Engine {
        docker,
        kind,
        transport,
        other_build,
    })
}
