//! `/compose/watches/{project}`: watching a project's files when nobody's terminal does.

use std::sync::Arc;

use super::request::Call;
use super::response::{self, Answer};
use crate::engine::watches::Record;

/// `GET /compose/watches/{project}`
pub fn standing(call: &Call, project: &str) -> Answer {
    Ok(response::json(&call.engine.watch_standing(project)?))
}

/// `PUT /compose/watches/{project}`
pub async fn keep(call: Call, project: &str) -> Answer {
    let engine = Arc::clone(&call.engine);
    let record: Record = call.json().await?;
    Ok(response::json(&engine.keep_watch(project, record).await?))
}

/// `DELETE /compose/watches/{project}`
pub async fn end(call: Call, project: &str) -> Answer {
    let was_kept = call.engine.end_watch(project).await?;
    Ok(response::json(&serde_json::json!({ "ended": was_kept })))
}
