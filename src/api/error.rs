//! Errors as the contract has them: `{"error_message": "…", "status_code": n}`, for everything.

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ReplayError;
use crate::identity::tokens::TokenError;
use crate::store::StoreError;

/// An answer that is not what was asked for. The words may be shown to anybody who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    words: String,
}

impl ApiError {
    /// An error with this status and these words.
    pub fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into() }
    }

    /// 400.
    pub fn bad_request(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, words)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "a valid token is needed, as `x-access-token: …` or `Authorization: Bearer …`",
        )
    }

    /// 404.
    pub fn not_found(words: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, words)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(ErrorBody { error_message: self.words, status_code: self.status.as_u16() });
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Every error's body.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorBody {
    /// What is wrong and what to do, for people.
    error_message: String,
    /// The status once more.
    status_code: u16,
}

impl From<StoreError> for ApiError {
    /// Here the API is done with the error, so here it is logged.
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::UnknownSession | StoreError::UnknownRecording => StatusCode::NOT_FOUND,
            StoreError::Full | StoreError::Busy | StoreError::Slow | StoreError::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(error = &error as &dyn std::error::Error, "the book failed an API call");
        }
        Self::new(status, error.to_string())
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            TokenError::Over => Self::unauthorized(),
            TokenError::Outgrows => Self::new(StatusCode::FORBIDDEN, error.to_string()),
            other => Self::new(StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
        }
    }
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "an export failed");
        let status = match error {
            ReplayError::Missing => StatusCode::NOT_FOUND,
            // An operator can give it the key.
            ReplayError::Key(_) => StatusCode::SERVICE_UNAVAILABLE,
            ReplayError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            _ => Self::bad_request("the body could not be read"),
        }
    }
}

/// For a path that nothing stands at.
pub(super) async fn not_found() -> ApiError {
    ApiError::not_found("there is nothing here")
}

/// For a method that a path does not have. `Allow` names those it has.
pub(super) async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
}
