//! Why a sign-in failed: in detail for the log, in words for the person.

use crate::error::{Fault, UserFacing};

/// Why a sign-in at the identity provider failed. `Display` is for the log and carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The settings cannot work, whatever the provider says.
    #[error("identity provider settings: {0}")]
    Settings(String),
    /// Discovery, the keys, the token or the userinfo endpoint did not answer as they must.
    #[error("identity provider: {0}")]
    Unreachable(String),
    /// The `state` that came back is not the one that was sent.
    #[error("state mismatch")]
    State,
    /// The provider did not take the code (`error` of RFC 6749 section 5.2).
    #[error("the provider refused the code: {0}")]
    CodeRefused(String),
    /// The ID token failed a check of OpenID Connect Core section 3.1.3.7.
    #[error("ID token rejected: {0}")]
    Rejected(Rejection),
    /// Neither the ID token nor userinfo carries an e-mail address.
    #[error("no email claim")]
    NoEmail,
    /// The provider says that the address is not verified.
    #[error("email is not verified")]
    EmailNotVerified,
    /// A claim has a form that cannot be used.
    #[error("claim {0:?} has an unexpected form")]
    Claim(String),
    /// The provider left the groups out because there are too many of them (`_claim_names`).
    #[error("groups are left out of the token (overage)")]
    TooManyGroups,
    /// The sign-in at the provider is older than `session_lifetime`.
    #[error("the sign-in at the provider is too old")]
    TooOld,
    /// A fresh sign-in was demanded, and the provider does not say that there was one.
    #[error("the provider does not vouch for a fresh sign-in")]
    NotFresh,
    /// A newer or a better sign-in was asked for, and the token does not say that it is one.
    #[error("the provider does not confirm what was asked of the sign-in: {0}")]
    Unconfirmed(Unconfirmed),
}

/// What was asked of a sign-in and is not in its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// `auth_time` within `max_age`.
    #[error("auth_time")]
    Age,
    /// `acr` among `acr_values`.
    #[error("acr")]
    Class,
}

/// Which check of the ID token failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is none in the answer.
    #[error("missing")]
    Missing,
    /// `iss`.
    #[error("issued by another issuer")]
    Issuer,
    /// `aud`, or `azp` where there are several audiences.
    #[error("made for another client")]
    Audience,
    /// `exp`.
    #[error("expired")]
    Expired,
    /// `iat` or `auth_time` before the sign-in began or in the future.
    #[error("issued at an impossible time, check the clocks")]
    Time,
    /// `nonce`.
    #[error("nonce mismatch")]
    Nonce,
    /// `alg` is none or not on the list.
    #[error("signature algorithm not allowed")]
    Algorithm,
    /// No key of the provider made the signature.
    #[error("signature not made by a known key")]
    Signature,
    /// `at_hash`.
    #[error("access token hash mismatch")]
    AccessTokenHash,
    /// Anything else, as an unknown header.
    #[error("malformed")]
    Malformed,
}

impl UserFacing for OidcError {
    fn told(&self) -> String {
        match self {
            Self::Settings(_) => "sign-in is not set up correctly, tell an administrator".into(),
            Self::Unreachable(_) => "the identity provider does not answer, try again in a minute".into(),
            Self::State | Self::CodeRefused(_) => "this sign-in has expired or was used before, start again".into(),
            Self::Rejected(why) => format!("the identity provider's token was rejected ({why}), start again"),
            Self::NoEmail => {
                "your account has no e-mail address at the identity provider, tell an administrator".into()
            }
            Self::EmailNotVerified => "your e-mail address is not verified at the identity provider, verify it".into(),
            Self::Claim(name) => format!("the claim {name:?} from the identity provider cannot be read"),
            Self::TooManyGroups => {
                "you are in more groups than the identity provider puts into a token, tell an administrator".into()
            }
            Self::TooOld => "your sign-in at the identity provider is too old, sign out there and start again".into(),
            Self::NotFresh => "the identity provider does not say that you signed in just now, start again".into(),
            Self::Unconfirmed(Unconfirmed::Age) => {
                "your identity provider did not confirm that you signed in as newly as is asked for here, sign in again; \
                 if that does not help, ask an administrator"
                    .into()
            }
            Self::Unconfirmed(Unconfirmed::Class) => {
                "your identity provider did not confirm the kind of sign-in that is asked for here, \
                 ask an administrator"
                    .into()
            }
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Settings(_) => Fault::Gateway,
            Self::State
            | Self::CodeRefused(_)
            | Self::EmailNotVerified
            | Self::TooOld
            | Self::NotFresh
            | Self::Unconfirmed(_) => Fault::Client,
            _ => Fault::Upstream,
        }
    }
}
