//! `/networks`.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::Call;
use super::response::{self, Answer};
use crate::engine::config::{Endpoint, without_nulls};
use crate::engine::filters::Filters;
use crate::engine::networks::CreateNetwork;

/// `GET /networks`
pub fn list(call: &Call) -> Answer {
    let filters = Filters::parse(call.query.get("filters"))?;
    Ok(response::json(&call.engine.list_networks(&filters)?))
}

/// `GET /networks/{id}`
pub fn inspect(call: &Call, wanted: &str) -> Answer {
    let network = call.engine.networks.find(wanted)?;
    Ok(response::json(&call.engine.network_json(&network, true)))
}

fn parse<T: serde::de::DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_json::from_value(without_nulls(body)).map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))
}

/// `POST /networks/create`
pub async fn create(call: Call) -> Answer {
    let engine = Arc::clone(&call.engine);
    let body: CreateNetwork = parse(call.json().await?)?;
    let network = engine.create_network(body).await?;
    Ok(response::json_with(
        StatusCode::CREATED,
        &json!({ "Id": network.spec.id, "Warning": "" }),
    ))
}

/// `DELETE /networks/{id}`
pub async fn remove(call: Call, wanted: &str) -> Answer {
    call.engine.remove_network(wanted).await?;
    Ok(response::done())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ConnectBody {
    container: String,
    endpoint_config: Endpoint,
    force: bool,
}

/// `POST /networks/{id}/connect`
pub async fn connect(call: Call, wanted: &str) -> Answer {
    let engine = Arc::clone(&call.engine);
    let body: ConnectBody = parse(call.json().await?)?;
    engine.networks.find(wanted)?;
    let container = engine.containers.find(&body.container)?;
    engine.connect_network(wanted, &container, body.endpoint_config).await?;
    Ok(response::status(StatusCode::OK))
}

/// `POST /networks/{id}/disconnect`
pub async fn disconnect(call: Call, wanted: &str) -> Answer {
    let engine = Arc::clone(&call.engine);
    let body: ConnectBody = parse(call.json().await?)?;
    engine.networks.find(wanted)?;
    let container = engine.containers.find(&body.container)?;
    engine.disconnect_network(wanted, &container, body.force).await?;
    Ok(response::status(StatusCode::OK))
}

/// `POST /networks/prune`
pub async fn prune(call: Call) -> Answer {
    let filters = Filters::parse(call.query.get("filters"))?;
    let removed = call.engine.prune_networks(&filters).await?;
    Ok(response::json(&json!({
        "NetworksDeleted": if removed.is_empty() { Value::Null } else { json!(removed) },
    })))
}
