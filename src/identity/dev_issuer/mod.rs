//! A real, small OpenID provider for `demo` and for tests: code + PKCE, Ed25519, three people and no passwords.
//!
//! Pure logic; `api::dev_issuer` serves it, on loopback addresses only. `serve` must never reach it: a test holds that
//! nothing but `demo` and tests names it. It can also issue wrong tokens ([`Flaw`]), so that tests see them refused.
//!
//! It keeps no sessions: every sign-in is a new one, with `auth_time` now, so whatever `max_age` and `prompt` ask for is
//! met. A second factor is a word that somebody says, as everything here.

mod people;
mod request;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use openidconnect::core::{
    CoreEdDsaPrivateSigningKey, CoreGenderClaim, CoreHmacKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
};
use openidconnect::{
    AccessToken, AdditionalClaims, IdToken, IdTokenClaims, JsonWebKeyId, PkceCodeChallenge, PkceCodeVerifier,
    PrivateSigningKey,
};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::random::{self, Hashed};

pub use self::people::{PEOPLE, Person};
use self::request::AMR;
pub use self::request::{ACR, AuthorizeRequest, Refused, TokenRequest};

/// How long a code may be redeemed.
const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// How long an ID token and its access token count.
const TOKEN_LIFETIME: i64 = 300;
/// Codes and access tokens that are kept at once.
const MAX_ISSUED: usize = 1024;

/// What is wrong with the next tokens. For tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each name says what the token gets wrong")]
pub enum Flaw {
    #[default]
    None,
    Issuer,
    Audience,
    SecondAudience,
    SecondAudienceForOther,
    Expired,
    IssuedLongAgo,
    IssuedInFuture,
    Nonce,
    AlgNone,
    Hs256,
    UnknownKey,
    ForgedSignature,
    AccessTokenHash,
    NoEmail,
    NoEmailAnywhere,
    EmailNotVerified,
    NoGroups,
    UserinfoOtherSubject,
    SignedInLongAgo,
    SignedInAnHourAgo,
    NoAuthTime,
}

/// The development issuer.
pub struct Issuer {
    url: String,
    client_id: &'static str,
    client_secret: SecretString,
    redirect_uri: String,
    state: Mutex<State>,
}

struct State {
    key: CoreEdDsaPrivateSigningKey,
    rotations: u32,
    codes: HashMap<Hashed, Code>,
    access: HashMap<Hashed, (&'static Person, Instant)>,
    flaw: Flaw,
    /// Groups that people are in instead of their own, by nickname.
    groups: HashMap<String, Vec<String>>,
}

struct Code {
    person: &'static Person,
    /// Which entry of [`ACR`] and [`AMR`].
    class: usize,
    nonce: String,
    challenge: String,
    expires: Instant,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Extra {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<String>>,
    department: String,
}

impl State {
    fn groups_of(&self, person: &Person) -> Vec<String> {
        let own = || person.groups.iter().map(|group| (*group).to_owned()).collect();
        self.groups.get(person.nickname).cloned().unwrap_or_else(own)
    }
}

impl AdditionalClaims for Extra {}

type Claims = IdTokenClaims<Extra, CoreGenderClaim>;
type Token = IdToken<Extra, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

impl Issuer {
    /// An issuer at `url` (without a trailing slash) with one client, whose secret is made here.
    pub fn new(url: String, redirect_uri: &Url) -> Result<Self, Refused> {
        let state = State {
            key: new_key(0)?,
            rotations: 0,
            codes: HashMap::new(),
            access: HashMap::new(),
            flaw: Flaw::default(),
            groups: HashMap::new(),
        };
        Ok(Self {
            url,
            client_id: "gatescribe",
            client_secret: random::code()?.into(),
            redirect_uri: redirect_uri.to_string(),
            state: Mutex::new(state),
        })
    }

    /// The issuer's identifier.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The one client.
    pub fn client_id(&self) -> &str {
        self.client_id
    }

    /// The client's secret, made at the start and never stored.
    pub fn client_secret(&self) -> &SecretString {
        &self.client_secret
    }

    /// The discovery document.
    pub fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.url);
        json!({
            "issuer": self.url,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/keys"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"],
            "subject_types_supported": ["public"],
            "scopes_supported": ["openid", "email", "profile", "groups"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "acr_values_supported": ACR,
        })
    }

