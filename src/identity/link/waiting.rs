//! The terminal's end of a link.

use tokio::sync::watch;
use tokio::time::Instant;

use super::Links;
use super::table::Ticket;
use crate::identity::approval::Approval;
use crate::identity::random::Hashed;

/// A connection that waits for its sign-in. Dropping it (the client went away) voids the link, unless other
/// connections wait on it too.
pub struct Waiting {
    links: Links,
    id: Hashed,
    ticket: Ticket,
    url: String,
    changes: watch::Receiver<LinkState>,
    expires: Instant,
    told_expiry: bool,
}

/// How far a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Nobody has approved it yet.
    Pending,
    /// Approved: the browser shows six digits, the terminal must ask for them.
    AsksDigits,
    /// The digits were right, here or in another terminal on the same link; or it was approved without digits.
    SignedIn(Box<Approval>),
    /// Denied, or wrong digits too often; the words are for the terminal.
    Refused(String),
    /// Its time is over.
    Expired,
}

/// What typed digits came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// They are right: this person is signed in.
    Right(Approval),
    /// They are wrong.
    Wrong {
        /// Tries that are left.
        left: u8,
    },
    /// There is nothing to answer, or no longer.
    Void,
}

impl Waiting {
    pub(super) fn new(
        links: Links,
        id: Hashed,
        ticket: Ticket,
        url: String,
        changes: watch::Receiver<LinkState>,
        expires: Instant,
    ) -> Self {
        Self { links, id, ticket, url, changes, expires, told_expiry: false }
    }

    /// What the terminal shows. A secret until it is used: not for logs.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How far the link is now.
    pub fn state(&self) -> LinkState {
        match self.changes.borrow().clone() {
            LinkState::Pending | LinkState::AsksDigits if self.expires <= Instant::now() => LinkState::Expired,
            state => state,
        }
    }

    /// Waits until [`Waiting::state`] is another one than at the last return; for ever once the state is final.
    /// Cancel safe.
    pub async fn changed(&mut self) {
        if self.told_expiry {
            return std::future::pending().await;
        }
        tokio::select! {
            // The sender is gone with the link: its last state was told.
            gone = self.changes.changed() => if gone.is_err() { std::future::pending::<()>().await },
            () = tokio::time::sleep_until(self.expires), if !self.is_final() => self.told_expiry = true,
        }
    }

    /// Answers with what was typed; spaces and dashes in it do not count.
    pub fn answer(&mut self, typed: &str) -> Answer {
        self.links.0.lock().answer(self.id, typed)
    }

    fn is_final(&self) -> bool {
        !matches!(*self.changes.borrow(), LinkState::Pending | LinkState::AsksDigits)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.links.0.lock().leave(self.id, self.ticket);
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("state", &self.state()).finish_non_exhaustive()
    }
}
