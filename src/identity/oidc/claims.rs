//! From tokens to an [`Identity`]: the checks that openidconnect leaves to its user, and the claims that are kept.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;

use jiff::{SignedDuration, Timestamp};
use openidconnect::core::{
    CoreGenderClaim, CoreJsonWebKey, CoreJsonWebKeySet, CoreJwsSigningAlgorithm, CoreProviderMetadata,
};
use openidconnect::{
    AccessTokenHash, AdditionalClaims, ClaimsVerificationError, ClientId, IdTokenClaims, IdTokenVerifier,
    JsonWebKeySet, Nonce, OAuth2TokenResponse, SignatureVerificationError, StandardClaims, SubjectIdentifier,
    TokenResponse, UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::export::escape::is_unsafe;

use super::error::{OidcError, Rejection, Unconfirmed};
use super::http::Http;
use super::provider::told;
use super::{Client, Identity, OidcSettings, Tokens, Wanted};

/// How far the provider's clock and ours may be apart.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// Public-key signatures only: with HS256 the client secret would be the key, with `none` there is none.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 5] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];
/// RFC 5321 section 4.5.3.1.3 allows 256; some providers are more generous.
const MAX_EMAIL: usize = 320;
const MAX_TEXT: usize = 256;
const MAX_URL: usize = 2048;
/// Bytes of a claim's value that a rule can name, and of all such claims of a person.
const MAX_VALUE: usize = 1024;
const MAX_CLAIMS: usize = 64 * 1024;
/// What a token says about itself, not about a person.
const PLUMBING: [&str; 6] = ["at_hash", "c_hash", "s_hash", "sid", "jti", "nbf"];

/// Every claim that the standard ones do not cover: the groups' claim has any name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Extra {
    #[serde(flatten)]
    all: HashMap<String, Value>,
}

impl AdditionalClaims for Extra {}

pub(super) type Claims = IdTokenClaims<Extra, CoreGenderClaim>;

/// What one sign-in's token must fit.
pub(super) struct Checks<'a> {
    pub(super) settings: &'a OidcSettings,
    pub(super) nonce: &'a Nonce,
    pub(super) begun: Timestamp,
    pub(super) wanted: &'a Wanted,
}

/// A token that failed: on the key alone newer keys may help.
pub(super) enum Unverified {
    Key,
    Rejected(Rejection),
}

impl From<Unverified> for OidcError {
    fn from(why: Unverified) -> Self {
        match why {
            Unverified::Key => Self::Rejected(Rejection::Signature),
            Unverified::Rejected(rejection) => Self::Rejected(rejection),
        }
    }
}

