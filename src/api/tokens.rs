//! Tokens that belong to nobody, for programs: made, listed and revoked by administrators. People get theirs from
//! `gatescribe login` and from the page for it, and those are listed and revoked here too.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use ipnet::IpNet;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::require;
use super::parameters::{Pages, Pagination, Parameters, TokenId};
use super::{ApiError, Shared, body};
use crate::config::size;
use crate::identity::tokens::{Caller, Scope};
use crate::record::export::escape::is_unsafe;
use crate::store::TokenRow;

/// `POST /tokens`. A token that belongs to nobody makes others only for its own networks, and to end no later than it does.
#[utoipa::path(
    post, path = "/api/v1/tokens", operation_id = "make_token", tag = "tokens",
    request_body = WantedToken,
    responses((status = 201, description = "The token, with its secret.", body = NewToken)),
)]
pub(super) async fn issue(
    State(shared): State<Shared>,
    caller: Caller,
    parameters: Parameters,
    request: Request,
) -> Result<(StatusCode, Json<NewToken>), ApiError> {
    require(&caller, Scope::Admin)?;
    parameters.finish()?;
    let wanted: WantedToken = body::read(request).await?;
    let (label, networks, lifetime) = (label(&wanted)?, networks(&wanted)?, lifetime(&wanted)?);
    let mut scopes = wanted.scopes.clone();
    scopes.sort();
    scopes.dedup();
    if scopes.is_empty() {
        return Err(ApiError::bad_request("`scopes` must name at least one scope"));
    }
    let issued = shared.api.tokens.issue_for(&caller, scopes, networks, label, lifetime).await?;
    tracing::info!(token = %issued.row.token_id, by = caller.name(), label, "a token was made");
    let token = issued.secret.expose_secret().to_owned();
    Ok((StatusCode::CREATED, Json(NewToken { token, about: issued.row })))
}

/// `GET /tokens`.
#[utoipa::path(
    get, path = "/api/v1/tokens", operation_id = "list_tokens", tag = "tokens",
    params(Pages),
    responses((status = 200, description = "Tokens, newest first, without their secrets.", body = TokenList)),
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<Json<TokenList>, ApiError> {
    require(&caller, Scope::Admin)?;
    let pages = Pages::take(&mut parameters)?;
    parameters.finish()?;
    let (tokens, total) = shared.api.store.tokens(pages.page, pages.size).await?;
    Ok(Json(TokenList { pagination: pages.of(total), tokens }))
}

/// `DELETE /token/{token_id}`.
#[utoipa::path(
    delete, path = "/api/v1/token/{token_id}", operation_id = "revoke_token", tag = "tokens",
    params(TokenId),
    responses((status = 200, description = "The token as it is now.", body = TokenRow)),
)]
pub(super) async fn revoke(
    State(shared): State<Shared>,
    caller: Caller,
    TokenId { token: id }: TokenId,
    parameters: Parameters,
) -> Result<Json<TokenRow>, ApiError> {
    require(&caller, Scope::Admin)?;
    parameters.finish()?;
    let revoked = shared.api.store.revoke_token(id, Timestamp::now()).await?;
    let row = revoked.ok_or_else(|| ApiError::not_found("there is no such token"))?;
    tracing::info!(token = %id, by = caller.name(), "a token was revoked");
    Ok(Json(row))
}

/// A token as it is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedToken {
    /// What it is for.
    label: String,
    /// What it may do.
    scopes: Vec<Scope>,
    /// Networks or addresses that it may be used from; left out: anywhere.
    #[serde(default)]
    networks: Vec<String>,
    /// How long it counts, as `12h` or `30d`.
    lifetime: String,
}

/// A token that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct NewToken {
    /// The secret. It is told this once.
    token: String,
    #[serde(flatten)]
    about: TokenRow,
}

/// A page of tokens, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenList {
    pagination: Pagination,
    tokens: Vec<TokenRow>,
}

fn label(wanted: &WantedToken) -> Result<&str, ApiError> {
    let label = wanted.label.trim();
    // It stands in rows and on terminals beside people's e-mail addresses.
    let is_bad = |c: char| c == '@' || c.is_control() || is_unsafe(c);
    let fits = (1..=LABEL_CHARS).contains(&label.chars().count()) && !label.chars().any(is_bad);
    let words = || format!("`label` must have 1 to {LABEL_CHARS} characters, no `@` and nothing that cannot be seen");
    fits.then_some(label).ok_or_else(|| ApiError::bad_request(words()))
}

