//! The development issuer's routes. Loopback addresses only; for `demo` and tests only, never reached from `serve`.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use futures_util::future::BoxFuture;
use maud::{DOCTYPE, Markup, html};
use reqwest::Url;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::UserFacing;
use crate::identity::Identity;
use crate::identity::dev_issuer::{AuthorizeRequest, Flaw, Issuer, PEOPLE, Refused, TokenRequest};
use crate::identity::link::Approver;
use crate::identity::newcomers::Newcomers;
use crate::identity::oidc::{Begin, Oidc, OidcError, OidcSettings, Wanted};
use crate::policy::StepUp;

/// Why the development issuer did not start or did not sign somebody in.
#[derive(Debug, thiserror::Error)]
pub enum DevIssuerError {
    /// Anybody who reaches it is whoever they like, so it must not be reachable.
    #[error("the development issuer listens on loopback addresses only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The listener has no address.
    #[error("listener: {0}")]
    Listener(#[from] std::io::Error),
    /// The issuer refused.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The request to it failed.
    #[error("request: {0}")]
    Request(#[from] reqwest::Error),
    /// It answered a sign-in with a page instead of a code.
    #[error("no such person, or a sign-in that it does not accept")]
    NoCode,
}

/// A development issuer that runs. Dropping it stops it.
#[derive(Debug)]
pub struct DevIssuer {
    issuer: Arc<Issuer>,
    server: JoinHandle<()>,
}

impl DevIssuer {
    /// Serves the issuer on a loopback listener, for one client that is sent back to `redirect_uri`.
    pub fn start(listener: TcpListener, redirect_uri: &Url) -> Result<Self, DevIssuerError> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(DevIssuerError::NotLoopback(address));
        }
        let issuer = Arc::new(Issuer::new(format!("http://{address}"), redirect_uri)?);
        let app = router(issuer.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the development issuer stopped");
            }
        });
        Ok(Self { issuer, server })
    }

    /// The issuer's identifier, as `http://127.0.0.1:40123`.
    pub fn issuer_url(&self) -> &str {
        self.issuer.url()
    }

    /// The one client's id.
    pub fn client_id(&self) -> &str {
        self.issuer.client_id()
    }

    /// The settings with which the gateway signs people in here.
    pub fn settings(&self, redirect_uri: Url, session_lifetime: Duration) -> OidcSettings {
        OidcSettings {
            issuer: self.issuer.url().to_owned(),
            client_id: self.issuer.client_id().to_owned(),
            client_secret: Some(self.issuer.client_secret().clone()),
            groups_claim: "groups".into(),
            session_lifetime,
            redirect_uri,
        }
    }

    /// Goes the browser's way for one of the people: asks the authorization endpoint over HTTP and takes `state` and
    /// `code` from where it redirects to.
    pub async fn sign_in_as(nickname: &str, begin: &Begin) -> Result<(String, String), DevIssuerError> {
        let mut url = begin.url.clone();
        url.query_pairs_mut().append_pair("as", nickname);
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()?;
        let answer = client.get(url).send().await?;
        let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
        let to: Url = to.and_then(|to| to.parse().ok()).ok_or(DevIssuerError::NoCode)?;
        let parameter = |name| to.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
        parameter("state").zip(parameter("code")).ok_or(DevIssuerError::NoCode)
    }

    /// Changes the signing key; the old one is no longer published.
    pub fn rotate(&self) -> Result<(), DevIssuerError> {
        Ok(self.issuer.rotate()?)
    }

    /// From now on this person is in these groups. For tests.
    pub fn set_groups(&self, nickname: &str, groups: &[&str]) {
        self.issuer.set_groups(nickname, groups);
    }

    /// Makes the next tokens wrong. For tests.
    pub fn set_flaw(&self, flaw: Flaw) {
        self.issuer.set_flaw(flaw);
    }
}

impl Drop for DevIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `demo --approve-as`: signs one person in by real tokens of the development issuer, without a browser.
#[derive(Clone)]
pub struct ApproveAs {
    oidc: Oidc,
    nickname: String,
    newcomers: Arc<dyn Newcomers>,
}

