//! `gatescribe login` as a program does it: PKCE, a redirect to loopback that is read instead of followed, credentials.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use super::api::https_client;
use super::{Gateway, Ssh};

/// A verifier that everybody may know: what the tests protect is the gateway.
pub const VERIFIER: &str = "the-verifier-of-the-tests-is-43-letters-long";

/// Where the command line waits, if it did.
pub const REDIRECT: &str = "http://127.0.0.1:45678/callback";

/// Somebody signed in at the command line.
pub struct Login {
    /// The API token of the sign-in.
    pub token: String,
    pub sign_in_id: String,
}

/// The challenge of a verifier (RFC 7636 section 4.2).
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

impl Gateway {
    /// A good authorization request, with some parameters changed or, where empty, left out.
    pub fn authorize_url(&self, changed: &[(&str, &str)]) -> String {
        let challenge = challenge(VERIFIER);
        let good = [
            ("response_type", "code"),
            ("client_id", "gatescribe-cli"),
            ("redirect_uri", REDIRECT),
            ("state", "the state & more"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let mut url = Url::parse(&self.url("/oauth/authorize")).unwrap();
        for (name, value) in good {
            let value = changed.iter().find(|(changed, _)| *changed == name).map_or(value, |(_, value)| value);
            if !value.is_empty() {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url.into()
    }

    /// A form posted to one of the endpoints for programs.
    pub async fn oauth(&self, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let mut body = Url::parse("http://localhost/").unwrap();
        body.query_pairs_mut().extend_pairs(form);
        let request = https_client(&self.ca()).build().unwrap().request(Method::POST, self.url(path));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(body.query().unwrap_or_default().to_owned()).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The parameters that the browser brings to the program on loopback.
    pub async fn authorized(&self, person: &str) -> Vec<(String, String)> {
        let mut browser = self.browser();
        let page = browser.sign_in(&self.authorize_url(&[]), person).await;
        let back = browser.submit_unfollowed(&page.form("approve")).await;
        let back = back.expect("a redirect to loopback");
        assert!(back.as_str().starts_with(REDIRECT), "{back}");
        back.query_pairs().into_owned().collect()
    }

    /// An authorization code for this person.
    pub async fn code_of(&self, person: &str) -> String {
        let back = self.authorized(person).await;
        back.into_iter().find(|(name, _)| name == "code").expect("a code").1
    }

    /// Redeems a code with everything right.
    pub async fn redeem(&self, code: &str) -> (StatusCode, Value) {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "gatescribe-cli"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        self.oauth("/oauth/token", &form).await
    }

    /// The whole sign-in.
    pub async fn login(&self, person: &str) -> Login {
        let (status, answer) = self.redeem(&self.code_of(person).await).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Login { token: text("access_token"), sign_in_id: text("sign_in_id") }
    }

    /// Certifies a machine's key, so that its `ssh` offers the certificate by itself.
    pub async fn certify(&self, login: &Login, ssh: &Ssh) -> Value {
        let key = fs::read_to_string(ssh.path("id.pub")).unwrap();
        let api = self.api(Some(login.token.clone()));
        let answer = api.call(Method::POST, "/api/v1/credentials", Some(json!({ "ssh_public_key": key }))).await;
        let answer = answer.ok_json();
        write_certificate(&ssh.path("id-cert.pub"), answer["ssh_certificate"].as_str().unwrap());
        answer
    }
}

/// Puts a certificate where `ssh` looks for it.
fn write_certificate(path: &Path, line: &str) {
    fs::write(path, format!("{line}\n")).unwrap();
}
