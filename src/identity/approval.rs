//! What somebody agrees to in a browser, and who was revoked since. Knows neither what was agreed to nor any browser.
//!
//! Between an approval and what comes of it lies a while: a code is brought, a device asks again, digits are typed. In
//! that while the person may be revoked, so an approval carries from when on a revocation ends it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Identity;

/// A person, as they agreed to something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    // Boxed, because it waits in small things.
    identity: Box<Identity>,
    since: Instant,
}

/// When people were revoked since the gateway's start, for what lives in memory alone. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RevokedPeople(Arc<Mutex<HashMap<String, Instant>>>);

impl Approval {
    /// Of this person, who is signed in in the browser since then: not the time of the approval, because a revocation
    /// may come between the look at the browser's session and the approval.
    pub fn new(identity: Identity, since: Instant) -> Self {
        Self { identity: Box::new(identity), since }
    }

    /// Who agreed.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who agreed.
    pub fn into_identity(self) -> Identity {
        *self.identity
    }

    /// The e-mail address of who agreed.
    pub fn email(&self) -> &str {
        self.identity.email()
    }

    /// Whether it is of the people with this e-mail address, compared without letter case.
    pub fn is_of(&self, email: &str) -> bool {
        self.email().to_lowercase() == email.to_lowercase()
    }
}

impl RevokedPeople {
    /// Whether a person was revoked after this.
    pub fn since(&self, email: &str, then: Instant) -> bool {
        self.lock().get(&email.to_lowercase()).is_some_and(|revoked| *revoked >= then)
    }

    /// Whether nobody revoked the person since they signed in to approve.
    pub fn leave(&self, approval: &Approval) -> bool {
        !self.since(approval.email(), approval.since)
    }

    /// The person is revoked now.
    pub(super) fn note(&self, email: &str) {
        self.lock().insert(email.to_lowercase(), Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tests approve at once.
#[cfg(test)]
impl From<Identity> for Approval {
    fn from(identity: Identity) -> Self {
        Self::new(identity, Instant::now())
    }
}

#[cfg(test)]
impl From<&Identity> for Approval {
    fn from(identity: &Identity) -> Self {
        identity.clone().into()
    }
}
