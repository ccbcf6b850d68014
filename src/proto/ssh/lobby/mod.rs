//! Who has signed in without naming a socket, as `ssh gateway` and `ssh -J gateway ...` do: a menu where there is a
//! terminal (`menu`), a way on to sockets (`jump`), and words for everything else.
//!
//! A lobby has no row. It gives way to one session that is picked in it, or leads on to any number of them, each on a
//! connection of its own inside; not both, because a session that is killed takes its connection with it. Whatever is
//! asked for in it is asked as often, and by a sign-in that counts as much, as on a new connection.

pub(super) mod jump;
pub(super) mod menu;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Front;
use super::sign_in::{Known, Standing};
use crate::session::{Guest, Leave};

/// How long a lobby may have no channel open.
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// Connections that may be open inside of one: more than a tool starts at once.
const MOST_INSIDE: usize = 32;

/// A connection that is signed in and has no session.
pub(super) struct Lobby {
    /// Who is in it.
    pub(super) known: Known,
    /// What was asked for, which is no socket.
    pub(super) name: String,
    guest: Arc<Guest>,
    used: Mutex<Option<Use>>,
    places: Arc<Semaphore>,
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
        Self { known, name, guest, used: Mutex::default(), places: Arc::new(Semaphore::new(MOST_INSIDE)) }
    }

    /// Waits until they are asked to leave. Cancel safe.
    pub(super) async fn until_asked(&self) -> Leave {
        self.guest.until_asked().await
    }

    /// Waits until they are asked to leave for a graver reason than this. Cancel safe.
    pub(super) async fn until_graver(&self, than: Leave) -> Leave {
        self.guest.until_graver(than).await
    }

    /// Whether what they have shown still counts; else why not, in words for them. If it does not, the lobby ends with what
    /// is open inside.
    pub(super) async fn still_known(&self, front: &Front) -> Result<(), String> {
        match self.known.standing(front).await {
            Standing::Counts => Ok(()),
            Standing::Lapsed => {
                self.guest.lapse();
                Err(Leave::Lapsed.words().into())
            }
            Standing::Unknown => Err("your sign-in cannot be looked up; try again later".into()),
        }
    }

    /// Counts something that is asked for from this address. The error is in words; no row tells of it, because rows are what
    /// it saves.
    fn in_pace(&self, front: &Front, from: IpAddr) -> Result<(), String> {
        let who = &self.known.identity;
        front.inside.once(from, who.issuer(), who.subject()).map_err(|wait| {
            let wait = wait.as_secs() + 1;
            format!("you ask for sockets too fast; wait {wait} seconds")
        })
    }

    /// A place for one connection inside; given back on drop.
    fn place(&self) -> Result<OwnedSemaphorePermit, String> {
        let place = self.places.clone().try_acquire_owned();
        place.map_err(|_| format!("{MOST_INSIDE} connections are open through this one; close one"))
    }

    /// Takes the lobby for a use; else why it is not free for it.
    fn claim(&self, wanted: Use) -> Result<(), &'static str> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.guest.asked(), wanted, *used) {
            // On the way as the process retires.
            (None, ..) | (Some(Leave::Upgraded), Use::Way, None) => {}
            (Some(leave), ..) => return Err(leave.words()),
        }
        match *used {
            None => *used = Some(wanted),
            Some(Use::Way) if wanted == Use::Way => {}
            Some(_) => return Err("this connection is used for something else already; connect anew"),
        }
        Ok(())
    }

    /// What was picked is refused.
    fn give_back(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
