//! One watcher: from the upgrade to the close. Never waits for good: sends have deadlines, silence ends it, and the token
//! is asked about again and again.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::hub::{Joined, Update};
use super::speak::Protocol;
use crate::api::ApiState;
use crate::api::auth::owner;
use crate::api::parameters::Ids;
use crate::api::server::Lease;
use crate::identity::tokens::Scope;
use crate::record::Verdict;
use crate::store::{Event, EventStatus, Owner, RecordingRow};

/// A watcher who was let in.
pub(super) struct Watcher {
    pub(super) api: ApiState,
    pub(super) ids: Ids,
    /// From where the token was shown.
    pub(super) client: IpAddr,
    pub(super) recording: RecordingRow,
    /// Who watches, if they reach only their own recordings.
    pub(super) owner: Option<Owner>,
    pub(super) protocol: Protocol,
    pub(super) with_input: bool,
    pub(super) token: SecretString,
    /// Who, from where, what: for the session's events.
    pub(super) about: Value,
    /// Keeps the connection counted, and waited for, while it is a WebSocket.
    pub(super) _lease: Option<Lease>,
}

/// Why watching ended.
enum Over {
    /// There is no more to see.
    Ended(Verdict),
    /// The watcher went away, or does not answer.
    Gone,
    /// The watcher takes nothing.
    Stalled,
    /// The token counts no more, or the right is gone.
    Refused,
    /// The gateway is being stopped.
    Stopping,
    /// The recording cannot be read on.
    Failed,
}

impl Watcher {
    pub(super) async fn run(self, mut socket: WebSocket, joined: Joined) {
        let _watching = self.api.metrics.watching();
        let over = match self.show(&mut socket, joined).await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        let (code, reason) = self.last_words(&over).await;
        let mut about = self.about.clone();
        if let Some(about) = about.as_object_mut() {
            about.insert("reason".to_owned(), json!(reason));
        }
        let event = Event::now("watch_end", EventStatus::Success, about);
        if let Err(error) = self.api.store.add_event(self.ids.session, event).await {
            tracing::error!(session = %self.ids.session, %error, "an event could not be written");
        }
        // A peer that takes nothing takes no goodbye either.
        if !matches!(over, Over::Gone | Over::Stalled) {
            let _ = timeout(GOODBYE, self.goodbye(&mut socket, &over, code, &reason)).await;
        }
    }

