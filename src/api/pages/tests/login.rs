//! The command line's sign-in and a device's, as a browser sees them.

use super::*;
use crate::identity::grants::{CodeRefused, Polled};

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A good request with one parameter changed, or left out where it is empty.
fn request(name: &str, value: &str) -> String {
    let good = [
        ("response_type", "code"),
        ("client_id", "gatescribe-cli"),
        ("redirect_uri", "http://127.0.0.1:4000/callback"),
        ("state", "a&b=\"c\""),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let mut url: Url = format!("{ORIGIN}/oauth/authorize").parse().unwrap();
    for (known, good) in good {
        let value = if known == name { value } else { good };
        if !value.is_empty() {
            url.query_pairs_mut().append_pair(known, value);
        }
    }
    url.as_str().strip_prefix(ORIGIN).unwrap().to_owned()
}

fn parameters(to: &str) -> HashMap<String, String> {
    to.parse::<Url>().unwrap().query_pairs().into_owned().collect()
}

fn form(csrf: &str, answer: &str) -> String {
    let mut url: Url = ORIGIN.parse().unwrap();
    let fields = [
        ("csrf", csrf),
        ("answer", answer),
        ("redirect_uri", "http://127.0.0.1:4000/callback"),
        ("code_challenge", CHALLENGE),
        ("state", "a&b=\"c\""),
    ];
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap().to_owned()
}

#[tokio::test]
async fn the_command_line_is_signed_in_after_one_question() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    let page = alice.sign_in(&request("", ""), "alice").await;
    page.is(StatusCode::OK, "Sign in the command line?");
    page.is(StatusCode::OK, "A program on this computer (port 4000) wants to sign in as");
    page.is(StatusCode::OK, "Never copy the address of the next page to anybody");
    page.is(StatusCode::OK, "alice@example.com");
    page.is(StatusCode::OK, "192.0.2.1");
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("form-action 'self' http://127.0.0.1:4000;"), "{policy}");
    let back = alice.post("/oauth/authorize", &form(&page.csrf(), "approve")).await;
    assert_eq!(back.status, StatusCode::SEE_OTHER);
    let to = back.location.unwrap();
    assert!(to.starts_with("http://127.0.0.1:4000/callback?"), "{to}");
    let given = parameters(&to);
    assert_eq!((given["state"].as_str(), given["iss"].as_str()), ("a&b=\"c\"", ORIGIN));
    assert_eq!(given["code"].len(), 26);
    // RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let redeem = |from: &str| {
        site.grants.redeem_code(&given["code"], "http://127.0.0.1:4000/callback", verifier, from.parse().unwrap())
    };
    assert!(matches!(redeem("198.51.100.7"), Err(CodeRefused::OtherPlace { .. })), "the browser was not there");
    let denied = alice.post("/oauth/authorize", &form(&page.csrf(), "deny")).await;
    let given = parameters(&denied.location.unwrap());
    assert_eq!((given["error"].as_str(), given["state"].as_str()), ("access_denied", "a&b=\"c\""));
    assert!(!given.contains_key("code"));
}

