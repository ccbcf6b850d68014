//! The endpoints for programs, over a real book.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use tower::ServiceExt;

use super::*;
use crate::identity::grants::{Challenge, GrantSettings, RedirectUri};
use crate::identity::sign_ins::testing::{ISSUER, sign_ins};
use crate::identity::tokens::RoleGroups;
use crate::store::SignInsOf;
use crate::store::testing::{Book, identity};

const VERIFIER: &str = "a-verifier-that-is-just-long-enough-0123456";
const REDIRECT: &str = "http://127.0.0.1:4000/callback";
const FORM: &str = "application/x-www-form-urlencoded";

struct Server {
    router: Router,
    state: OauthState,
    _book: Book,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    #[track_caller]
    fn refused(&self, status: u16, error: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(error)), "{}", self.body);
        assert!(!self.json()["error_description"].as_str().unwrap().is_empty());
    }
}

fn server(groups: &[&str]) -> Server {
    let book = Book::new();
    let tokens = Tokens::new(book.clone(), RoleGroups::default(), ISSUER);
    let device_groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let state = OauthState {
        grants: Grants::new(GrantSettings { device_groups, ..GrantSettings::default() }),
        sign_ins: sign_ins(book.dir(), &book, &tokens),
        tokens,
        public_url: "https://access.example.com:8443/".parse().unwrap(),
    };
    Server { router: router(state.clone()), state, _book: book }
}

impl Server {
    fn code(&self, browser: &str) -> String {
        let challenge = Challenge::parse(&URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()))).unwrap();
        let who = identity(Timestamp::now() + SignedDuration::from_hours(1));
        self.state
            .grants
            .issue_code(RedirectUri::parse(REDIRECT).unwrap(), challenge, who, browser.parse().unwrap())
            .unwrap()
    }

    async fn send(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 40000))));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
        let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn post(&self, path: &str, form: &str) -> Answer {
        let request = Request::post(path).header(header::CONTENT_TYPE, FORM).body(form.to_owned().into());
        self.send(request.unwrap()).await
    }

    async fn token(&self, form: &str) -> Answer {
        self.post("/oauth/token", form).await
    }

    fn good(&self) -> String {
        self.approved_at("192.0.2.1")
    }

    fn approved_at(&self, browser: &str) -> String {
        let redirect = "http%3A%2F%2F127.0.0.1%3A4000%2Fcallback";
        format!(
            "grant_type=authorization_code&client_id=gatescribe-cli&code={}&redirect_uri={redirect}&code_verifier={VERIFIER}",
            self.code(browser)
        )
    }

    async fn living(&self) -> usize {
        self.state.sign_ins.list(SignInsOf::All, 1, 10).await.unwrap().0.len()
    }
}

