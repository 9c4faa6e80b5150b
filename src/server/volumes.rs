//! `/volumes`.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::Call;
use super::response::{self, Answer};
use crate::engine::config::{StringMap, without_nulls};
use crate::engine::filters::Filters;

/// `GET /volumes`
pub fn list(call: &Call) -> Answer {
    let filters = Filters::parse(call.query.get("filters"))?;
    filters.only(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.truth("dangling")?;
    let engine = &call.engine;
    let volumes: Vec<Value> = engine
        .volumes
        .list()
        .iter()
        .filter(|volume| {
            filters.labels_match(&volume.labels.clone().unwrap_or_default())
                && filters.allows("driver", "local")
                && (!filters.has("name") || filters.any("name", |wanted| volume.name.contains(wanted)))
                && dangling.is_none_or(|dangling| engine.users_of_volume(&volume.name).is_empty() == dangling)
        })
        .map(|volume| engine.volumes.to_json(volume))
        .collect();
    Ok(response::json(&json!({ "Volumes": volumes, "Warnings": null })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateBody {
    name: String,
    driver: String,
    driver_opts: Option<StringMap>,
    labels: Option<StringMap>,
}

/// `POST /volumes/create`
pub async fn create(call: Call) -> Answer {
    let engine = Arc::clone(&call.engine);
    let body = without_nulls(call.json_or_default::<Value>().await?);
    let body: CreateBody = match body {
        Value::Null => CreateBody::default(),
        body => {
            serde_json::from_value(body).map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))?
        }
    };
    let volume = engine.create_volume(&body.name, &body.driver, body.labels, body.driver_opts)?;
    Ok(response::json_with(
        StatusCode::CREATED,
        &engine.volumes.to_json(&volume),
    ))
}

/// `GET /volumes/{name}`
pub fn inspect(call: &Call, name: &str) -> Answer {
    let volume = call.engine.volumes.find(name)?;
    Ok(response::json(&call.engine.volumes.to_json(&volume)))
}

/// `DELETE /volumes/{name}`
pub fn remove(call: &Call, name: &str) -> Answer {
    call.engine.remove_volume(name, call.query.flag("force"))?;
    Ok(response::done())
}

/// `POST /volumes/prune`
pub fn prune(call: &Call) -> Answer {
    let filters = Filters::parse(call.query.get("filters"))?;
    let (deleted, space) = call.engine.prune_volumes(&filters)?;
    Ok(response::json(&json!({
        "VolumesDeleted": if deleted.is_empty() { Value::Null } else { json!(deleted) },
        "SpaceReclaimed": space,
    })))
}
