//! Links that ask for a newer or another sign-in: who is sent to the provider, who may approve, and where it ends.

use super::*;
use crate::identity::dev_issuer::{ACR, Flaw};
use crate::policy::StepUp;

const MFA: &str = ACR[1];

async fn person(site: &Site, nickname: &str) -> Identity {
    let begin = site.oidc.begin("/", &Wanted::default()).await.unwrap();
    let (state, code) = DevIssuer::sign_in_as(nickname, &begin).await.unwrap();
    site.oidc.finish(begin.flow, &state, &code).await.unwrap()
}

/// A link for alice.
async fn demanding(site: &Site, acr: &[&str], max_age: Option<u64>) -> (Waiting, String) {
    let acr = acr.iter().map(|acr| (*acr).to_owned()).collect();
    let step_up = StepUp { acr, max_age: max_age.map(Duration::from_secs) };
    let why = "<engineers> asks for it".to_owned();
    site.waiting_with(Some(Demand { step_up, whose: person(site, "alice").await, why }))
}

fn away(answer: &Answered) -> &str {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    answer.location.as_deref().unwrap()
}

#[tokio::test]
async fn another_kind_of_sign_in_is_asked_for_and_then_approves() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (mut waiting, path) = demanding(&site, &["urn:elsewhere", MFA], None).await;
    let mut alice = site.browser(HERE);
    alice.sign_in("/sign-in", "alice").await;
    let sent = alice.get(&path).await;
    assert!(away(&sent).contains("acr_values=urn%3Aelsewhere+urn%3Agatescribe%3Adev%3Amfa"), "{}", away(&sent));
    assert!(!away(&sent).contains("prompt="), "the provider's session may be enough");
    let page = alice.sign_in(&path, "alice").await;
    page.is(StatusCode::OK, "A new sign-in is asked for because &lt;engineers&gt; asks for it.");
    let done = alice.post(&path, &format!("csrf={}&answer=approve", page.csrf())).await;
    assert!(
        matches!(waiting.answer(&done.digits()), Answer::Right(who) if who.identity().acr() == Some(MFA)),
        "the better sign-in is the one that approved"
    );
    assert_eq!(*site.told.0.lock().unwrap(), ["alice@example.com", "alice@example.com"]);
}

#[tokio::test]
async fn a_browser_that_nobody_signed_in_asks_for_it_at_once() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (_waiting, path) = demanding(&site, &[MFA], Some(600)).await;
    let sent = site.browser(HERE).get(&path).await;
    assert!(away(&sent).contains("acr_values=") && away(&sent).contains("max_age=600"), "{}", away(&sent));
    site.browser(HERE).sign_in(&path, "alice").await.is(StatusCode::OK, "Is this you?");
}

#[tokio::test]
async fn nobody_else_approves() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (waiting, path) = demanding(&site, &[], Some(600)).await;
    let mut bob = site.browser(HERE);
    let page = bob.sign_in(&path, "bob").await;
    page.is(StatusCode::FORBIDDEN, "this link is for alice@example.com");
    page.is(StatusCode::FORBIDDEN, &format!("{path}/sign-in"));
    assert!(!page.body.contains("csrf"));
    let csrf = bob.get("/").await.csrf();
    let forced = bob.post(&path, &format!("csrf={csrf}&answer=approve")).await;
    forced.is(StatusCode::FORBIDDEN, "this link is for alice@example.com");
    assert_eq!(waiting.state(), LinkState::Pending);
    // The same browser, as the person of the link.
    let sent = bob.get(&format!("{path}/sign-in")).await;
    assert!(away(&sent).contains("prompt=login"));
    bob.sign_in(&format!("{path}/sign-in"), "alice").await.is(StatusCode::OK, "Is this you?");
}

#[tokio::test]
async fn an_old_sign_in_is_not_enough_for_a_form_either() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (waiting, path) = demanding(&site, &[], Some(600)).await;
    let mut alice = site.browser(HERE);
    site.issuer.set_flaw(Flaw::SignedInAnHourAgo);
    let csrf = alice.sign_in("/sign-in", "alice").await.csrf();
    let back = alice.post(&path, &format!("csrf={csrf}&answer=approve")).await;
    assert_eq!((back.status, back.location.as_deref()), (StatusCode::SEE_OTHER, Some(path.as_str())));
    assert_eq!(waiting.state(), LinkState::Pending);
    let sent = alice.get(&path).await;
    assert!(away(&sent).contains("max_age=600"), "{}", away(&sent));
    // A provider that does not obey, or a URL without it, ends at a page and not in a circle.
    let back = alice.at_provider(&sent, "alice").await;
    alice.get(&back).await.is(StatusCode::BAD_REQUEST, "did not confirm");
    site.issuer.set_flaw(Flaw::None);
    alice.sign_in(&path, "alice").await.is(StatusCode::OK, "Is this you?");
}

#[tokio::test]
async fn what_the_provider_does_not_confirm_ends_at_a_page() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (_waiting, path) = demanding(&site, &["urn:elsewhere"], None).await;
    let mut alice = site.browser(HERE);
    let sent = alice.get(&path).await;
    let back = alice.at_provider(&sent, "alice").await;
    let page = alice.get(&back).await;
    page.is(StatusCode::BAD_REQUEST, "ask an administrator");
    assert!(!page.body.contains("urn:") && !alice.cookies.contains_key("__Host-gatescribe"));

    // Just too old when it comes back: asked once, then told.
    let (_waiting, path) = demanding(&site, &[], Some(0)).await;
    let page = alice.sign_in(&path, "alice").await;
    page.is(StatusCode::FORBIDDEN, "did not confirm");
    alice.get(&path).await.is(StatusCode::FORBIDDEN, "did not confirm");
    assert!(away(&alice.get(&format!("{path}/sign-in")).await).contains("prompt=login"), "by a click it goes on");
}

#[tokio::test]
async fn where_no_request_can_ask_for_what_is_missing_any_new_sign_in_is_asked_for() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (_waiting, path) = demanding(&site, &[], None).await;
    let mut alice = site.browser(HERE);
    alice.sign_in("/sign-in", "alice").await;
    assert!(away(&alice.get(&path).await).contains("prompt=login"));
    alice.sign_in(&path, "alice").await.is(StatusCode::OK, "Is this you?");
}

#[tokio::test]
async fn a_better_sign_in_confirms_no_other_address() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (_waiting, path) = demanding(&site, &[MFA], None).await;
    let mut alice = site.browser(THERE);
    let page = alice.sign_in(&path, "alice").await;
    page.is(StatusCode::OK, "Two different places");
    let sent = alice.get(&format!("{path}/sign-in")).await;
    assert!(away(&sent).contains("acr_values=") && away(&sent).contains("prompt=login"), "{}", away(&sent));
    alice.sign_in(&format!("{path}/sign-in"), "alice").await.is(StatusCode::OK, "Is this you?");
}
