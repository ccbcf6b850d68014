//! A request's body as JSON: bounded in size and in time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::ApiError;

/// The body. Anything that `T` does not know should be an error: derive it with `deny_unknown_fields`.
pub(super) async fn read<T: DeserializeOwned>(mut request: Request) -> Result<T, ApiError> {
    DefaultBodyLimit::max(LIMIT).apply(&mut request);
    let body = timeout(DEADLINE, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))??;
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("the body is not what it should be: {error}")))
}

/// The longest body, in bytes.
const LIMIT: usize = 64 << 10;
/// The longest that a body may take to arrive.
const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_not_waited_for() {
        let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let refused = read::<()>(Request::new(Body::from_stream(never))).await.unwrap_err();
        let expected = ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
        assert_eq!(refused, expected);
    }
}
