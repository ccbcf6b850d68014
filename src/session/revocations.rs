//! What becomes of live sessions when a person signs in again, or is revoked.
//!
//! A revocation is kept for a while too: whoever proved who they are before it, and is still on the way in, must not slip
//! past it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::live::{Live, person};
use super::{End, Sessions, lock};
use crate::identity::Identity;
use crate::policy::StepUp;

/// What somebody is told whose sign-in was revoked.
pub(super) const REVOKED: &str = "your sign-in was revoked";

/// How long a revocation is held against who is still on the way in. Longer than anybody takes from the proof of who they
/// are to the door.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What was revoked lately.
#[derive(Debug, Default)]
pub(super) struct Revocations(Mutex<Vec<(Instant, Revoked)>>);

/// A sign-in, or everything of the people with an e-mail address (lower case).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Revoked {
    SignIn(Uuid),
    Person(String),
}

impl Sessions {
    /// Somebody signed in: their live sessions go on by that, or end where it is no longer enough. Returns how many heard
    /// something new.
    pub fn signed_in(&self, who: &Identity) -> usize {
        self.0.guests.renew(who);
        let live: Vec<_> = lock(&self.0.live).values().cloned().collect();
        let person = person(who);
        live.iter().filter(|live| live.person == person && live.renew(who)).count()
    }

    /// A sign-in was revoked: ends what came in by it.
    pub fn revoke_sign_in(&self, sign_in: Uuid) -> usize {
        self.revoke(Revoked::SignIn(sign_in))
    }

    /// Everything of the people with this e-mail address was revoked: ends their sessions.
    pub fn revoke_person(&self, email: &str) -> usize {
        self.revoke(Revoked::Person(email.to_lowercase()))
    }

    fn revoke(&self, what: Revoked) -> usize {
        // Before it looks for what is live: who is at the door meanwhile finds it here.
        self.0.revocations.note(what.clone());
        self.0.guests.send_away(&what);
        let is_meant = |live: &&Arc<Live>| what.is_of(live.sign_in, live.identity().email());
        let live: Vec<_> = lock(&self.0.live).values().filter(is_meant).cloned().collect();
        live.iter().for_each(|live| live.end(End::IdentityLost(format!("session ended: {REVOKED}"))));
        live.len()
    }

    /// Where this person's live session would go on by a new sign-in: what that would have to be like.
    pub fn wants(&self, session: Uuid, who: Option<&Identity>) -> Option<StepUp> {
        let live = lock(&self.0.live).get(&session).cloned()?;
        who.is_none_or(|who| live.identity().is_same_person(who)).then(|| live.wants().unwrap_or_default())
    }
}

impl Revocations {
    fn note(&self, what: Revoked) {
        let mut revoked = lock(&self.0);
        revoked.retain(|(at, _)| at.elapsed() < REMEMBERED);
        revoked.push((Instant::now(), what));
    }

    /// Whether it was revoked `since` then.
    pub(super) fn hit(&self, sign_in: Option<Uuid>, email: &str, since: Instant) -> bool {
        lock(&self.0).iter().any(|(at, what)| *at >= since && what.is_of(sign_in, email))
    }
}

impl Revoked {
    /// Whether it is about who came in by this sign-in, with this e-mail address.
    pub(super) fn is_of(&self, sign_in: Option<Uuid>, email: &str) -> bool {
        match self {
            Self::SignIn(id) => sign_in == Some(*id),
            Self::Person(revoked) => email.to_lowercase() == *revoked,
        }
    }
}
