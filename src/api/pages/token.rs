//! A person's API token, shown once. It acts for them with the role that their groups have.

use std::net::SocketAddr;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::answer::Page;
use super::sign_in::{Aim, Bare, begin};
use super::{Shared, guard, view};

pub(super) async fn ask(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let Some(session) = shared.browsers.session(&headers) else {
        let aim = Aim::at("/token");
        return begin(&shared, &headers, client.ip(), aim).await;
    };
    let role = shared.pages.tokens.role_of(&session.identity);
    Page::ok(view::token_question(&session, role)).into_response()
}

pub(super) async fn issue(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<Bare>, FormRejection>,
) -> Response {
    let csrf = form.map(|Form(form)| form.csrf).unwrap_or_default();
    let session = match guard::sender(&shared.browsers, &shared.pages.public_url, &headers, &csrf) {
        Ok(session) => session,
        Err(page) => return page.into_response(),
    };
    match shared.pages.tokens.issue(&session.approval(), client.ip()).await {
        Ok(issued) => {
            tracing::info!(email = session.identity.email(), expires = %issued.expires, "an API token was issued");
            Page::ok(view::token(&issued)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an API token could not be issued");
            let words = "the token could not be made, try again in a minute";
            Page::failure(StatusCode::SERVICE_UNAVAILABLE, "Not possible now", words).into_response()
        }
    }
}
