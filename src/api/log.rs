//! `GET` and `PUT /log`: what the gateway logs, changed for a while by an administrator.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::require;
use super::parameters::Parameters;
use super::{ApiError, Shared, body};
use crate::config::size;
use crate::identity::tokens::{Caller, Scope};
use crate::telemetry::LogLevel;
use crate::telemetry::log::LevelError;

/// How long a change lasts that does not say.
const USUAL: Duration = Duration::from_secs(15 * 60);

/// What is to be logged for a while.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogChange {
    /// `error`, `warn`, `info`, `debug` or `trace`, also for parts of the gateway: `info,gatescribe::proto=debug`.
    level: String,
    /// For how long, as in the configuration: one second to one day; fifteen minutes if left out.
    r#for: Option<String>,
}

/// What is logged.
#[derive(Serialize, ToSchema)]
pub(super) struct LogState {
    /// Now.
    level: String,
    /// Until when, where it was changed.
    #[schema(required)]
    until: Option<Timestamp>,
    /// As it is configured.
    configured: String,
}

/// What is logged now.
#[utoipa::path(
    get, path = "/api/v1/log", operation_id = "log_level", tag = "operations",
    responses((status = 200, description = "What is logged.", body = LogState)),
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<LogState>, ApiError> {
    require(&caller, Scope::Admin)?;
    parameters.finish()?;
    Ok(Json(told(&shared.api.log)))
}

/// Logs at another level for a while.
#[utoipa::path(
    put, path = "/api/v1/log", operation_id = "change_log_level", tag = "operations",
    request_body = LogChange,
    responses((status = 200, description = "What is logged.", body = LogState)),
)]
pub(super) async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    parameters: Parameters,
    request: Request,
) -> Result<Json<LogState>, ApiError> {
    require(&caller, Scope::Admin)?;
    parameters.finish()?;
    let change: LogChange = body::read(request).await?;
    let lasting = change.r#for.as_deref().map_or(Ok(USUAL), size::duration);
    let lasting = lasting.map_err(|error| ApiError::bad_request(format!("`for`: {error}")))?;
    shared.api.log.change(&change.level, lasting).map_err(|error| match error {
        LevelError::Gone => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        LevelError::Level => ApiError::bad_request(format!("`level`: {error}")),
        LevelError::Duration => ApiError::bad_request(format!("`for`: {error}")),
    })?;
    tracing::warn!(by = caller.name(), level = change.level, seconds = lasting.as_secs(), "the log level was changed");
    Ok(Json(told(&shared.api.log)))
}

fn told(log: &LogLevel) -> LogState {
    let now = log.now();
    LogState { level: now.level, until: now.until, configured: log.configured().to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::testing::Api;

    #[tokio::test]
    async fn a_level_is_set_for_a_while() {
        let api = Api::new().await;
        assert_eq!(api.get("/api/v1/log").await.json(), json!({"level": "info", "until": null, "configured": "info"}));
        let told = api.put("/api/v1/log", r#"{"level": "debug", "for": "10m"}"#).await.json();
        let until: jiff::Timestamp = told["until"].as_str().unwrap().parse().unwrap();
        assert!(until > jiff::Timestamp::now());
        assert_eq!((&told["level"], &told["configured"]), (&json!("debug"), &json!("info")));
        assert_eq!(api.get("/api/v1/log").await.json(), told);
        for (body, words) in [
            (r#"{"level": "loud"}"#, "`level`"),
            (r#"{"level": "hyper=trace"}"#, "`level`"),
            (r#"{"level": "debug", "for": "2d"}"#, "one second to one day"),
            (r#"{"level": "debug", "for": "soon"}"#, "`for`"),
            (r#"{"level": "debug", "until": "x"}"#, "`until`"),
            (r#"{"for": "1m"}"#, "`level`"),
            ("", "EOF"),
        ] {
            api.put("/api/v1/log", body).await.refused(400, words);
        }
        assert_eq!(api.get("/api/v1/log").await.json(), told, "a refused change changes nothing");
    }
}
