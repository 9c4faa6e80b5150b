//! `/build`.

use super::error::ApiError;
use super::request::Call;
use super::response::Answer;

/// `POST /build`
pub async fn from_tar(call: Call) -> Answer {
    let _ = call;
    Err(ApiError::not_implemented("building"))
}

/// `POST /compose/build`
pub async fn from_directory(call: Call) -> Answer {
    let _ = call;
    Err(ApiError::not_implemented("building"))
}

/// `POST /build/prune`
pub async fn prune(call: Call) -> Answer {
    let _ = call;
    Err(ApiError::not_implemented("building"))
}
