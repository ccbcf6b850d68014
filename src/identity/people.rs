//! People as they were when they last signed in. What somebody holds from an older sign-in (a remembered key, a
//! certificate, a token) says who they are; which groups they are in is what the provider said last.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::Identity;

/// The newest identity of everybody who signed in. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct People(Arc<RwLock<HashMap<Id, Arc<Identity>>>>);

/// Issuer and subject.
type Id = (String, String);

impl People {
    /// Somebody signed in; an older sign-in changes nothing. Whether it is the newest.
    pub fn note(&self, who: Identity) -> bool {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(id(&who)).or_insert_with(|| Arc::new(who.clone()));
        let newest = known.told() <= who.told();
        if newest {
            *known = Arc::new(who);
        }
        newest
    }

    /// The same person, as they signed in last.
    pub fn get(&self, who: &Identity) -> Option<Arc<Identity>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id(who)).cloned()
    }

    /// This sign-in, of the person as they signed in last.
    pub fn update(&self, who: Identity) -> Identity {
        match self.get(&who) {
            Some(newest) => who.as_told_in(&newest),
            None => who,
        }
    }
}

fn id(who: &Identity) -> Id {
    (who.issuer().to_owned(), who.subject().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alice(signed_in: &str, groups: &[&str]) -> Identity {
        serde_json::from_value(json!({
            "issuer": "https://idp.example.com", "subject": "1", "email": "alice@example.com", "groups": groups,
            "signed_in": signed_in, "expires": "2026-12-31T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn an_older_sign_in_is_of_the_groups_of_the_newest_and_else_as_it_was() {
        let people = People::default();
        let (old, new) = (alice("2026-01-01T00:00:00Z", &["a"]), alice("2026-01-02T00:00:00Z", &["b"]));
        assert_eq!(people.update(old.clone()), old);
        assert!(people.note(new.clone()));
        assert!(!people.note(alice("2026-01-01T12:00:00Z", &["c"])), "an older one comes late");
        let updated = people.update(old.clone());
        assert_eq!((updated.groups(), updated.signed_in()), (new.groups(), old.signed_in()));
        assert_eq!(people.update(new.clone()), new);
    }
}
