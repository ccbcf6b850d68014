//! Errors as RFC 6749 section 5.2 and RFC 8628 section 3.5 have them.

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{Fault, UserFacing};
use crate::identity::grants::DeviceRefused;
use crate::identity::sign_ins::SignInError;
use crate::identity::tokens::TokenError;

/// Why a program does not get what it asked for.
#[derive(Debug)]
pub(super) enum OauthError {
    /// A parameter is missing.
    Missing(&'static str),
    /// The form cannot be read.
    Form(FormRejection),
    /// Not the one client.
    InvalidClient {
        authenticated: bool,
    },
    /// The code is wrong, spent or over.
    InvalidGrant,
    /// The code comes from another place than it was sent to.
    OtherPlace,
    UnsupportedGrantType,
    AuthorizationPending,
    SlowDown,
    AccessDenied,
    ExpiredToken,
    Device(DeviceRefused),
    SignIn(SignInError),
    Token(TokenError),
}

impl From<FormRejection> for OauthError {
    fn from(rejection: FormRejection) -> Self {
        Self::Form(rejection)
    }
}

impl From<DeviceRefused> for OauthError {
    fn from(refused: DeviceRefused) -> Self {
        Self::Device(refused)
    }
}

impl From<SignInError> for OauthError {
    fn from(error: SignInError) -> Self {
        Self::SignIn(error)
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let (status, error, words) = self.told();
        match status.is_server_error() {
            true => tracing::error!(?self, "a sign-in at the command line failed"),
            false => tracing::debug!(error, words, "a sign-in at the command line was refused"),
        }
        let mut response = (status, Json(json!({ "error": error, "error_description": words }))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        }
        response
    }
}

impl OauthError {
    fn told(&self) -> (StatusCode, &'static str, String) {
        let bad = |error, words: &str| (StatusCode::BAD_REQUEST, error, words.to_owned());
        let failed = (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        match self {
            Self::Missing(name) => bad("invalid_request", &format!("{name} is missing")),
            Self::Form(rejection) => match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the form is too large".into())
                }
                _ => bad("invalid_request", "send a form, application/x-www-form-urlencoded, with each parameter once"),
            },
            Self::InvalidClient { authenticated: true } => {
                let words = "the client is public, send client_id alone";
                (StatusCode::UNAUTHORIZED, "invalid_client", words.into())
            }
            Self::InvalidClient { authenticated: false } => bad("invalid_client", "there is no such client"),
            Self::InvalidGrant => bad("invalid_grant", "the code is wrong, was used, or is over; sign in again"),
            Self::OtherPlace => bad(
                "invalid_grant",
                "the browser was at another address than this program: sign in with a browser on this machine, or use `gatescribe login --device`",
            ),
            Self::UnsupportedGrantType => bad("unsupported_grant_type", "there is no such grant type here"),
            Self::AuthorizationPending => bad("authorization_pending", "nobody has approved it yet"),
            Self::SlowDown => bad("slow_down", "wait five seconds longer between two questions"),
            Self::AccessDenied => bad("access_denied", "the sign-in was denied in the browser"),
            Self::ExpiredToken => bad("expired_token", "nobody approved it in time; sign in again"),
            Self::Device(refused @ DeviceRefused::TooMany) => {
                (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", refused.told())
            }
            Self::Device(refused) => match refused.fault() {
                Fault::Client => bad("unauthorized_client", &refused.told()),
                Fault::Upstream | Fault::Gateway => (failed.0, failed.1, refused.told()),
            },
            Self::SignIn(error) => match error.fault() {
                Fault::Client => bad("invalid_grant", &error.told()),
                Fault::Upstream | Fault::Gateway => (failed.0, failed.1, error.told()),
            },
            Self::Token(TokenError::Store(error)) => (failed.0, failed.1, error.told()),
            Self::Token(_) => (failed.0, failed.1, "the gateway cannot do this now, tell an administrator".into()),
        }
    }
}
