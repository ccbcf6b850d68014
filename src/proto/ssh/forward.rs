//! Forwarded connections, `-L`, `-D`, `-W` and what was lent for: each with its own recording and one event at its end.

use std::sync::Arc;

use bytes::Bytes;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::carried::Carried;
use super::channel::Client;
use super::connection::Connection;
use super::relay::Relay;
use crate::error::UserFacing;
use crate::policy::{Action, Destination};
use crate::record::Ending;
use crate::session::{End, Flow, Kind, Legibility, Manner, Session, Underway};
use crate::socket::UpstreamSpec;
use crate::store::{Event, EventStatus};
use crate::upstream::reach::{self, From};
use crate::upstream::{Input, Output, UpstreamError};
use crate::wire::hello::Forwarded;

/// One connection that is carried, as it stands in the session.
pub(super) struct Carrying {
    pub(super) underway: Underway,
    pub(super) kind: Kind,
    /// The event's `type`.
    pub(super) event: &'static str,
    /// The event's metadata: where it leads.
    pub(super) about: Value,
    pub(super) action: Action,
}

/// Opens and carries one connection to where the client wants it, or answers why not.
pub(super) async fn to(
    connection: Arc<Connection>,
    channel: Channel<Msg>,
    handle: Handle,
    flow: Arc<Flow>,
    to: Destination,
    reply: ChannelOpenHandle,
) {
    let Some(session) = connection.session() else {
        return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    };
    let action = |opaque| Action::SshForwardTo { to: to.clone(), opaque };
    let Ok((grant, underway)) = session.begin(action(false), Manner::Interactive).await else {
        return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    };
    let reached = tokio::select! {
        biased;
        () = session.until_ending() => return reply.reject(ChannelOpenFailure::ConnectFailed).await,
        denied = underway.until_refused() => {
            connection.refused("ssh_forward", json!({ "to": to.to_string(), "reason": denied.to_string() }));
            return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        }
        reached = connection.upstream() => reached,
    };
    let upstream = match reached {
        Ok(upstream) => upstream,
        Err(error) => {
            session.end(End::UpstreamFailed(error.to_string()));
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    let sockets = connection.front.rules.now().sockets.clone();
    let from = match &session.socket().upstream {
        UpstreamSpec::Ssh(server) => From::Server(&server.address),
        _ => From::Here,
    };
    let place = match reach::look(&to, from, &connection.front.own, sockets.all()).await {
        Ok(place) => place,
        Err(why) => {
            connection.refused("ssh_forward", json!({ "to": to.to_string(), "reason": why.to_string() }));
            return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        }
    };
    // Another socket's upstream has a door of its own.
    let (grant, underway) = match place.behind.is_some() {
        false => (grant, underway),
        // The larger right is the one that must last.
        true => match session.begin(action(true), Manner::Interactive).await {
            Ok(begun) => begun,
            Err(_) => return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
        },
    };
    let mut about = json!({ "to": to.to_string(), "rule": grant.rule() });
    if let Some(socket) = &place.behind {
        about["socket"] = socket.as_str().into();
    }
    let carried = Carried::new(&connection, Forwarded::default(), Some(action(true)));
    let kind = Kind { name: "forward", legibility: Legibility::Opaque };
    let action = action(false);
    let carrying = Carrying { underway, kind, event: action.event_kind(), about, action };
    let opening = async {
        let opened = upstream.connect(grant, &place.addresses, session.line()).await;
        match &opened {
            Ok(_) => reply.accept().await,
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        opened
    };
    carry(&connection, &session, channel, handle, flow, carrying, Some(carried), opening).await;
}

/// Carries one connection, from its opening to its event. The recording is there before it is opened.
#[expect(clippy::too_many_arguments, reason = "both sides of one connection, and what it is")]
pub(super) async fn carry(
    connection: &Connection,
    session: &Session,
    channel: Channel<Msg>,
    handle: Handle,
    flow: Arc<Flow>,
    carrying: Carrying,
    carried: Option<(Carried<'_>, mpsc::Receiver<Bytes>)>,
    opening: impl Future<Output = Result<(Input, Output), UpstreamError>>,
) {
    let Carrying { underway, kind, event, mut about, action } = carrying;
    let title = action.to_string();
    let recording = match session.record(kind, Some(title.as_bytes())).await {
        Ok(recording) => recording,
        // Dropped, what waits to be opened is refused.
        Err(lost) => return session.end(End::RecordingLost(lost.told())),
    };
    about["recording_id"] = recording.id().to_string().into();
    let began = Instant::now();
    let opened = tokio::select! {
        biased;
        () = session.until_ending() => return recording.finish(Ending::Complete, None),
        kill = recording.until_killed() => Err(UpstreamError::new(kill.words())),
        opened = opening => opened,
    };
    let status = match opened {
        Ok((input, output)) => {
            let client = Client::silent(channel, handle, flow);
            let relay =
                Relay { connection, session, recording, underway, notices: None, carried, size: None, passed: (0, 0) };
            let (sent, received) = Box::pin(relay.run(client, input, output)).await;
            about["bytes_sent"] = sent.into();
            about["bytes_received"] = received.into();
            about["seconds"] = began.elapsed().as_secs().into();
            EventStatus::Success
        }
        Err(error) => {
            about["reason"] = error.to_string().into();
            recording.finish(Ending::Complete, None);
            EventStatus::Error
        }
    };
    session.note(Event::now(event, status, about)).await;
}
