//! Every wrong token, issued for real over HTTP and refused by the gateway's OpenID client.

use jiff::{SignedDuration, Timestamp};
use tokio::time::{advance, pause, resume};

use super::*;
use crate::identity::dev_issuer::ACR;
use crate::identity::oidc::{Rejection, Unconfirmed};

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
    sign_in_with(oidc, nickname, &Wanted { fresh, ..Wanted::default() }).await
}

async fn sign_in_with(oidc: &Oidc, nickname: &str, wanted: &Wanted) -> Result<Identity, OidcError> {
    let begin = oidc.begin("/link/x", wanted).await?;
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
    let begin = oidc.begin("/", &Wanted::fresh()).await.unwrap();
    assert!(begin.url.query().unwrap().contains("prompt=login") && begin.url.query().unwrap().contains("max_age=0"));
}

#[tokio::test]
async fn a_newer_sign_in_must_be_vouched_for() {
    let (issuer, oidc) = start().await;
    let recent = Wanted { max_age: Some(Duration::from_secs(600)), ..Wanted::default() };
    sign_in_with(&oidc, "alice", &recent).await.unwrap();
    // Without `auth_time`, or with one outside of `max_age`: cut out of the URL, or not obeyed.
    for flaw in [Flaw::NoAuthTime, Flaw::SignedInLongAgo, Flaw::SignedInAnHourAgo] {
        issuer.set_flaw(flaw);
        let refused = sign_in_with(&oidc, "alice", &recent).await.unwrap_err();
        assert_eq!(refused, OidcError::Unconfirmed(Unconfirmed::Age), "{flaw:?}");
        assert!(refused.told().contains("did not confirm") && !refused.told().contains("auth_time"));
    }
    issuer.set_flaw(Flaw::SignedInAnHourAgo);
    sign_in(&oidc, "alice", false).await.unwrap();
    let hours = Wanted { max_age: Some(Duration::from_secs(2 * 3600)), ..Wanted::default() };
    sign_in_with(&oidc, "alice", &hours).await.unwrap();
}

#[tokio::test]
async fn another_kind_of_sign_in_must_be_vouched_for() {
    let (_issuer, oidc) = start().await;
    let acr =
        |values: &[&str]| Wanted { acr: values.iter().map(|acr| (*acr).to_owned()).collect(), ..Wanted::default() };
    let alice = sign_in(&oidc, "alice", false).await.unwrap();
    assert_eq!((alice.acr(), alice.amr()), (Some(ACR[0]), &["pwd".to_owned()][..]));
    assert!(alice.claim("department").eq(["platform"]));
    let alice = sign_in_with(&oidc, "alice", &acr(&["urn:elsewhere", ACR[1]])).await.unwrap();
    assert_eq!((alice.acr(), alice.amr()), (Some(ACR[1]), &["pwd".to_owned(), "otp".to_owned()][..]));
    let refused = sign_in_with(&oidc, "alice", &acr(&["urn:elsewhere"])).await.unwrap_err();
    assert_eq!(refused, OidcError::Unconfirmed(Unconfirmed::Class));
    assert!(refused.told().contains("did not confirm") && !refused.told().contains("urn:"), "{}", refused.told());
    // Cut out of the URL on its way through the browser.
    let mut begin = oidc.begin("/", &acr(&[ACR[1]])).await.unwrap();
    let kept: Vec<_> = begin.url.query_pairs().into_owned().filter(|(name, _)| name != "acr_values").collect();
    begin.url.query_pairs_mut().clear().extend_pairs(kept);
    let (state, code) = DevIssuer::sign_in_as("alice", &begin).await.unwrap();
    let refused = oidc.finish(begin.flow, &state, &code).await.unwrap_err();
    assert_eq!(refused, OidcError::Unconfirmed(Unconfirmed::Class));
}

