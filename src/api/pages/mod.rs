//! The sign-in pages: plain HTML made here, no script, no build step. They approve and deny links and the command
//! line's sign-ins, take the browser to the identity provider and back, and hand people their API tokens.
//!
//! Where a browser is sent next is never taken from a request: only this module's own paths are kept in a flow. Links
//! and origins come from `public_url`, never from `Host`.

mod answer;
mod authorize;
mod browsers;
mod device;
mod guard;
mod link;
mod renew;
mod sign_in;
#[cfg(test)]
mod tests;
mod token;
mod view;

use std::net::IpAddr;
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
pub use self::renew::Renewals;
use crate::geo::Geo;
use crate::identity::Identity;
use crate::identity::approval::{Approval, RevokedPeople};
use crate::identity::grants::Grants;
use crate::identity::link::Links;
use crate::identity::newcomers::Newcomers;
use crate::identity::oidc::Oidc;
use crate::identity::tokens::Role;
use crate::pace::SignInPace;

/// The longest body of a form, in bytes.
const MAX_FORM: usize = 8 * 1024;

/// What the pages work on.
#[derive(Clone)]
pub struct PagesState {
    /// The identity provider.
    pub oidc: Oidc,
    /// The links to approve.
    pub links: Links,
    /// What the command line is granted.
    pub grants: Grants,
    /// Who is signed out of every browser.
    pub revoked: RevokedPeople,
    /// The gateway's own origin.
    pub public_url: Url,
    /// Where addresses are.
    pub geo: Geo,
    /// What makes API tokens.
    pub tokens: Arc<dyn TokenIssuer>,
    /// Who is told of every sign-in, before the browser hears of it.
    pub newcomers: Arc<dyn Newcomers>,
    /// How often somebody may try to sign in.
    pub pace: Arc<SignInPace>,
    /// What live sessions ask of a new sign-in.
    pub renewals: Arc<dyn Renewals>,
}

/// Makes API tokens that act for a person.
pub trait TokenIssuer: Send + Sync + 'static {
    /// The role that the token would have now.
    fn role_of(&self, who: &Identity) -> Role;
    /// A new token for this person, whose browser is at `from`.
    fn issue<'a>(&'a self, who: &'a Approval, from: IpAddr) -> BoxFuture<'a, Result<IssuedToken, TokenNotIssued>>;
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
    let shared = Shared { browsers: Arc::new(Browsers::new(state.revoked.clone())), pages: state };
    Router::new()
        .route("/", get(landing))
        .route("/sign-in", get(sign_in::start))
        .route("/oidc/callback", get(sign_in::callback))
        .route("/signout", post(sign_in::sign_out))
        .route("/link/{code}", get(link::show).post(link::decide))
        .route("/link/{code}/sign-in", get(link::sign_in_again))
        .route("/renew", get(renew::any))
        .route("/renew/{session}", get(renew::one))
        .route("/token", get(token::ask).post(token::issue))
        .route("/oauth/authorize", get(authorize::ask).post(authorize::decide))
        .route("/oauth/authorize/sign-in", get(authorize::sign_in_again))
        .route("/device", get(device::ask).post(device::decide))
        .route("/device/sign-in", get(device::sign_in_again))
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
    Page::ok(view::landing(session.as_ref())).into_response()
}
