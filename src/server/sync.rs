//! `/compose/containers/{id}/sync`: files of this machine straight into a container, without an archive between.

use super::request::Call;
use super::response::{self, Answer};
use crate::engine::sync::Request;

/// `POST /compose/containers/{id}/sync`
pub async fn sync(call: Call, name: &str) -> Answer {
    let engine = std::sync::Arc::clone(&call.engine);
    let container = engine.containers.find(name)?;
    let request: Request = call.json().await?;
    Ok(response::json(&engine.sync(&container, request).await?))
}
