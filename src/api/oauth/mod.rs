//! The gateway as authorization server of its own command line: metadata (RFC 8414), tokens (RFC 6749 with PKCE), device
//! authorization (RFC 8628), revocation (RFC 7009). What a person sees of it is in `pages/{authorize,device}`.
//!
//! One public client, so nothing here authenticates a client. Every request is a form, every answer JSON; what these
//! standards do not name is left alone, and what they forbid is refused.

mod error;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use reqwest::Url;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use self::error::OauthError;
use crate::identity::approval::Approval;
use crate::identity::grants::{CLIENT, CodeRefused, Grants, Polled};
use crate::identity::sign_ins::SignIns;
use crate::identity::tokens::Tokens;

/// The longest body of a form, in bytes.
const MAX_FORM: usize = 8 * 1024;
/// The grant type of RFC 8628 section 3.4.
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What the authorization server works on.
#[derive(Clone)]
pub struct OauthState {
    /// Codes that were granted.
    pub grants: Grants,
    /// What a code becomes.
    pub sign_ins: SignIns,
    /// Who asks for a revocation.
    pub tokens: Tokens,
    /// The gateway's own origin, which is the issuer.
    pub public_url: Url,
}

/// The routes that programs call. The service must be made with `ConnectInfo<SocketAddr>`.
pub fn router(state: OauthState) -> Router {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/oauth/token", post(token))
        .route("/oauth/device_authorization", post(device_authorization))
        .route("/oauth/revoke", post(revoke))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::map_response(harden))
        .with_state(state)
}

/// RFC 8414 section 2, and the `iss` parameter of RFC 9207.
async fn metadata(State(oauth): State<OauthState>) -> Json<Value> {
    let issuer = issuer(&oauth.public_url);
    let mut grants = vec!["authorization_code"];
    let mut metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/oauth/authorize"),
        "token_endpoint": format!("{issuer}/oauth/token"),
        "revocation_endpoint": format!("{issuer}/oauth/revoke"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": true,
    });
    if oauth.grants.devices_are_on() {
        grants.push(DEVICE_GRANT);
        metadata["device_authorization_endpoint"] = format!("{issuer}/oauth/device_authorization").into();
    }
    metadata["grant_types_supported"] = grants.into();
    Json(metadata)
}

/// A token request (RFC 6749 section 4.1.3, RFC 8628 section 3.4).
#[derive(Deserialize)]
struct TokenRequest {
    grant_type: Option<String>,
    client_id: Option<String>,
    code: Option<String>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    device_code: Option<String>,
}

async fn token(
    State(oauth): State<OauthState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<TokenRequest>, FormRejection>,
) -> Result<Json<Value>, OauthError> {
    let Form(request) = form?;
    let grant_type = given(request.grant_type, "grant_type")?;
    check_client(&headers, request.client_id)?;
    match grant_type.as_str() {
        "authorization_code" => {
            let code = given(request.code, "code")?;
            let redirect = given(request.redirect_uri, "redirect_uri")?;
            let verifier = given(request.code_verifier, "code_verifier")?;
            let approval = match oauth.grants.redeem_code(&code, &redirect, &verifier, client.ip()) {
                Ok(approval) => approval,
                Err(refused) => return Err(spent(&oauth, refused).await),
            };
            let (sign_in, answer) = begin(&oauth, approval, client, &headers).await?;
            match oauth.grants.came_of_code(&code, sign_in) {
                true => Ok(answer),
                false => Err(spent(&oauth, CodeRefused::Reused(Some(sign_in))).await),
            }
        }
        DEVICE_GRANT => {
            let device_code = given(request.device_code, "device_code")?;
            match oauth.grants.poll_device(&device_code) {
                Polled::SignedIn(approval) => Ok(begin(&oauth, *approval, client, &headers).await?.1),
                Polled::Pending => Err(OauthError::AuthorizationPending),
                Polled::SlowDown => Err(OauthError::SlowDown),
                Polled::Denied => Err(OauthError::AccessDenied),
                Polled::Expired => Err(OauthError::ExpiredToken),
            }
        }
        _ => Err(OauthError::UnsupportedGrantType),
    }
}