impl Checks<'_> {
    /// Every check of OpenID Connect Core section 3.1.3.7 but those on the time of sign-in.
    pub(super) fn verify<'t>(
        &self,
        published: &CoreProviderMetadata,
        tokens: &'t Tokens,
    ) -> Result<&'t Claims, Unverified> {
        let token = tokens.id_token().ok_or(Unverified::Rejected(Rejection::Missing))?;
        let verifier = self.verifier(published);
        let claims = token.claims(&verifier, self.nonce).map_err(|error| unverified(&error))?;
        self.check_party(claims)?;
        if let Some(expected) = claims.access_token_hash() {
            let key = token.signing_key(&verifier).map_err(|_| Unverified::Key)?;
            let alg = token.signing_alg().map_err(|_| Unverified::Rejected(Rejection::Algorithm))?;
            let actual = AccessTokenHash::from_token(tokens.access_token(), alg, key);
            if actual.ok().as_ref() != Some(expected) {
                return Err(Unverified::Rejected(Rejection::AccessTokenHash));
            }
        }
        Ok(claims)
    }

    /// The identity of a person whose token has passed [`Checks::verify`].
    pub(super) fn identity(&self, person: Person, claims: &Claims) -> Result<Identity, OidcError> {
        let signed_in = self.signed_in(claims)?;
        if !self.wanted.takes_class(claims.auth_context_ref().map(|acr| acr.as_str())) {
            return Err(OidcError::Unconfirmed(Unconfirmed::Class));
        }
        let lifetime = SignedDuration::try_from(self.settings.session_lifetime)
            .map_err(|error| OidcError::Settings(error.to_string()))?;
        let expires = signed_in.checked_add(lifetime).map_err(|error| OidcError::Settings(error.to_string()))?;
        if expires <= Timestamp::now() {
            return Err(OidcError::TooOld);
        }
        let email = person.email.ok_or(OidcError::NoEmail)?;
        if person.email_verified == Some(false) {
            return Err(OidcError::EmailNotVerified);
        }
        if !plausible_email(&email) {
            return Err(OidcError::Claim("email".into()));
        }
        Ok(Identity {
            issuer: self.settings.issuer.clone(),
            subject: claims.subject().to_string(),
            email,
            name: person.name,
            picture: person.picture,
            nickname: person.nickname,
            groups: person.groups.unwrap_or_default(),
            signed_in,
            expires,
            acr: acr(claims),
            amr: amr(claims),
            told: Some(Timestamp::now()),
            undated: claims.auth_time().is_none(),
            claims: kept(&claims.additional_claims().all, &person.groups_claim)?,
        })
    }

    fn verifier<'v>(&self, published: &CoreProviderMetadata) -> IdTokenVerifier<'v, CoreJsonWebKey> {
        // A public client's verifier knows no client secret, so that no token can be checked against it.
        let client = ClientId::new(self.settings.client_id.clone());
        let keys: CoreJsonWebKeySet = JsonWebKeySet::new(published.jwks().keys().clone());
        let (earliest, latest) = (self.begun - SKEW, Timestamp::now() + SKEW);
        IdTokenVerifier::new_public_client(client, published.issuer().clone(), keys)
            .set_allowed_algs(ALGORITHMS)
            // Others may be named beside us if `azp` says that the token was made for us: `check_party`.
            .set_other_audience_verifier_fn(|_| true)
            .set_issue_time_verifier_fn(move |at| match Timestamp::from_second(at.timestamp()) {
                Ok(at) if at >= earliest && at <= latest => Ok(()),
                _ => Err(IMPOSSIBLE_TIME.into()),
            })
    }

    fn check_party(&self, claims: &Claims) -> Result<(), Unverified> {
        let us = &self.settings.client_id;
        match claims.authorized_party() {
            Some(party) if party.as_str() == us => Ok(()),
            None if claims.audiences().len() == 1 => Ok(()),
            _ => Err(Unverified::Rejected(Rejection::Audience)),
        }
    }

    /// When the person signed in, by the provider's word.
    fn signed_in(&self, claims: &Claims) -> Result<Timestamp, OidcError> {
        let impossible = |_| OidcError::Rejected(Rejection::Time);
        let at = match claims.auth_time() {
            Some(at) => at.timestamp(),
            None if self.wanted.fresh => return Err(OidcError::NotFresh),
            None if self.wanted.max_age.is_some() => return Err(OidcError::Unconfirmed(Unconfirmed::Age)),
            None => claims.issue_time().timestamp(),
        };
        let at = Timestamp::from_second(at).map_err(impossible)?;
        if at > Timestamp::now() + SKEW {
            return Err(OidcError::Rejected(Rejection::Time));
        }
        // `prompt` and `max_age` can be cut out of the URL on its way through the browser; `auth_time` cannot be forged.
        if self.wanted.fresh && at < self.begun - SKEW {
            return Err(OidcError::NotFresh);
        }
        if let Some(most) = self.wanted.max_age {
            let most = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
            if self.begun.duration_since(at) > most.saturating_add(SKEW) {
                return Err(OidcError::Unconfirmed(Unconfirmed::Age));
            }
        }
        Ok(at)
    }
}

/// The claims that are kept, as far as they are known.
pub(super) struct Person {
    email: Option<String>,
    email_verified: Option<bool>,
    name: Option<String>,
    picture: Option<String>,
    nickname: Option<String>,
    groups: Option<Vec<String>>,
    groups_claim: String,
}

impl Person {
    pub(super) fn from_token(claims: &Claims, groups_claim: &str) -> Result<Self, OidcError> {
        let Extra { all } = claims.additional_claims();
        Ok(Self {
            email: claims.email().map(|email| email.to_string()),
            email_verified: claims.email_verified(),
            name: claims.name().and_then(|name| name.get(None)).map(|name| text(name)),
            picture: claims.picture().and_then(|url| url.get(None)).and_then(|url| picture(url)),
            nickname: claims.nickname().and_then(|name| name.get(None)).map(|name| text(name)),
            groups: groups(all, groups_claim)?,
            groups_claim: groups_claim.to_owned(),
        })
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.email.is_none() || self.groups.is_none()
    }

    /// Fills in what the ID token left out. Fails closed: without its groups a person could slip past a deny rule.
    pub(super) async fn add_userinfo(
        &mut self,
        client: &Client,
        tokens: &Tokens,
        subject: &SubjectIdentifier,
        http: &Http,
    ) -> Result<(), OidcError> {
        let failed = |error: &dyn Error| OidcError::Unreachable(format!("userinfo: {}", told(error)));
        let request = client.user_info(tokens.access_token().clone(), Some(subject.clone()));
        let request = request.map_err(|error| failed(&error))?;
        let info: UserInfoClaims<Extra, CoreGenderClaim> =
            request.request_async(http).await.map_err(|error| failed(&error))?;
        self.fill(info.standard_claims(), info.additional_claims())
    }

