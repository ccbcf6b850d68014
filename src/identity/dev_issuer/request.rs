//! What is asked of the development issuer, and why it refuses.

use serde::Deserialize;

use crate::identity::random::NoRandomness;

/// The class of a sign-in without and with a second factor (`acr`).
pub const ACR: [&str; 2] = ["urn:gatescribe:dev:pwd", "urn:gatescribe:dev:mfa"];
/// The methods of the same (`amr`, RFC 8176).
pub(super) const AMR: [&[&str]; 2] = [&["pwd"], &["pwd", "otp"]];

/// The authorization request (OpenID Connect Core section 3.1.2.1), as it came in the query.
#[derive(Clone, Debug, Deserialize)]
pub struct AuthorizeRequest {
    pub(super) response_type: String,
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) scope: String,
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) code_challenge: String,
    pub(super) code_challenge_method: String,
    pub(super) acr_values: Option<String>,
    /// With how many factors the person signed in, as they said on the page. A program does not say: it has as many as
    /// `acr_values` asks for.
    pub(super) factors: Option<u8>,
    /// Signs this person in without a page. Exists here and nowhere else.
    #[serde(rename = "as")]
    pub sign_in_as: Option<String>,
}

/// The token request (RFC 6749 section 4.1.3), as it came in the form. Without `Debug`: it holds secrets.
#[derive(Deserialize)]
pub struct TokenRequest {
    pub(super) grant_type: String,
    pub(super) code: String,
    pub(super) redirect_uri: String,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) code_verifier: String,
}

/// Why the issuer refused; the words are OAuth's error codes (RFC 6749 sections 4.1.2.1 and 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something in the request is missing or not supported.
    #[error("invalid_request")]
    InvalidRequest,
    /// Unknown client, wrong secret, or a redirect URI that is not registered.
    #[error("invalid_client")]
    InvalidClient,
    /// The code is unknown, used, expired, or its verifier is wrong.
    #[error("invalid_grant")]
    InvalidGrant,
    /// The issuer itself failed.
    #[error("server_error")]
    Server,
}

impl From<NoRandomness> for Refused {
    fn from(_: NoRandomness) -> Self {
        Self::Server
    }
}

impl AuthorizeRequest {
    /// Whether a second factor is asked for: the first known value counts, unknown ones are passed over.
    pub fn wants_second_factor(&self) -> bool {
        let values = self.acr_values.as_deref().unwrap_or_default();
        values.split(' ').find(|value| ACR.contains(value)) == Some(ACR[1])
    }

    pub(super) fn class(&self) -> usize {
        usize::from(self.factors.map_or_else(|| self.wants_second_factor(), |factors| factors > 1))
    }
}
