//! To the provider and back, sessions, tokens, headers, and what must not leak.

use super::*;

#[tokio::test]
async fn a_callback_counts_in_the_browser_that_began_it_and_once() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut mallory = site.browser(HERE);
    let away = mallory.get("/sign-in").await;
    let back = mallory.at_provider(&away, "bob").await;
    let mut alice = site.browser(HERE);
    alice.get(&back).await.is(StatusCode::BAD_REQUEST, "another browser");
    alice.get("/sign-in").await;
    alice.get(&back).await.is(StatusCode::BAD_REQUEST, "another browser");
    assert!(!alice.cookies.contains_key("__Host-gatescribe"));

    assert_eq!(mallory.get(&back).await.status, StatusCode::SEE_OTHER, "the attempt did not spend it");
    mallory.get(&back).await.is(StatusCode::BAD_REQUEST, "finished before");
}

#[tokio::test]
async fn tabs_of_one_browser_do_not_disturb_each_other() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    let (first, second) = (alice.get("/sign-in").await, alice.get("/token").await);
    let back = alice.at_provider(&first, "alice").await;
    assert_eq!(alice.get(&back).await.location.as_deref(), Some("/"));
    let back = alice.at_provider(&second, "alice").await;
    assert_eq!(alice.get(&back).await.location.as_deref(), Some("/token"));
}

#[tokio::test]
async fn what_comes_back_wrong_gets_a_page() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    for path in
        ["/oidc/callback", "/oidc/callback?code=x", "/oidc/callback?state=x&code=y", "/oidc/callback?state=x&state=y"]
    {
        alice.get(path).await.is(StatusCode::BAD_REQUEST, "Sign-in failed");
    }
    for (error, status, words) in [
        ("access_denied", StatusCode::FORBIDDEN, "cancelled or denied"),
        ("server_error", StatusCode::BAD_GATEWAY, "has a problem"),
        ("<script>", StatusCode::BAD_GATEWAY, "refused the sign-in"),
    ] {
        let away: Url = alice.get("/sign-in").await.location.unwrap().parse().unwrap();
        let state = away.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let page = alice
            .get(&format!("/oidc/callback?state={state}&error={}", error.replace('<', "%3C").replace('>', "%3E")))
            .await;
        page.is(status, words);
        assert!(!page.body.contains("script"));
    }
    let away: Url = alice.get("/sign-in").await.location.unwrap().parse().unwrap();
    let state = away.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let page = alice.get(&format!("/oidc/callback?state={state}&code=invented")).await;
    page.is(StatusCode::BAD_REQUEST, "start again");
}

#[tokio::test]
async fn nothing_in_a_request_says_where_to_go_next() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    for path in ["/sign-in?return_to=https://evil.example.com", "/sign-in?next=//evil.example.com"] {
        let away = alice.get(path).await;
        assert!(!away.location.as_deref().unwrap().contains("evil"));
        let back = alice.at_provider(&away, "alice").await;
        let back = format!("{back}&return_to=https://evil.example.com&next=//evil.example.com");
        assert_eq!(alice.get(&back).await.location.as_deref(), Some("/"));
    }
    let (_waiting, path) = site.waiting();
    let mut bob = site.browser(HERE);
    let away = bob.get(&path).await;
    let back = bob.at_provider(&away, "bob").await;
    assert_eq!(bob.get(&back).await.location.as_deref(), Some(path.as_str()));
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (_waiting, path) = site.waiting();
    let mut alice = site.browser(HERE);
    let page = alice.sign_in(&path, "alice").await;
    let pages = [page, alice.get("/").await, alice.get("/link/x").await, alice.get("/oidc/callback").await];
    for page in pages.into_iter().chain([site.browser(HERE).get("/token").await]) {
        let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        if let Some((_, rest)) = page.body.split_once("<style nonce=\"") {
            let nonce = rest.split('"').next().unwrap();
            assert!(nonce.len() >= 22 && policy.contains(&format!("'nonce-{nonce}'")), "{policy}");
            assert!(!page.body.contains(" style=") && !page.body.contains("<script"));
        }
        for (name, value) in [
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("strict-transport-security", "max-age=31536000"),
        ] {
            assert_eq!(page.headers[name], value);
        }
    }
}

#[tokio::test]
async fn signing_out_ends_the_session() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    let page = alice.sign_in("/sign-in", "alice").await;
    page.is(StatusCode::OK, "alice@example.com");
    let old = alice.cookies["__Host-gatescribe"].clone();
    alice.post("/signout", &format!("csrf={}", page.csrf())).await.is(StatusCode::OK, "Signed out");
    assert_eq!(alice.cookies["__Host-gatescribe"], "");
    alice.cookies.insert("__Host-gatescribe".into(), old);
    assert!(!alice.get("/").await.body.contains("alice@example.com"), "the old cookie must be worth nothing");
}

#[tokio::test]
async fn a_sign_in_gets_a_new_session() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    alice.sign_in("/sign-in", "alice").await;
    let first = alice.cookies["__Host-gatescribe"].clone();
    alice.sign_in("/sign-in", "bob").await.is(StatusCode::OK, "bob@example.com");
    assert_ne!(alice.cookies["__Host-gatescribe"], first);
    alice.cookies.insert("__Host-gatescribe".into(), first);
    assert!(!alice.get("/").await.body.contains("alice@example.com"));
}

