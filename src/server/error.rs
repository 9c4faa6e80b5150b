//! Errors as the API says them: `{"message": …}` with Docker's status codes.

use axum::body::Body;
use http::{Response, StatusCode};

use crate::engine::EngineError;

/// A refusal and the status it travels under.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

impl ApiError {
    /// Returns the error of a request that makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
        }
    }

    /// Returns the error of a path that leads nowhere.
    pub fn page_not_found() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: "page not found".to_owned(),
        }
    }

    /// Returns the error of something this engine does not do.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_IMPLEMENTED,
            message: message.into(),
        }
    }

    /// Returns the answer that carries this error.
    pub fn into_response(self) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            return super::response::status(StatusCode::NOT_MODIFIED);
        }
        super::response::json_with(self.status, &serde_json::json!({ "message": self.message }))
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let status = match &error {
            EngineError::NotFound(_) | EngineError::DamagedImage(_) => StatusCode::NOT_FOUND,
            EngineError::InvalidParameter(_) => StatusCode::BAD_REQUEST,
            EngineError::Conflict(_) => StatusCode::CONFLICT,
            EngineError::Forbidden(_) => StatusCode::FORBIDDEN,
            EngineError::NotModified => StatusCode::NOT_MODIFIED,
            EngineError::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            // Docker: a command that is not in the image is the request's fault.
            EngineError::Start(_) => StatusCode::BAD_REQUEST,
            EngineError::Runtime { .. }
            | EngineError::Network(_)
            | EngineError::Image(_)
            | EngineError::File { .. }
            | EngineError::Record { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self {
            status,
            message: error.chain(),
        }
    }
}
