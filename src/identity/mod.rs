//! Who somebody is: types only. How a token becomes an [`Identity`] is in the files below.
//!
//! An `Identity` can be made in this module alone, from a verified ID token, or read back from our own store.

pub mod approval;
pub mod dev_issuer;
pub mod grants;
pub mod link;
pub mod oidc;
pub mod random;
pub mod sign_ins;
pub mod ssh_ca;
pub mod tokens;
pub mod x509_ca;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A person (later: a service account) that the identity provider vouched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    issuer: String,
    subject: String,
    email: String,
    name: Option<String>,
    picture: Option<String>,
    nickname: Option<String>,
    groups: Vec<String>,
    signed_in: Timestamp,
    expires: Timestamp,
}

impl Identity {
    /// The provider that vouched (`iss`).
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
    /// The provider's id for the person (`sub`).
    pub fn subject(&self) -> &str {
        &self.subject
    }
    /// The e-mail address (`email`).
    pub fn email(&self) -> &str {
        &self.email
    }
    /// The full name (`name`).
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
    /// A picture's URL (`picture`).
    pub fn picture(&self) -> Option<&str> {
        self.picture.as_deref()
    }
    /// The short name (`nickname`).
    pub fn nickname(&self) -> Option<&str> {
        self.nickname.as_deref()
    }
    /// The groups, from the configured claim.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }
    /// When the person signed in (`auth_time`, else `iat`).
    pub fn signed_in(&self) -> Timestamp {
        self.signed_in
    }
    /// Until when this sign-in counts: the provider's `auth_time` plus `[oidc] session_lifetime`.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}
