//! What a form must show before it changes anything: our own origin, a session, and that session's token.

use axum::http::{HeaderMap, header};
use reqwest::Url;

use super::answer::Page;
use super::browsers::{Browsers, Session};
use crate::identity::random;

/// The session that a form was sent by.
///
/// Both checks are made: the token alone falls with a leak of the page, the origin alone with a browser that sends none.
pub(super) fn sender(browsers: &Browsers, public_url: &Url, headers: &HeaderMap, csrf: &str) -> Result<Session, Page> {
    let session = browsers.session(headers).filter(|session| random::same(&session.csrf, csrf));
    match session {
        Some(session) if same_origin(public_url, headers) => Ok(session),
        _ => {
            tracing::info!("a form without its page's token, or from another origin, was refused");
            Err(Page::forged())
        }
    }
}

/// By `Sec-Fetch-Site` where the browser sends it: under `no-referrer` it writes `Origin: null` on our own forms. Else
/// by `Origin`. Whoever sends neither is no browser that we know.
fn same_origin(public_url: &Url, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let own = public_url.origin().ascii_serialization();
    match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        (Some(site), origin) => site == "same-origin" && origin.is_none_or(|origin| origin == "null" || origin == own),
        (None, Some(origin)) => origin == own,
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_origin_passes() {
        let own = "https://access.example.com:8443/".parse().unwrap();
        for (site, origin, passes) in [
            (Some("same-origin"), Some("https://access.example.com:8443"), true),
            (Some("same-origin"), Some("null"), true),
            (Some("same-origin"), None, true),
            (Some("same-origin"), Some("https://evil.example.com"), false),
            (Some("same-site"), Some("https://access.example.com:8443"), false),
            (Some("cross-site"), Some("null"), false),
            (Some("none"), None, false),
            (None, Some("https://access.example.com:8443"), true),
            (None, Some("https://access.example.com"), false),
            (None, Some("http://access.example.com:8443"), false),
            (None, Some("null"), false),
            (None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            if let Some(origin) = origin {
                headers.insert("origin", origin.parse().unwrap());
            }
            assert_eq!(same_origin(&own, &headers), passes, "{site:?} {origin:?}");
        }
    }
}
