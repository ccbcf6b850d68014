//! `GET /metrics`, and the counting of requests.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::auth::require;
use super::parameters::Parameters;
use super::{ApiError, Shared};
use crate::identity::tokens::{Caller, Scope};
use crate::telemetry::metrics::MEDIA_TYPE;

/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The handler.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operations",
    responses((status = 200, description = "Counters, in OpenMetrics text.", body = String, content_type = "application/openmetrics-text")),
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    require(&caller, Scope::SessionsRead)?;
    parameters.finish()?;
    let metrics = shared.api.metrics.clone();
    // It asks file systems how full they are.
    let Ok(reading) = shared.readings.clone().try_acquire_owned() else {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the metrics are just being read; try again"));
    };
    // A book that does not answer costs this one number.
    let live = match timeout(PATIENCE / 2, shared.api.store.live_sessions()).await {
        Ok(Ok(live)) => Some(live),
        _ => None,
    };
    let text = tokio::task::spawn_blocking(move || {
        let _reading = reading;
        metrics.text(live)
    });
    match timeout(PATIENCE, text).await {
        Ok(Ok(Ok(text))) => Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response()),
        _ => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be read")),
    }
}

/// Counts an answer under its route's pattern, never its path: that is the caller's to choose.
pub(super) async fn count(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = known(request.method());
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    shared.api.metrics.request(route, method, response.status().as_u16());
    response
}

fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;

    use crate::api::testing::Api;

    #[tokio::test]
    async fn requests_are_counted_by_route_and_paths_make_no_series() {
        let api = Api::new().await;
        for path in ["/api/v1/sessions", "/api/v1/sessions", "/api/v1/no/1", "/api/v1/no/2", "/nowhere/at/all"] {
            api.get(path).await;
        }
        api.send(api.request(Method::GET, "/api/v1/sessions", None).body(Body::empty()).unwrap()).await;
        api.send(api.request(Method::PATCH, "/api/v1/sessions", None).body(Body::empty()).unwrap()).await;
        let answer = api.get("/metrics").await;
        assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
        let text = String::from_utf8(answer.body.unwrap()).unwrap();
        for line in [
            "gatescribe_api_requests_total{route=\"/api/v1/sessions\",method=\"GET\",status=\"200\"} 2",
            "gatescribe_api_requests_total{route=\"/api/v1/sessions\",method=\"GET\",status=\"401\"} 1",
            "gatescribe_api_requests_total{route=\"/api/v1/sessions\",method=\"other\",status=\"401\"} 1",
            "gatescribe_api_requests_total{route=\"/api/v1/{*rest}\",method=\"GET\",status=\"404\"} 2",
            "gatescribe_api_requests_total{route=\"none\",method=\"GET\",status=\"404\"} 1",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert!(!text.contains("/no/") && !text.contains("nowhere"), "{text}");
    }
}
