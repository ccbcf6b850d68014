//! Signing in at a certified OpenID provider (npm `oidc-provider`), which each test starts for itself.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use gatescribe::identity::Identity;
use gatescribe::identity::oidc::{Oidc, OidcError, OidcSettings, Unconfirmed, Wanted};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, Url};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::issuer::{Issuer, redirect_uri};
use crate::harness::{SOON, Setup, Ssh, Sshd, free_port};

const REDIRECT: &str = "https://localhost:8443/oidc/callback";
const SECRET: &str = "between the gateway & the provider: 100%";

#[tokio::test]
async fn people_sign_in_with_every_signature_algorithm() {
    for alg in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        let provider = Provider::start(alg, false).await;
        let oidc = Oidc::discover(provider.settings()).await.unwrap();
        let alice = sign_in(&oidc, &mut Browser::new(), "alice").await.unwrap_or_else(|e| panic!("{alg}: {e}"));
        assert_eq!((alice.issuer(), alice.email()), (provider.issuer.as_str(), "alice@example.com"), "{alg}");
        assert_eq!((alice.name(), alice.nickname()), (Some("Alice Archer"), Some("alice")));
        assert_eq!(alice.groups(), ["engineering"]);
    }
}

#[tokio::test]
async fn claims_that_only_userinfo_tells_are_fetched_there() {
    let provider = Provider::start("ES256", true).await;
    let oidc = Oidc::discover(provider.settings()).await.unwrap();
    let bob = sign_in(&oidc, &mut Browser::new(), "bob").await.unwrap();
    assert_eq!(
        (bob.email(), bob.groups(), bob.name()),
        ("bob@example.com", &["contractors".to_owned()][..], Some("Bob Baker"))
    );
}

#[tokio::test]
async fn a_fresh_sign_in_asks_again_and_cannot_be_talked_out_of_it() {
    let provider = Provider::start("ES256", false).await;
    let oidc = Oidc::discover(provider.settings()).await.unwrap();
    let mut browser = Browser::new();
    sign_in(&oidc, &mut browser, "alice").await.unwrap();
    browser.pages.clear();
    sign_in(&oidc, &mut browser, "alice").await.unwrap();
    assert_eq!(browser.pages, Vec::<String>::new(), "the provider's session is enough");

    let begin = oidc.begin("/", &Wanted::fresh()).await.unwrap();
    let back = browser.follow(begin.url, "alice").await;
    assert_eq!(browser.pages, ["login"], "asked again");
    oidc.finish(begin.flow, &back["state"], &back["code"]).await.unwrap();

    // The person, or a page that frames them, cuts the demand out of the URL.
    let mut begin = oidc.begin("/", &Wanted::fresh()).await.unwrap();
    let kept: Vec<_> = begin.url.query_pairs().into_owned().filter(|(n, _)| n != "prompt" && n != "max_age").collect();
    begin.url.query_pairs_mut().clear().extend_pairs(kept);
    let back = browser.follow(begin.url, "alice").await;
    let refused = oidc.finish(begin.flow, &back["state"], &back["code"]).await.unwrap_err();
    assert_eq!(refused, OidcError::NotFresh);
}

#[tokio::test]
async fn a_sign_in_that_is_older_than_is_wanted_is_asked_for_again() {
    let provider = Provider::start("ES256", false).await;
    let oidc = Oidc::discover(provider.settings()).await.unwrap();
    let mut browser = Browser::new();
    let old = sign_in(&oidc, &mut browser, "alice").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    browser.pages.clear();
    for (age, pages) in [(600, &[][..]), (2, &["login"][..])] {
        let wanted = Wanted { max_age: Some(Duration::from_secs(age)), ..Wanted::default() };
        let begin = oidc.begin("/", &wanted).await.unwrap();
        let back = browser.follow(begin.url, "alice").await;
        assert_eq!(browser.pages, pages, "{age}");
        let who = oidc.finish(begin.flow, &back["state"], &back["code"]).await.unwrap();
        assert_eq!(who.signed_in() > old.signed_in(), !pages.is_empty(), "{age}");
    }
    // What the provider never heard of it does not confirm.
    let wanted = Wanted { acr: vec!["urn:elsewhere".into()], ..Wanted::default() };
    let begin = oidc.begin("/", &wanted).await.unwrap();
    let back = browser.follow(begin.url, "alice").await;
    let refused = oidc.finish(begin.flow, &back["state"], &back["code"]).await.unwrap_err();
    assert_eq!(refused, OidcError::Unconfirmed(Unconfirmed::Class));
}

