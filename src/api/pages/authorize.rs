//! The command line's sign-in in the browser: one question, then back to the program that waits on loopback
//! (RFC 6749 section 4.1.1, RFC 8252).
//!
//! A request that does not name our client and a loopback address gets a page and leads nowhere. Everything else that is
//! wrong is told to the program there. The question is a form with a token of its own: a page that somebody else wrote
//! can ask, and never agree.

use std::net::SocketAddr;

use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::answer::{Page, go};
use super::browsers::Session;
use super::sign_in::{Aim, begin, no_randomness};
use super::{Shared, guard, view};
use crate::api::oauth::issuer;
use crate::identity::grants::{CLIENT, Challenge, RedirectUri};

/// An authorization request as it came (RFC 6749 section 4.1.1, RFC 7636 section 4.3). Parameters that are not named
/// here are ignored, as section 3.1 says; one that comes twice is refused.
#[derive(Deserialize)]
pub(super) struct Parameters {
    response_type: Option<String>,
    client_id: Option<String>,
    redirect_uri: Option<String>,
    state: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
}

/// The question's form: the same, and what the person decided.
#[derive(Deserialize)]
pub(super) struct Decision {
    csrf: String,
    answer: Answer,
    redirect_uri: Option<String>,
    state: Option<String>,
    code_challenge: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Approve,
    Deny,
}

/// A request in which everything is right.
struct Request {
    redirect: RedirectUri,
    state: Option<String>,
    challenge: Challenge,
}

/// What is wrong with a request, for the program that sent it.
struct Wrong {
    redirect: RedirectUri,
    state: Option<String>,
    error: &'static str,
    words: &'static str,
}

pub(super) async fn ask(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let request = match understand(&shared, parameters) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let Some(session) = shared.browsers.session(&headers) else {
        let aim = Aim::at(request.path(""));
        return begin(&shared, &headers, client.ip(), aim).await;
    };
    let page = Page::ok(question(&request, &session, client));
    page.with_forms_to(&request.redirect.form_action()).into_response()
}

/// Another account, or the same one afresh, so that the sign-in lasts its full time.
pub(super) async fn sign_in_again(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let request = match understand(&shared, parameters) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let aim = Aim::at(request.path("")).afresh();
    begin(&shared, &headers, client.ip(), aim).await
}

pub(super) async fn decide(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<Decision>, FormRejection>,
) -> Response {
    let Ok(Form(decision)) = form else { return Page::forged().into_response() };
    let session = match guard::sender(&shared.browsers, &shared.pages.public_url, &headers, &decision.csrf) {
        Ok(session) => session,
        Err(page) => return page.into_response(),
    };
    let redirect = decision.redirect_uri.as_deref().and_then(RedirectUri::parse);
    let challenge = decision.code_challenge.as_deref().and_then(Challenge::parse);
    let (Some(redirect), Some(challenge)) = (redirect, challenge) else { return Page::forged().into_response() };
    let state = decision.state;
    if let Answer::Deny = decision.answer {
        let words = "the sign-in was denied in the browser";
        return tell(&shared, Wrong { redirect, state, error: "access_denied", words });
    }
    let code = match shared.pages.grants.issue_code(redirect.clone(), challenge, session.approval(), client.ip()) {
        Ok(code) => code,
        Err(error) => return no_randomness(error),
    };
    back(&shared, &redirect, state.as_deref(), &[("code", &code)])
}

