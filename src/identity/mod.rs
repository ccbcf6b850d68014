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
pub mod ssh_ca_upstream;
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
    /// When the provider told all this; a session there may be older. `None`: with the sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<Timestamp>,
    /// Whether the provider did not say when the person signed in: `signed_in` is then when it told of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    undated: bool,
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
    /// When the provider told this: what it told last counts, also of a session there that is no newer.
    pub fn told(&self) -> Timestamp {
        self.told.unwrap_or(self.signed_in)
    }
    /// Whether it is known how old the sign-in is.
    pub fn is_dated(&self) -> bool {
        !self.undated
    }
    /// This sign-in, of the person as the provider told of them another time. If that was not later, nothing changes.
    pub fn as_told_in(self, newest: &Self) -> Self {
        if !self.is_same_person(newest) || newest.told() <= self.told() {
            return self;
        }
        let Self { email, name, picture, nickname, groups, claims, told, .. } = newest.clone();
        Self { email, name, picture, nickname, groups, claims, told, ..self }
    }
    /// The same person after another sign-in: as they were told of last, and signed in as they did last. `None`: it says
    /// nothing new.
    pub fn renewed_by(&self, other: &Self) -> Option<Self> {
        let newer = self.is_same_person(other) && other.told() > self.told();
        newer.then(|| match other.signed_in >= self.signed_in {
            true => other.clone(),
            false => self.clone().as_told_in(other),
        })
    }
    /// Whether both are the same person by the same provider's word.
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.subject == other.subject
    }
}