impl ApproveAs {
    /// `oidc` must be the development issuer's client. Nothing is checked before the first sign-in; each is told to
    /// `newcomers`.
    pub fn new(oidc: Oidc, nickname: String, newcomers: Arc<dyn Newcomers>) -> Self {
        Self { oidc, nickname, newcomers }
    }
}

impl Approver for ApproveAs {
    fn sign_in(&self, step_up: Option<&StepUp>) -> BoxFuture<'static, Result<Identity, String>> {
        let Self { oidc, nickname, newcomers } = self.clone();
        let wanted = step_up.map(Wanted::from).unwrap_or_default();
        Box::pin(async move {
            let told = |error: OidcError| error.told();
            let begin = oidc.begin("/", &wanted).await.map_err(told)?;
            let (state, code) = DevIssuer::sign_in_as(&nickname, &begin).await.map_err(|error| error.to_string())?;
            let identity = oidc.finish(begin.flow, &state, &code).await.map_err(told)?;
            newcomers.signed_in(&identity).await.map_err(|error| error.to_string())?;
            Ok(identity)
        })
    }
}

impl std::fmt::Debug for ApproveAs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApproveAs").field("nickname", &self.nickname).finish_non_exhaustive()
    }
}

fn router(issuer: Arc<Issuer>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(async |State(i): State<Arc<Issuer>>| Json(i.metadata())))
        .route("/keys", get(async |State(i): State<Arc<Issuer>>| Json(i.keys())))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .route("/userinfo", get(userinfo))
        .layer(middleware::from_fn_with_state(issuer.clone(), own_host_only))
        .with_state(issuer)
}

/// A page on another name that resolves to this machine (DNS rebinding) must not sign people in.
async fn own_host_only(State(issuer): State<Arc<Issuer>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    match host == issuer.url().strip_prefix("http://") {
        true => next.run(request).await,
        false => StatusCode::MISDIRECTED_REQUEST.into_response(),
    }
}

async fn authorize(
    State(issuer): State<Arc<Issuer>>,
    Query(request): Query<AuthorizeRequest>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let answer = match request.sign_in_as.as_deref() {
        None => issuer.check(&request).map(|()| chooser(&request, &query).into_response()),
        Some("") => issuer.deny(&request).map(|to| Redirect::to(to.as_str()).into_response()),
        Some(nickname) => issuer.sign_in(&request, nickname).map(|to| Redirect::to(to.as_str()).into_response()),
    };
    answer.unwrap_or_else(refused)
}

async fn token(State(issuer): State<Arc<Issuer>>, Form(request): Form<TokenRequest>) -> Response {
    match issuer.token(&request) {
        Ok(tokens) => ([(header::CACHE_CONTROL, "no-store")], Json(tokens)).into_response(),
        Err(error) => refused(error),
    }
}

async fn userinfo(State(issuer): State<Arc<Issuer>>, headers: HeaderMap) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer "));
    match token.and_then(|token| issuer.userinfo(token)) {
        Some(claims) => Json(claims).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

fn refused(error: Refused) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error.to_string() }))).into_response()
}

/// The page with the people. It has no `form-action`: that would forbid the redirect to the gateway after the form.
fn chooser(request: &AuthorizeRequest, query: &[(String, String)]) -> impl IntoResponse {
    const CSP: &str = "default-src 'none'; img-src data:; base-uri 'none'; frame-ancestors 'none'";
    let page: Markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Development sign-in" }
            }
            body {
                main {
                    h1 { "Who are you today?" }
                    p { "This is the development identity provider of the demo. It asks for no password." }
                    form action="/authorize" {
                        @for (name, value) in query {
                            input type="hidden" name=(name) value=(value);
                        }
                        p {
                            label {
                                "Sign in with " select name="factors" {
                                    option value="1" { "one factor" }
                                    option value="2" selected[request.wants_second_factor()] { "a second factor" }
                                }
                            }
                        }
                        @for person in &PEOPLE {
                            p {
                                img src=(person.picture()) alt="" width="16" height="16"; " "
                                button name="as" value=(person.nickname) { (person.name) }
                                " " (person.email()) ", " (person.groups.join(", "))
                            }
                        }
                        p { button name="as" value="" { "Cancel" } }
                    }
                }
            }
        }
    };
    ([(header::CONTENT_SECURITY_POLICY, CSP), (header::CACHE_CONTROL, "no-store")], page)
}