#[tokio::test]
async fn a_good_request_gets_a_token_that_works_until_it_is_revoked() {
    let server = server(&[]);
    let answer = server.token(&format!("{}&unknown=ignored", server.good())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!((&json["token_type"], &json["email"]), (&json!("Bearer"), &json!("alice@example.com")));
    assert!((3590..=3600).contains(&json["expires_in"].as_i64().unwrap()));
    let token = json["access_token"].as_str().unwrap();
    let caller = server.state.tokens.verify(token, [127, 0, 0, 1].into()).await.unwrap().unwrap();
    assert_eq!(json["sign_in_id"], json!(caller.sign_in()));
    assert_eq!(server.living().await, 1);
    let revoked = server.post("/oauth/revoke", &format!("token={token}&client_id=gatescribe-cli")).await;
    assert_eq!((revoked.status, server.living().await), (200, 0));
    assert!(server.state.tokens.verify(token, [127, 0, 0, 1].into()).await.unwrap().is_none());
    // Unknown and revoked tokens are no error, and no oracle (RFC 7009 section 2.2).
    for token in [token, "gsa_unknown", "x"] {
        let again = server.post("/oauth/revoke", &format!("token={token}&client_id=gatescribe-cli")).await;
        assert_eq!((again.status, again.body.as_str()), (200, ""));
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_token_request_is_told_by_its_name() {
    let server = server(&[]);
    let without = |name: &str| {
        let good = server.good();
        good.split('&').filter(|pair| !pair.starts_with(&format!("{name}="))).collect::<Vec<_>>().join("&")
    };
    for name in ["grant_type", "client_id", "code", "redirect_uri", "code_verifier"] {
        server.token(&without(name)).await.refused(400, "invalid_request");
        server.token(&format!("{}&{name}=", without(name))).await.refused(400, "invalid_request");
        let twice = format!("{}&{name}=x", server.good());
        server.token(&twice).await.refused(400, "invalid_request");
    }
    let with = |name: &str, value: &str| format!("{}&{name}={value}", without(name));
    server.token(&with("grant_type", "password")).await.refused(400, "unsupported_grant_type");
    server.token(&with("grant_type", "refresh_token")).await.refused(400, "unsupported_grant_type");
    server.token(&with("client_id", "another")).await.refused(400, "invalid_client");
    server.token(&with("code", "another")).await.refused(400, "invalid_grant");
    server.token(&with("redirect_uri", "http%3A%2F%2F127.0.0.1%3A4001%2Fcallback")).await.refused(400, "invalid_grant");
    let wrong = "b-verifier-that-is-just-long-enough-0123456";
    server.token(&with("code_verifier", wrong)).await.refused(400, "invalid_grant");
    server.token(&"x".repeat(MAX_FORM + 1)).await.refused(413, "invalid_request");
    server.token("%ff=%").await.refused(400, "invalid_request");

    let json = Request::post("/oauth/token").header(header::CONTENT_TYPE, "application/json");
    server.send(json.body("{}".into()).unwrap()).await.refused(400, "invalid_request");
    let basic = Request::post("/oauth/token").header(header::CONTENT_TYPE, FORM).header("authorization", "Basic eDp5");
    let answer = server.send(basic.body(server.good().into()).unwrap()).await;
    answer.refused(401, "invalid_client");
    assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
    let query = Request::post(format!("/oauth/token?{}", server.good())).header(header::CONTENT_TYPE, FORM);
    server.send(query.body(Body::empty()).unwrap()).await.refused(400, "invalid_request");
    for method in [Method::GET, Method::PUT] {
        let request = Request::builder().method(method).uri("/oauth/token").body(Body::empty()).unwrap();
        assert_eq!(server.send(request).await.status, 405);
    }
    assert_eq!(server.living().await, 0, "nobody is signed in by any of it");
}

#[tokio::test]
async fn a_code_that_was_agreed_to_elsewhere_is_refused_with_what_to_do() {
    let server = server(&[]);
    let form = server.approved_at("198.51.100.7");
    let answer = server.token(&form).await;
    answer.refused(400, "invalid_grant");
    assert!(answer.json()["error_description"].as_str().unwrap().contains("--device"), "{}", answer.body);
    server.token(&form).await.refused(400, "invalid_grant");
    assert_eq!(server.living().await, 0);
}

#[tokio::test]
async fn a_code_used_twice_ends_what_came_of_it() {
    let server = server(&[]);
    let form = server.good();
    assert_eq!(server.token(&form).await.status, 200);
    assert_eq!(server.living().await, 1);
    server.token(&form).await.refused(400, "invalid_grant");
    assert_eq!(server.living().await, 0);
}

#[tokio::test]
async fn devices_are_there_only_where_a_group_is_named() {
    let off = server(&[]);
    let request = "client_id=gatescribe-cli";
    off.post("/oauth/device_authorization", request).await.refused(400, "unauthorized_client");
    let get = |path: &str| Request::get(path.to_owned()).body(Body::empty()).unwrap();
    let path = "/.well-known/oauth-authorization-server";
    let metadata = off.send(get(path)).await.json();
    assert!(metadata.get("device_authorization_endpoint").is_none());
    assert_eq!(metadata["issuer"], "https://access.example.com:8443");
    assert_eq!(metadata["token_endpoint"], "https://access.example.com:8443/oauth/token");
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(metadata["grant_types_supported"], json!(["authorization_code"]));

    let on = server(&["engineering"]);
    let metadata = on.send(get(path)).await.json();
    assert_eq!(metadata["grant_types_supported"], json!(["authorization_code", DEVICE_GRANT]));
    on.post("/oauth/device_authorization", "client_id=x").await.refused(400, "invalid_client");
    on.post("/oauth/device_authorization", "").await.refused(400, "invalid_request");
    let device = on.post("/oauth/device_authorization", request).await.json();
    assert_eq!(device["verification_uri"], "https://access.example.com:8443/device");
    assert_eq!((&device["expires_in"], &device["interval"]), (&json!(600), &json!(5)));
    assert!(device.get("verification_uri_complete").is_none());
    let (code, shown) = (device["device_code"].as_str().unwrap(), device["user_code"].as_str().unwrap());
    let form = format!("grant_type={DEVICE_GRANT}&client_id=gatescribe-cli&device_code={code}");
    on.token(&form).await.refused(400, "authorization_pending");
    on.token(&form).await.refused(400, "slow_down");
    let who = identity(Timestamp::now() + SignedDuration::from_hours(1));
    on.state.grants.deny_device(shown, &who).unwrap();
    on.token(&form).await.refused(400, "slow_down");
    on.token(&form.replace(code, "unknown")).await.refused(400, "expired_token");
    on.token(&form.replace("device_code=", "x=")).await.refused(400, "invalid_request");
}
