//! What a client lends to the upstream: ports that it listens on (`-R`), its agent, its display; and the channels that the
//! upstream opens because of it. One that nothing was lent for is refused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::Channel;
use russh::server::{Handle, Msg};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::carried::Carried;
use super::connection::Connection;
use super::forward::{self, Carrying};
use crate::policy::{Action, Destination};
use crate::session::{Kind, Legibility, Manner, Session};
use crate::store::{Event, EventStatus};
use crate::upstream::{Opened, Opener, Preparation, X11};
use crate::wire::agent::Agent;
use crate::wire::hello::Forwarded;

/// How long a client may take to open a channel that the upstream asks for.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// How long the upstream may take to listen, the dial included: the connection's loop waits for it, because the answer to a
/// global request has no number and must come in its turn (RFC 4254 section 4).
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);

/// Ports and paths that one connection listens on.
const LISTENING: usize = 64;

/// What one connection has lent.
#[derive(Default)]
pub(super) struct Lent {
    agent: AtomicBool,
    x11: AtomicBool,
    listening: Mutex<HashMap<Place, Listening>>,
    /// Somebody waits for what the upstream opens.
    served: AtomicBool,
}

/// Where the upstream listens, as it tells it with each connection: the port is enough, and unambiguous.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    Port(u16),
    Path(String),
}

/// Something that the upstream listens on.
struct Listening {
    /// As it was asked for: rules are about that, and the client knows it by that.
    asked: Destination,
    /// Cancelled once it does no longer.
    over: CancellationToken,
}

/// Lends what the client offered for one program, as far as policy allows it. That it was offered has been answered.
pub(super) async fn lend(
    connection: &Arc<Connection>,
    session: &Session,
    how: &mut Preparation,
    agent: bool,
    x11: Option<X11>,
) {
    if !connection.can_lend() {
        return;
    }
    let lent = &connection.lent;
    if agent && let Ok((grant, _)) = session.begin(Action::SshAgent, Manner::Interactive).await {
        how.agent = Some(grant);
        lent.agent.store(true, Ordering::Release);
    }
    if let Some(x11) = x11
        && let Ok((grant, _)) = session.begin(Action::SshX11, Manner::Interactive).await
    {
        how.x11 = Some((grant, x11));
        lent.x11.store(true, Ordering::Release);
    }
    if how.agent.is_some() || how.x11.is_some() {
        serve(connection);
    }
}

/// Has the upstream listen. The port that it listens on (0 for a path); `None`: it does not.
pub(super) async fn listen(connection: &Arc<Connection>, asked: Destination) -> Option<u16> {
    let session = connection.session()?;
    let refused = |reason: String| {
        connection.refused("ssh_forward", json!({ "from": asked.to_string(), "reason": reason }));
    };
    if !connection.can_lend() {
        refused("forwards from there are not offered".into());
        return None;
    }
    if connection.lent.listening().len() >= LISTENING {
        refused("too many forwards on this connection".into());
        return None;
    }
    let action = Action::SshForwardFrom { at: asked.clone(), opaque: false };
    let (grant, underway) = session.begin(action, Manner::Interactive).await.ok()?;
    let listens = async {
        let upstream = connection.upstream().await.map_err(|error| error.to_string())?;
        let port = upstream.listen(&grant).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((upstream, port))
    };
    let (upstream, port) = match timeout(LISTEN_DEADLINE, listens).await {
        Ok(Ok(listens)) => listens,
        Ok(Err(reason)) => {
            refused(reason);
            return None;
        }
        Err(_) => {
            refused("the server does not answer".into());
            return None;
        }
    };
    let place = Place::of(&asked, port);
    let over = CancellationToken::new();
    let listening = Listening { asked: asked.clone(), over: over.clone() };
    if let Some(before) = connection.lent.listening().insert(place.clone(), listening) {
        before.over.cancel();
    }
    let about = json!({ "from": asked.to_string(), "port": port, "rule": grant.rule(), "listening": true });
    session.note(Event::now("ssh_forward", EventStatus::Success, about)).await;
    let told = connection.clone();
    connection.spawn_beside(async move {
        let end = session.clone();
        tokio::select! {
            () = end.until_ending() => {}
            () = over.cancelled() => upstream.stop_listening(&place.as_listened(&asked)).await,
            denied = underway.until_refused() => {
                told.lent.listening().remove(&place);
                upstream.stop_listening(&place.as_listened(&asked)).await;
                let about = json!({ "from": asked.to_string(), "reason": denied.to_string(), "rule": denied.rule() });
                session.note(Event::now("cut", EventStatus::Denied, about)).await;
            }
        }
    });
    serve(connection);
    Some(port)
}

/// Has the upstream listen there no longer; whether it did.
pub(super) fn cancel(connection: &Connection, asked: &Destination) -> bool {
    let mut listening = connection.lent.listening();
    let place = listening.iter().find(|(place, one)| place.meets(asked) && one.is_at(asked));
    let Some(place) = place.map(|(place, _)| place.clone()) else { return false };
    listening.remove(&place).is_some_and(|one| {
        one.over.cancel();
        true
    })
}

/// Waits, once a connection, for what the upstream opens.
fn serve(connection: &Arc<Connection>) {
    if connection.lent.served.swap(true, Ordering::AcqRel) {
        return;
    }
    let connection = connection.clone();
    connection.clone().spawn_beside(async move {
        let Some(session) = connection.session() else { return };
        let Ok(upstream) = connection.upstream().await else { return };
        loop {
            let opened = tokio::select! {
                () = session.until_ending() => return,
                () = connection.line.until_cut() => return,
                opened = upstream.opened() => opened,
            };
            let Some(opened) = opened else { return };
            let (connection, session) = (connection.clone(), session.clone());
            connection.clone().spawn_beside(async move {
                answer(&connection, &session, opened).await;
            });
        }
    });
}