impl Request {
    /// The same request again, written by us.
    fn path(&self, below: &str) -> String {
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", CLIENT),
            ("redirect_uri", self.redirect.as_str()),
            ("code_challenge", self.challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        query.extend(self.state.as_deref().map(|state| ("state", state)));
        let query = self.redirect.with(&query).and_then(|url| url.query().map(str::to_owned)).unwrap_or_default();
        format!("/oauth/authorize{below}?{query}")
    }
}

/// The request, or the answer that says what is wrong with it to whoever may be told.
fn understand(
    shared: &Shared,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Request, Box<Response>> {
    match read(parameters) {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(wrong)) => Err(Box::new(tell(shared, wrong))),
        Err(page) => Err(Box::new(page.into_response())),
    }
}

/// A page for what must not lead anywhere (RFC 6749 section 4.1.2.1); else the request, or what is wrong with it.
fn read(parameters: Result<Query<Parameters>, QueryRejection>) -> Result<Result<Request, Wrong>, Page> {
    let nowhere = |words: &str| {
        tracing::info!(words, "an authorization request was refused");
        Page::failure(StatusCode::BAD_REQUEST, "Not a sign-in", words)
    };
    let Ok(Query(given)) = parameters else {
        return Err(nowhere("the request cannot be read, run `gatescribe login` again"));
    };
    if given.client_id.as_deref() != Some(CLIENT) {
        return Err(nowhere("only the command line `gatescribe` signs in here, run `gatescribe login`"));
    }
    let Some(redirect) = given.redirect_uri.as_deref().and_then(RedirectUri::parse) else {
        return Err(nowhere("this sign-in would lead to another place than your own machine, run `gatescribe login`"));
    };
    let state = given.state.filter(|state| !state.is_empty());
    let wrong = |redirect, state, error, words| Ok(Err(Wrong { redirect, state, error, words }));
    if state.as_ref().is_some_and(|state| state.len() > LONGEST_STATE) {
        return wrong(redirect, None, "invalid_request", "state is too long");
    }
    match given.response_type.as_deref() {
        Some("code") => {}
        None | Some("") => return wrong(redirect, state, "invalid_request", "response_type is missing"),
        Some(_) => return wrong(redirect, state, "unsupported_response_type", "there is only code"),
    }
    let challenge = given.code_challenge.as_deref().and_then(Challenge::parse);
    match (challenge, given.code_challenge_method.as_deref()) {
        (Some(challenge), Some("S256")) => Ok(Ok(Request { redirect, state, challenge })),
        _ => wrong(redirect, state, "invalid_request", "a code challenge is needed (PKCE), by the method S256"),
    }
}

/// Back to the program with an error.
fn tell(shared: &Shared, wrong: Wrong) -> Response {
    tracing::info!(error = wrong.error, words = wrong.words, "a sign-in at the command line was refused");
    let error = [("error", wrong.error), ("error_description", wrong.words)];
    back(shared, &wrong.redirect, wrong.state.as_deref(), &error)
}

/// Back to the program that waits on loopback. `iss` tells it who answers (RFC 9207).
fn back(shared: &Shared, redirect: &RedirectUri, state: Option<&str>, parameters: &[(&str, &str)]) -> Response {
    let issuer = issuer(&shared.pages.public_url);
    let mut all = parameters.to_vec();
    all.extend(state.map(|state| ("state", state)));
    all.push(("iss", &issuer));
    match redirect.with(&all) {
        Some(url) => go(url.as_str()),
        None => Page::forged().into_response(),
    }
}

fn question(request: &Request, session: &Session, client: SocketAddr) -> (&'static str, Markup) {
    let body = html! {
        h1 { "Sign in the command line?" }
        p {
            "A program on this computer (port " (request.redirect.port()) ") wants to sign in as "
            strong { (session.identity.email()) } ", until " (view::minute(session.identity.expires())) "."
        }
        p { "This browser is at " strong { (client.ip().to_canonical()) } ", and the program must be there too." }
        p.warning { "Never copy the address of the next page to anybody: it signs them in under your name." }
        p { "If you did not just run " code { "gatescribe login" } " on this machine, deny it." }
        form method="post" action="/oauth/authorize" {
            (view::csrf(session))
            input type="hidden" name="redirect_uri" value=(request.redirect.as_str());
            input type="hidden" name="code_challenge" value=(request.challenge.as_str());
            @if let Some(state) = &request.state {
                input type="hidden" name="state" value=(state);
            }
            button.main name="answer" value="approve" { "Sign in" } " "
            button name="answer" value="deny" { "Deny" }
        }
        p { a href=(request.path("/sign-in")) { "Sign in again, or with another account" } }
    };
    ("Sign in the command line", body)
}

/// Longer ones are no program's of ours.
const LONGEST_STATE: usize = 512;