    fn fill(&mut self, info: &StandardClaims<CoreGenderClaim>, extra: &Extra) -> Result<(), OidcError> {
        if self.email.is_none() {
            self.email = info.email().map(|email| email.to_string());
            self.email_verified = info.email_verified();
        }
        if self.groups.is_none() {
            self.groups = groups(&extra.all, &self.groups_claim)?;
        }
        let missing = |known: &mut Option<String>, told: Option<String>| *known = known.take().or(told);
        missing(&mut self.name, info.name().and_then(|name| name.get(None)).map(|name| text(name)));
        missing(&mut self.picture, info.picture().and_then(|url| url.get(None)).and_then(|url| picture(url)));
        missing(&mut self.nickname, info.nickname().and_then(|name| name.get(None)).map(|name| text(name)));
        Ok(())
    }
}

const IMPOSSIBLE_TIME: &str = "impossible issue time";

/// Sorts openidconnect's errors. Its words name issuers and audiences, so they stay in the log.
fn unverified(error: &ClaimsVerificationError) -> Unverified {
    use SignatureVerificationError as Signature;
    tracing::debug!(error = %told(error), "an ID token failed its checks");
    Unverified::Rejected(match error {
        ClaimsVerificationError::SignatureVerification(
            Signature::NoMatchingKey
            | Signature::CryptoError(_)
            | Signature::AmbiguousKeyId(_)
            | Signature::InvalidKey(_),
        ) => return Unverified::Key,
        ClaimsVerificationError::SignatureVerification(_) => Rejection::Algorithm,
        ClaimsVerificationError::Expired(why) if why == IMPOSSIBLE_TIME => Rejection::Time,
        ClaimsVerificationError::Expired(_) => Rejection::Expired,
        ClaimsVerificationError::InvalidAudience(_) => Rejection::Audience,
        ClaimsVerificationError::InvalidIssuer(_) => Rejection::Issuer,
        ClaimsVerificationError::InvalidNonce(_) => Rejection::Nonce,
        _ => Rejection::Malformed,
    })
}

/// The groups under the configured claim: an array of strings or one string; `None` when the claim is not there.
fn groups(claims: &HashMap<String, Value>, name: &str) -> Result<Option<Vec<String>>, OidcError> {
    let unexpected = || OidcError::Claim(name.to_owned());
    match claims.get(name) {
        Some(Value::String(one)) => Ok(Some(vec![one.clone()])),
        Some(Value::Array(many)) => many
            .iter()
            .map(|group| group.as_str().map(str::to_owned).ok_or_else(unexpected))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(Value::Null) => Ok(None),
        Some(_) => Err(unexpected()),
        None if claims.get("_claim_names").is_some_and(|names| names.get(name).is_some()) => {
            Err(OidcError::TooManyGroups)
        }
        None => Ok(None),
    }
}

/// Of which class the sign-in was (`acr`).
fn acr(claims: &Claims) -> Option<String> {
    claims.auth_context_ref().map(|acr| text(acr))
}

/// By which methods somebody signed in (`amr`).
fn amr(claims: &Claims) -> Vec<String> {
    claims.auth_method_refs().into_iter().flatten().map(|method| text(method)).collect()
}

/// The claims that policies may ask about. What no rule can name (an object, a text longer than any value in a rule) is left
/// out; of anything else that does not fit the sign-in is refused, because a rule that denies by it would not hold. Groups
/// are kept apart.
fn kept(claims: &HashMap<String, Value>, groups_claim: &str) -> Result<BTreeMap<String, Value>, OidcError> {
    let short = |value: &Value| match value {
        Value::String(text) => text.len() <= MAX_VALUE,
        Value::Bool(_) | Value::Number(_) => true,
        _ => false,
    };
    let mut room = MAX_CLAIMS;
    let mut kept = BTreeMap::new();
    for (name, value) in claims {
        if PLUMBING.contains(&name.as_str()) || name == groups_claim {
            continue;
        }
        let value = match value {
            Value::Array(list) => list.iter().filter(|value| short(value)).cloned().collect(),
            one if short(one) => one.clone(),
            _ => continue,
        };
        let size = name.len() + value.to_string().len();
        room = room.checked_sub(size).ok_or_else(|| OidcError::Claim(text(name)))?;
        kept.insert(name.clone(), value);
    }
    Ok(kept)
}

