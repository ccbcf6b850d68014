//! The REST API: the session log, replays, live watching, the kill, locks, tokens and sign-ins, and what operators ask.
//!
//! Speaks HTTP and the book. What ends a session, what locks and what exports a recording come in as [`Killer`], [`Locker`]
//! and [`Replays`];
//! recordings themselves are known to `live`, `health` and `watch` alone. Everything under `/api/v1`, also what does not
//! exist, is behind the token, so that nothing can be learned without one.

pub mod about;
mod auth;
mod body;
mod credentials;
pub mod dev_issuer;
mod error;
pub mod health;
mod kill;
mod live;
mod locks;
mod log;
mod metrics;
pub mod oauth;
mod openapi;
pub mod pages;
mod parameters;
pub mod policy;
mod replay;
#[cfg(test)]
mod route_tests;
pub mod server;
mod sessions;
mod shares;
mod sockets;
#[cfg(test)]
mod testing;
mod tokens;
pub mod watch;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::any;
use axum::{Router, middleware};
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub use self::error::ApiError;
pub use self::locks::Locker;
use self::policy::PolicyDesk;
use self::shares::{Limits, Shares};
use self::watch::Watches;
use crate::identity::Identity;
use crate::identity::sign_ins::SignIns;
use crate::identity::tokens::Tokens;
use crate::record::export::text::View;
use crate::session::Rules;
use crate::socket::Socket;
use crate::store::{RecordingRow, Store};
use crate::telemetry::{LogLevel, Metrics};

/// What the API works on.
#[derive(Clone)]
pub struct ApiState {
    /// The book.
    pub store: Store,
    /// Who may call.
    pub tokens: Tokens,
    /// What ends sessions.
    pub kill: Arc<dyn Killer>,
    /// What puts locks into force.
    pub lock: Arc<dyn Locker>,
    /// What acts at once on what was just written into the book.
    pub changes: Arc<dyn Hears>,
    /// What is in force: which sockets there are.
    pub rules: Rules,
    /// What exports recordings.
    pub recordings: Arc<dyn Replays>,
    /// Sign-ins at the gateway itself.
    pub sign_ins: SignIns,
    /// Who may reach what.
    pub reachable: Reachable,
    /// What is in force, for questions about it.
    pub policy: PolicyDesk,
    /// What follows recordings for watchers.
    pub watches: Watches,
    /// The origin (RFC 6454) of the gateway's own pages: no other site's may open a WebSocket.
    pub origin: String,
    /// Ends what would otherwise go on for as long as its session.
    pub stop: CancellationToken,
    /// What stands in the way of letting people in.
    pub readiness: Arc<dyn health::Readiness>,
    /// What is counted.
    pub metrics: Metrics,
    /// What is logged.
    pub log: LogLevel,
}

/// The sockets that this person may reach from this address now.
pub type Reachable = Arc<dyn Fn(&Identity, IpAddr) -> Vec<Arc<Socket>> + Send + Sync>;

/// Acts on what was written into the book.
pub trait Hears: Send + Sync + 'static {
    /// Returns once everything was acted on that stood in the book before.
    fn hear(&self) -> BoxFuture<'_, ()>;
}

/// Ends live sessions. The order already stands in the book when this is asked.
pub trait Killer: Send + Sync + 'static {
    /// Ends a session, and returns once both connections are down and the row is closed.
    ///
    /// Must have a deadline of its own. Dropping the future must not take the order back.
    fn kill(&self, session: Uuid, by: &str, reason: &str) -> BoxFuture<'static, Result<(), KillError>>;

    /// Ends one channel of a session, by its recording; the same otherwise. Returns once the channel is down.
    fn kill_channel(
        &self,
        session: Uuid,
        recording: Uuid,
        by: &str,
        reason: &str,
    ) -> BoxFuture<'static, Result<(), KillError>>;

    /// Whether a channel is open; `None` where that is not known here.
    fn is_open(&self, session: Uuid, recording: Uuid) -> Option<bool>;
}

/// Why a session, or a channel, did not come down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KillError {
    /// No process of this gateway holds it, or no longer.
    #[error("this gateway does not hold it")]
    NotLive,
    /// It did not come down in time.
    #[error("it did not come down in time")]
    TimedOut,
}