#[tokio::test]
async fn everybody_gets_a_token_and_is_told_what_it_can_do() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut admin = site.browser(HERE);
    let page = admin.sign_in("/token", "admin").await;
    page.is(StatusCode::OK, "an administrator");
    assert!(!page.body.contains("token-of-admin"), "not before it is asked for");
    admin.post("/token", &format!("csrf={}", page.csrf())).await.is(StatusCode::OK, "token-of-admin");

    let mut alice = site.browser(HERE);
    let page = alice.sign_in("/token", "alice").await;
    page.is(StatusCode::OK, "see your sessions");
    alice.post("/token", "csrf=x").await.is(StatusCode::FORBIDDEN, "did not come from");
    alice.post("/token", &format!("csrf={}", page.csrf())).await.is(StatusCode::OK, "token-of-alice");
}

#[tokio::test]
async fn a_provider_that_is_down_gets_a_page() {
    let site = Site::start(OtherAddress::Confirm).await;
    let settings = OidcSettings {
        issuer: "http://127.0.0.1:9".into(),
        client_id: "gatescribe".into(),
        client_secret: None,
        groups_claim: "groups".into(),
        session_lifetime: Duration::from_secs(3600),
        redirect_uri: format!("{ORIGIN}/oidc/callback").parse().unwrap(),
    };
    let pages = PagesState {
        oidc: Oidc::new(settings).unwrap(),
        links: site.links.clone(),
        grants: site.grants.clone(),
        revoked: RevokedPeople::default(),
        public_url: "https://localhost:8443".parse().unwrap(),
        geo: Geo::default(),
        tokens: Arc::new(Issues),
        newcomers: Arc::new(()),
        pace: Arc::new(crate::pace::SignInPace::new(1000)),
        renewals: Arc::new(()),
    };
    let site = Site { router: router(pages), ..site };
    let page = site.browser(HERE).get("/sign-in").await;
    page.is(StatusCode::BAD_GATEWAY, "does not answer");
    assert!(!page.body.contains("127.0.0.1"));
    assert!(!page.headers.contains_key(header::STRICT_TRANSPORT_SECURITY), "localhost is shared");
}

#[tokio::test]
async fn one_address_pushes_out_its_own_flows_only() {
    let site = Site::start(OtherAddress::Confirm).await;
    let mut alice = site.browser(HERE);
    let begun = alice.get("/sign-in").await;
    for _ in 0..40 {
        assert_eq!(site.browser(THERE).get("/sign-in").await.status, StatusCode::SEE_OTHER);
    }
    let back = alice.at_provider(&begun, "alice").await;
    assert_eq!(alice.get(&back).await.status, StatusCode::SEE_OTHER);
}

/// An IPv6 customer has more addresses than there are flows.
#[tokio::test]
async fn an_ipv6_customer_pushes_out_their_own_flows_only() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (mut alice, mut first) = (site.browser("[2001:db8:1:1::1]:40000"), site.browser("[2001:db8:1:2::1]:40000"));
    let (begun, begun_first) = (alice.get("/sign-in").await, first.get("/sign-in").await);
    for n in 0..40 {
        let address = format!("[2001:db8:1:2::{n:x}:2]:40000");
        assert_eq!(site.browser(&address).get("/sign-in").await.status, StatusCode::SEE_OTHER);
    }
    let back = alice.at_provider(&begun, "alice").await;
    assert_eq!(alice.get(&back).await.status, StatusCode::SEE_OTHER);
    let back = first.at_provider(&begun_first, "alice").await;
    assert_ne!(first.get(&back).await.status, StatusCode::SEE_OTHER, "it was pushed out by its own network");
}

/// Everything that is logged, whatever its level.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_do_not_show_in_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        // Six digits are found in any clock.
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber alone, tracing asks the thread that comes first to an event whether anybody listens: that may
    // be another test's thread, where nobody does. With two it asks both.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);

    let site = Site::start(OtherAddress::Confirm).await;
    let (_waiting, path) = site.waiting();
    let mut admin = site.browser(HERE);
    let away = admin.get(&path).await;
    let back = admin.at_provider(&away, "admin").await;
    admin.get(&back).await;
    admin.get(&back).await;
    let csrf = admin.get(&path).await.csrf();
    admin.post(&path, &format!("csrf={csrf}x&answer=approve")).await;
    let digits = admin.post(&path, &format!("csrf={csrf}&answer=approve")).await.digits();
    admin.post(&path, &format!("csrf={csrf}&answer=approve")).await;
    admin.post("/token", &format!("csrf={csrf}")).await.is(StatusCode::OK, "token-of-admin");

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("signed in in a browser") && log.contains("an API token was issued"), "{log}");
    let back: Url = format!("{ORIGIN}{back}").parse().unwrap();
    let parameters: HashMap<_, _> = back.query_pairs().into_owned().collect();
    let code = path.rsplit('/').next().unwrap();
    // Six digits alone may stand in a library's numbers by chance.
    assert!(log.lines().filter(|line| line.contains("gatescribe::")).all(|line| !line.contains(&digits)));
    let secrets = [code, &csrf, "token-of-admin", &parameters["state"], &parameters["code"]];
    for secret in secrets.into_iter().chain(admin.cookies.values().map(String::as_str)) {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn secrets_do_not_show_in_debug_output() {
    let site = Site::start(OtherAddress::Confirm).await;
    let (waiting, _) = site.waiting();
    let callback: Url = format!("{ORIGIN}/oidc/callback").parse().unwrap();
    let oidc = Oidc::discover(site.issuer.settings(callback, Duration::from_secs(60))).await.unwrap();
    let Begin { flow, .. } = oidc.begin("/", &Wanted::default()).await.unwrap();
    let code = waiting.url().rsplit('/').next().unwrap();
    let shown = format!("{waiting:?} {flow:?} {:?} {oidc:?}", site.links);
    assert!(!shown.contains(code) && !shown.contains(flow.state()), "{shown}");
}
