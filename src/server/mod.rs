//! The Docker Engine API over the embedded engine.
//!
//! One file per kind of resource; `router` says which request goes where. Handlers turn a request into one call
//! of the engine and the answer into Docker's JSON; they decide nothing. The reference is Docker's own:
//! <https://docs.docker.com/reference/api/engine/>.

mod archive;
mod build;
mod containers;
pub mod error;
mod events;
mod exec;
mod hijack;
mod images;
mod networks;
pub mod request;
pub mod response;
mod router;
mod sync;
mod system;
pub mod version;
mod volumes;
mod watches;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::engine::Engine;

/// Answers requests until the task is dropped; what is then under way is cut off.
pub async fn serve(engine: Arc<Engine>, listener: UnixListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let user = engine.activity.begin();
                    let engine = Arc::clone(&engine);
                    connections.spawn(async move {
                        let _user = user;
                        connection(engine, stream).await;
                    });
                }
                Err(cause) => {
                    warn!(%cause, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(engine: Arc<Engine>, stream: tokio::net::UnixStream) {
    let service = service_fn(move |request| {
        let engine = Arc::clone(&engine);
        async move { Ok::<_, Infallible>(router::answer(engine, request).await) }
    });
    let served = http1::Builder::new()
        // Half-closed connections are how `docker exec -i` says that its input ended.
        .half_close(true)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(cause) = served {
        debug!(%cause, "a connection ended early");
    }
}
