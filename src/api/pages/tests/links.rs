//! Links: approved, denied, dead, forged, from elsewhere.

use super::*;

#[tokio::test]
async fn a_link_is_approved_and_its_digits_sign_the_terminal_in() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (mut waiting, path) = site.waiting();
    let mut alice = site.browser(HERE);
    let page = alice.sign_in(&path, "alice").await;
    for words in ["alice@example.com", "shell", "&lt;b&gt;root&lt;/b&gt;", "192.0.2.1", "SSH-2.0-OpenSSH_9.2", "UTC"] {
        page.is(StatusCode::OK, words);
    }
    let done = alice.post(&path, &format!("csrf={}&answer=approve", page.csrf())).await;
    done.is(StatusCode::OK, "Type these in your terminal");
    assert!(matches!(waiting.answer(&done.digits()), Answer::Right(who) if who.email() == "alice@example.com"));

    let again = alice.post(&path, &format!("csrf={}&answer=approve", page.csrf())).await;
    again.is(StatusCode::GONE, "used already");
    alice.get(&path).await.is(StatusCode::GONE, "used already");
}

#[tokio::test]
async fn a_link_for_no_socket_says_that_it_reaches_them_all() {
    let site = Site::start(OtherAddress::Confirm).await;
    for (anywhere, words) in [(true, true), (false, false)] {
        let (_waiting, path) = site.waiting_for(None, anywhere);
        let page = site.browser(HERE).sign_in(&path, "alice").await;
        page.is(StatusCode::OK, "shell");
        assert_eq!(page.body.contains("every SSH socket that you may reach"), words, "{}", page.body);
        assert_eq!(page.body.contains("<dt>Socket</dt>"), !words, "{}", page.body);
    }
}

#[tokio::test]
async fn a_link_can_be_denied() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (waiting, path) = site.waiting();
    let mut bob = site.browser(HERE);
    let page = bob.sign_in(&path, "bob").await;
    bob.post(&path, &format!("csrf={}&answer=deny", page.csrf())).await.is(StatusCode::OK, "Denied");
    assert_eq!(waiting.state(), LinkState::Refused("bob@example.com denied this sign-in in the browser".into()));
}

#[tokio::test]
async fn dead_links_get_a_page_without_a_sign_in() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut browser = site.browser(HERE);
    browser.get("/link/nosuchlink").await.is(StatusCode::NOT_FOUND, "does not exist");
    browser.get("/link/%0d%0aSet-Cookie:x").await.is(StatusCode::NOT_FOUND, "does not exist");
    browser.get("/link/%ff").await.is(StatusCode::NOT_FOUND, "does not exist");
    browser.get("/link/nosuchlink/sign-in").await.is(StatusCode::NOT_FOUND, "does not exist");
    let (waiting, path) = site.waiting();
    drop(waiting);
    browser.get(&path).await.is(StatusCode::GONE, "has gone");
    assert!(browser.cookies.is_empty());
}

#[tokio::test]
async fn a_form_needs_its_token_and_our_origin() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (waiting, path) = site.waiting();
    let mut alice = site.browser(HERE);
    let csrf = alice.sign_in(&path, "alice").await.csrf();
    let mut other = site.browser(HERE);
    let others = other.sign_in(&path, "bob").await.csrf();
    for form in ["answer=approve", "csrf=&answer=approve", &format!("csrf={others}&answer=approve"), "csrf"] {
        alice.post(&path, form).await.is(StatusCode::FORBIDDEN, "did not come from");
    }
    let right = format!("csrf={csrf}&answer=approve");
    for origin in [Some("https://evil.example.com"), Some("null"), None] {
        alice.origin = origin;
        alice.post(&path, &right).await.is(StatusCode::FORBIDDEN, "did not come from");
        alice.post("/signout", &format!("csrf={csrf}")).await.is(StatusCode::FORBIDDEN, "did not come from");
        alice.post("/token", &format!("csrf={csrf}")).await.is(StatusCode::FORBIDDEN, "did not come from");
    }
    let mut nobody = site.browser(HERE);
    nobody.post(&path, &right).await.is(StatusCode::FORBIDDEN, "did not come from");
    assert_eq!(waiting.state(), LinkState::Pending);
    alice.origin = Some(ORIGIN);
    alice.post(&path, &right).await.is(StatusCode::OK, "Type these");
}

#[tokio::test]
async fn another_address_is_warned_of_and_must_sign_in_again() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (waiting, path) = site.waiting();
    let mut alice = site.browser(THERE);
    // Sent straight to the second sign-in, as somebody who wants the warning skipped would do it.
    let page = alice.sign_in(&format!("{path}/sign-in"), "alice").await;
    for words in ["Two different places", "192.0.2.1", "198.51.100.7", "Sign in again to confirm"] {
        page.is(StatusCode::OK, words);
    }
    assert!(!page.body.contains("csrf"), "the warning has nothing to approve with");
    let csrf = alice.get("/").await.csrf();
    let approve = alice.post(&path, &format!("csrf={csrf}&answer=approve")).await;
    assert_eq!((approve.status, approve.location.as_deref()), (StatusCode::SEE_OTHER, Some(path.as_str())));
    assert_eq!(waiting.state(), LinkState::Pending);

    let away = alice.get(&format!("{path}/sign-in")).await;
    assert!(away.location.as_deref().unwrap().contains("prompt=login"));
    let page = alice.sign_in(&format!("{path}/sign-in"), "alice").await;
    page.is(StatusCode::OK, "Is this you?");
    page.is(StatusCode::OK, "198.51.100.7");
    alice.post(&path, &format!("csrf={}&answer=approve", page.csrf())).await.is(StatusCode::OK, "Type these");

    // That sign-in confirmed one link, not every link.
    let (_other, path) = site.waiting();
    alice.get(&path).await.is(StatusCode::OK, "Two different places");
}

#[tokio::test]
async fn another_address_can_be_forbidden() {
    let site = Site::start(OtherAddress::Deny).await;
    let (waiting, path) = site.waiting();
    let mut alice = site.browser(THERE);
    alice.sign_in(&path, "alice").await.is(StatusCode::FORBIDDEN, "must be at the same address");
    let csrf = alice.get("/").await.csrf();
    let refused = alice.post(&path, &format!("csrf={csrf}&answer=approve")).await;
    refused.is(StatusCode::FORBIDDEN, "must be at the same address");
    assert_eq!(waiting.state(), LinkState::Pending);
}
