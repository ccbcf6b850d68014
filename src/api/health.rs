//! Whether the gateway answers at all, and whether it can let people in. Open to everybody: it says what does not work,
//! in words that name nothing inside.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::identity::oidc::Oidc;
use crate::record::{Recordings, Trouble};
use crate::store::Store;

/// How long an answer is given again: whoever asks often must not keep the disk busy.
const FRESH: Duration = Duration::from_secs(1);

/// How long a part may take to answer before it counts as not working.
const PATIENCE: Duration = Duration::from_secs(5);

/// What stands in the way of letting people in.
pub trait Readiness: Send + Sync + 'static {
    /// Words for each trouble; none when all is well. Must end.
    fn troubles(&self) -> BoxFuture<'static, Vec<&'static str>>;
}

/// The parts that must work before a session can begin.
#[derive(Clone)]
pub struct Parts {
    /// The book.
    pub store: Store,
    /// Where recordings go.
    pub recordings: Recordings,
    /// The identity provider.
    pub oidc: Oidc,
    /// Cancelled when the gateway stops.
    pub stop: CancellationToken,
    /// One permit: a disk that does not answer must not take a thread with each question.
    pub asking: Arc<Semaphore>,
}

/// The last answer and when it was given. Held while a new one is found, so that many who ask at once ask once.
pub(super) type LastAnswer = Arc<Mutex<Option<(Instant, Vec<&'static str>)>>>;

impl Readiness for Parts {
    fn troubles(&self) -> BoxFuture<'static, Vec<&'static str>> {
        let Self { store, recordings, oidc, stop, asking } = self.clone();
        async move {
            let mut troubles = Vec::new();
            if !matches!(timeout(PATIENCE, store.check_writable()).await, Ok(Ok(()))) {
                troubles.push("the session log cannot be written");
            }
            let asked = asking.try_acquire_owned().map(|asking| {
                tokio::task::spawn_blocking(move || {
                    let _asking = asking;
                    recordings.troubles()
                })
            });
            let answer = match asked {
                Ok(asked) => timeout(PATIENCE, asked).await.ok().and_then(Result::ok),
                Err(_still_asking) => None,
            };
            match answer {
                Some(found) => troubles.extend(found.into_iter().map(words)),
                None => troubles.push("the disk for recordings does not answer"),
            }
            if !oidc.is_known() {
                troubles.push("the identity provider has not answered yet");
            }
            if stop.is_cancelled() {
                troubles.push("the gateway is being stopped");
            }
            troubles
        }
        .boxed()
    }
}

/// `GET /healthz`.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "about",
    responses((status = 200, description = "The gateway answers.", body = serde_json::Value)),
)]
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: 503 with the reasons where a session could not begin now.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "about",
    responses(
        (status = 200, description = "A session could begin now.", body = serde_json::Value),
        (status = 503, description = "It could not; `reasons` say why.", body = serde_json::Value),
    ),
)]
pub(super) async fn readyz(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    let mut last = shared.readiness.lock().await;
    let troubles = match last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        Some((_, troubles)) => troubles.clone(),
        None => {
            let troubles = shared.api.readiness.troubles().await;
            *last = Some((Instant::now(), troubles.clone()));
            troubles
        }
    };
    drop(last);
    match troubles.is_empty() {
        true => (StatusCode::OK, Json(json!({"status": "ready"}))),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready", "reasons": troubles}))),
    }
}

fn words(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Unwritable => "recordings cannot be written",
        Trouble::Full => "there is no room left for recordings",
        Trouble::Spool => "there is no room for what is being recorded",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;
    use serde_json::json;

    use crate::api::testing::Api;

    #[tokio::test]
    async fn health_is_open() {
        let api = Api::new().await;
        let answer = api.send(api.request(Method::GET, "/healthz", None).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "ok"})));
        let answer = api.send(api.request(Method::GET, "/readyz", None).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "ready"})));
    }
}