/// Exports recordings.
pub trait Replays: Send + Sync + 'static {
    /// Writes the export into `out`, piece by piece. Blocks; called on a thread where that is allowed.
    ///
    /// An error of `out` means that nobody reads any more: give up. `with_input`: include what was typed.
    fn export(
        &self,
        session: Uuid,
        recording: &RecordingRow,
        format: Format,
        with_input: bool,
        out: &mut dyn io::Write,
    ) -> Result<(), ReplayError>;
}

/// What a recording is exported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// asciicast v2.
    Cast,
    /// asciicast v3.
    Cast3,
    /// Text to read: what a person saw, or every byte.
    Text(View),
    /// The recording as it is kept, typed input included.
    Raw,
}

/// Why a recording could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Its file is not there.
    #[error("the recording's file is missing")]
    Missing,
    /// It is encrypted, and the gateway has no key that opens it. The words say which and what to do.
    #[error("{0}")]
    Key(String),
    /// It could not be read, or the export not be written.
    #[error("the recording cannot be read")]
    Io(#[from] io::Error),
}

/// The API's routes, with `/healthz`. Everything else is a 404; the caller may merge routes of its own.
pub fn router(state: ApiState) -> Router {
    let (guarded, mut document) = OpenApiRouter::with_openapi(openapi::empty())
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::details, kill::put))
        .routes(routes!(replay::session_log))
        .routes(routes!(watch::watch))
        .routes(routes!(tokens::list, tokens::issue))
        .routes(routes!(tokens::revoke))
        .routes(routes!(sockets::list))
        .routes(routes!(policy::list))
        .routes(routes!(policy::test))
        .routes(routes!(credentials::certify))
        .routes(routes!(credentials::socket_token))
        .routes(routes!(credentials::list, credentials::revoke_person))
        .routes(routes!(credentials::revoke))
        .routes(routes!(locks::list, locks::lock))
        .routes(routes!(locks::unlock))
        .routes(routes!(log::get, log::put))
        .routes(routes!(metrics::get))
        .routes(routes!(auth::whoami))
        .routes(routes!(openapi::document))
        .routes(routes!(openapi::document_at_root))
        .split_for_parts();
    openapi::guard(&mut document);
    let (open, more) =
        OpenApiRouter::new().routes(routes!(health::healthz)).routes(routes!(health::readyz)).split_for_parts();
    document.merge(more);
    let exports = Shares::new(EXPORTS);
    let readings = Arc::new(Semaphore::new(READINGS));
    let document = openapi::finish(document);
    let shared = Shared { api: state, exports, readings, document, readiness: health::LastAnswer::default() };
    let guarded = guarded
        // All other paths by name: `nest` would leave `/api/v1/` to the router outside, and so without a token.
        .route("/api/v1", any(error::not_found))
        .route("/api/v1/", any(error::not_found))
        .route("/api/v1/{*rest}", any(error::not_found))
        .method_not_allowed_fallback(error::method_not_allowed)
        // Last, so that it is around all of the above.
        .layer(middleware::from_fn_with_state(shared.clone(), auth::require_token));
    Router::new()
        .merge(guarded)
        .merge(open)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(shared.clone(), metrics::count))
        .layer(middleware::map_response(harden))
        .with_state(shared)
}

/// [`ApiState`] and what all requests share.
#[derive(Clone)]
struct Shared {
    api: ApiState,
    /// A place for each export that runs.
    exports: Shares,
    /// What the API says about itself, as JSON.
    document: Bytes,
    /// A permit for each reading of metrics that runs.
    readings: Arc<Semaphore>,
    /// What `/readyz` answered last.
    readiness: health::LastAnswer,
}

/// Answers are nobody's to cache, to guess the type of, or to run: replays hold what attackers wrote.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Readings of metrics at once. Each holds a thread for as long as file systems take to answer.
const READINGS: usize = 2;

