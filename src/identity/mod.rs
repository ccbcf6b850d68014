//! Who somebody is: types only. How a token becomes an [`Identity`] is in the files below.
//!
//! An `Identity` can be made in this module alone, from a verified ID token, or read back from our own store.

pub mod approval;
pub mod dev_issuer;
pub mod grants;
pub mod link;
pub mod newcomers;
pub mod oidc;
pub mod people;
pub mod random;
pub mod sign_ins;
pub mod ssh_ca;
pub mod supposed;
pub mod tokens;
pub mod x509_ca;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acr: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    amr: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    claims: BTreeMap<String, Value>,
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
    /// Of which class the sign-in was, by the provider's word (`acr`, OpenID Connect Core section 2).
    pub fn acr(&self) -> Option<&str> {
        self.acr.as_deref()
    }
    /// By which methods (`amr`, RFC 8176).
    pub fn amr(&self) -> &[String] {
        &self.amr
    }
    /// The values of a claim of the ID token: each entry of a list; numbers and truth values as they are written.
    pub fn claim<'a>(&'a self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        let values = match self.claims.get(name) {
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        values.iter().filter_map(|value| match value {
            Value::String(text) => Some(Cow::from(text)),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string().into()),
            _ => None,
        })
    }
    /// The name of the service account that this is; people have none.
    pub fn service_account(&self) -> Option<&str> {
        // Service accounts cannot sign in yet.
        None
    }
    /// This sign-in, of a person who is in the groups, and has the claims, of another sign-in of theirs. If that is not newer,
    /// nothing changes.
    pub fn with_groups_of(self, newest: &Self) -> Self {
        match self.is_same_person(newest) && newest.signed_in > self.signed_in {
            true => Self { groups: newest.groups.clone(), claims: newest.claims.clone(), ..self },
            false => self,
        }
    }
    /// Whether both are the same person by the same provider's word.
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.subject == other.subject
    }
}
