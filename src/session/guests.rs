//! Who has signed in and has no session: they may look around, and are asked to leave when what let them in is over or the
//! process ends. Knows no protocol: whoever serves a guest is told, and shows them out.
//!
//! A revocation is held against whoever is on the way in for a while only (`revocations`). A guest may be on the way for
//! longer, with one session after the other, so a guest hears of it at once.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use super::live::{Person, person};
use super::revocations::{REVOKED, Revoked};
use super::{Sessions, lock};
use crate::identity::Identity;

/// How long guests may take to go, once the gateway stops and every session has ended.
const TO_GO: Duration = Duration::from_secs(3);

/// Why a guest is asked to leave. A later one outweighs those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leave {
    /// A newer process has taken over. What they have open goes on, and nothing more is opened.
    Upgraded,
    /// The same, because the gateway stops.
    Stopping,
    /// The same, because what they have shown counts no longer.
    Lapsed,
    /// Their sign-in was revoked: at once, with all that they have open.
    Revoked,
}

/// Somebody inside without a session.
#[derive(Debug)]
pub struct Guest {
    sign_in: Option<Uuid>,
    person: Person,
    /// Their e-mail addresses: what they have shown says one, and their newest sign-in another if that has changed.
    emails: Mutex<[String; 2]>,
    leave: watch::Sender<Option<Leave>>,
    _here: TaskTrackerToken,
}

/// Everybody of that kind.
#[derive(Debug, Default)]
pub(super) struct Guests {
    all: Mutex<All>,
    here: TaskTracker,
}

#[derive(Debug, Default)]
struct All {
    guests: Vec<Weak<Guest>>,
    /// What everybody is asked, who comes later too.
    leave: Option<Leave>,
}

impl Sessions {
    /// Lets somebody in who asks for no socket yet, known `since` then. `None` if that was revoked meanwhile.
    pub fn welcome(&self, who: &Identity, sign_in: Option<Uuid>, since: Instant) -> Option<Arc<Guest>> {
        let guest = self.0.guests.enrol(who, sign_in);
        // Looked at once it is enrolled: a sign-in or a revocation of this moment is found here, or finds the guest.
        if let Some(newest) = self.people().get(who) {
            guest.renew(&newest);
        }
        let is_revoked = guest.emails().iter().any(|email| self.0.revocations.hit(sign_in, email, since));
        (!is_revoked).then_some(guest)
    }

    /// Asks who has no session to leave: a newer process serves who comes now.
    pub fn retire(&self) {
        self.0.guests.ask_all(Leave::Upgraded);
    }
}

impl Leave {
    /// In words for the guest.
    pub fn words(self) -> &'static str {
        match self {
            Self::Upgraded => "the gateway was upgraded; connect again",
            Self::Stopping => "the gateway is being stopped; connect again in a moment",
            Self::Lapsed => "your sign-in has ended; connect again and sign in",
            Self::Revoked => REVOKED,
        }
    }
}

impl Guest {
    /// Waits until they are asked to leave. Cancel safe.
    pub async fn until_asked(&self) -> Leave {
        self.until_graver(None).await
    }

    /// Waits until they are asked to leave for a graver reason than this. Cancel safe.
    pub async fn until_graver(&self, than: impl Into<Option<Leave>>) -> Leave {
        let than = than.into();
        let mut asked = self.leave.subscribe();
        let leave = asked.wait_for(|leave| *leave > than).await.ok().and_then(|leave| *leave);
        match leave {
            Some(leave) => leave,
            None => std::future::pending().await,
        }
    }

    /// Why they are to leave, if they are.
    pub fn asked(&self) -> Option<Leave> {
        *self.leave.borrow()
    }

    /// What they have shown was looked at again, and counts no longer.
    pub fn lapse(&self) {
        self.ask(Leave::Lapsed);
    }

    fn ask(&self, why: Leave) {
        self.leave.send_if_modified(|leave| {
            let weighs = *leave < Some(why);
            *leave = (*leave).max(Some(why));
            weighs
        });
    }

    /// They signed in again.
    fn renew(&self, who: &Identity) {
        let [_, newest] = &mut *lock(&self.emails);
        who.email().clone_into(newest);
    }

    fn emails(&self) -> [String; 2] {
        lock(&self.emails).clone()
    }
}

impl Guests {
    fn enrol(&self, who: &Identity, sign_in: Option<Uuid>) -> Arc<Guest> {
        let mut all = lock(&self.all);
        let guest = Arc::new(Guest {
            sign_in,
            person: person(who),
            emails: Mutex::new([who.email(), who.email()].map(str::to_owned)),
            leave: watch::Sender::new(all.leave),
            _here: self.here.token(),
        });
        all.guests.retain(|other| other.strong_count() > 0);
        all.guests.push(Arc::downgrade(&guest));
        guest
    }

