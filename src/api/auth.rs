//! Who calls: the token on every route, and what its owner may do to whom.
//!
//! What one session is about goes through [`session`]: it finds the row and knows whose it is, so that no handler can
//! ask for the right and forget the owner. A session of somebody else answers as one that does not exist.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::parameters::Ids;
use super::watch::offered;
use super::{ApiError, Shared};
use crate::identity::tokens::{Caller, Reach, Role, Scope};
use crate::store::{Owner, SessionRow, Store};

/// Lets nobody through without a token that counts; what is behind finds its owner as a [`Caller`].
pub(super) async fn require_token(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = presented(request.headers()).ok_or_else(ApiError::unauthorized)?;
    // Without an address a token's networks cannot be held against it.
    let Some(ConnectInfo(client)) = request.extensions().get::<ConnectInfo<SocketAddr>>() else {
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway does not know where this came from"));
    };
    let caller = shared.api.tokens.verify(token, client.ip()).await?.ok_or_else(ApiError::unauthorized)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Refuses a caller who may not do this to everybody's sessions.
pub(super) fn require(caller: &Caller, scope: Scope) -> Result<(), ApiError> {
    if caller.may(scope) { Ok(()) } else { Err(forbidden(scope)) }
}

/// The one to whose sessions alone the caller may do this; `None` when to everybody's. An error when to nobody's.
pub(super) fn owner(caller: &Caller, scope: Scope) -> Result<Option<Owner>, ApiError> {
    caller.reach(scope).map(Reach::owner).ok_or_else(|| forbidden(scope))
}

/// The session that the caller wants to do this to. 404 when there is none on that socket, or it is somebody else's.
pub(super) async fn session(store: &Store, caller: &Caller, scope: Scope, ids: &Ids) -> Result<SessionRow, ApiError> {
    session_with_events(store, caller, scope, ids, 0).await
}

/// The same, without as many of its oldest events.
pub(super) async fn session_with_events(
    store: &Store,
    caller: &Caller,
    scope: Scope,
    ids: &Ids,
    events_after: u32,
) -> Result<SessionRow, ApiError> {
    let owner = owner(caller, scope)?;
    let only_own = owner.is_some();
    match store.session_of(owner, ids.socket, ids.session, events_after).await? {
        Some(row) => Ok(shown(row, only_own)),
        // Who may see it anyway is told what is missing.
        None if only_own
            && caller.may(Scope::SessionsRead)
            && store.session(ids.socket, ids.session).await?.is_some() =>
        {
            Err(forbidden(scope))
        }
        None => Err(ApiError::not_found("there is no such session on this socket")),
    }
}

/// The row as the caller may see it. Whoever reaches only their own learns who watched and read them, but not where those
/// people are.
pub(super) fn shown(mut row: SessionRow, only_own: bool) -> SessionRow {
    let of_others = row.events.iter_mut().filter(|event| only_own && OF_WATCHERS.contains(&event.kind.as_str()));
    for event in of_others {
        if let Some(about) = event.metadata.as_object_mut() {
            about.remove("from");
        }
    }
    row
}

/// `GET /whoami`.
#[utoipa::path(
    get, path = "/api/v1/whoami", operation_id = "whoami", tag = "about",
    responses((status = 200, description = "Who the token speaks for.", body = Whoami)),
)]
pub(super) async fn whoami(caller: Caller) -> Json<Whoami> {
    let token = caller.token();
    let own = |scope: &Scope| matches!(caller.reach(*scope), Some(Reach::Own(_)));
    Json(Whoami {
        email: caller.email().map(str::to_owned),
        name: caller.identity().and_then(|who| who.name()).map(str::to_owned),
        role: caller.role(),
        scopes: Scope::ALL.into_iter().filter(|scope| caller.may(*scope)).collect(),
        own_scopes: Scope::ALL.into_iter().filter(own).collect(),
        label: token.label.clone(),
        token_id: token.token_id,
        sign_in_id: token.sign_in_id,
        expires: token.expires,
    })
}

/// Who a token speaks for, and what it may do.
#[derive(Serialize, ToSchema)]
pub(super) struct Whoami {
    /// The person; null for a token that belongs to nobody.
    #[schema(required)]
    email: Option<String>,
    /// The person's full name.
    #[schema(required)]
    name: Option<String>,
    /// The person's role; null for a token that belongs to nobody.
    #[schema(required)]
    role: Option<Role>,
    /// What it may do to everybody's sessions.
    scopes: Vec<Scope>,
    /// What it may do to the person's own sessions only.
    own_scopes: Vec<Scope>,
    /// What the token is for.
    label: String,
    /// The token's id; no secret.
    token_id: Uuid,
    /// The sign-in that the token counts with; null for a token that belongs to nobody.
    #[schema(required)]
    sign_in_id: Option<Uuid>,
    /// From when on the token counts no more.
    expires: Timestamp,
}

