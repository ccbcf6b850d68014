//! One watcher: from the upgrade to the close. Never waits for good: what is sent together has a deadline, silence ends
//! it, and the token is asked about again and again, while something is being sent too.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{Sink, SinkExt};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

use super::hub::Joined;
use super::ring::Update;
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
#[derive(Debug)]
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
        // Since when an answer is awaited.
        let mut asked: Option<Instant> = None;
        self.send(socket, &joined.screen.begin(self.protocol, self.with_input), &mut checks).await?;
        loop {
            tokio::select! {
                biased;
                () = self.api.stop.cancelled() => return Err(Over::Stopping),
                _ = checks.tick() => self.check().await?,
                // Before silence is looked at: what was said while something was being sent has not been heard yet.
                got = socket.recv() => match got {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Over::Gone),
                    Some(Ok(_)) => asked = None,
                },
                _ = pings.tick() => {
                    if asked.get_or_insert_with(Instant::now).elapsed() > SILENCE {
                        return Err(Over::Gone);
                    }
                    self.send(socket, &[Message::Ping(Default::default())], &mut checks).await?;
                }
                update = joined.updates.recv() => match update {
                    Ok(Update::Events(events)) => {
                        self.send(socket, events.told(self.protocol, self.with_input), &mut checks).await?;
                    }
                    Ok(Update::Over(verdict)) => return Err(Over::Ended(verdict)),
                    // Too slow for the ring: the screen as it is now, and on from there.
                    Err(RecvError::Lagged(_)) => {
                        joined = self.join_again().await?;
                        let again = joined.screen.again(self.protocol, self.with_input);
                        self.send(socket, &again, &mut checks).await?;
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

    /// Sends all of it, or ends the watcher: however slowly it is taken, the right to it is asked about meanwhile.
    async fn send<S>(&self, socket: &mut S, messages: &[Message], checks: &mut Interval) -> Result<(), Over>
    where
        S: Sink<Message> + Unpin,
    {
        let mut stall = pin!(sleep_until(Instant::now() + STALL));
        for message in messages {
            // Never begun anew: a message that is half sent must be sent to its end.
            let mut sending = socket.send(message.clone());
            loop {
                tokio::select! {
                    biased;
                    () = self.api.stop.cancelled() => return Err(Over::Stopping),
                    () = &mut stall => return Err(Over::Stalled),
                    _ = checks.tick() => self.check().await?,
                    sent = &mut sending => match sent {
                        Ok(()) => break,
                        Err(_) => return Err(Over::Gone),
                    },
                }
            }
        }
        Ok(())
    }

    /// Whether the watcher still may. A book that does not answer takes nobody's right away, and holds nobody up for long.
    async fn check(&self) -> Result<(), Over> {
        timeout(BOOK_ANSWERS, self.look_up()).await.unwrap_or(Ok(()))
    }

    async fn look_up(&self) -> Result<(), Over> {
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

fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// How often a watcher's token is asked about again.
const CHECK: Duration = Duration::from_secs(3);
/// How long the book may take over that.
const BOOK_ANSWERS: Duration = Duration::from_secs(1);
/// How often a watcher is asked whether it is still there, and how long it may leave that unanswered.
const PING: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(45);
/// The longest that the messages of one look may take, however many they are.
const STALL: Duration = Duration::from_secs(60);
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::api::testing::Api;
    use crate::store::testing::{new_session, recording, socket_id};

    /// A peer that takes a message each so often, or none.
    struct Slow {
        each: Option<Duration>,
        ready: Option<Pin<Box<tokio::time::Sleep>>>,
        taken: usize,
    }

    impl Slow {
        fn new(each: Option<Duration>) -> Self {
            Self { each, ready: None, taken: 0 }
        }
    }

    impl Sink<Message> for Slow {
        type Error = Infallible;

        fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            let Some(each) = self.each else { return Poll::Pending };
            let ready = self.ready.get_or_insert_with(|| Box::pin(sleep(each)));
            ready.as_mut().poll(context).map(Ok)
        }

        fn start_send(mut self: Pin<&mut Self>, _: Message) -> Result<(), Infallible> {
            self.ready = None;
            self.taken += 1;
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn watcher(api: &Api) -> Watcher {
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        Watcher {
            ids: Ids { socket: socket_id(&new), session: new.session_id },
            client: "192.0.2.1".parse().unwrap(),
            owner: None,
            recording: recording(),
            protocol: Protocol::Alis,
            with_input: false,
            token: SecretString::from(api.admin.clone()),
            about: json!({}),
            api: api.state.clone(),
            _lease: None,
        }
    }

    #[tokio::test]
    async fn a_right_that_ends_ends_what_is_just_being_sent() {
        let api = Api::new().await;
        let watcher = watcher(&api).await;
        let token = api.tokens.verify(&api.admin, watcher.client).await.unwrap().unwrap().token().token_id;
        api.book.revoke_token(token, jiff::Timestamp::now()).await.unwrap();
        let messages = vec![Message::Binary(vec![0; 10].into()); 3];
        let sent = timeout(CHECK * 4, watcher.send(&mut Slow::new(None), &messages, &mut every(CHECK))).await;
        assert!(matches!(sent, Ok(Err(Over::Refused))), "{sent:?}");
    }

    #[tokio::test]
    async fn a_watcher_who_takes_a_little_all_the_time_has_a_deadline_too() {
        let api = Api::new().await;
        let watcher = watcher(&api).await;
        let messages = vec![Message::Binary(vec![0; 10].into()); 100];
        // Not before: the book answers in real time.
        tokio::time::pause();
        let mut slow = Slow::new(Some(STALL / 10));
        let sent = watcher.send(&mut slow, &messages, &mut every(STALL * 10)).await;
        assert!(matches!(sent, Err(Over::Stalled)), "{sent:?} after {}", slow.taken);
        let mut quick = Slow::new(Some(STALL / 200));
        watcher.send(&mut quick, &messages, &mut every(STALL * 10)).await.unwrap();
        assert_eq!(quick.taken, 100);
    }
}