    /// Sends away who came in by what was revoked.
    pub(super) fn send_away(&self, revoked: &Revoked) {
        let is_meant = |guest: &Guest| guest.emails().iter().any(|email| revoked.is_of(guest.sign_in, email));
        self.here().iter().filter(|guest| is_meant(guest)).for_each(|guest| guest.ask(Leave::Revoked));
    }

    /// Somebody signed in again, perhaps with another e-mail address.
    pub(super) fn renew(&self, who: &Identity) {
        let person = person(who);
        self.here().iter().filter(|guest| guest.person == person).for_each(|guest| guest.renew(who));
    }

    /// Asks everybody, and who comes later.
    pub(super) fn ask_all(&self, why: Leave) {
        let mut all = lock(&self.all);
        all.leave = all.leave.max(Some(why));
        all.guests.iter().filter_map(Weak::upgrade).for_each(|guest| guest.ask(why));
    }

    /// Waits until they are gone, but not for long. Cancel safe.
    pub(super) async fn until_gone(&self) {
        self.here.close();
        let _ = timeout(TO_GO, self.here.wait()).await;
    }

    fn here(&self) -> Vec<Arc<Guest>> {
        lock(&self.all).guests.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;

    fn who(subject: &str, email: &str) -> Identity {
        serde_json::from_value(json!({
            "issuer": "https://idp.example.com", "subject": subject, "email": email, "groups": [],
            "signed_in": "2026-01-01T00:00:00Z", "expires": "2026-01-01T12:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn whom_a_revocation_is_about_is_sent_away_and_nobody_else() {
        let (guests, one) = (Guests::default(), Uuid::from_u128(1));
        let by_one = guests.enrol(&who("1", "alice@example.com"), Some(one));
        let by_other = guests.enrol(&who("1", "Alice@example.com"), Some(Uuid::from_u128(2)));
        let other = guests.enrol(&who("2", "bob@example.com"), None);
        let revoked = || [&by_one, &by_other, &other].map(|guest| guest.asked() == Some(Leave::Revoked));
        guests.send_away(&Revoked::SignIn(one));
        assert_eq!(revoked(), [true, false, false]);
        guests.send_away(&Revoked::Person("alice@example.com".into()));
        assert_eq!(revoked(), [true, true, false]);
        assert_eq!(other.until_asked().now_or_never(), None);
    }

    #[test]
    fn a_guest_is_found_by_an_e_mail_address_that_changed() {
        let guests = Guests::default();
        let alice = guests.enrol(&who("1", "alice@example.com"), None);
        let bob = guests.enrol(&who("2", "bob@example.com"), None);
        guests.renew(&who("1", "alice.smith@example.com"));
        guests.send_away(&Revoked::Person("alice.smith@example.com".into()));
        assert_eq!([alice.asked(), bob.asked()], [Some(Leave::Revoked), None]);
        // What they have shown still says the old one.
        let again = guests.enrol(&who("1", "alice@example.com"), None);
        guests.renew(&who("1", "alice.smith@example.com"));
        guests.send_away(&Revoked::Person("alice@example.com".into()));
        assert_eq!(again.asked(), Some(Leave::Revoked));
    }

    #[test]
    fn everybody_is_asked_who_is_there_and_who_comes_and_the_gravest_reason_stands() {
        let guests = Guests::default();
        let early = guests.enrol(&who("1", "alice@example.com"), None);
        guests.ask_all(Leave::Upgraded);
        let late = guests.enrol(&who("1", "alice@example.com"), None);
        assert_eq!([early.asked(), late.asked()], [Some(Leave::Upgraded); 2]);
        guests.ask_all(Leave::Stopping);
        late.lapse();
        guests.ask_all(Leave::Upgraded);
        assert_eq!([early.asked(), late.asked()], [Some(Leave::Stopping), Some(Leave::Lapsed)]);
        assert_eq!(late.until_asked().now_or_never(), Some(Leave::Lapsed));
        assert_eq!(late.until_graver(Leave::Lapsed).now_or_never(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_forgotten_and_waited_for() {
        let guests = Guests::default();
        drop(guests.enrol(&who("1", "alice@example.com"), None));
        let here = guests.enrol(&who("2", "bob@example.com"), None);
        assert_eq!(lock(&guests.all).guests.len(), 1);
        guests.here.close();
        assert_eq!(guests.here.wait().now_or_never(), None);
        guests.until_gone().await;
        drop(here);
        assert_eq!(guests.until_gone().now_or_never(), Some(()));
    }
}
