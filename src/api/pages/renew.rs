//! Signing in again for sessions that are open: terminals show the way to here before their sign-in ends.
//!
//! Opening the page changes nothing by itself, it only leads to the provider. What follows from the sign-in is done where
//! every sign-in is told ([`crate::identity::newcomers`]); what a session's rule asks of it comes from the session, never
//! from the request.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::answer::Page;
use super::browsers::Session;
use super::sign_in::{Aim, begin};
use super::{Shared, view};
use crate::identity::Identity;
use crate::identity::oidc::{OidcError, Unconfirmed, Wanted};
use crate::identity::random::{self, Hashed};

/// How old a sign-in may be that counts as the new one.
const NEW: Duration = Duration::from_secs(60);

/// What live sessions ask of their people's sign-ins.
pub trait Renewals: Send + Sync {
    /// The sign-in with which this session may go on. `None`: no such session is live, or it is not theirs. Nobody is
    /// named where the browser has no sign-in yet.
    fn wanted(&self, session: Uuid, who: Option<&Identity>) -> Option<Wanted>;
}

/// There are no sessions.
impl Renewals for () {
    fn wanted(&self, _: Uuid, _: Option<&Identity>) -> Option<Wanted> {
        None
    }
}

pub(super) async fn any(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let session = shared.browsers.session(&headers);
    renew(&shared, &headers, client, session, "/renew".into(), Wanted::default()).await
}

pub(super) async fn one(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    path: Result<Path<Uuid>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let Ok(Path(id)) = path else { return unknown().into_response() };
    let session = shared.browsers.session(&headers);
    let wanted = shared.pages.renewals.wanted(id, session.as_ref().map(|session| &session.identity));
    let wanted = match (wanted, &session) {
        (Some(wanted), _) => wanted,
        // Strangers do not learn which sessions there are: they sign in first.
        (None, None) => Wanted::default(),
        (None, Some(_)) => return unknown().into_response(),
    };
    renew(&shared, &headers, client, session, format!("/renew/{id}"), wanted).await
}

async fn renew(
    shared: &Shared,
    headers: &HeaderMap,
    client: SocketAddr,
    session: Option<Session>,
    path: String,
    wanted: Wanted,
) -> Response {
    let page = random::hashed(&format!("page {path}"));
    match session {
        Some(session) if is_new(&session, page) => match wanted.takes_class(session.identity.acr()) {
            true => return Page::ok(view::renewed(&session)).into_response(),
            // A new sign-in may be of the wrong class because it was not asked for. After it was, asking again is a loop.
            false if came_from(&session, page) => {
                return Page::from(OidcError::Unconfirmed(Unconfirmed::Class)).into_response();
            }
            false => {}
        },
        _ => {}
    }
    begin(shared, headers, client.ip(), Aim::at(path).wanting(wanted).afresh().asked_by(page)).await
}

/// Whom this very page has just sent off is new whatever the provider's clock shows.
fn is_new(session: &Session, page: Hashed) -> bool {
    let age = Timestamp::now().duration_since(session.identity.signed_in());
    age < SignedDuration::try_from(NEW).unwrap_or_default() || came_from(session, page)
}

fn came_from(session: &Session, page: Hashed) -> bool {
    session.errand.asked_by == Some(page) && session.age() < NEW
}

fn unknown() -> Page {
    let words = "there is no open session of yours with this address, the sign-in of the others is renewed at /renew";
    Page::failure(StatusCode::NOT_FOUND, "No such session", words)
}
