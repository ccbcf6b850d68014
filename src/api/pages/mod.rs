//! The sign-in pages: plain HTML made here, no script, no build step. They approve and deny links, take the browser to
//! the identity provider and back, and hand an administrator a token.
//!
//! Where a browser is sent next is never taken from a request: only this module's own paths are kept in a flow. Links
//! and origins come from `public_url`, never from `Host`.

mod answer;
mod browsers;
mod guard;
mod link;
mod sign_in;
#[cfg(test)]
mod tests;
mod token;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::HeaderMap;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use reqwest::Url;
use secrecy::SecretString;

use self::answer::Page;
use self::browsers::Browsers;
use crate::identity::Identity;
use crate::identity::link::Links;
use crate::identity::oidc::Oidc;

/// The longest body of a form, in bytes.
const MAX_FORM: usize = 8 * 1024;

/// What the pages work on.
#[derive(Clone)]
pub struct PagesState {
    /// The identity provider.
    pub oidc: Oidc,
    /// The links to approve.
    pub links: Links,
    /// The gateway's own origin.
    pub public_url: Url,
    /// Who is an administrator, by the roles in force now.
    pub is_admin: Arc<dyn Fn(&Identity) -> bool + Send + Sync>,
    /// What makes administrators' API tokens.
    pub tokens: Arc<dyn TokenIssuer>,
}

/// Makes API tokens. Asked only for somebody whom [`PagesState::is_admin`] calls an administrator.
pub trait TokenIssuer: Send + Sync + 'static {
    /// A new token for this person.
    fn issue<'a>(&'a self, who: &'a Identity) -> BoxFuture<'a, Result<IssuedToken, TokenNotIssued>>;
}

/// A token that was just made; shown once.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token itself.
    pub token: SecretString,
    /// Until when it counts.
    pub expires: jiff::Timestamp,
}

/// The token could not be made; the words are for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenNotIssued(pub String);

/// The routes. The service must be made with `ConnectInfo<SocketAddr>`: the client's address is taken from there.
pub fn router(state: PagesState) -> Router {
    let shared = Shared { browsers: Arc::default(), pages: state };
    Router::new()
        .route("/", get(landing))
        .route("/sign-in", get(sign_in::start))
        .route("/oidc/callback", get(sign_in::callback))
        .route("/signout", post(sign_in::sign_out))
        .route("/link/{code}", get(link::show).post(link::decide))
        .route("/link/{code}/sign-in", get(link::sign_in_again))
        .route("/token", get(token::ask).post(token::issue))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::map_response_with_state(shared.clone(), answer::harden))
        .with_state(shared)
}

#[derive(Clone)]
struct Shared {
    pages: PagesState,
    browsers: Arc<Browsers>,
}

impl FromRef<Shared> for PagesState {
    fn from_ref(shared: &Shared) -> Self {
        shared.pages.clone()
    }
}

async fn landing(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let session = shared.browsers.session(&headers);
    let is_admin = session.as_ref().is_some_and(|session| (shared.pages.is_admin)(&session.identity));
    Page::ok(view::landing(session.as_ref(), is_admin)).into_response()
}