/// One channel that the upstream wants to open: was something lent for it, is that still allowed, does the client open it?
async fn answer(connection: &Arc<Connection>, session: &Arc<Session>, opened: Opened) {
    let (Some(asked), Some(handle)) = (connection.lent.asked(&opened.by), connection.handle()) else {
        return opened.refuse().await;
    };
    // Before the client is asked: what it has opened cannot be taken back.
    if !connection.has_room() {
        connection.refused("ssh_channel", json!({ "reason": "too many channels on this connection" }));
        return opened.refuse().await;
    }
    let action = match &opened.by {
        Opener::Forward { .. } => Action::SshForwardFrom { at: asked.clone(), opaque: false },
        Opener::Agent => Action::SshAgent,
        Opener::X11 { .. } => Action::SshX11,
    };
    let Ok((_, underway)) = session.begin(action.clone(), Manner::Interactive).await else {
        return opened.refuse().await;
    };
    let channel = tokio::select! {
        () = session.until_ending() => return opened.refuse().await,
        channel = timeout(OPEN_DEADLINE, open(&handle, &opened.by, &asked)) => channel,
    };
    let Ok(Ok(channel)) = channel else { return opened.refuse().await };
    let (kind, about) = told(&opened.by, &asked);
    let carrying = Carrying { underway, kind, event: action.event_kind(), about, action };
    let beside = connection.clone();
    let session = session.clone();
    let id = channel.id();
    let _ = connection.spawn_channel(id, move |flow| async move {
        let carried = carried(&beside, &carrying);
        let opening = async { Ok(opened.accept().await) };
        forward::carry(&beside, &session, channel, handle, flow, carrying, carried, opening).await;
    });
}

async fn open(handle: &Handle, by: &Opener, asked: &Destination) -> Result<Channel<Msg>, russh::Error> {
    match (by, asked) {
        (Opener::Forward { at: Destination::Tcp { port, .. }, from }, Destination::Tcp { host, .. }) => {
            handle.channel_open_forwarded_tcpip(host.as_str(), u32::from(*port), from.0.as_str(), from.1).await
        }
        (Opener::Forward { at: Destination::Path(path), .. }, _) => {
            handle.channel_open_forwarded_streamlocal(path.as_str()).await
        }
        (Opener::Forward { .. }, Destination::Path(_)) => Err(russh::Error::WrongChannel),
        (Opener::Agent, _) => handle.channel_open_agent().await,
        (Opener::X11 { from }, _) => handle.channel_open_x11(from.0.as_str(), from.1).await,
    }
}

fn told(by: &Opener, asked: &Destination) -> (Kind, serde_json::Value) {
    let kind = |name, legibility| Kind { name, legibility };
    match by {
        Opener::Forward { from, .. } => {
            let peer: String = from.0.chars().take(256).collect();
            let about = json!({ "from": asked.to_string(), "peer": format!("{peer}:{}", from.1) });
            (kind("forward", Legibility::Opaque), about)
        }
        Opener::Agent => (kind("agent", Legibility::Structured), json!({})),
        Opener::X11 { .. } => (kind("x11", Legibility::Opaque), json!({})),
    }
}

fn carried<'a>(connection: &'a Connection, carrying: &Carrying) -> Option<(Carried<'a>, mpsc::Receiver<Bytes>)> {
    match &carrying.action {
        Action::SshForwardFrom { at, .. } => {
            let more = Action::SshForwardFrom { at: at.clone(), opaque: true };
            Some(Carried::new(connection, Forwarded::reversed(), Some(more)))
        }
        Action::SshAgent => Some(Carried::new(connection, Agent::default(), None)),
        _ => None,
    }
}

impl Lent {
    /// What was lent for this, as it was asked for.
    fn asked(&self, by: &Opener) -> Option<Destination> {
        let nowhere = || Destination::Path(String::new());
        match by {
            Opener::Forward { at, .. } => {
                let listening = self.listening();
                listening.get(&Place::of(at, 0)).map(|one| one.asked.clone())
            }
            Opener::Agent => self.agent.load(Ordering::Acquire).then(nowhere),
            Opener::X11 { .. } => self.x11.load(Ordering::Acquire).then(nowhere),
        }
    }

    fn listening(&self) -> MutexGuard<'_, HashMap<Place, Listening>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    fn is_at(&self, asked: &Destination) -> bool {
        match (&self.asked, asked) {
            (Destination::Tcp { host, .. }, Destination::Tcp { host: other, .. }) => host == other,
            (one, other) => one == other,
        }
    }
}

impl Place {
    /// `chosen` is the port, where the upstream chose it.
    fn of(at: &Destination, chosen: u16) -> Self {
        match at {
            Destination::Tcp { port: 0, .. } => Self::Port(chosen),
            Destination::Tcp { port, .. } => Self::Port(*port),
            Destination::Path(path) => Self::Path(path.clone()),
        }
    }

    /// How the upstream knows it: with the port that it chose.
    fn as_listened(&self, asked: &Destination) -> Destination {
        match (self, asked) {
            (Self::Port(port), Destination::Tcp { host, .. }) => Destination::Tcp { host: host.clone(), port: *port },
            _ => asked.clone(),
        }
    }

    fn meets(&self, at: &Destination) -> bool {
        *self == Self::of(at, 0)
    }
}