    async fn show(&self, socket: &mut WebSocket, mut joined: Joined) -> Result<std::convert::Infallible, Over> {
        let mut checks = every(CHECK);
        let mut pings = every(PING);
        let mut heard = Instant::now();
        self.send(socket, &joined.screen.begin(self.protocol, self.with_input)).await?;
        loop {
            tokio::select! {
                biased;
                () = self.api.stop.cancelled() => return Err(Over::Stopping),
                _ = checks.tick() => self.check().await?,
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(Over::Gone);
                    }
                    self.send(socket, &[Message::Ping(Default::default())]).await?;
                }
                got = socket.recv() => match got {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Over::Gone),
                    Some(Ok(_)) => heard = Instant::now(),
                },
                update = joined.updates.recv() => match update {
                    Ok(Update::Events(events)) => {
                        self.send(socket, events.told(self.protocol, self.with_input)).await?;
                    }
                    Ok(Update::Over(verdict)) => return Err(Over::Ended(verdict)),
                    // Too slow for the ring: the screen as it is now, and on from there.
                    Err(RecvError::Lagged(_)) => {
                        joined = self.join_again().await?;
                        self.send(socket, &joined.screen.again(self.protocol, self.with_input)).await?;
                    }
                    Err(RecvError::Closed) => return Err(Over::Failed),
                },
            }
        }
    }

    async fn join_again(&self) -> Result<Joined, Over> {
        let joining = self.api.watches.join(self.ids.session, &self.recording, self.owner.as_ref());
        tokio::select! {
            biased;
            () = self.api.stop.cancelled() => Err(Over::Stopping),
            joined = joining => joined.map_err(|_| Over::Failed),
        }
    }

    /// Sends all of it, or ends the watcher.
    async fn send(&self, socket: &mut WebSocket, messages: &[Message]) -> Result<(), Over> {
        for message in messages {
            let sent = tokio::select! {
                biased;
                () = self.api.stop.cancelled() => return Err(Over::Stopping),
                sent = timeout(STALL, socket.send(message.clone())) => sent,
            };
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Over::Gone),
                Err(_) => return Err(Over::Stalled),
            }
        }
        Ok(())
    }

    /// Whether the watcher still may. A book that does not answer takes nobody's right away.
    async fn check(&self) -> Result<(), Over> {
        let caller = match self.api.tokens.verify(self.token.expose_secret(), self.client).await {
            Ok(Some(caller)) if !self.with_input || caller.may(Scope::InputRead) => caller,
            Ok(_) => return Err(Over::Refused),
            Err(error) => {
                tracing::warn!(%error, "a watcher's token could not be looked at");
                return Ok(());
            }
        };
        // A role can be taken away, and the session be another's: as when the watcher came in.
        match owner(&caller, Scope::RecordingsRead) {
            Ok(None) => Ok(()),
            Ok(owner) => match self.api.store.session_of(owner, self.ids.socket, self.ids.session, 0).await {
                Ok(None) => Err(Over::Refused),
                Ok(Some(_)) | Err(_) => Ok(()),
            },
            Err(_) => Err(Over::Refused),
        }
    }

    async fn last_words(&self, over: &Over) -> (u16, String) {
        match over {
            Over::Ended(verdict) => (self.protocol.ended(), self.end_reason(verdict).await),
            Over::Gone => (1000, "the watcher went away".into()),
            Over::Stalled => (1000, "the watcher took nothing any more".into()),
            Over::Refused => (REFUSED, "the token counts no more, or may no longer watch".into()),
            Over::Stopping => (GOING_AWAY, "the gateway is being stopped".into()),
            Over::Failed => (INTERNAL_ERROR, "the recording cannot be shown any further".into()),
        }
    }

    /// The session's own reason, if the session has ended with its recording. Its row is closed a moment later.
    async fn end_reason(&self, verdict: &Verdict) -> String {
        let until = Instant::now() + ROW_CLOSES;
        while Instant::now() < until && !self.api.stop.is_cancelled() {
            if let Ok(Some(row)) = self.api.store.session(self.ids.socket, self.ids.session).await
                && row.outcome.is_some()
            {
                return row
                    .end_reason
                    .filter(|words| !words.is_empty())
                    .unwrap_or_else(|| "the session has ended".into());
            }
            sleep(LOOK_AGAIN).await;
        }
        match verdict {
            Verdict::Complete | Verdict::Live => "this channel of the session has ended".into(),
            Verdict::Truncated { .. } => "the recording was cut".into(),
            Verdict::Damaged { .. } => "the recording is damaged".into(),
        }
    }

    /// Closes in order, and waits for the other side's close.
    async fn goodbye(&self, socket: &mut WebSocket, over: &Over, code: u16, reason: &str) {
        if let (Over::Ended(_), Some(end)) = (over, self.protocol.end()) {
            let _ = socket.send(end).await;
        }
        let reason = reason.get(..reason.floor_char_boundary(LONGEST_REASON)).unwrap_or_default();
        let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// How often a watcher's token is asked about again.
const CHECK: Duration = Duration::from_secs(3);
/// How often a watcher is asked whether it is still there, and how long it may say nothing.
const PING: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(65);
/// The longest that one message may wait for a watcher who takes nothing.
const STALL: Duration = Duration::from_secs(30);
/// For closing in order.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a row may take to close after its recording.
const ROW_CLOSES: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A close frame's reason has this many bytes at the most (RFC 6455 section 5.5).
const LONGEST_REASON: usize = 123;
/// Close codes (RFC 6455 section 7.4); private ones from 4000 to 4100 keep the player from connecting again.
const GOING_AWAY: u16 = 1001;
const INTERNAL_ERROR: u16 = 1011;
const REFUSED: u16 = 4003;
