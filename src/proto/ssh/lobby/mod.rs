//! Who has signed in without naming a socket, as `ssh gateway` and `ssh -J gateway ...` do: a menu where there is a
//! terminal (`menu`), a way on to sockets (`jump`), and words for everything else.
//!
//! A lobby has no row. It gives way to one session that is picked in it, or leads on to any number of them, each on a
//! connection of its own inside; not both, because a session that is killed takes its connection with it.

pub(super) mod jump;
pub(super) mod menu;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::sign_in::Known;
use crate::session::Guest;

/// How long a lobby may have no channel open.
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// A connection that is signed in and has no session.
pub(super) struct Lobby {
    /// Who is in it.
    pub(super) known: Known,
    /// What was asked for, which is no socket.
    pub(super) name: String,
    guest: Arc<Guest>,
    used: Mutex<Option<Use>>,
}

/// What it is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// One socket was picked.
    Visit,
    /// It leads on.
    Way,
}

impl Lobby {
    pub(super) fn new(known: Known, name: String, guest: Arc<Guest>) -> Self {
        Self { known, name, guest, used: Mutex::default() }
    }

    /// Waits until the sign-in is revoked. Cancel safe.
    pub(super) async fn until_revoked(&self) {
        self.guest.until_revoked().await;
    }

    /// Takes the lobby for a use; whether it is free for it.
    fn claim(&self, wanted: Use) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match *used {
            None => *used = Some(wanted),
            Some(Use::Way) if wanted == Use::Way => {}
            Some(_) => return false,
        }
        true
    }

    /// What was picked is refused.
    fn give_back(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
