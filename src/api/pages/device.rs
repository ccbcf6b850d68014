//! A device's sign-in in the browser (RFC 8628 section 3.3): the person types the code that the device shows, sees both
//! places, and decides.

use std::net::SocketAddr;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::answer::Page;
use super::browsers::Session;
use super::sign_in::{Aim, begin};
use super::{Shared, guard, view};
use crate::error::UserFacing;
use crate::identity::grants::{DeviceAsked, DeviceRefused};
use crate::identity::link::{LinkRefused, Place};
use crate::identity::random::{self, Hashed};

/// A typed code, and, from the second page, what the person decided.
#[derive(Deserialize)]
pub(super) struct Typed {
    csrf: String,
    user_code: String,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Approve,
    Deny,
}

pub(super) async fn ask(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !shared.pages.grants.devices_are_on() {
        return Page::from(DeviceRefused::Off).into_response();
    }
    match shared.browsers.session(&headers) {
        Some(session) => Page::ok(form(&session)).into_response(),
        None => {
            let aim = Aim::at("/device");
            begin(&shared, &headers, client.ip(), aim).await
        }
    }
}

/// Another account, or the same one afresh. The code is typed again after it: a link to here approves nothing.
pub(super) async fn sign_in_again(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let warned = shared.browsers.session(&headers).and_then(|session| session.warned);
    let aim = Aim::at("/device").afresh().confirming(warned);
    begin(&shared, &headers, client.ip(), aim).await
}

pub(super) async fn decide(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<Typed>, FormRejection>,
) -> Response {
    let Ok(Form(Typed { csrf, user_code, answer })) = form else { return Page::forged().into_response() };
    let session = match guard::sender(&shared.browsers, &shared.pages.public_url, &headers, &csrf) {
        Ok(session) => session,
        Err(page) => return page.into_response(),
    };
    let (grants, browser, who) = (&shared.pages.grants, client.ip().to_canonical(), &session.identity);
    let asked = match grants.look_at_device(&user_code, who, browser) {
        Ok(asked) => asked,
        Err(why) => return Page::from(why).into_response(),
    };
    let this = about(&asked.user_code);
    let fresh = session.errand.fresh_for == Some(this);
    let decided = match answer {
        Some(Answer::Approve) => {
            grants.approve_device(&user_code, session.approval(), browser, fresh).map(|()| approved())
        }
        Some(Answer::Deny) => grants.deny_device(&user_code, who).map(|()| view::denied()),
        None => match asked.place {
            Place::Forbidden { terminal } => Err(LinkRefused::OtherAddressForbidden { terminal, browser }.into()),
            Place::Other { .. } if !fresh => {
                shared.browsers.warn(&headers, this);
                Ok(warning(&asked, client))
            }
            Place::Same | Place::Other { .. } => Ok(question(&asked, &session, client)),
        },
    };
    match decided {
        Ok(content) => Page::ok(content).into_response(),
        Err(why) => Page::from(why).into_response(),
    }
}

impl From<DeviceRefused> for Page {
    fn from(why: DeviceRefused) -> Self {
        let (status, title) = match why {
            DeviceRefused::Place(why) => return why.into(),
            DeviceRefused::Off => (StatusCode::NOT_FOUND, "No devices here"),
            DeviceRefused::Group => (StatusCode::FORBIDDEN, "Not for your groups"),
            DeviceRefused::Unknown => (StatusCode::NOT_FOUND, "Unknown code"),
            DeviceRefused::TooManyTries | DeviceRefused::TooMany => (StatusCode::TOO_MANY_REQUESTS, "Too many tries"),
            DeviceRefused::SignInExpired => (StatusCode::FORBIDDEN, "Sign-in expired"),
            DeviceRefused::NoRandomness(_) => (StatusCode::INTERNAL_SERVER_ERROR, "Not possible now"),
        };
        tracing::info!(%why, "a device's code was refused in the browser");
        Self::failure(status, title, &why.told())
    }
}

/// What a warning and a fresh sign-in were about: this code, and no link.
fn about(user_code: &str) -> Hashed {
    random::hashed(&format!("device {user_code}"))
}

fn form(session: &Session) -> (&'static str, Markup) {
    let body = html! {
        h1 { "Sign in a device" }
        p { "You are signed in as " strong { (session.identity.email()) } "." }
        p { "Type the code only if you ran the command yourself. Nobody else ever needs it: not support, not a colleague." }
        form method="post" action="/device" {
            (view::csrf(session))
            p {
                label for="user_code" { "The code that the device shows: " }
                input id="user_code" name="user_code" autocomplete="off" autocapitalize="characters" spellcheck="false"
                    maxlength="32" required;
            }
            button.main { "Continue" }
        }
    };
    ("Sign in a device", body)
}

fn question(asked: &DeviceAsked, session: &Session, client: SocketAddr) -> (&'static str, Markup) {
    let browser = client.ip().to_canonical();
    let body = html! {
        h1 { "Is this your device?" }
        @if let Place::Other { terminal } = asked.place {
            p.warning role="alert" {
                "The device is at " strong { (terminal) } ", this browser is at " strong { (browser) } ". "
                "Approve only if that device is yours."
            }
        }
        p { "A device asks to act as " strong { (session.identity.email()) } ", until "
            (view::minute(session.identity.expires())) "." }
        (facts(asked, client))
        form method="post" action="/device" {
            (view::csrf(session))
            input type="hidden" name="user_code" value=(asked.user_code);
            button.main name="answer" value="approve" { "Approve" } " "
            button name="answer" value="deny" { "Deny" }
        }
        p { a href="/device/sign-in" { "Use another account" } }
    };
    ("Sign in a device", body)
}

fn warning(asked: &DeviceAsked, client: SocketAddr) -> (&'static str, Markup) {
    let body = html! {
        div.warning role="alert" {
            h1 { "Two different places" }
            p { "The device is at " strong { (asked.from) } "." }
            p { "This browser is at " strong { (client.ip().to_canonical()) } "." }
            p { "If somebody sent you this code, close this page: they would get in under your name." }
        }
        (facts(asked, client))
        p { "If that device is yours, sign in again to confirm it, and type the code once more." }
        p { a.button href="/device/sign-in" { "Sign in again to confirm" } }
    };
    ("Two different places", body)
}

fn approved() -> (&'static str, Markup) {
    let body = html! {
        h1 { "Signed in" }
        p { "The device is signed in in a few seconds. You can close this page." }
    };
    ("Signed in", body)
}

fn facts(asked: &DeviceAsked, client: SocketAddr) -> Markup {
    html! {
        dl {
            dt { "Code" } dd { (asked.user_code) }
            dt { "Device" } dd { (asked.from) }
            dt { "Browser" } dd { (client.ip().to_canonical()) }
            dt { "Program" } dd { (asked.software) }
            dt { "Asked at" } dd { (view::second(asked.since)) }
        }
    }
}
