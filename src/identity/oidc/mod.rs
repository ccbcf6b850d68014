//! Signing in at an OpenID provider: code + PKCE (RFC 7636), and every check of the ID token that OpenID Connect Core
//! section 3.1.3.7 asks for. Knows no cookies and no pages; whoever keeps a [`Flow`] binds it to one browser.
//!
//! The only place, beside the development issuer, that uses openidconnect. The provider may be down when the gateway
//! starts: [`Oidc::new`] asks it nothing, the first sign-in (or [`Oidc::keep_fresh`]) does.

mod claims;
mod error;
mod http;
mod provider;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClientAuthMethod, CoreErrorResponseType,
    CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AuthType, AuthenticationContextClass, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, IdTokenFields, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RequestTokenError, Scope, StandardErrorResponse, StandardTokenResponse,
};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use self::claims::Extra;
use self::provider::{Provider, told};
use super::{Identity, random};
use crate::policy::StepUp;

pub use self::error::{OidcError, Rejection, Unconfirmed};

/// `[oidc]` and where the provider sends the browser back to.
#[derive(Clone, Debug)]
pub struct OidcSettings {
    /// The issuer exactly as the provider writes it, with or without a trailing slash: it is compared letter by letter.
    pub issuer: String,
    /// This gateway's client id there.
    pub client_id: String,
    /// Left out for a public client.
    pub client_secret: Option<SecretString>,
    /// The claim that lists a person's groups: an array of strings, or one string.
    pub groups_claim: String,
    /// How long a sign-in at the provider counts.
    pub session_lifetime: Duration,
    /// The one redirect URI registered there: `public_url` and `/oidc/callback`.
    pub redirect_uri: Url,
}

/// The OpenID provider, as its client. Cheap to clone.
#[derive(Clone)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    settings: OidcSettings,
    provider: Provider,
}

/// What a sign-in must be like beside right. The default takes any that is not older than `session_lifetime`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The person signs in anew, whatever session the provider has.
    pub fresh: bool,
    /// Not longer ago than this (`max_age`). More than `session_lifetime` means nothing more.
    pub max_age: Option<Duration>,
    /// Of one of these classes (`acr_values`). Empty: of any.
    pub acr: Vec<String>,
}

/// A sign-in that begins: where to send the browser, and what to keep until it comes back.
#[derive(Debug)]
pub struct Begin {
    /// The provider's authorization endpoint with everything in it.
    pub url: Url,
    /// To be kept on the server, for this browser only.
    pub flow: Flow,
}

/// What must be remembered of a sign-in until the provider answers. Consumed by [`Oidc::finish`]: one use.
pub struct Flow {
    state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    return_to: String,
    wanted: Wanted,
    begun: Timestamp,
}

type Tokens = StandardTokenResponse<
    IdTokenFields<
        Extra,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

type Client = openidconnect::Client<
    Extra,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

impl Oidc {
    /// A client that asks the provider nothing yet. Fails only on settings that can never work.
    pub fn new(settings: OidcSettings) -> Result<Self, OidcError> {
        let provider = Provider::new(&settings.issuer)?;
        RedirectUrl::new(settings.redirect_uri.to_string()).map_err(|e| OidcError::Settings(e.to_string()))?;
        Ok(Self(Arc::new(Inner { settings, provider })))
    }

    /// A client that has read what the provider publishes.
    pub async fn discover(settings: OidcSettings) -> Result<Self, OidcError> {
        let oidc = Self::new(settings)?;
        oidc.0.provider.published().await?;
        Ok(oidc)
    }

    /// Fetches what the provider publishes until it is there (pauses of 1 to 60 s), then every hour. Runs for ever:
    /// the gateway spawns it. Cancel safe.
    pub async fn keep_fresh(&self) {
        self.0.provider.keep_fresh().await;
    }

    /// Whether the provider has answered since the start, so that people can sign in.
    pub fn is_known(&self) -> bool {
        self.0.provider.is_known()
    }

    /// Begins a sign-in that must be as `wanted`. The browser may cut that out of the URL: [`Oidc::finish`] looks at the
    /// token.
    pub async fn begin(&self, return_to: &str, wanted: &Wanted) -> Result<Begin, OidcError> {
        let published = self.0.provider.published().await?;
        let client = self.client(&published)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
            .add_scope(Scope::new("email".into()))
            .add_scope(Scope::new("profile".into()))
            .set_pkce_challenge(challenge)
            // Makes the provider ask again when its own session is older, and makes it say when the person signed in.
            .set_max_age(wanted.asked_age(self.0.settings.session_lifetime));
        for acr in &wanted.acr {
            request = request.add_auth_context_value(AuthenticationContextClass::new(acr.clone()));
        }
        if published.scopes_supported().is_some_and(|scopes| scopes.iter().any(|scope| scope.as_str() == "groups")) {
            request = request.add_scope(Scope::new("groups".into()));
        }
        if wanted.fresh {
            request = request.add_prompt(CoreAuthPrompt::Login);
        }
        let (url, state, nonce) = request.url();
        let (return_to, wanted) = (return_to.to_owned(), wanted.clone());
        let flow = Flow { state, nonce, verifier, return_to, wanted, begun: Timestamp::now() };
        Ok(Begin { url, flow })
    }

