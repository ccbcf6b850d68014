//! Signing in again for open sessions.

use uuid::Uuid;

use super::*;
use crate::identity::dev_issuer::{ACR, Flaw};

const OPEN: Uuid = Uuid::from_u128(7);

/// One session, of alice, whose rule wants a second factor.
pub(super) struct Alices;

impl Renewals for Alices {
    fn wanted(&self, session: Uuid, who: Option<&Identity>) -> Option<Wanted> {
        let theirs = who.is_none_or(|who| who.nickname() == Some("alice"));
        let wanted = Wanted { acr: vec![ACR[1].into()], max_age: Some(Duration::from_secs(3600)), fresh: false };
        (session == OPEN && theirs).then_some(wanted)
    }
}

fn asks_anew(answer: &Answered) -> &str {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let to = answer.location.as_deref().unwrap();
    assert!(to.contains("prompt=login") && to.contains("max_age=0"), "{to}");
    to
}

#[tokio::test]
async fn a_new_sign_in_renews_and_is_told_before_the_page_says_so() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    // What somebody writes into the address asks for nothing.
    let sent = alice.get("/renew?acr=urn:x&acr_values=urn:x&max_age=5").await;
    assert!(!asks_anew(&sent).contains("acr_values"));
    let page = alice.sign_in("/renew", "alice").await;
    for words in ["alice@example.com", "Your sign-in was renewed until", " UTC", "; your open sessions go on."] {
        page.is(StatusCode::OK, words);
    }
    assert_eq!(*site.told.0.lock().unwrap(), ["alice@example.com"]);
    alice.get("/renew").await.is(StatusCode::OK, "renewed until");
}

#[tokio::test]
async fn a_sign_in_that_is_older_than_a_minute_is_none_here() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    site.issuer.set_flaw(Flaw::SignedInAnHourAgo);
    alice.sign_in("/sign-in", "alice").await.is(StatusCode::OK, "alice@example.com");
    let sent = alice.get("/renew").await;
    asks_anew(&sent);
    let back = alice.at_provider(&sent, "alice").await;
    alice.get(&back).await.is(StatusCode::BAD_REQUEST, "just now");
    site.issuer.set_flaw(Flaw::None);
    alice.sign_in("/renew", "alice").await.is(StatusCode::OK, "renewed until");
}

#[tokio::test]
async fn a_session_gets_the_sign_in_that_its_rule_wants() {
    let site = Site::start(OtherAddress::Confirm).await;
    let path = format!("/renew/{OPEN}");
    let mut alice = site.browser(HERE);
    alice.sign_in("/sign-in", "alice").await;
    // New, but of the wrong class.
    let sent = alice.get(&path).await;
    assert!(asks_anew(&sent).contains("acr_values=urn%3Agatescribe%3Adev%3Amfa"));
    alice.sign_in(&path, "alice").await.is(StatusCode::OK, "renewed until");
    alice.get(&path).await.is(StatusCode::OK, "renewed until");
}

#[tokio::test]
async fn other_peoples_sessions_and_none_look_the_same() {
    let site = Site::start(OtherAddress::Confirm).await;
    let nobodys = format!("/renew/{}", Uuid::from_u128(8));
    asks_anew(&site.browser(HERE).get(&nobodys).await);
    for path in [format!("/renew/{OPEN}"), nobodys] {
        site.browser(HERE).sign_in(&path, "bob").await.is(StatusCode::NOT_FOUND, "no open session of yours");
    }
    site.browser(HERE).get("/renew/x").await.is(StatusCode::NOT_FOUND, "no open session of yours");
}
