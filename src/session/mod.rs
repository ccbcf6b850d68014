//! Sessions: one identity's visit to one socket, from the decision to the closed row.
//!
//! [`Sessions`] is the registry of what is live and the only way to a [`Session`]. Enrolling for kill, deciding and
//! opening the row happen in that order, so that whatever revokes a right finds either an enrolled session or a
//! decision that it already influenced. What is in force is asked at every action, and again for every live session
//! whenever something changes (`live`, `minder`). Knows no protocol: a front hands in its kill line and is told when
//! to end.

mod channels;
mod cut;
mod denied;
mod end;
mod flow;
mod guests;
mod in_force;
mod kill;
mod live;
mod minder;
mod recording;
mod registry;
mod revocations;
mod warning;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

pub use cut::Cut;
pub use end::{End, Kill};
pub use flow::{Flow, Held, Stalled};
pub use guests::{Guest, Leave};
pub use in_force::{InForce, Rules, Sockets};
pub use kill::KillLine;
pub use live::{Manner, Underway};
pub use recording::{Kind, Legibility, Recording};
pub use registry::{KillError, OpenError, SessionSettings, Sessions, country};
pub use warning::Warning;

use crate::identity::Identity;
use crate::policy::{Action, Denied, Grant};
use crate::record::{Budget, RecordingLost};
use crate::socket::{Protocol, Socket};
use crate::store::{Event, EventStatus};
use crate::telemetry::metrics::DenialClass;

/// Somebody at the door: who, where to, from where.
#[derive(Debug)]
pub struct Visit {
    /// Who.
    pub identity: Identity,
    /// The sign-in that they came in by, if that has a row of its own.
    pub sign_in: Option<Uuid>,
    /// Since when they are known: what is revoked from then on is held against them.
    pub since: Instant,
    /// The socket asked for.
    pub socket: Arc<Socket>,
    /// The login asked for, where the protocol has one.
    pub login: Option<String>,
    /// The client's address.
    pub client: SocketAddr,
    /// The gateway's address that the client reached.
    pub reached: SocketAddr,
    /// What happened so far: sign-in, client software.
    pub events: Vec<Event>,
    /// Whether the front can ask for a better sign-in where that alone is missing.
    pub may_step_up: bool,
    /// The connection that the session owns and may cut.
    pub line: KillLine,
}

/// A known person at a door that does not exist.
#[derive(Debug)]
#[expect(missing_docs, reason = "as in Visit")]
pub struct Stranger {
    pub identity: Identity,
    pub protocol: Protocol,
    pub socket_name: String,
    pub login: Option<String>,
    pub client: SocketAddr,
    pub reached: SocketAddr,
    pub events: Vec<Event>,
}

/// A live session. Shared by the tasks of its connection; the front that opened it finishes it.
pub struct Session {
    live: Arc<live::Live>,
    sessions: Sessions,
    budget: Arc<Budget>,
    visit: Visit,
    finished: AtomicBool,
}

impl Session {
    /// The row's id.
    pub fn id(&self) -> Uuid {
        self.live.id
    }

    /// The socket visited.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.visit.socket
    }

    /// Whose session it is, as they signed in last.
    pub fn identity(&self) -> Identity {
        self.live.identity()
    }

    /// The login at the upstream: fixed by the socket, or asked for.
    pub fn login(&self) -> Option<&str> {
        self.visit.login.as_deref()
    }

    /// What everything that carries this session's bytes must hang on.
    pub fn line(&self) -> &KillLine {
        &self.visit.line
    }

    /// May this be done now? The grant is for what does it, and the other to be kept until it is done: it tells when it is
    /// no longer allowed. Refused too once the session is ending. A denial is written into the session.
    pub async fn begin(&self, action: Action, manner: Manner) -> Result<(Grant, Underway), Denied> {
        let kind = action.event_kind();
        let decided = self.attempt(action, manner);
        if let Err(denied) = &decided {
            let about = json!({ "reason": denied.to_string(), "rule": denied.rule() });
            self.note(Event::now(kind, EventStatus::Denied, about)).await;
        }
        decided
    }

    /// The same for what may be asked without end: how many denials are written into the session is the caller's affair.
    pub fn attempt(&self, action: Action, manner: Manner) -> Result<(Grant, Underway), Denied> {
        let decided = self.live.begin(action, manner, &self.sessions.rules().now());
        if decided.is_err() {
            self.sessions.metrics().denied(self.socket().protocol.session_type(), DenialClass::Action);
        }
        decided
    }

    /// Whether this would be allowed now. Nothing is written down, and nothing may be done by the answer alone: it is for
    /// what is under way and has more than one right.
    pub fn allows(&self, action: &Action) -> Result<(), Denied> {
        self.live.allows(action, &self.sessions.rules().now())
    }

    /// Something happens in it that is no keepalive. Cheap.
    pub fn touch(&self) {
        self.live.touch();
    }

    /// What is to be said of its end, from now on.
    pub fn warnings(&self) -> watch::Receiver<Option<Warning>> {
        self.live.warning.subscribe()
    }

    /// Where a new sign-in lets it go on.
    pub fn renew_url(&self) -> String {
        format!("{}/renew/{}", self.sessions.public_url(), self.live.id)
    }

    /// Writes an event into the session. A failure is logged by the store's thread and never ends a session: what must
    /// not be lost is in the recording.
    pub async fn note(&self, event: Event) {
        if let Err(error) = self.sessions.store().add_event(self.id(), event).await {
            tracing::error!(session = %self.id(), %error, "an event could not be written");
        }
    }

    /// Starts the recording of one channel: container, spool and row.
    pub async fn record(&self, kind: Kind, command: Option<&[u8]>) -> Result<Recording, RecordingLost> {
        Recording::start(self, kind, command).await
    }

    /// Orders the session to end. The first reason stands; the connection's own task says goodbye and cuts.
    pub fn end(&self, end: End) {
        self.live.end(end);
    }

    /// The reason, once there is one.
    pub fn ended(&self) -> Option<End> {
        self.live.reason()
    }

    /// Waits until the session is ordered to end. Cancel safe.
    pub async fn until_ending(&self) {
        self.live.ending.cancelled().await;
    }

    /// Cuts what still lives of the connection and closes the row, on the gateway's time: the caller may go away.
    /// `end` is the reason if none was given before; `remaining` tells what may still run upstream after a kill.
    pub fn finish(&self, end: End, remaining: Option<String>) {
        self.live.end(end);
        self.line().cut();
        if !self.finished.swap(true, Ordering::AcqRel) {
            self.sessions.close(self.live.clone(), remaining);
        }
    }
}

impl Drop for Session {
    /// A session that nobody finished, because its task panicked or was given up, must not stay open in the book.
    fn drop(&mut self) {
        self.finish(End::ClientGone, None);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while holding one of these locks leaves plain data behind: go on with it.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