#[tokio::test]
async fn what_does_not_lead_to_this_machine_leads_nowhere() {
    let site = Site::start(OtherAddress::Confirm).await;
    let nowhere = [
        ("client_id", ""),
        ("client_id", "another"),
        ("redirect_uri", ""),
        ("redirect_uri", "https://evil.example.com/callback"),
        ("redirect_uri", "http://localhost:4000/callback"),
        ("redirect_uri", "http://127.0.0.1:4000/other"),
    ];
    for (name, value) in nowhere {
        let page = site.browser(HERE).get(&request(name, value)).await;
        page.is(StatusCode::BAD_REQUEST, "gatescribe login");
        assert_eq!(page.location, None, "{name}={value}");
    }
    let twice = format!("{}&client_id=gatescribe-cli", request("", ""));
    assert_eq!(site.browser(HERE).get(&twice).await.status, StatusCode::BAD_REQUEST);
    let long = "x".repeat(513);
    let told = [
        ("response_type", "", "invalid_request"),
        ("response_type", "token", "unsupported_response_type"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge", "short", "invalid_request"),
        ("code_challenge_method", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("state", long.as_str(), "invalid_request"),
    ];
    for (name, value, error) in told {
        let to = site.browser(HERE).get(&request(name, value)).await.location.unwrap();
        assert!(to.starts_with("http://127.0.0.1:4000/callback?"), "{to}");
        assert_eq!(parameters(&to)["error"], error, "{name}={value}");
    }
}

#[tokio::test]
async fn a_code_is_made_by_our_own_form_alone() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    let page = alice.sign_in(&request("", ""), "alice").await;
    let csrf = page.csrf();
    let good = form(&csrf, "approve");
    for bad in [form("wrong", "approve"), form("", "approve"), good.replace("approve", "x"), good.replace("127", "128")]
    {
        let refused = alice.post("/oauth/authorize", &bad).await;
        assert_eq!((refused.status, refused.location), (StatusCode::FORBIDDEN, None), "{bad}");
    }
    for origin in [None, Some("https://evil.example.com")] {
        alice.origin = origin;
        assert_eq!(alice.post("/oauth/authorize", &good).await.status, StatusCode::FORBIDDEN);
    }
    alice.origin = Some(ORIGIN);
    let mut bob = site.browser(HERE);
    bob.sign_in("/sign-in", "bob").await;
    assert_eq!(bob.post("/oauth/authorize", &good).await.status, StatusCode::FORBIDDEN);
    assert_eq!(alice.post("/oauth/authorize", &good).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn another_account_comes_back_to_the_same_request() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut browser = site.browser(HERE);
    browser.sign_in(&request("", ""), "alice").await.is(StatusCode::OK, "alice@example.com");
    let again = request("", "").replace("/oauth/authorize", "/oauth/authorize/sign-in");
    browser.sign_in(&again, "bob").await.is(StatusCode::OK, "bob@example.com");
}

#[tokio::test]
async fn a_device_is_signed_in_by_who_types_its_code() {
    let site = Site::start(OtherAddress::Confirm).await;
    let device = site.grants.ask_for_device("192.0.2.1".parse().unwrap(), "<b>gatescribe</b>").unwrap();
    let mut alice = site.browser(HERE);
    let csrf = alice.sign_in("/device", "alice").await.csrf();
    let post = |code: &str, answer: &str| format!("csrf={csrf}&user_code={code}{answer}");
    alice.post("/device", &post("BBBB-BBBB", "")).await.is(StatusCode::NOT_FOUND, "no device waits with this code");
    let code = device.user_code.to_lowercase();
    let page = alice.post("/device", &post(&code, "")).await;
    page.is(StatusCode::OK, "Is this your device?");
    page.is(StatusCode::OK, "192.0.2.1");
    assert!(!page.body.contains("<b>gatescribe"));
    assert_eq!(site.grants.poll_device(&device.device_code), Polled::Pending);
    let forged = alice.post("/device", &format!("csrf=x&user_code={code}&answer=approve")).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    // Bob is a contractor, and only engineering may.
    let mut bob = site.browser(HERE);
    let bobs = bob.sign_in("/device", "bob").await.csrf();
    let refused = bob.post("/device", &format!("csrf={bobs}&user_code={code}&answer=approve")).await;
    refused.is(StatusCode::FORBIDDEN, "your groups may not");
    alice.post("/device", &post(&code, "&answer=approve")).await.is(StatusCode::OK, "Signed in");
}

#[tokio::test]
async fn a_device_elsewhere_is_a_red_page_and_a_fresh_sign_in() {
    let site = Site::start(OtherAddress::Confirm).await;
    let device = site.grants.ask_for_device("192.0.2.1".parse().unwrap(), "").unwrap();
    let mut alice = site.browser(THERE);
    let csrf = alice.sign_in("/device", "alice").await.csrf();
    let post = |csrf: &str, answer: &str| format!("csrf={csrf}&user_code={}{answer}", device.user_code);
    let early = alice.post("/device", &post(&csrf, "&answer=approve")).await;
    early.is(StatusCode::FORBIDDEN, "sign in again to confirm");
    // A fresh sign-in confirms nothing for whoever has not seen the warning.
    let csrf = alice.sign_in("/device/sign-in", "alice").await.csrf();
    let page = alice.post("/device", &post(&csrf, "")).await;
    page.is(StatusCode::OK, "Two different places");
    assert!(page.body.contains("192.0.2.1") && page.body.contains("198.51.100.7"));
    let csrf = alice.sign_in("/device/sign-in", "alice").await.csrf();
    alice.post("/device", &post(&csrf, "")).await.is(StatusCode::OK, "Approve only if that device is yours");
    alice.post("/device", &post(&csrf, "&answer=approve")).await.is(StatusCode::OK, "Signed in");

    let strict = Site::start(OtherAddress::Deny).await;
    let device = strict.grants.ask_for_device("192.0.2.1".parse().unwrap(), "").unwrap();
    let mut alice = strict.browser(THERE);
    let csrf = alice.sign_in("/device", "alice").await.csrf();
    let refused = alice.post("/device", &format!("csrf={csrf}&user_code={}", device.user_code)).await;
    refused.is(StatusCode::FORBIDDEN, "both must be at the same address");
}
