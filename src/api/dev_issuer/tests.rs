//! Every wrong token, issued for real over HTTP and refused by the gateway's OpenID client.

use jiff::{SignedDuration, Timestamp};
use tokio::time::{advance, pause, resume};

use super::*;
use crate::identity::oidc::Rejection;

const LIFETIME: Duration = Duration::from_secs(12 * 3600);

fn callback() -> Url {
    "https://localhost:8443/oidc/callback".parse().unwrap()
}

async fn start() -> (DevIssuer, Oidc) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = DevIssuer::start(listener, &callback()).unwrap();
    let oidc = Oidc::discover(issuer.settings(callback(), LIFETIME)).await.unwrap();
    (issuer, oidc)
}

async fn sign_in(oidc: &Oidc, nickname: &str, fresh: bool) -> Result<Identity, OidcError> {
    let begin = oidc.begin("/link/x", fresh).await?;
    let (state, code) = DevIssuer::sign_in_as(nickname, &begin).await.unwrap();
    oidc.finish(begin.flow, &state, &code).await
}

#[tokio::test]
async fn people_sign_in_with_their_claims() {
    let (issuer, oidc) = start().await;
    let alice = sign_in(&oidc, "alice", false).await.unwrap();
    assert_eq!(alice.issuer(), issuer.issuer_url());
    assert_eq!((alice.email(), alice.subject(), alice.name()), ("alice@example.com", "dev-1", Some("Alice Archer")));
    assert_eq!((alice.groups(), alice.nickname()), (&["engineering".to_owned()][..], Some("alice")));
    assert!(alice.picture().unwrap().starts_with("data:image/svg+xml,"));
    assert_eq!(alice.expires().duration_since(alice.signed_in()), SignedDuration::from_hours(12));
    assert!(Timestamp::now().duration_since(alice.signed_in()) < SignedDuration::from_mins(1));
    assert_eq!(sign_in(&oidc, "bob", true).await.unwrap().groups(), ["contractors"]);
    assert_eq!(sign_in(&oidc, "admin", false).await.unwrap().groups(), ["security"]);
}

