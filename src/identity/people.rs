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
        let newest = known.signed_in() <= who.signed_in();
        if newest {
            *known = Arc::new(who);
        }
        newest
    }

    /// The same person, as they signed in last.
    pub fn get(&self, who: &Identity) -> Option<Arc<Identity>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id(who)).cloned()
    }
}

fn id(who: &Identity) -> Id {
    (who.issuer().to_owned(), who.subject().to_owned())
}