#[tokio::test]
async fn what_is_wanted_is_in_the_request() {
    let (_issuer, oidc) = start().await;
    let minute = Some(Duration::from_secs(60));
    for (wanted, parts, absent) in [
        (Wanted::default(), vec!["max_age=43200"], vec!["prompt", "acr_values"]),
        (Wanted { max_age: minute, ..Wanted::default() }, vec!["max_age=60"], vec!["prompt", "acr_values"]),
        (Wanted { max_age: Some(2 * LIFETIME), ..Wanted::default() }, vec!["max_age=43200"], vec!["prompt"]),
        (Wanted { max_age: minute, ..Wanted::fresh() }, vec!["max_age=0", "prompt=login"], vec!["acr_values"]),
        (
            Wanted { acr: vec!["a:b".into(), "c".into()], ..Wanted::default() },
            vec!["acr_values=a%3Ab+c", "max_age=43200"],
            vec!["prompt"],
        ),
    ] {
        let url = oidc.begin("/", &wanted).await.unwrap().url;
        assert!(parts.iter().all(|part| url.as_str().contains(part)), "{wanted:?}: {url}");
        assert!(!absent.iter().any(|part| url.as_str().contains(part)), "{wanted:?}: {url}");
    }
}

#[test]
fn a_rule_that_lacks_a_method_alone_wants_any_new_sign_in() {
    assert_eq!(Wanted::from(&StepUp::default()), Wanted::fresh());
    let acr = StepUp { acr: vec!["gold".into()], max_age: None };
    assert_eq!(Wanted::from(&acr), Wanted { acr: vec!["gold".into()], ..Wanted::default() });
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
    let mine = oidc.begin("/", &Wanted::default()).await.unwrap();
    let theirs = oidc.begin("/", &Wanted::default()).await.unwrap();
    let (state, code) = DevIssuer::sign_in_as("alice", &theirs).await.unwrap();
    let mine_state = mine.flow.state().to_owned();
    assert_eq!(oidc.finish(theirs.flow, "another", &code).await.unwrap_err(), OidcError::State);
    // The other flow's code with this flow's PKCE verifier.
    let injected = oidc.finish(mine.flow, &mine_state, &code).await.unwrap_err();
    assert_eq!(injected, OidcError::CodeRefused("invalid_grant".into()));
    assert_ne!(state, mine_state);
    let invented = oidc.begin("/", &Wanted::default()).await.unwrap();
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
    let down = oidc.begin("/", &Wanted::default()).await.unwrap_err();
    assert!(matches!(down, OidcError::Unreachable(_)));
    assert!(!down.told().contains("127.0.0.1"));

    // Up again: not asked before the pause is over, then found.
    let issuer = DevIssuer::start(TcpListener::bind(address).await.unwrap(), &callback()).unwrap();
    let waiting = oidc.begin("/", &Wanted::default()).await.unwrap_err();
    assert_eq!(waiting, OidcError::Unreachable("waiting before the next attempt".into()));
    pause();
    advance(Duration::from_secs(2)).await;
    resume();
    let begin = oidc.begin("/", &Wanted::default()).await.unwrap();
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

/// Whose sign-ins were told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Newcomers for Told {
    fn signed_in<'a>(&'a self, who: &'a Identity) -> BoxFuture<'a, Result<(), crate::identity::newcomers::NotTold>> {
        self.0.lock().unwrap().push(who.email().to_owned());
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn approve_as_signs_in_by_real_tokens() {
    let (_issuer, oidc) = start().await;
    let told = Arc::new(Told::default());
    let approve_as = |nickname: &str| ApproveAs::new(oidc.clone(), nickname.into(), told.clone());
    assert_eq!(approve_as("alice").sign_in(None).await.unwrap().email(), "alice@example.com");
    assert!(approve_as("mallory").sign_in(None).await.is_err());
    let mfa = StepUp { acr: vec![ACR[1].into()], ..StepUp::default() };
    assert_eq!(approve_as("alice").sign_in(Some(&mfa)).await.unwrap().acr(), Some(ACR[1]));
    let unknown = StepUp { acr: vec!["urn:elsewhere".into()], ..StepUp::default() };
    assert!(approve_as("alice").sign_in(Some(&unknown)).await.is_err());
    assert_eq!(*told.0.lock().unwrap(), ["alice@example.com", "alice@example.com"], "who did sign in is told");
}

#[tokio::test]
async fn it_refuses_addresses_that_others_can_reach() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    assert!(matches!(DevIssuer::start(listener, &callback()), Err(DevIssuerError::NotLoopback(_))));
}

#[tokio::test]
async fn its_page_has_a_button_for_everybody() {
    let (issuer, oidc) = start().await;
    let begin = oidc.begin("/", &Wanted::default()).await.unwrap();
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
