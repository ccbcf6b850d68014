//! Forwarded connections, `-L`, `-D`, `-W` and what was lent for: each with its own recording and one event at its end.

use std::sync::Arc;

use bytes::Bytes;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::carried::Carried;
use super::channel::{farewell, note_cut};
use super::client::{Client, harmless};
use super::connection::Connection;
use super::relay::Relay;
use super::rights::Rights;
use crate::error::UserFacing;
use crate::policy::{Action, Destination};
use crate::record::Ending;
use crate::session::{End, Flow, Kind, Legibility, Manner, Session};
use crate::socket::UpstreamSpec;
use crate::store::{Event, EventStatus};
use crate::upstream::reach::{self, From};
use crate::upstream::{Input, Output, Upstream, UpstreamError};
use crate::wire::hello::Forwarded;

/// One connection that is carried, as it stands in the session.
pub(super) struct Carrying<'a> {
    pub(super) rights: Rights,
    pub(super) kind: Kind,
    /// The event's `type`.
    pub(super) event: &'static str,
    /// The event's metadata: where it leads.
    pub(super) about: Value,
    pub(super) action: Action,
    /// What its bytes mean, and answers of our own to the client.
    pub(super) carried: (Carried<'a>, mpsc::Receiver<Bytes>),
}

/// The client's end of one connection.
pub(super) struct Near {
    pub(super) channel: Channel<Msg>,
    pub(super) handle: Handle,
    pub(super) flow: Arc<Flow>,
}

/// Why something is not opened: how the protocol calls it (RFC 4254 section 5.1), and in words for the client.
struct Refusal {
    code: u32,
    words: String,
    /// It stands in the session already, or the session ends.
    told: bool,
}

/// Why a channel is not opened, as RFC 4254 section 5.1 numbers it. With words of ours: russh has none but the names.
const PROHIBITED: u32 = 1;
const CONNECT_FAILED: u32 = 2;
const RESOURCE_SHORTAGE: u32 = 4;

/// The longest words in a refusal, in characters.
const LONGEST: usize = 256;

/// Opens and carries one connection to where the client wants it, or answers why not.
pub(super) async fn to(connection: Arc<Connection>, near: Near, to: Destination, reply: ChannelOpenHandle) {
    let Some(session) = connection.session() else {
        return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    };
    let found = match prepare(&connection, &session, &to).await {
        Ok(found) => found,
        Err(refusal) => {
            if !refusal.told {
                connection.refused("ssh_forward", json!({ "to": to.to_string(), "reason": refusal.words }));
            }
            return reply.reject(failure(refusal.code, &refusal.words)).await;
        }
    };
    let Found { upstream, place, grant, rights } = found;
    let mut about = json!({ "to": to.to_string(), "rule": grant.rule() });
    if let Some(socket) = &place.behind {
        about["socket"] = socket.as_str().into();
    }
    let opaque = Action::SshForwardTo { to: to.clone(), opaque: true };
    let carried = Carried::new(&connection, Forwarded::default(), Some(opaque));
    let kind = Kind { name: "forward", legibility: Legibility::Opaque };
    let action = Action::SshForwardTo { to, opaque: false };
    let carrying = Carrying { rights, kind, event: action.event_kind(), about, action, carried };
    let opening = async {
        let opened = upstream.connect(grant, &place.addresses, session.line()).await;
        match &opened {
            Ok(_) => reply.accept().await,
            Err(error) => reply.reject(failure(CONNECT_FAILED, &error.to_string())).await,
        }
        opened
    };
    carry(&connection, &session, near, carrying, opening).await;
}

/// What one connection needs to be opened.
struct Found {
    upstream: Arc<Upstream>,
    place: reach::Place,
    grant: crate::policy::Grant,
    rights: Rights,
}