    /// Redeems the code that came back to the redirect URI and checks everything. Cancel safe; the flow is spent.
    pub async fn finish(&self, flow: Flow, state: &str, code: &str) -> Result<Identity, OidcError> {
        if !random::same(flow.state.secret(), state) {
            return Err(OidcError::State);
        }
        let published = self.0.provider.published().await?;
        let Flow { nonce, verifier, wanted, begun, .. } = flow;
        let tokens = self.redeem(&published, code, verifier).await?;
        let checks = claims::Checks { settings: &self.0.settings, nonce: &nonce, begun, wanted: &wanted };
        match checks.verify(&published, &tokens) {
            Err(claims::Unverified::Key) => {
                let newer = self.0.provider.newer_keys(&published).await;
                let published = newer.ok_or(OidcError::Rejected(Rejection::Signature))?;
                let claims = checks.verify(&published, &tokens)?;
                self.identify(&checks, &published, &tokens, claims).await
            }
            claims => self.identify(&checks, &published, &tokens, claims?).await,
        }
    }

    async fn redeem(
        &self,
        published: &CoreProviderMetadata,
        code: &str,
        verifier: PkceCodeVerifier,
    ) -> Result<Tokens, OidcError> {
        let client = self.client(published)?;
        let request = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|_| OidcError::Unreachable("it publishes no token endpoint".into()))?;
        request.set_pkce_verifier(verifier).request_async(&self.0.provider.http).await.map_err(|error| match error {
            RequestTokenError::ServerResponse(refused) => OidcError::CodeRefused(printable(refused.error().as_ref())),
            // The answer may hold tokens: only the parser's words go on, never the body.
            RequestTokenError::Parse(error, _) if error.path().to_string().starts_with("id_token") => {
                OidcError::Rejected(Rejection::Malformed)
            }
            RequestTokenError::Parse(error, _) => OidcError::Unreachable(format!("token answer: {}", error.path())),
            other => OidcError::Unreachable(told(&other)),
        })
    }

    async fn identify(
        &self,
        checks: &claims::Checks<'_>,
        published: &CoreProviderMetadata,
        tokens: &Tokens,
        claims: &claims::Claims,
    ) -> Result<Identity, OidcError> {
        let mut person = claims::Person::from_token(claims, &self.0.settings.groups_claim)?;
        if person.is_incomplete() && published.userinfo_endpoint().is_some() {
            let client = self.client(published)?;
            person.add_userinfo(&client, tokens, claims.subject(), &self.0.provider.http).await?;
        }
        checks.identity(person, claims)
    }

    fn client(&self, published: &CoreProviderMetadata) -> Result<Client, OidcError> {
        let settings = &self.0.settings;
        let secret = settings.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
        let redirect = RedirectUrl::new(settings.redirect_uri.to_string());
        let redirect = redirect.map_err(|error| OidcError::Settings(error.to_string()))?;
        let id = ClientId::new(settings.client_id.clone());
        let client = openidconnect::Client::from_provider_metadata(published.clone(), id, secret);
        Ok(client.set_auth_type(auth_type(published)).set_redirect_uri(redirect))
    }
}

impl Wanted {
    /// Any time ago and of any class, but anew.
    pub fn fresh() -> Self {
        Self { fresh: true, ..Self::default() }
    }

    /// The same, but anew.
    pub fn afresh(self) -> Self {
        Self { fresh: true, ..self }
    }

    /// Whether the class that the provider vouches for is one of those that are wanted.
    pub fn takes_class(&self, acr: Option<&str>) -> bool {
        self.acr.is_empty() || acr.is_some_and(|acr| self.acr.iter().any(|wanted| wanted == acr))
    }

    /// The `max_age` that the provider is asked for.
    fn asked_age(&self, session_lifetime: Duration) -> Duration {
        match self.fresh {
            true => Duration::ZERO,
            false => self.max_age.unwrap_or(session_lifetime).min(session_lifetime),
        }
    }
}

/// Where a rule lacks neither time nor class but a method (`amr`), nothing in a request asks for it: a new sign-in lets
/// the person choose another method.
impl From<&StepUp> for Wanted {
    fn from(step_up: &StepUp) -> Self {
        let StepUp { max_age, acr } = step_up;
        Self { fresh: max_age.is_none() && acr.is_empty(), max_age: *max_age, acr: acr.clone() }
    }
}

impl Flow {
    /// The `state` parameter: what the provider's answer is recognised by.
    pub fn state(&self) -> &str {
        self.state.secret()
    }

    /// Where the person wanted to go, as given to [`Oidc::begin`].
    pub fn return_to(&self) -> &str {
        &self.return_to
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").field("return_to", &self.return_to).field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.0.settings.issuer).finish_non_exhaustive()
    }
}

/// HTTP Basic unless the provider publishes that it takes the secret in the body only.
fn auth_type(published: &CoreProviderMetadata) -> AuthType {
    match published.token_endpoint_auth_methods_supported() {
        Some(methods)
            if !methods.contains(&CoreClientAuthMethod::ClientSecretBasic)
                && methods.contains(&CoreClientAuthMethod::ClientSecretPost) =>
        {
            AuthType::RequestBody
        }
        _ => AuthType::BasicAuth,
    }
}

/// At most 64 printable ASCII characters of what the other side sent.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(64).collect()
}