/// Text for people: no control characters, which a terminal would obey, and not endless.
fn text(claim: &str) -> String {
    claim.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

/// A picture's URL. Half a URL is none, so a long one is left out.
fn picture(url: &str) -> Option<String> {
    (url.len() <= MAX_URL && !url.chars().any(|c| c.is_control() || c.is_whitespace())).then(|| url.to_owned())
}

fn plausible_email(email: &str) -> bool {
    let parts = email.rsplit_once('@');
    parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        && email.len() <= MAX_EMAIL
        && !email.chars().any(|c| c.is_control() || c.is_whitespace() || is_unsafe(c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(claims: Value) -> Result<Option<Vec<String>>, OidcError> {
        groups(&serde_json::from_value(claims).unwrap(), "groups")
    }

    #[test]
    fn groups_come_as_array_or_string() {
        assert_eq!(read(json!({"groups": ["a", "b"]})).unwrap().unwrap(), ["a", "b"]);
        assert_eq!(read(json!({"groups": "a"})).unwrap().unwrap(), ["a"]);
        assert_eq!(read(json!({"groups": []})).unwrap().unwrap(), Vec::<String>::new());
        assert_eq!(read(json!({"roles": ["a"]})).unwrap(), None);
    }

    #[test]
    fn groups_that_cannot_be_read_are_no_groups_left_out() {
        assert_eq!(read(json!({"groups": [1]})), Err(OidcError::Claim("groups".into())));
        assert_eq!(read(json!({"groups": {"a": true}})), Err(OidcError::Claim("groups".into())));
        assert_eq!(read(json!({"_claim_names": {"groups": "src1"}})), Err(OidcError::TooManyGroups));
    }

    #[test]
    fn an_email_is_one_line_with_an_at_sign() {
        for (email, ok) in [
            ("alice@example.com", true),
            ("alice", false),
            ("@example.com", false),
            ("alice@", false),
            ("alice@example.com\nroot", false),
            ("a lice@example.com", false),
        ] {
            assert_eq!(plausible_email(email), ok, "{email:?}");
        }
        assert_eq!(text("Al\u{1b}[31mice"), "Al[31mice");
    }
    fn token(more: Value) -> Claims {
        let mut claims = json!({"iss": "https://idp.example.com", "aud": "gatescribe", "sub": "1", "exp": 2, "iat": 1});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(claims).unwrap()
    }

    #[test]
    fn the_kind_of_sign_in_is_read() {
        let claims = token(json!({"acr": "gold\u{1b}", "amr": ["pwd", "otp"]}));
        assert_eq!((acr(&claims), amr(&claims)), (Some("gold".into()), vec!["pwd".into(), "otp".into()]));
        let claims = token(json!({}));
        assert_eq!((acr(&claims), amr(&claims)), (None, vec![]));
    }

    #[test]
    fn short_claims_are_kept_once() {
        let claims = token(json!({
            "email": "a@x.com", "name": "A", "nickname": "a", "acr": "gold", "amr": ["pwd"], "auth_time": 1, "nonce": "n",
            "groups": ["g"], "sid": "s", "jti": "j", "at_hash": "h", "nbf": 1,
            "dept": "web", "level": 3, "on": true, "sites": ["ams", "rtm"], "roles": ["r"],
            "nothing": null, "address": {"locality": "Utrecht"}, "nested": {"a": 1}, "mixed": ["a", {"b": 1}],
            "long": "x".repeat(MAX_VALUE + 1),
        }));
        let all = &claims.additional_claims().all;
        let names = |groups_claim: &str| kept(all, groups_claim).unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!(names("groups"), ["dept", "level", "mixed", "on", "roles", "sites"]);
        assert_eq!(names("roles"), ["dept", "groups", "level", "mixed", "on", "sites"]);
        let kept = kept(all, "groups").unwrap();
        assert_eq!((&kept["sites"], &kept["mixed"]), (&json!(["ams", "rtm"]), &json!(["a"])));
    }

    #[test]
    fn claims_that_do_not_fit_let_nobody_in() {
        let claims = |many: usize| {
            let claims = (0..many).map(|n| (format!("c{n:03}"), json!("x".repeat(MAX_VALUE))));
            kept(&claims.collect(), "groups")
        };
        let fit = MAX_CLAIMS / (4 + MAX_VALUE + 2);
        assert_eq!(claims(fit).unwrap().len(), fit);
        assert!(matches!(claims(fit + 1), Err(OidcError::Claim(_))), "a rule that denies by it would not hold");
    }
}
