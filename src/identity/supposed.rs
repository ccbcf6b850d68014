//! Somebody who might come: an identity that no provider vouched for, to ask a policy about. It opens nothing: what opens
//! doors takes identities from a sign-in or from the book.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::Identity;

/// What is supposed of somebody. What is left out is as it is known, or nothing.
#[derive(Clone, Debug)]
pub struct Supposed {
    /// The e-mail address.
    pub email: String,
    /// The groups.
    pub groups: Option<Vec<String>>,
    /// Of which class the sign-in was.
    pub acr: Option<String>,
    /// By which methods.
    pub amr: Option<Vec<String>>,
    /// Claims, beside those that are known.
    pub claims: BTreeMap<String, Value>,
    /// When they signed in.
    pub signed_in: Timestamp,
    /// Until when that counts.
    pub expires: Timestamp,
}

impl Supposed {
    /// As an identity; `known` is who they are by the book.
    pub fn identity(self, known: Option<&Identity>) -> Identity {
        let known = known.cloned();
        let mut identity = known.unwrap_or_else(|| Identity {
            issuer: String::new(),
            subject: String::new(),
            email: self.email,
            name: None,
            picture: None,
            nickname: None,
            groups: Vec::new(),
            signed_in: self.signed_in,
            expires: self.expires,
            acr: None,
            amr: Vec::new(),
            claims: BTreeMap::new(),
            told: None,
            undated: false,
        });
        identity.groups = self.groups.unwrap_or(identity.groups);
        identity.acr = self.acr.or(identity.acr);
        identity.amr = self.amr.unwrap_or(identity.amr);
        identity.claims.extend(self.claims);
        Identity { signed_in: self.signed_in, expires: self.expires, ..identity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supposed() -> Supposed {
        let at = |text: &str| text.parse().unwrap();
        Supposed {
            email: "alice@example.com".into(),
            groups: None,
            acr: None,
            amr: None,
            claims: BTreeMap::new(),
            signed_in: at("2026-01-01T00:00:00Z"),
            expires: at("2026-01-01T12:00:00Z"),
        }
    }

    #[test]
    fn what_is_not_supposed_is_as_it_is_known() {
        let stranger = supposed().identity(None);
        assert_eq!((stranger.email(), stranger.groups().len(), stranger.acr()), ("alice@example.com", 0, None));
        let claims = || BTreeMap::from([("team".to_owned(), Value::from("web"))]);
        let groups = Some(vec!["engineering".to_owned()]);
        let known = Supposed { groups, acr: Some("low".into()), claims: claims(), ..supposed() }.identity(None);
        let same = supposed().identity(Some(&known));
        assert_eq!(same, known);
        let claims = BTreeMap::from([("floor".to_owned(), Value::from(3))]);
        let other = Supposed { groups: Some(Vec::new()), acr: Some("high".into()), claims, ..supposed() };
        let other = other.identity(Some(&known));
        assert_eq!((other.groups().len(), other.acr()), (0, Some("high")));
        assert!(other.claim("floor").eq(["3"]) && other.claim("team").any(|team| team == "web"));
        assert!(other.is_same_person(&known));
    }
}
