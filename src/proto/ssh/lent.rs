//! What a client lends to the upstream, its agent, its display and what it listens on for it (`listening`), and the channels
//! that the upstream opens because of it. One that nothing was lent for is refused; of the others only so many are open at
//! a time, and only so many are begun in a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::Channel;
use russh::server::{Handle, Msg};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::carried::Carried;
use super::connection::{Connection, Place};
use super::forward::{self, Carrying, Near};
use super::listening::Places;
use crate::pace::Pace;
use crate::policy::{Action, Denied, Destination};
use crate::session::{Kind, Legibility, Manner, Session};
use crate::upstream::ssh::opening;
use crate::upstream::{Opened, Opener, Preparation, Upstream, X11};
use crate::wire::Unread;
use crate::wire::agent::Agent;
use crate::wire::hello::Forwarded;

/// How long a client may take to open a channel that the upstream asks for.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// Channels that the upstream may open in a minute, on one connection: as many as one page with all its parts, many
/// times over.
const PER_MINUTE: u32 = 1200;

/// What one connection has lent.
pub(super) struct Lent {
    agent: AtomicBool,
    x11: AtomicBool,
    /// Where the upstream listens.
    pub(super) places: Places,
    /// Somebody waits for what the upstream opens.
    served: AtomicBool,
    pace: Pace<()>,
}

/// Lends what the client offered for one program, as far as policy allows it. That it was offered has been answered.
pub(super) async fn lend(
    connection: &Connection,
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
}

/// Answers, once a connection, what the upstream opens: from now on, so before it may open anything.
pub(super) fn serve(connection: &Arc<Connection>, upstream: &Upstream) {
    if connection.lent.served.swap(true, Ordering::AcqRel) {
        return;
    }
    let (Some(session), Some(mut openings)) = (connection.session(), upstream.openings()) else { return };
    let connection = connection.clone();
    connection.clone().spawn_beside(async move {
        loop {
            let opened = tokio::select! {
                biased;
                () = session.until_ending() => return,
                () = connection.line.until_cut() => return,
                opened = openings.recv() => opened,
            };
            let Some(opened) = opened else { return };
            match admit(&connection, &opened.by) {
                Ok((asked, place)) => {
                    let (connection, session) = (connection.clone(), session.clone());
                    connection.clone().spawn_beside(async move {
                        answer(&connection, &session, opened, asked, place).await;
                    });
                }
                Err(reason) => {
                    connection.refused("ssh_channel", json!({ "by": "the server", "reason": reason }));
                    opened.refuse().await;
                }
            }
        }
    });
}

/// What was lent for it, as it was asked for, and a place among the connection's channels: taken before the client is
/// asked, because what that has opened cannot be taken back.
fn admit(connection: &Connection, by: &Opener) -> Result<(Destination, Place), &'static str> {
    let asked = connection.lent.asked(by).ok_or("nothing was lent for it")?;
    connection.lent.pace.once(()).map_err(|_| "the server opens channels too fast")?;
    let place = connection.place().ok_or("too many channels on this connection")?;
    Ok((asked, place))
}

/// One channel that the upstream wants to open: is it still allowed, does the client open it?
async fn answer(
    connection: &Arc<Connection>,
    session: &Arc<Session>,
    opened: Opened,
    asked: Destination,
    place: Place,
) {
    let Some(handle) = connection.handle() else { return opened.refuse().await };
    let action = match &opened.by {
        Opener::Forward { .. } => Action::SshForwardFrom { at: asked.clone(), opaque: false },
        Opener::Agent => Action::SshAgent,
        Opener::X11 { .. } => Action::SshX11,
    };
    let kind = action.event_kind();
    let (kind_of, about) = told(&opened.by, &asked);
    let denied = |denied: Denied| {
        let mut about = about.clone();
        about["reason"] = denied.to_string().into();
        about["rule"] = denied.rule().into();
        connection.refused(kind, about);
    };
    let underway = match session.attempt(action.clone(), Manner::Interactive) {
        Ok((_, underway)) => underway,
        Err(why) => {
            denied(why);
            return opened.refuse().await;
        }
    };
    let asks = opening(open(handle.clone(), opened.by.clone(), asked));
    let channel = tokio::select! {
        biased;
        () = session.until_ending() => return opened.refuse().await,
        why = underway.until_refused() => {
            denied(why);
            return opened.refuse().await;
        }
        channel = timeout(OPEN_DEADLINE, asks) => channel,
    };
    let Ok(Ok(channel)) = channel else { return opened.refuse().await };
    let (beside, session, id) = (connection.clone(), session.clone(), channel.id());
    connection.spawn_in(place, id, move |flow| async move {
        let carried = carried(&beside, &action);
        let carrying = Carrying { rights: underway.into(), kind: kind_of, event: kind, about, action, carried };
        let opening = async { Ok(opened.accept().await) };
        forward::carry(&beside, &session, Near { channel, handle, flow }, carrying, opening).await;
    });
}

async fn open(handle: Handle, by: Opener, asked: Destination) -> Result<Channel<Msg>, russh::Error> {
    match (by, asked) {
        (Opener::Forward { at: Destination::Tcp { port, .. }, from }, Destination::Tcp { host, .. }) => {
            handle.channel_open_forwarded_tcpip(host, u32::from(port), from.0, from.1).await
        }
        (Opener::Forward { at: Destination::Path(path), .. }, _) => {
            handle.channel_open_forwarded_streamlocal(path).await
        }
        (Opener::Forward { .. }, Destination::Path(_)) => Err(russh::Error::WrongChannel),
        (Opener::Agent, _) => handle.channel_open_agent().await,
        (Opener::X11 { from }, _) => handle.channel_open_x11(from.0, from.1).await,
    }
}

fn told(by: &Opener, asked: &Destination) -> (Kind, Value) {
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

fn carried<'a>(connection: &'a Connection, action: &Action) -> (Carried<'a>, mpsc::Receiver<Bytes>) {
    match action {
        Action::SshForwardFrom { at, .. } => {
            let more = Action::SshForwardFrom { at: at.clone(), opaque: true };
            Carried::new(connection, Forwarded::reversed(), Some(more))
        }
        Action::SshAgent => Carried::new(connection, Agent::default(), None),
        _ => Carried::new(connection, Unread, None),
    }
}

impl Lent {
    /// What was lent for this, as it was asked for.
    fn asked(&self, by: &Opener) -> Option<Destination> {
        let nowhere = || Destination::Path(String::new());
        match by {
            Opener::Forward { at, .. } => self.places.asked(at),
            Opener::Agent => self.agent.load(Ordering::Acquire).then(nowhere),
            Opener::X11 { .. } => self.x11.load(Ordering::Acquire).then(nowhere),
        }
    }
}

impl Default for Lent {
    fn default() -> Self {
        Self {
            agent: AtomicBool::new(false),
            x11: AtomicBool::new(false),
            places: Places::default(),
            served: AtomicBool::new(false),
            pace: Pace::new(PER_MINUTE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lent_unasked() {
        let lent = Lent::default();
        let at = Destination::Tcp { host: "a".into(), port: 1 };
        let from = (String::new(), 0);
        for by in [Opener::Agent, Opener::X11 { from: from.clone() }, Opener::Forward { at, from }] {
            assert_eq!(lent.asked(&by), None, "{by:?}");
        }
    }
}