fn networks(wanted: &WantedToken) -> Result<Vec<IpNet>, ApiError> {
    if wanted.networks.len() > NETWORKS {
        return Err(ApiError::bad_request(format!("`networks` must not name more than {NETWORKS}")));
    }
    let network = |text: &String| match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(network), _) => Ok(network.trunc()),
        (_, Ok(address)) => Ok(address.to_canonical().into()),
        _ => Err(ApiError::bad_request("`networks` must hold networks or addresses, as `10.0.0.0/8` or `2001:db8::1`")),
    };
    wanted.networks.iter().map(network).collect()
}

fn lifetime(wanted: &WantedToken) -> Result<Duration, ApiError> {
    let lifetime = size::duration(&wanted.lifetime).ok().filter(|lifetime| (SHORTEST..=LONGEST).contains(lifetime));
    lifetime.ok_or_else(|| ApiError::bad_request("`lifetime` must be between `1m` and `365d`"))
}

/// The longest label, in characters.
const LABEL_CHARS: usize = 100;
/// Most networks of a token.
const NETWORKS: usize = 64;
/// The shortest lifetime.
const SHORTEST: Duration = Duration::from_secs(60);
/// The longest lifetime.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;
    use serde_json::{Value, json};

    use crate::api::testing::{Answer, Api};

    async fn send(api: &Api, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        api.send(api.request(method, path, Some(&api.admin)).body(body.into()).unwrap()).await
    }

    async fn make(api: &Api, body: &Value) -> Value {
        let answer = send(api, Method::POST, "/api/v1/tokens", body.to_string()).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.json());
        answer.json()
    }

    #[tokio::test]
    async fn a_token_is_made_used_listed_and_revoked() {
        let api = Api::new().await;
        let networks = json!(["10.9.8.7/8", "192.0.2.1", "2001:db8::/32"]);
        let wanted = json!({"label": " ci ", "scopes": ["sessions:read", "recordings:read", "sessions:read"],
                            "networks": networks, "lifetime": "30d"});
        let mut made = make(&api, &wanted).await;
        let secret = made["token"].take();
        let secret = secret.as_str().unwrap();
        assert_eq!(made["scopes"], json!(["sessions:read", "recordings:read"]));
        assert_eq!(made["networks"], json!(["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]));
        assert_eq!((&made["label"], &made["created_by"]), (&json!("ci"), &json!("admin@example.com")));

        let who = api.get_as(secret, "/api/v1/whoami").await.json();
        assert_eq!(who["token_id"], made["token_id"]);
        assert_eq!(api.get_as(secret, "/api/v1/sessions").await.status.as_u16(), 200);
        api.get_as(secret, "/api/v1/tokens").await.refused(403, "`admin`");

        let list = api.get("/api/v1/tokens").await;
        assert!(!String::from_utf8(list.body.clone().unwrap()).unwrap().contains(&secret[4..]));
        let list = list.json();
        assert_eq!(list["pagination"]["total_records"], 2);
        let row = &list["tokens"][0];
        assert_eq!((&row["token_id"], &row["last_ip"]), (&made["token_id"], &json!("192.0.2.1")));
        assert!(row["last_used"].is_string() && row["revoked"].is_null(), "{row}");
        assert_eq!(list["tokens"][1]["user_email"], "admin@example.com");

        let path = format!("/api/v1/token/{}", made["token_id"].as_str().unwrap());
        let revoked = send(&api, Method::DELETE, &path, "").await;
        assert_eq!(revoked.status.as_u16(), 200);
        assert!(revoked.json()["revoked"].is_string());
        api.get_as(secret, "/api/v1/whoami").await.refused(401, "token");
        assert_eq!(send(&api, Method::DELETE, &path, "").await.json(), revoked.json());
    }

    #[tokio::test]
    async fn a_token_of_nobody_makes_others_only_within_its_own_limits_and_ends_with_its_maker() {
        let api = Api::new().await;
        let wanted = |networks: Value, lifetime: &str| json!({"label": "ci", "scopes": ["admin"], "networks": networks, "lifetime": lifetime});
        let parent = make(&api, &wanted(json!(["192.0.2.0/24"]), "1h")).await;
        let by_parent = async |body: Value| {
            let request = api.request(Method::POST, "/api/v1/tokens", parent["token"].as_str());
            api.send(request.body(Body::from(body.to_string())).unwrap()).await
        };
        for (networks, lifetime) in [
            (json!([]), "30m"),
            (json!(["192.0.2.1", "0.0.0.0/0"]), "30m"),
            (json!(["192.0.0.0/16"]), "30m"),
            (json!(["2001:db8::1"]), "30m"),
            (json!(["192.0.2.1"]), "2h"),
        ] {
            by_parent(wanted(networks, lifetime)).await.refused(403, "its own networks");
        }
        let child = by_parent(wanted(json!(["192.0.2.0/30"]), "30m")).await;
        assert_eq!(child.status.as_u16(), 201, "{}", child.json());
        let child = child.json();
        assert_eq!(child["created_by"], format!("token ci ({})", parent["token_id"].as_str().unwrap()));
        let whoami = async |token: &Value| api.get_as(token["token"].as_str().unwrap(), "/api/v1/whoami").await;
        assert_eq!(whoami(&child).await.status.as_u16(), 200);
        // Revoked with whom it comes from, which is told.
        let auditor = api.person("audrey").await;
        let path = "/api/v1/sign-ins?user_email=admin@example.com";
        let request = api.request(Method::DELETE, path, Some(&api.admin)).body(Body::empty()).unwrap();
        assert_eq!(api.send(request).await.json(), json!({"sign_ins": 1, "remembered_keys": 0, "tokens": 2}));
        whoami(&parent).await.refused(401, "token");
        whoami(&child).await.refused(401, "token");
        assert_eq!(api.get_as(&auditor, "/api/v1/whoami").await.status.as_u16(), 200);
    }

    #[tokio::test]
    async fn what_is_asked_for_is_checked() {
        let api = Api::new().await;
        let good = json!({"label": "ci", "scopes": ["sessions:read"], "networks": [], "lifetime": "1h"});
        let table = [
            ("label", json!(""), "`label`"),
            ("label", json!("x".repeat(101)), "`label`"),
            ("label", json!("a\u{1b}[31m"), "`label`"),
            ("label", json!("admin@example.com"), "`label`"),
            ("label", json!("a\u{202e}b"), "`label`"),
            ("label", json!("a\u{200b}b"), "`label`"),
            ("scopes", json!([]), "`scopes`"),
            ("scopes", json!(["everything"]), "unknown variant"),
            ("scopes", json!("admin"), "sequence"),
            ("networks", json!(["example.com"]), "`networks`"),
            ("networks", json!(["10.0.0.0/33"]), "`networks`"),
            ("networks", json!(vec!["10.0.0.0/8"; 65]), "`networks`"),
            ("lifetime", json!("59s"), "`lifetime`"),
            ("lifetime", json!("366d"), "`lifetime`"),
            ("lifetime", json!("forever"), "`lifetime`"),
            ("lifetime", json!(3600), "string"),
            ("colour", json!("red"), "`colour`"),
        ];
        for (name, value, words) in table {
            let mut wanted = good.clone();
            wanted[name] = value;
            send(&api, Method::POST, "/api/v1/tokens", wanted.to_string()).await.refused(400, words);
        }
        for name in ["label", "scopes", "lifetime"] {
            let mut wanted = good.clone();
            wanted.as_object_mut().unwrap().remove(name);
            send(&api, Method::POST, "/api/v1/tokens", wanted.to_string()).await.refused(400, name);
        }
        assert_eq!(api.get("/api/v1/tokens").await.json()["pagination"]["total_records"], 1);
        make(&api, &good).await;
    }

    #[tokio::test]
    async fn what_is_no_token_cannot_be_revoked() {
        let api = Api::new().await;
        send(&api, Method::DELETE, "/api/v1/token/x", "").await.refused(400, "`token_id`");
        send(&api, Method::DELETE, &format!("/api/v1/token/{}", uuid::Uuid::now_v7()), "").await.refused(404, "token");
        api.get("/api/v1/tokens?page=0").await.refused(400, "`page`");
        api.get("/api/v1/tokens?label=ci").await.refused(400, "`label`");
    }
}