fn forbidden(scope: Scope) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, format!("this token may not do that: it takes the scope `{scope}`"))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // A route outside the layer refuses everybody instead of failing open.
        parts.extensions.get::<Caller>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

/// The token that a request carries: `x-access-token`, else `Authorization: Bearer` (RFC 6750 section 2.1), else, because
/// browsers let pages set no header on a WebSocket, a sub-protocol `gatescribe.token.…`, which is never chosen.
pub(super) fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(token) = headers.get("x-access-token") {
        return token.to_str().ok();
    }
    if !headers.contains_key(header::AUTHORIZATION) && headers.contains_key(header::UPGRADE) {
        return offered(headers).find_map(|protocol| protocol.strip_prefix(TOKEN_PROTOCOL));
    }
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Events about those who watch a session, or read it.
const OF_WATCHERS: [&str; 3] = ["watch", "watch_end", "typed_input_read"];
/// What a sub-protocol that carries a token begins with.
const TOKEN_PROTOCOL: &str = "gatescribe.token.";

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use axum::http::{Method, Request};
    use secrecy::ExposeSecret;
    use serde_json::json;

    use crate::api::testing::Api;
    use crate::identity::tokens::Scope;

    #[tokio::test]
    async fn both_headers_carry_the_token() {
        let api = Api::new().await;
        let token = &api.admin;
        let table = [
            ("x-access-token", token.clone(), 200),
            ("authorization", format!("Bearer {token}"), 200),
            ("authorization", format!("bearer  {token}"), 200),
            ("authorization", format!("Basic {token}"), 401),
            ("authorization", token.clone(), 401),
            ("authorization", "Bearer ".to_owned(), 401),
            ("x-access-token", format!("Bearer {token}"), 401),
            ("cookie", format!("token={token}"), 401),
        ];
        for (header, value, status) in table {
            let request = Request::builder().uri("/api/v1/whoami").header(header, &value).body(Body::empty()).unwrap();
            assert_eq!(api.send(request).await.status.as_u16(), status, "{header}: {value}");
        }
        let uri = format!("/api/v1/whoami?token={token}");
        let answer = api.send(api.request(Method::GET, &uri, None).body(Body::empty()).unwrap()).await;
        answer.refused(401, "token");
    }

    #[tokio::test]
    async fn whoami_tells_the_caller() {
        let api = Api::new().await;
        let whoami = async |token: &str| {
            let mut who = api.get_as(token, "/api/v1/whoami").await.json();
            let expires = who["expires"].take();
            assert!(expires.as_str().unwrap().parse::<jiff::Timestamp>().unwrap() > jiff::Timestamp::now());
            let ids = (who["token_id"].take(), who["sign_in_id"].take());
            assert!(ids.0.as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{ids:?}");
            (who, ids.1.is_string())
        };
        let all = ["sessions:read", "recordings:read", "input:read", "sessions:kill", "admin"];
        let expected = json!({
            "email": "admin@example.com", "name": "Admin", "role": "admin", "scopes": all, "own_scopes": [],
            "label": "tests", "token_id": null, "sign_in_id": null, "expires": null,
        });
        assert_eq!(whoami(&api.admin).await, (expected, true));
        let expected = json!({
            "email": "alice@example.com", "name": "Alice", "role": "user", "scopes": [],
            "own_scopes": ["sessions:read", "recordings:read", "sessions:kill"],
            "label": "tests", "token_id": null, "sign_in_id": null, "expires": null,
        });
        assert_eq!(whoami(&api.person("alice").await).await, (expected, true));
        let expected = json!({
            "email": null, "name": null, "role": null, "scopes": ["recordings:read"], "own_scopes": [],
            "label": "scoped", "token_id": null, "sign_in_id": null, "expires": null,
        });
        assert_eq!(whoami(&api.scoped(Scope::RecordingsRead).await).await, (expected, false));
    }

    #[tokio::test]
    async fn a_token_s_networks_are_held_against_the_connection() {
        let api = Api::new().await;
        let networks = vec!["198.51.100.0/24".parse().unwrap()];
        let issued = api.tokens.issue(vec![Scope::Admin], networks, "ci", std::time::Duration::from_secs(60), None);
        let secret = issued.await.unwrap().secret;
        let table = [("198.51.100.9:1", 200), ("198.51.101.9:1", 401)];
        for (from, status) in table {
            let from: std::net::SocketAddr = from.parse().unwrap();
            let request = api.request(Method::GET, "/api/v1/whoami", Some(secret.expose_secret()));
            let request = request.header("x-forwarded-for", "198.51.100.9").extension(ConnectInfo(from));
            assert_eq!(api.send(request.body(Body::empty()).unwrap()).await.status.as_u16(), status, "{from}");
        }
    }
}