    /// The key set.
    pub fn keys(&self) -> CoreJsonWebKeySet {
        CoreJsonWebKeySet::new(vec![self.lock().key.as_verification_key()])
    }

    /// Checks an authorization request before anything is shown or sent anywhere.
    pub fn check(&self, request: &AuthorizeRequest) -> Result<(), Refused> {
        if request.client_id != self.client_id || request.redirect_uri != self.redirect_uri {
            return Err(Refused::InvalidClient);
        }
        let pkce = request.code_challenge_method == "S256" && request.code_challenge.len() == 43;
        let openid = request.scope.split(' ').any(|scope| scope == "openid");
        if !pkce || !openid || request.response_type != "code" || request.nonce.is_empty() {
            return Err(Refused::InvalidRequest);
        }
        Ok(())
    }

    /// Signs a person in: where to send the browser, with a code in it.
    pub fn sign_in(&self, request: &AuthorizeRequest, nickname: &str) -> Result<Url, Refused> {
        self.check(request)?;
        let person = PEOPLE.iter().find(|person| person.nickname == nickname).ok_or(Refused::InvalidRequest)?;
        let code = random::code()?;
        let issued = Code {
            person,
            class: request.class(),
            nonce: request.nonce.clone(),
            challenge: request.code_challenge.clone(),
            expires: Instant::now() + CODE_LIFETIME,
        };
        let mut state = self.lock();
        state.codes.retain(|_, code| code.expires > Instant::now());
        if state.codes.len() >= MAX_ISSUED {
            return Err(Refused::Server);
        }
        state.codes.insert(random::hashed(&code), issued);
        self.answer(request, &[("code", &code), ("iss", &self.url)])
    }

    /// Says no: where to send the browser.
    pub fn deny(&self, request: &AuthorizeRequest) -> Result<Url, Refused> {
        self.check(request)?;
        self.answer(request, &[("error", "access_denied"), ("iss", &self.url)])
    }

    /// Redeems a code for an ID token and an access token.
    pub fn token(&self, request: &TokenRequest) -> Result<Value, Refused> {
        let secret = random::same(&request.client_secret, self.client_secret.expose_secret());
        if request.client_id != self.client_id || !secret {
            return Err(Refused::InvalidClient);
        }
        if request.grant_type != "authorization_code" {
            return Err(Refused::InvalidRequest);
        }
        let mut state = self.lock();
        // Removed first: a code that was tried with a wrong verifier is spent too.
        let code = state.codes.remove(&random::hashed(&request.code)).ok_or(Refused::InvalidGrant)?;
        if !verifies(&request.code_verifier, &code.challenge)
            || request.redirect_uri != self.redirect_uri
            || code.expires <= Instant::now()
        {
            return Err(Refused::InvalidGrant);
        }
        let access = AccessToken::new(random::code()?);
        let id_token = self.id_token(&state, &code, &access)?;
        let until = Instant::now() + Duration::from_secs(TOKEN_LIFETIME.unsigned_abs());
        state.access.retain(|_, (_, until)| *until > Instant::now());
        if state.access.len() < MAX_ISSUED {
            state.access.insert(random::hashed(access.secret()), (code.person, until));
        }
        Ok(json!({
            "access_token": access.secret(),
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFETIME,
            "id_token": id_token,
        }))
    }

    /// The claims of whoever an access token was issued for.
    pub fn userinfo(&self, access_token: &str) -> Option<Value> {
        let state = self.lock();
        let (person, until) = state.access.get(&random::hashed(access_token))?;
        if *until <= Instant::now() {
            return None;
        }
        let subject = if state.flaw == Flaw::UserinfoOtherSubject { "somebody-else" } else { person.subject };
        let mut claims = json!({ "sub": subject, "groups": state.groups_of(person) });
        if state.flaw != Flaw::NoEmailAnywhere {
            claims["email"] = json!(person.email());
        }
        Some(claims)
    }

    /// Changes the signing key; the old one is no longer published.
    pub fn rotate(&self) -> Result<(), Refused> {
        let mut state = self.lock();
        state.rotations += 1;
        state.key = new_key(state.rotations)?;
        Ok(())
    }

    /// From now on this person is in these groups.
    pub fn set_groups(&self, nickname: &str, groups: &[&str]) {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self.lock().groups.insert(nickname.to_owned(), groups);
    }

    /// Makes the next tokens wrong.
    pub fn set_flaw(&self, flaw: Flaw) {
        self.lock().flaw = flaw;
    }

