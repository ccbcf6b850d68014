//! To the identity provider and back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::answer::{Page, go};
use super::browsers::Errand;
use super::{Shared, guard, view};
use crate::identity::oidc::Wanted;
use crate::identity::random::{Hashed, NoRandomness};

/// Where a sign-in leads: a path of ours, made by a handler and never read from a request.
pub(super) struct Aim {
    return_to: String,
    wanted: Wanted,
    errand: Errand,
}

impl Aim {
    /// Any sign-in, and then this page.
    pub(super) fn at(return_to: impl Into<String>) -> Self {
        Self { return_to: return_to.into(), wanted: Wanted::default(), errand: Errand::default() }
    }

    /// A sign-in like this.
    pub(super) fn wanting(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }

    /// A new sign-in, whatever session the provider has.
    pub(super) fn afresh(self) -> Self {
        Self { wanted: self.wanted.afresh(), ..self }
    }

    /// A new sign-in confirms this link at another address.
    pub(super) fn confirming(mut self, link: Option<Hashed>) -> Self {
        self.errand.fresh_for = link;
        self
    }

    /// This page is not content with the sign-in that there is.
    pub(super) fn asked_by(mut self, page: Hashed) -> Self {
        self.errand.asked_by = Some(page);
        self
    }
}

/// The provider's answer (RFC 6749 sections 4.1.2 and 4.1.2.1).
#[derive(Deserialize)]
pub(super) struct Callback {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

/// A form with nothing but its token.
#[derive(Deserialize)]
pub(super) struct Bare {
    pub(super) csrf: String,
}

pub(super) async fn start(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    begin(&shared, &headers, client.ip(), Aim::at("/")).await
}

/// Sends the browser to the provider.
pub(super) async fn begin(shared: &Shared, headers: &HeaderMap, client: IpAddr, aim: Aim) -> Response {
    if let Err(wait) = shared.pages.pace.wanted_from(client) {
        return too_fast(wait);
    }
    let begun = match shared.pages.oidc.begin(&aim.return_to, &aim.wanted).await {
        Ok(begun) => begun,
        Err(error) => return Page::from(error).into_response(),
    };
    match shared.browsers.send_off(headers, client, begun.flow, aim.errand) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], go(begun.url.as_str())).into_response(),
        Err(error) => no_randomness(error),
    }
}

pub(super) async fn callback(
    State(shared): State<Shared>,
    headers: HeaderMap,
    answer: Result<Query<Callback>, QueryRejection>,
) -> Response {
    let Ok(Query(Callback { state: Some(state), code, error })) = answer else {
        return Page::failure(StatusCode::BAD_REQUEST, "Sign-in failed", "the answer has no state").into_response();
    };
    // Looked up before anything else: what another site put into this URL must not even be shown.
    let Some((flow, errand)) = shared.browsers.welcome(&headers, &state) else {
        let words = "this sign-in was begun in another browser, was finished before, or took too long: start again";
        return Page::failure(StatusCode::BAD_REQUEST, "Sign-in failed", words).into_response();
    };
    let code = match (code, error) {
        (_, Some(error)) => return refused(&error).into_response(),
        (None, None) => {
            return Page::failure(StatusCode::BAD_GATEWAY, "Sign-in failed", "the answer has no code").into_response();
        }
        (Some(code), None) => code,
    };
    let return_to = flow.return_to().to_owned();
    let identity = match shared.pages.oidc.finish(flow, &state, &code).await {
        Ok(identity) => identity,
        Err(error) => return Page::from(error).into_response(),
    };
    if let Err(wait) = shared.pages.pace.made_by(identity.issuer(), identity.subject()) {
        return too_fast(wait);
    }
    // Before the browser is answered: what it opens next finds everything as the new sign-in made it. A sign-in that what
    // lives does not hear of must not let anybody in either.
    if let Err(error) = shared.pages.newcomers.signed_in(&identity).await {
        tracing::error!(%error, "a sign-in could not be told");
        return Page::failure(StatusCode::SERVICE_UNAVAILABLE, "Sign-in failed", &error.to_string()).into_response();
    }
    tracing::info!(email = identity.email(), "signed in in a browser");
    match shared.browsers.open(&headers, identity, errand) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], go(&return_to)).into_response(),
        Err(error) => no_randomness(error),
    }
}

pub(super) async fn sign_out(
    State(shared): State<Shared>,
    headers: HeaderMap,
    form: Result<Form<Bare>, FormRejection>,
) -> Response {
    let csrf = form.map(|Form(form)| form.csrf).unwrap_or_default();
    if let Err(page) = guard::sender(&shared.browsers, &shared.pages.public_url, &headers, &csrf) {
        return page.into_response();
    }
    let cookie = shared.browsers.close(&headers).map(|cookie| [(header::SET_COOKIE, cookie)]);
    (cookie, Page::ok(view::signed_out())).into_response()
}

fn too_fast(wait: Duration) -> Response {
    let words = format!("there were too many sign-ins within a minute, try again in {} seconds", wait.as_secs() + 1);
    Page::failure(StatusCode::TOO_MANY_REQUESTS, "Too many sign-ins", &words).into_response()
}

pub(super) fn no_randomness(error: NoRandomness) -> Response {
    tracing::error!(%error, "no secret could be made for a browser");
    let words = "the gateway cannot do this now, tell an administrator";
    Page::failure(StatusCode::INTERNAL_SERVER_ERROR, "Not possible now", words).into_response()
}

/// The provider said no. Of its answer only a known error code is shown.
fn refused(error: &str) -> Page {
    let (status, words) = match error {
        "access_denied" => (StatusCode::FORBIDDEN, "the sign-in was cancelled or denied at the identity provider"),
        "temporarily_unavailable" | "server_error" => {
            (StatusCode::BAD_GATEWAY, "the identity provider has a problem, try again in a minute")
        }
        _ => (StatusCode::BAD_GATEWAY, "the identity provider refused the sign-in, tell an administrator"),
    };
    tracing::info!(error = %error.chars().filter(|c| c.is_ascii_graphic()).take(64).collect::<String>(),
        "the identity provider refused a sign-in");
    Page::failure(status, "Sign-in failed", words)
}