/// Exports at once. Each holds a thread and half a megabyte.
const EXPORTS: Limits = Limits { all: 16, own: 12, each: 2 };

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::Method;
    use secrecy::ExposeSecret;

    use super::testing::{Api, path};
    use crate::identity::tokens::Scope;
    use crate::store::testing::{new_session, recording};

    #[tokio::test]
    async fn every_route_wants_a_token_before_anything_else() {
        let api = Api::new().await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        api.book.add_recording(new.session_id, recording()).await.unwrap();
        let expired =
            api.tokens.issue(vec![Scope::Admin], Vec::new(), "old", Duration::ZERO, None).await.unwrap().secret;
        let wrong = format!("gsa_{}", "A".repeat(43));
        let session = path(&new);
        let table = [
            (Method::GET, "/api/v1/sessions".to_owned(), 200),
            (Method::HEAD, "/api/v1/sessions".to_owned(), 200),
            (Method::GET, "/api/v1/sessions?nonsense=1".to_owned(), 400),
            (Method::GET, session.clone(), 200),
            (Method::GET, "/api/v1/session/no/uuid".to_owned(), 400),
            (Method::GET, "/api/v1/session/%ff/x".to_owned(), 400),
            (Method::GET, format!("{session}/session_log"), 200),
            (Method::GET, format!("{session}/session_log?input=true"), 200),
            (Method::GET, format!("{session}/watch"), 400),
            (Method::PUT, session.clone(), 400),
            (Method::GET, "/api/v1/whoami".to_owned(), 200),
            (Method::POST, "/api/v1/credentials".to_owned(), 403),
            (Method::POST, "/api/v1/socket-tokens".to_owned(), 403),
            (Method::GET, "/api/v1/sign-ins".to_owned(), 200),
            (Method::DELETE, "/api/v1/sign-ins".to_owned(), 400),
            (Method::DELETE, "/api/v1/sign-in/x".to_owned(), 400),
            (Method::GET, "/api/v1/policies".to_owned(), 200),
            (Method::POST, "/api/v1/policy/test".to_owned(), 400),
            (Method::GET, "/api/v1/locks".to_owned(), 200),
            (Method::POST, "/api/v1/locks".to_owned(), 400),
            (Method::DELETE, "/api/v1/lock/x".to_owned(), 400),
            (Method::GET, "/api/v1/log".to_owned(), 200),
            (Method::PUT, "/api/v1/log".to_owned(), 400),
            (Method::GET, "/metrics".to_owned(), 200),
            (Method::GET, "/metrics?nonsense=1".to_owned(), 400),
            (Method::DELETE, session.clone(), 405),
            (Method::POST, "/api/v1/sessions".to_owned(), 405),
            (Method::OPTIONS, "/api/v1/whoami".to_owned(), 405),
            (Method::GET, "/api/v1".to_owned(), 404),
            (Method::GET, "/api/v1/".to_owned(), 404),
            (Method::PUT, "/api/v1".to_owned(), 404),
            (Method::GET, "/api/v1/no/such/thing".to_owned(), 404),
            (Method::GET, "/api/v1/sessions/".to_owned(), 404),
            (Method::GET, "/api/v1/healthz".to_owned(), 404),
        ];
        for (method, path, status) in table {
            for token in [None, Some(""), Some(wrong.as_str()), Some("x"), Some(expired.expose_secret())] {
                let request = api.request(method.clone(), &path, token).body(Body::empty()).unwrap();
                let answer = api.send(request).await;
                assert_eq!(answer.status.as_u16(), 401, "{method} {path} with {token:?}");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
            }
            let request = api.request(method.clone(), &path, Some(&api.admin)).body(Body::empty()).unwrap();
            assert_eq!(api.send(request).await.status.as_u16(), status, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn outside_the_api_nothing_is_open_but_health() {
        let api = Api::new().await;
        for (path, status) in [
            ("/healthz", 200),
            ("/readyz", 200),
            ("/", 404),
            ("/api", 404),
            ("/api/v2/sessions", 404),
            ("/api/v1x", 404),
        ] {
            let request = api.request(Method::GET, path, None).body(Body::empty()).unwrap();
            assert_eq!(api.send(request).await.status.as_u16(), status, "{path}");
        }
        let answer = api.send(api.request(Method::POST, "/healthz", None).body(Body::empty()).unwrap()).await;
        answer.refused(405, "method");
        assert_eq!(answer.header("allow"), "GET,HEAD");
    }
}
