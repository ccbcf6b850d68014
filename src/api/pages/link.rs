//! A link's pages: who asks for what from where, the warning, the digits; and, where a rule asks for a newer or another
//! sign-in, the way to the provider with it.

use std::net::SocketAddr;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, FromRequestParts, Path, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;

use super::answer::{Page, go};
use super::browsers::Session;
use super::sign_in::{Aim, begin};
use super::{Shared, guard, view};
use crate::error::UserFacing;
use crate::identity::link::{Asked, LinkRefused, Place};
use crate::identity::oidc::Wanted;
use crate::identity::random;

/// What a person decided about a link.
#[derive(Deserialize)]
pub(super) struct Decision {
    csrf: String,
    answer: Answer,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Approve,
    Deny,
}

/// A link's code from the path. What cannot be one gets the page that an unknown one gets.
pub(super) struct Code(String);

impl<S: Send + Sync> FromRequestParts<S> for Code {
    type Rejection = Page;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Page> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(code)| Self(code)).map_err(|_| Page::from(LinkRefused::Unknown))
    }
}

pub(super) async fn show(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Code(code): Code,
    headers: HeaderMap,
) -> Response {
    // Looked up first: nobody should sign in for a link that is dead. Whoever has the code may know that it is.
    let asked = match shared.pages.links.look(&code, client.ip()) {
        Ok(asked) => asked,
        Err(why) => return Page::from(why).into_response(),
    };
    let Some(session) = shared.browsers.session(&headers) else {
        return begin(&shared, &headers, client.ip(), aim(&asked, &code)).await;
    };
    match lacking(&asked, &session, &code) {
        None => {}
        Some(Lacking::SignIn) => return begin(&shared, &headers, client.ip(), aim(&asked, &code)).await,
        Some(Lacking::Person(page)) => return page.into_response(),
    }
    let link = random::hashed(&code);
    let browser = client.ip().to_canonical();
    match asked.place {
        Place::Forbidden { terminal } => Page::from(LinkRefused::OtherAddressForbidden { terminal, browser }),
        Place::Other { terminal } if session.errand.fresh_for != Some(link) => {
            shared.browsers.warn(&headers, link);
            Page::ok(view::warning(&asked, terminal, browser, &shared.pages.geo, &code))
        }
        Place::Same | Place::Other { .. } => {
            Page::ok(view::question(&asked, &session, browser, &shared.pages.geo, &code))
        }
    }
    .into_response()
}

/// Another account, or the same one afresh. A link and not a form: `form-action` forbids forms that lead to the
/// provider, and beginning a sign-in changes nothing.
pub(super) async fn sign_in_again(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Code(code): Code,
    headers: HeaderMap,
) -> Response {
    let asked = match shared.pages.links.look(&code, client.ip()) {
        Ok(asked) => asked,
        Err(why) => return Page::from(why).into_response(),
    };
    // It confirms different addresses only for whoever saw them: a link sent straight to here confirms nothing.
    let link = random::hashed(&code);
    let warned = shared.browsers.session(&headers).is_some_and(|session| session.warned == Some(link));
    let aim = aim(&asked, &code).afresh().confirming(warned.then_some(link));
    begin(&shared, &headers, client.ip(), aim).await
}

pub(super) async fn decide(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Code(code): Code,
    headers: HeaderMap,
    form: Result<Form<Decision>, FormRejection>,
) -> Response {
    let Ok(Form(Decision { csrf, answer })) = form else { return Page::forged().into_response() };
    let session = match guard::sender(&shared.browsers, &shared.pages.public_url, &headers, &csrf) {
        Ok(session) => session,
        Err(page) => return page.into_response(),
    };
    let links = &shared.pages.links;
    let fresh = session.errand.fresh_for == Some(random::hashed(&code));
    match answer {
        Answer::Approve => match links.approve(&code, session.approval(), client.ip(), fresh) {
            Ok(digits) => Page::ok(view::digits(digits.as_str())).into_response(),
            // The page says it better than a refusal.
            Err(LinkRefused::OtherAddress { .. } | LinkRefused::NotEnough) => go(&path(&code)),
            Err(why) => Page::from(why).into_response(),
        },
        Answer::Deny => match links.deny(&code, &session.identity) {
            Ok(()) => Page::ok(view::denied()).into_response(),
            Err(why) => Page::from(why).into_response(),
        },
    }
}

/// What the browser's sign-in lacks for a link that asks for more than any.
enum Lacking {
    /// A newer one, or another kind.
    SignIn,
    /// Something that another sign-in of the same person does not cure.
    Person(Page),
}

fn lacking(asked: &Asked, session: &Session, code: &str) -> Option<Lacking> {
    let demand = asked.demand.as_ref()?;
    let was_sent = session.errand.asked_by == Some(random::hashed(code));
    match demand.check(&session.identity, Timestamp::now()) {
        Ok(()) if Wanted::from(&demand.step_up).fresh && !was_sent => Some(Lacking::SignIn),
        Ok(()) => None,
        Err(LinkRefused::NotEnough) if !was_sent => Some(Lacking::SignIn),
        Err(LinkRefused::NotEnough) => {
            let words = "your provider did not confirm the sign-in that this link asks for, sign in again; if that \
                         does not help, ask an administrator";
            Some(Lacking::Person(Page::refusal(view::another_sign_in("Not confirmed", words, code))))
        }
        Err(why) => Some(Lacking::Person(Page::refusal(view::another_sign_in("Another account", &why.told(), code)))),
    }
}

/// To the provider and back to this link, with what it asks of the sign-in.
fn aim(asked: &Asked, code: &str) -> Aim {
    let aim = Aim::at(path(code));
    match &asked.demand {
        Some(demand) => aim.wanting(Wanted::from(&demand.step_up)).asked_by(random::hashed(code)),
        None => aim,
    }
}

/// Only for codes that were found: those have letters and digits alone.
fn path(code: &str) -> String {
    format!("/link/{code}")
}