/// Begins the sign-in, and answers as RFC 6749 section 5.1 says.
async fn begin(
    oauth: &OauthState,
    approval: Approval,
    client: SocketAddr,
    headers: &HeaderMap,
) -> Result<(uuid::Uuid, Json<Value>), OauthError> {
    let identity = approval.identity();
    let (email, name) = (identity.email().to_owned(), identity.name().map(str::to_owned));
    let begun = oauth.sign_ins.begin(approval, client.ip(), software(headers)).await?;
    let expires_in = begun.expires.duration_since(jiff::Timestamp::now()).as_secs().max(0);
    let answer = Json(json!({
        "access_token": begun.token.expose_secret(),
        "token_type": "Bearer",
        "expires_in": expires_in,
        "email": email,
        "name": name,
        "sign_in_id": begun.sign_in_id,
    }));
    Ok((begun.sign_in_id, answer))
}

/// A code that counts no more. One that is used again may have been stolen before: what came of it ends.
async fn spent(oauth: &OauthState, refused: CodeRefused) -> OauthError {
    match refused {
        CodeRefused::Invalid => OauthError::InvalidGrant,
        CodeRefused::OtherPlace { browser, program } => {
            tracing::warn!(%browser, %program, "an authorization code came from another place than the browser");
            OauthError::OtherPlace
        }
        CodeRefused::Reused(sign_in) => {
            tracing::warn!("an authorization code was used twice; what came of it is revoked");
            if let Some(sign_in) = sign_in
                && let Err(error) = oauth.sign_ins.revoke(sign_in, "the gateway: its code was used twice").await
            {
                return error.into();
            }
            OauthError::InvalidGrant
        }
    }
}

/// A device authorization request (RFC 8628 section 3.1).
#[derive(Deserialize)]
struct DeviceRequest {
    client_id: Option<String>,
}

async fn device_authorization(
    State(oauth): State<OauthState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<DeviceRequest>, FormRejection>,
) -> Result<Json<Value>, OauthError> {
    let Form(request) = form?;
    check_client(&headers, request.client_id)?;
    let device = oauth.grants.ask_for_device(client.ip(), software(&headers))?;
    Ok(Json(json!({
        "device_code": device.device_code,
        "user_code": device.user_code,
        "verification_uri": format!("{}/device", issuer(&oauth.public_url)),
        "expires_in": device.expires_in.as_secs(),
        "interval": device.interval.as_secs(),
    })))
}

/// A revocation request (RFC 7009 section 2.1).
#[derive(Deserialize)]
struct RevocationRequest {
    token: Option<String>,
    client_id: Option<String>,
}

/// Ends the whole sign-in that the token belongs to. A token that is unknown or over is no error (section 2.2).
async fn revoke(
    State(oauth): State<OauthState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<RevocationRequest>, FormRejection>,
) -> Result<StatusCode, OauthError> {
    let Form(request) = form?;
    let token = given(request.token, "token")?;
    check_client(&headers, request.client_id)?;
    let caller = oauth.tokens.verify(&token, client.ip()).await.map_err(OauthError::Token)?;
    if let Some((sign_in, by)) = caller.and_then(|caller| Some((caller.sign_in()?, caller.name().to_owned()))) {
        oauth.sign_ins.sign_out(sign_in, &by).await?;
    }
    Ok(StatusCode::OK)
}

/// A parameter without a value counts as left out (RFC 6749 section 3.2).
fn given(parameter: Option<String>, name: &'static str) -> Result<String, OauthError> {
    parameter.filter(|value| !value.is_empty()).ok_or(OauthError::Missing(name))
}

/// The one client, which is public: whoever authenticates as a client is none of ours.
fn check_client(headers: &HeaderMap, client_id: Option<String>) -> Result<(), OauthError> {
    let authenticates = headers.contains_key(header::AUTHORIZATION);
    match client_id.as_deref() {
        _ if authenticates => Err(OauthError::InvalidClient { authenticated: true }),
        Some(CLIENT) => Ok(()),
        Some("") | None => Err(OauthError::Missing("client_id")),
        Some(_) => Err(OauthError::InvalidClient { authenticated: false }),
    }
}

/// What the program says about itself.
fn software(headers: &HeaderMap) -> &str {
    headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The gateway's origin, without a slash.
pub(super) fn issuer(public_url: &Url) -> String {
    public_url.origin().ascii_serialization()
}

/// Tokens are nobody's to cache (RFC 6749 section 5.1), and nothing here is to be shown.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"),
    );
    response
}