/// May it be opened, and where does it lead? Whatever is waited for here ends with the right to it.
async fn prepare(connection: &Connection, session: &Arc<Session>, to: &Destination) -> Result<Found, Refusal> {
    let begin = |opaque| {
        let begun = session.attempt(Action::SshForwardTo { to: to.clone(), opaque }, Manner::Interactive);
        begun.map_err(|denied| Refusal::prohibited(denied.to_string()))
    };
    let (grant, underway) = begin(false)?;
    let (upstream, place) = tokio::select! {
        biased;
        () = session.until_ending() => return Err(Refusal::told(CONNECT_FAILED, "the session has ended")),
        denied = underway.until_refused() => return Err(Refusal::prohibited(denied.to_string())),
        found = find(connection, session, to) => found?,
    };
    // Another socket's upstream has a door of its own; the larger right is the one that must last.
    let (grant, underway) = if place.behind.is_some() { begin(true)? } else { (grant, underway) };
    Ok(Found { upstream, place, grant, rights: underway.into() })
}

/// The upstream, and where that leads from there.
async fn find(
    connection: &Connection,
    session: &Session,
    to: &Destination,
) -> Result<(Arc<Upstream>, reach::Place), Refusal> {
    let upstream = connection.upstream().await.map_err(|error| {
        session.end(End::UpstreamFailed(error.to_string()));
        Refusal::told(CONNECT_FAILED, &error.to_string())
    })?;
    let sockets = connection.front.rules.now().sockets.clone();
    let from = match &session.socket().upstream {
        UpstreamSpec::Ssh(server) => From::Server(&server.address),
        _ => From::Here,
    };
    let place = reach::look(to, from, &connection.front.own, sockets.all()).await;
    Ok((upstream, place.map_err(|why| Refusal::prohibited(why.to_string()))?))
}

/// Carries one connection, from its opening to its event. The recording is there before it is opened. `opening` answers
/// whoever waits for it; dropped, as it is once the connection may not be opened any more, it refuses them.
pub(super) async fn carry(
    connection: &Connection,
    session: &Session,
    near: Near,
    carrying: Carrying<'_>,
    opening: impl Future<Output = Result<(Input, Output), UpstreamError>>,
) {
    let Carrying { rights, kind, event, mut about, action, carried } = carrying;
    let client = Client::silent(near.channel, near.handle, near.flow);
    let title = action.to_string();
    let recording = match session.record(kind, Some(title.as_bytes())).await {
        Ok(recording) => recording,
        Err(lost) => {
            session.end(End::RecordingLost(lost.told()));
            return client.to.dismiss(&lost.told()).await;
        }
    };
    about["recording_id"] = recording.id().to_string().into();
    if !session.socket().record {
        // Nothing else tells of it while it is open.
        let mut open = about.clone();
        open["open"] = true.into();
        session.note(Event::now(event, EventStatus::Success, open)).await;
    }
    let began = Instant::now();
    let opened = tokio::select! {
        biased;
        () = session.until_ending() => {
            client.to.dismiss(&farewell(session)).await;
            return recording.finish(Ending::Complete, None);
        }
        kill = recording.until_killed() => Err((kill.words(), EventStatus::Error)),
        denied = rights.until_refused() => {
            note_cut(session, &recording, &denied).await;
            Err((denied.to_string(), EventStatus::Denied))
        }
        opened = opening => opened.map_err(|error| (error.to_string(), EventStatus::Error)),
    };
    let status = match opened {
        Ok((input, output)) => {
            let carried = Some(carried);
            let relay =
                Relay { connection, session, recording, rights, notices: None, carried, size: None, passed: (0, 0) };
            let (sent, received) = Box::pin(relay.run(client, input, output)).await;
            about["bytes_sent"] = sent.into();
            about["bytes_received"] = received.into();
            about["seconds"] = began.elapsed().as_secs().into();
            EventStatus::Success
        }
        Err((reason, status)) => {
            // It is open already where the upstream asked for it.
            client.to.dismiss(&reason).await;
            about["reason"] = reason.into();
            recording.finish(Ending::Complete, None);
            status
        }
    };
    session.note(Event::now(event, status, about)).await;
}

/// Too many channels.
pub(super) fn no_room(words: &str) -> ChannelOpenFailure {
    failure(RESOURCE_SHORTAGE, words)
}

/// A refusal with words that somebody may read.
fn failure(code: u32, words: &str) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code, reason: harmless(words).chars().take(LONGEST).collect() }
}

impl Refusal {
    fn prohibited(words: String) -> Self {
        Self { code: PROHIBITED, words, told: false }
    }

    fn told(code: u32, words: &str) -> Self {
        Self { code, words: words.to_owned(), told: true }
    }
}