    fn answer(&self, request: &AuthorizeRequest, parameters: &[(&str, &str)]) -> Result<Url, Refused> {
        let mut url: Url = self.redirect_uri.parse().map_err(|_| Refused::Server)?;
        url.query_pairs_mut().extend_pairs(parameters).append_pair("state", &request.state);
        Ok(url)
    }

    fn id_token(&self, state: &State, code: &Code, access: &AccessToken) -> Result<String, Refused> {
        let server = |_| Refused::Server;
        let claims: Claims = serde_json::from_value(self.claims(state.flaw, code, &state.groups_of(code.person)))
            .map_err(|_| Refused::Server)?;
        let other = AccessToken::new("another".into());
        let access = Some(if state.flaw == Flaw::AccessTokenHash { &other } else { access });
        let alg = CoreJwsSigningAlgorithm::EdDsa;
        let token = match state.flaw {
            Flaw::UnknownKey => Token::new(claims, &new_key(u32::MAX)?, alg, access, None),
            Flaw::ForgedSignature => Token::new(claims, &new_key(state.rotations)?, alg, access, None),
            Flaw::Hs256 => {
                let key = CoreHmacKey::new(self.client_secret.expose_secret().to_owned());
                Token::new(claims, &key, CoreJwsSigningAlgorithm::HmacSha256, None, None)
            }
            _ => Token::new(claims, &state.key, alg, access, None),
        };
        let token = token.map_err(server)?.to_string();
        Ok(if state.flaw == Flaw::AlgNone { unsigned(&token) } else { token })
    }

    fn claims(&self, flaw: Flaw, code: &Code, groups: &[String]) -> Value {
        let now = Timestamp::now().as_second();
        let person = code.person;
        let mut claims = json!({
            "iss": self.url, "aud": self.client_id, "sub": person.subject, "nonce": code.nonce,
            "iat": now, "exp": now + TOKEN_LIFETIME, "auth_time": now, "acr": ACR[code.class], "amr": AMR[code.class],
            "email": person.email(), "email_verified": true, "groups": groups,
            "department": person.department,
            "name": person.name, "nickname": person.nickname, "picture": person.picture(),
        });
        match flaw {
            Flaw::Issuer => claims["iss"] = json!("https://somebody.example.com"),
            Flaw::Audience => claims["aud"] = json!("somebody"),
            Flaw::SecondAudience | Flaw::SecondAudienceForOther => {
                claims["aud"] = json!([self.client_id, "somebody"]);
                claims["azp"] = json!(if flaw == Flaw::SecondAudience { self.client_id } else { "somebody" });
            }
            Flaw::Expired => claims["exp"] = json!(now - 1),
            Flaw::IssuedLongAgo => claims["iat"] = json!(now - 3600),
            Flaw::IssuedInFuture => claims["iat"] = json!(now + 3600),
            Flaw::Nonce => claims["nonce"] = json!("another"),
            Flaw::NoEmail | Flaw::NoEmailAnywhere => claims["email"] = Value::Null,
            Flaw::EmailNotVerified => claims["email_verified"] = json!(false),
            Flaw::NoGroups | Flaw::UserinfoOtherSubject => claims["groups"] = Value::Null,
            Flaw::SignedInLongAgo => claims["auth_time"] = json!(now - 30 * 24 * 3600),
            Flaw::SignedInAnHourAgo => claims["auth_time"] = json!(now - 3600),
            Flaw::NoAuthTime => claims["auth_time"] = Value::Null,
            _ => {}
        }
        claims
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("url", &self.url).finish_non_exhaustive()
    }
}

fn new_key(generation: u32) -> Result<CoreEdDsaPrivateSigningKey, Refused> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(|_| Refused::Server)?;
    let id = JsonWebKeyId::new(format!("dev-{generation}"));
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pair.serialize_pem(), Some(id)).map_err(|_| Refused::Server)
}

/// RFC 7636 section 4.6; its section 4.1 limits the length, and the library panics beyond the limits.
fn verifies(verifier: &str, challenge: &str) -> bool {
    (43..=128).contains(&verifier.len())
        && PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.to_owned())).as_str()
            == challenge
}

/// The same claims under `{"alg":"none"}` and an empty signature (RFC 7519 section 6).
fn unsigned(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap_or_default();
    format!("eyJhbGciOiJub25lIn0.{claims}.")
}
