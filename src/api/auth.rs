//! Who calls: the token on every route, and what its owner may do.

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

use super::{ApiError, Shared};
use crate::identity::tokens::{Caller, Scope};

/// Lets nobody through without a token that counts; what is behind finds its owner as a [`Caller`].
pub(super) async fn require_token(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = presented(request.headers()).ok_or_else(ApiError::unauthorized)?;
    let caller = shared.api.tokens.verify(token).await?.ok_or_else(ApiError::unauthorized)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Refuses a caller who may not do this.
pub(super) fn require(caller: &Caller, scope: Scope) -> Result<(), ApiError> {
    match caller.may(scope) {
        true => Ok(()),
        false => Err(ApiError::new(StatusCode::FORBIDDEN, format!("this token may not {scope}"))),
    }
}

/// `GET /whoami`.
pub(super) async fn whoami(caller: Caller) -> Json<Value> {
    Json(json!({
        "label": caller.label(),
        "email": caller.email(),
        "role": caller.role(),
        "expires": caller.expires(),
    }))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // A route outside the layer refuses everybody instead of failing open.
        parts.extensions.get::<Caller>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

/// The token that a request carries: `x-access-token`, else `Authorization: Bearer` (RFC 6750 section 2.1).
fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(token) = headers.get("x-access-token") {
        return token.to_str().ok();
    }
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Method, Request};
    use serde_json::json;

    use crate::api::testing::Api;

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
        let mut who = api.get("/api/v1/whoami").await.json();
        let expires = who["expires"].take();
        assert!(expires.as_str().unwrap().parse::<jiff::Timestamp>().unwrap() > jiff::Timestamp::now());
        assert_eq!(who, json!({"label": "tests", "email": "admin@example.com", "role": "admin", "expires": null}));
    }
}