#[tokio::test]
async fn what_the_provider_refuses_is_refused() {
    let provider = Provider::start("ES256", false).await;
    let oidc = Oidc::discover(provider.settings()).await.unwrap();
    let begin = oidc.begin("/", &Wanted::default()).await.unwrap();
    let back = Browser::new().follow(begin.url, "cancel").await;
    assert_eq!(back["error"], "access_denied");

    let mut browser = Browser::new();
    let (mine, theirs) =
        (oidc.begin("/", &Wanted::default()).await.unwrap(), oidc.begin("/", &Wanted::default()).await.unwrap());
    let back = browser.follow(theirs.url, "alice").await;
    let state = mine.flow.state().to_owned();
    let injected = oidc.finish(mine.flow, &state, &back["code"]).await.unwrap_err();
    assert_eq!(injected, OidcError::CodeRefused("invalid_grant".into()), "another flow's code, so another verifier");

    let settings = OidcSettings { client_secret: Some("wrong".to_owned().into()), ..provider.settings() };
    let refused = sign_in(&Oidc::discover(settings).await.unwrap(), &mut browser, "alice").await.unwrap_err();
    assert_eq!(refused, OidcError::CodeRefused("invalid_client".into()));
}

#[tokio::test]
async fn a_terminal_is_signed_in_there() {
    let (https, ssh) = (free_port(), free_port());
    let provider = Provider::start_for(&redirect_uri(https), "ES256", false).await;
    let sshd = Sshd::start().await;
    let issuer = Issuer::other(&provider.issuer, "gatescribe", SECRET);
    let gateway = Setup::new().ssh("web", &sshd).start_at(issuer, https, ssh).await;
    let mut sign_in = Ssh::new(gateway.ssh).sign_in(&["web@gate", "echo in"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!((row.user_email.as_str(), row.sub.as_str()), ("alice@example.com", "alice"));
}

async fn sign_in(oidc: &Oidc, browser: &mut Browser, person: &str) -> Result<Identity, OidcError> {
    let begin = oidc.begin("/", &Wanted::default()).await?;
    let back = browser.follow(begin.url, person).await;
    oidc.finish(begin.flow, &back["state"], &back["code"]).await
}

struct Provider {
    issuer: String,
    _process: Child,
}

impl Provider {
    async fn start(alg: &str, claims_at_userinfo: bool) -> Self {
        Self::start_for(REDIRECT, alg, claims_at_userinfo).await
    }

    async fn start_for(redirect: &str, alg: &str, claims_at_userinfo: bool) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/oidc_provider");
        assert!(dir.join("node_modules").is_dir(), "tests/run installs the provider (npm ci in {})", dir.display());
        let mut process = Command::new("node")
            .args(["server.mjs", "0", redirect, alg])
            .env("CLIENT_SECRET", SECRET)
            .env("CLAIMS_AT_USERINFO", if claims_at_userinfo { "yes" } else { "no" })
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
        let line = line.expect("the provider starts within a minute").unwrap().expect("the provider stopped at once");
        let issuer = line.strip_prefix("ready ").expect("ready").to_owned();
        Self { issuer, _process: process }
    }

    fn settings(&self) -> OidcSettings {
        OidcSettings {
            issuer: self.issuer.clone(),
            client_id: "gatescribe".into(),
            client_secret: Some(SECRET.to_owned().into()),
            groups_claim: "groups".into(),
            session_lifetime: Duration::from_secs(3600),
            redirect_uri: REDIRECT.parse().unwrap(),
        }
    }
}

/// A browser that follows redirects, keeps cookies, and presses the buttons of the provider's pages.
struct Browser {
    client: Client,
    cookies: HashMap<String, String>,
    /// The pages it was shown.
    pages: Vec<String>,
}

impl Browser {
    fn new() -> Self {
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        Self { client, cookies: HashMap::new(), pages: vec![] }
    }

    /// From the provider's first page to the parameters that come back to the gateway.
    async fn follow(&mut self, mut url: Url, button: &str) -> HashMap<String, String> {
        let (mut method, mut form) = (Method::GET, None::<String>);
        for _ in 0..12 {
            let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let mut request = self.client.request(method.clone(), url.clone()).header(COOKIE, cookies.join("; "));
            if let Some(form) = form.take() {
                request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
            }
            let answer = request.send().await.unwrap();
            for cookie in answer.headers().get_all(SET_COOKIE) {
                let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
            if let Some(to) = answer.headers().get(LOCATION) {
                url = url.join(to.to_str().unwrap()).unwrap();
                method = Method::GET;
                if url.as_str().starts_with(REDIRECT) {
                    return url.query_pairs().into_owned().collect();
                }
                continue;
            }
            let page = answer.text().await.unwrap();
            let title = between(&page, "<h1>", "</h1>").unwrap_or_else(|| panic!("not a page: {page}"));
            let action = between(&page, "action=\"", "\"").unwrap();
            url = url.join(action).unwrap();
            form = Some(match button {
                "cancel" => "cancel=yes".into(),
                person => format!("{title}={person}"),
            });
            self.pages.push(title.to_owned());
            method = Method::POST;
        }
        panic!("no end at {url}");
    }
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    text.split_once(before)?.1.split_once(after).map(|(inside, _)| inside)
}
