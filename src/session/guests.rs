//! Who has signed in and has no session: they may look around, and are sent away when their sign-in is revoked.
//!
//! A revocation is held against whoever is on the way in for a while only (`revocations`). A guest may be on the way for
//! longer, with one session after the other, so a guest hears of it at once.

use std::sync::{Arc, Mutex, Weak};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::revocations::Revoked;
use super::{Sessions, lock};
use crate::identity::Identity;

/// Somebody inside without a session.
#[derive(Debug)]
pub struct Guest {
    sign_in: Option<Uuid>,
    email: String,
    sent_away: CancellationToken,
}

/// Everybody of that kind.
#[derive(Debug, Default)]
pub(super) struct Guests(Mutex<Vec<Weak<Guest>>>);

impl Sessions {
    /// Lets somebody in who asks for no socket yet, known `since` then. `None` if that was revoked meanwhile.
    pub fn welcome(&self, who: &Identity, sign_in: Option<Uuid>, since: Instant) -> Option<Arc<Guest>> {
        let guest = Guest { sign_in, email: who.email().to_owned(), sent_away: CancellationToken::new() };
        let guest = Arc::new(guest);
        self.0.guests.enrol(&guest);
        // Looked at once it is enrolled: a revocation of this moment is found here, or finds the guest.
        (!self.0.revocations.hit(sign_in, who.email(), since)).then_some(guest)
    }
}

impl Guest {
    /// Waits until the sign-in is revoked. Cancel safe.
    pub async fn until_revoked(&self) {
        self.sent_away.cancelled().await;
    }

    /// Whether it is.
    pub fn is_revoked(&self) -> bool {
        self.sent_away.is_cancelled()
    }
}

impl Guests {
    fn enrol(&self, guest: &Arc<Guest>) {
        let mut all = lock(&self.0);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(guest));
    }

    /// Sends away who came in by what was revoked.
    pub(super) fn send_away(&self, revoked: &Revoked) {
        let all: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let meant = all.iter().filter(|guest| revoked.is_of(guest.sign_in, &guest.email));
        meant.for_each(|guest| guest.sent_away.cancel());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(guests: &Guests, sign_in: Option<Uuid>, email: &str) -> Arc<Guest> {
        let guest = Arc::new(Guest { sign_in, email: email.into(), sent_away: CancellationToken::new() });
        guests.enrol(&guest);
        guest
    }

    #[test]
    fn whom_a_revocation_is_about_is_sent_away_and_nobody_else() {
        let (guests, one) = (Guests::default(), Uuid::from_u128(1));
        let by_one = guest(&guests, Some(one), "alice@example.com");
        let by_other = guest(&guests, Some(Uuid::from_u128(2)), "Alice@example.com");
        let other = guest(&guests, None, "bob@example.com");
        guests.send_away(&Revoked::SignIn(one));
        assert_eq!([&by_one, &by_other, &other].map(|guest| guest.is_revoked()), [true, false, false]);
        guests.send_away(&Revoked::Person("alice@example.com".into()));
        assert_eq!([&by_one, &by_other, &other].map(|guest| guest.is_revoked()), [true, true, false]);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let guests = Guests::default();
        drop(guest(&guests, None, "alice@example.com"));
        let _here = guest(&guests, None, "bob@example.com");
        assert_eq!(lock(&guests.0).len(), 1);
    }
}
