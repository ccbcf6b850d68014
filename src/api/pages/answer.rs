//! Pages as HTTP answers: status, one frame around every page, and the headers that keep it harmless.

use axum::extract::State;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use maud::Markup;
use reqwest::Url;

use super::{PagesState, view};
use crate::error::{Fault, UserFacing};
use crate::identity::link::LinkRefused;
use crate::identity::oidc::OidcError;
use crate::identity::random;

/// For answers without a page of ours.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// A page with its status.
pub(super) struct Page {
    status: StatusCode,
    title: &'static str,
    body: Markup,
    /// Where its forms may lead beside here.
    forms_to: Option<String>,
}

impl Page {
    pub(super) fn ok((title, body): (&'static str, Markup)) -> Self {
        Self { status: StatusCode::OK, title, body, forms_to: None }
    }

    /// What its person may not do with the sign-in that there is.
    pub(super) fn refusal(content: (&'static str, Markup)) -> Self {
        Self { status: StatusCode::FORBIDDEN, ..Self::ok(content) }
    }

    /// Its form's answer leads to this place, which is none of a request's making.
    pub(super) fn with_forms_to(self, place: &str) -> Self {
        Self { forms_to: Some(place.to_owned()), ..self }
    }

    /// The one page that every failure gets: what happened, and what to do.
    pub(super) fn failure(status: StatusCode, title: &'static str, words: &str) -> Self {
        Self { status, title, body: view::failure(title, words), forms_to: None }
    }

    /// A form that did not come from our own page in this browser.
    pub(super) fn forged() -> Self {
        let words = "the form did not come from this gateway's own page, open the page again and repeat it there";
        Self::failure(StatusCode::FORBIDDEN, "Refused", words)
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        // Without random bytes the page goes out without its style: the policy below then names nothing.
        let nonce = random::code().unwrap_or_default();
        let forms_to = self.forms_to.map(|place| format!(" {place}")).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'{forms_to}; base-uri 'none'; \
             frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy).unwrap_or(NOTHING);
        let page = view::frame(self.title, &nonce, &self.body);
        (self.status, [(header::CONTENT_SECURITY_POLICY, policy)], page).into_response()
    }
}

impl From<LinkRefused> for Page {
    fn from(why: LinkRefused) -> Self {
        tracing::info!(%why, "a sign-in link was refused in the browser");
        let (status, title) = match why {
            LinkRefused::Unknown => (StatusCode::NOT_FOUND, "Unknown link"),
            LinkRefused::Expired => (StatusCode::GONE, "Link expired"),
            LinkRefused::Used => (StatusCode::GONE, "Link already used"),
            LinkRefused::Denied => (StatusCode::GONE, "Link denied"),
            LinkRefused::GoneAway | LinkRefused::WrongDigits | LinkRefused::Upgraded => {
                (StatusCode::GONE, "Link no longer valid")
            }
            LinkRefused::OtherAddress { .. } | LinkRefused::OtherAddressForbidden { .. } => {
                (StatusCode::FORBIDDEN, "Different places")
            }
            LinkRefused::OtherPerson { .. } => (StatusCode::FORBIDDEN, "Another account"),
            LinkRefused::NotEnough => (StatusCode::FORBIDDEN, "Another sign-in is needed"),
            LinkRefused::SignInExpired => (StatusCode::FORBIDDEN, "Sign-in expired"),
            LinkRefused::TooMany | LinkRefused::TooManyFromAddress | LinkRefused::TooFast => {
                (StatusCode::TOO_MANY_REQUESTS, "Too many sign-ins")
            }
            LinkRefused::NoRandomness(_) => (StatusCode::INTERNAL_SERVER_ERROR, "Not possible now"),
        };
        Self::failure(status, title, &why.told())
    }
}

impl From<OidcError> for Page {
    fn from(error: OidcError) -> Self {
        let status = match error.fault() {
            Fault::Client => StatusCode::BAD_REQUEST,
            Fault::Upstream => StatusCode::BAD_GATEWAY,
            Fault::Gateway => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match error.fault() {
            Fault::Client => tracing::info!(%error, "a sign-in failed"),
            Fault::Upstream => tracing::warn!(%error, "a sign-in failed"),
            Fault::Gateway => tracing::error!(%error, "a sign-in failed"),
        }
        Self::failure(status, "Sign-in failed", &error.told())
    }
}

/// Sends the browser on with GET.
pub(super) fn go(to: &str) -> Response {
    Redirect::to(to).into_response()
}

/// Adds to every answer what browsers must be told.
pub(super) async fn harden(State(pages): State<PagesState>, mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(NOTHING);
    for (name, value) in HARDENING {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if lasting_https(&pages.public_url) {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    answer
}

/// `localhost` is shared with every other program on the machine: they may want plain HTTP.
fn lasting_https(public_url: &Url) -> bool {
    let host = public_url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    public_url.scheme() == "https" && !local
}

const HARDENING: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];