#[tokio::test]
async fn wrong_tokens_are_refused() {
    let (issuer, oidc) = start().await;
    let rejected = OidcError::Rejected;
    for (flaw, error) in [
        (Flaw::Issuer, rejected(Rejection::Issuer)),
        (Flaw::Audience, rejected(Rejection::Audience)),
        (Flaw::SecondAudienceForOther, rejected(Rejection::Audience)),
        (Flaw::Expired, rejected(Rejection::Expired)),
        (Flaw::IssuedLongAgo, rejected(Rejection::Time)),
        (Flaw::IssuedInFuture, rejected(Rejection::Time)),
        (Flaw::Nonce, rejected(Rejection::Nonce)),
        (Flaw::AlgNone, rejected(Rejection::Algorithm)),
        (Flaw::Hs256, rejected(Rejection::Algorithm)),
        (Flaw::UnknownKey, rejected(Rejection::Signature)),
        (Flaw::ForgedSignature, rejected(Rejection::Signature)),
        (Flaw::AccessTokenHash, rejected(Rejection::AccessTokenHash)),
        (Flaw::NoEmailAnywhere, OidcError::NoEmail),
        (Flaw::EmailNotVerified, OidcError::EmailNotVerified),
        (Flaw::SignedInLongAgo, OidcError::TooOld),
    ] {
        issuer.set_flaw(flaw);
        let refused = sign_in(&oidc, "alice", false).await.unwrap_err();
        assert_eq!(refused, error, "{flaw:?}");
        assert!(!refused.told().contains("127.0.0.1"), "the words name something inside: {}", refused.told());
        issuer.set_flaw(Flaw::None);
        sign_in(&oidc, "alice", false).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_unusual_but_right_is_accepted() {
    let (issuer, oidc) = start().await;
    for flaw in [Flaw::SecondAudience, Flaw::NoEmail, Flaw::NoGroups, Flaw::NoAuthTime] {
        issuer.set_flaw(flaw);
        let alice = sign_in(&oidc, "alice", false).await.unwrap();
        assert_eq!((alice.email(), alice.groups()), ("alice@example.com", &["engineering".to_owned()][..]), "{flaw:?}");
    }
}

#[tokio::test]
async fn userinfo_about_somebody_else_is_refused() {
    let (issuer, oidc) = start().await;
    issuer.set_flaw(Flaw::UserinfoOtherSubject);
    assert!(matches!(sign_in(&oidc, "alice", false).await.unwrap_err(), OidcError::Unreachable(_)));
}

#[tokio::test]
async fn a_fresh_sign_in_must_be_vouched_for() {
    let (issuer, oidc) = start().await;
    for flaw in [Flaw::NoAuthTime, Flaw::SignedInLongAgo] {
        issuer.set_flaw(flaw);
        assert_eq!(sign_in(&oidc, "alice", true).await.unwrap_err(), OidcError::NotFresh, "{flaw:?}");
    }
    let begin = oidc.begin("/", true).await.unwrap();
    assert!(begin.url.query().unwrap().contains("prompt=login") && begin.url.query().unwrap().contains("max_age=0"));
}

#[tokio::test]
async fn keys_are_fetched_again_once_a_minute() {
    let (issuer, oidc) = start().await;
    issuer.rotate().unwrap();
    sign_in(&oidc, "alice", false).await.unwrap();
    issuer.rotate().unwrap();
    let again = sign_in(&oidc, "alice", false).await.unwrap_err();
    assert_eq!(again, OidcError::Rejected(Rejection::Signature), "within the cooldown nothing is fetched");
    pause();
    advance(Duration::from_secs(61)).await;
    resume();
    sign_in(&oidc, "alice", false).await.unwrap();
}

#[tokio::test]
async fn the_answer_must_belong_to_the_flow() {
    let (_issuer, oidc) = start().await;
    let mine = oidc.begin("/", false).await.unwrap();
    let theirs = oidc.begin("/", false).await.unwrap();
    let (state, code) = DevIssuer::sign_in_as("alice", &theirs).await.unwrap();
    let mine_state = mine.flow.state().to_owned();
    assert_eq!(oidc.finish(theirs.flow, "another", &code).await.unwrap_err(), OidcError::State);
    // The other flow's code with this flow's PKCE verifier.
    let injected = oidc.finish(mine.flow, &mine_state, &code).await.unwrap_err();
    assert_eq!(injected, OidcError::CodeRefused("invalid_grant".into()));
    assert_ne!(state, mine_state);
    let invented = oidc.begin("/", false).await.unwrap();
    let state = invented.flow.state().to_owned();
    let refused = oidc.finish(invented.flow, &state, "invented").await.unwrap_err();
    assert_eq!(refused, OidcError::CodeRefused("invalid_grant".into()));
}

#[tokio::test]
async fn the_gateway_starts_while_the_provider_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let settings = OidcSettings {
        issuer: format!("http://{address}"),
        client_id: "gatescribe".into(),
        client_secret: None,
        groups_claim: "groups".into(),
        session_lifetime: LIFETIME,
        redirect_uri: callback(),
    };
    assert!(Oidc::discover(settings.clone()).await.is_err());
    let oidc = Oidc::new(settings).unwrap();
    let down = oidc.begin("/", false).await.unwrap_err();
    assert!(matches!(down, OidcError::Unreachable(_)));
    assert!(!down.told().contains("127.0.0.1"));

    // Up again: not asked before the pause is over, then found.
    let issuer = DevIssuer::start(TcpListener::bind(address).await.unwrap(), &callback()).unwrap();
    let waiting = oidc.begin("/", false).await.unwrap_err();
    assert_eq!(waiting, OidcError::Unreachable("waiting before the next attempt".into()));
    pause();
    advance(Duration::from_secs(2)).await;
    resume();
    let begin = oidc.begin("/", false).await.unwrap();
    assert!(begin.url.as_str().starts_with(issuer.issuer_url()));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_once() {
    let (issuer, _) = start().await;
    let settings = issuer.settings(callback(), LIFETIME);
    for wrong in ["http://idp.example.com", "idp", "ftp://127.0.0.1"] {
        let settings = OidcSettings { issuer: wrong.into(), ..settings.clone() };
        assert!(matches!(Oidc::new(settings).unwrap_err(), OidcError::Settings(_)), "{wrong}");
    }
    let other = OidcSettings { issuer: format!("{}/", issuer.issuer_url()), ..settings };
    assert!(matches!(Oidc::discover(other).await.unwrap_err(), OidcError::Unreachable(_)), "compared letter by letter");
}

#[tokio::test]
async fn approve_as_signs_in_by_real_tokens() {
    let (_issuer, oidc) = start().await;
    assert_eq!(ApproveAs::new(oidc.clone(), "alice".into()).sign_in().await.unwrap().email(), "alice@example.com");
    assert!(ApproveAs::new(oidc, "mallory".into()).sign_in().await.is_err());
}

#[tokio::test]
async fn it_refuses_addresses_that_others_can_reach() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    assert!(matches!(DevIssuer::start(listener, &callback()), Err(DevIssuerError::NotLoopback(_))));
}

#[tokio::test]
async fn its_page_has_a_button_for_everybody() {
    let (issuer, oidc) = start().await;
    let begin = oidc.begin("/", false).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let page = client.get(begin.url).send().await.unwrap().text().await.unwrap();
    for person in &PEOPLE {
        assert!(page.contains(&format!("name=\"as\" value=\"{}\"", person.nickname)), "{page}");
    }
    // What pressing the button sends: the form's hidden fields and the person.
    let fields = page.split("type=\"hidden\" name=\"").skip(1).map(|field| {
        let (name, rest) = field.split_once("\" value=\"").unwrap();
        (name.to_owned(), rest.split('"').next().unwrap().to_owned())
    });
    let mut pressed: Url = format!("{}/authorize", issuer.issuer_url()).parse().unwrap();
    pressed.query_pairs_mut().extend_pairs(fields).append_pair("as", "bob");
    let back = client.get(pressed).send().await.unwrap();
    let back: Url = back.headers()[header::LOCATION].to_str().unwrap().parse().unwrap();
    let parameters: std::collections::HashMap<_, _> = back.query_pairs().into_owned().collect();
    let bob = oidc.finish(begin.flow, &parameters["state"], &parameters["code"]).await.unwrap();
    assert_eq!(bob.email(), "bob@example.com");
}

#[tokio::test]
async fn it_answers_to_its_own_name_only() {
    let (issuer, _oidc) = start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/keys", issuer.issuer_url());
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    let rebound = client.get(&url).header("host", "evil.example.com").send().await.unwrap();
    assert_eq!(rebound.status(), 421);
}

#[test]
fn only_the_demo_and_tests_know_it() {
    let allowed = |path: &str| {
        path.starts_with("api/dev_issuer")
            || path.starts_with("identity/dev_issuer")
            || path.starts_with("cli/demo")
            || path.ends_with("tests.rs")
            || path.contains("/tests/")
            || path == "identity/mod.rs"
            // The map names every room.
            || path == "lib.rs"
            || path == "api/mod.rs"
    };
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    let (mut seen, mut wrong) = (0, vec![]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            seen += 1;
            if !allowed(&name) && (text.contains("dev_issuer") || text.contains("DevIssuer")) {
                wrong.push(name);
            }
        }
    }
    assert!(seen > 10);
    assert!(wrong.is_empty(), "the development issuer is named in {wrong:?}");
}
