//! What a client lends to the upstream: ports that it listens on (`-R`), its agent, its display; and the channels that the
//! upstream opens because of it. One that nothing was lent for is refused; of the others only so many are open at a time,
//! and only so many are begun in a minute.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::Channel;
use russh::server::{Handle, Msg};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::carried::Carried;
use super::connection::{Connection, Place};
use super::forward::{self, Carrying, Near};
use crate::pace::Pace;
use crate::policy::{Action, Destination, Grant};
use crate::session::{Kind, Legibility, Manner, Session, Underway};
use crate::store::{Event, EventStatus};
use crate::upstream::ssh::opening;
use crate::upstream::{Opened, Opener, Preparation, Upstream, X11};
use crate::wire::Unread;
use crate::wire::agent::Agent;
use crate::wire::hello::Forwarded;

/// How long a client may take to open a channel that the upstream asks for.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// How long the upstream may take to be reached, and then to listen. The connection's loop stands still for as long: the
/// answer to a global request has no number and must come in its turn (RFC 4254 section 4), and russh gives it as the
/// handler returns. Before the upstream is reached nothing could flow anyway; of one that has not answered in time
/// nothing of the kind is asked again.
const REACH_DEADLINE: Duration = Duration::from_secs(10);
const LISTEN_DEADLINE: Duration = Duration::from_secs(3);

/// Ports and paths that one connection listens on.
const LISTENING: usize = 64;

/// Channels that the upstream may open in a minute, on one connection: as many as one page with all its parts, many
/// times over.
const PER_MINUTE: u32 = 1200;

/// What one connection has lent.
pub(super) struct Lent {
    agent: AtomicBool,
    x11: AtomicBool,
    listening: Mutex<Vec<Listening>>,
    next: AtomicU64,
    /// Somebody waits for what the upstream opens.
    served: AtomicBool,
    /// The upstream did not say in time whether it listens.
    silent: AtomicBool,
    pace: Pace<()>,
}

/// Something that the upstream listens on.
struct Listening {
    number: u64,
    /// As it was asked for: rules are about that, and the client knows it by that.
    asked: Destination,
    /// With the port that the upstream chose; 0 until then.
    at: Destination,
    /// Cancelled once it is to be no longer.
    over: CancellationToken,
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

/// Has the upstream listen. The port that it listens on (0 for a path); `None`: it does not.
pub(super) async fn listen(connection: &Arc<Connection>, asked: Destination) -> Option<u16> {
    let session = connection.session()?;
    let from = asked.to_string();
    let listens = match begin_to_listen(connection, &session, asked) {
        Ok(told) => tokio::select! {
            biased;
            () = session.until_ending() => return None,
            listens = until_told(connection, told) => listens,
        },
        Err(reason) => Err(reason),
    };
    listens.map_err(|reason| connection.refused("ssh_forward", json!({ "from": from, "reason": reason }))).ok()
}

async fn until_told(connection: &Connection, told: oneshot::Receiver<Result<u16, String>>) -> Result<u16, String> {
    const SILENT: &str = "the server does not answer";
    if timeout(REACH_DEADLINE, connection.upstream()).await.is_err() {
        return Err(SILENT.into());
    }
    match timeout(LISTEN_DEADLINE, told).await {
        // The task has ended with its session.
        Ok(answer) => answer.unwrap_or_else(|_| Err("the session has ended".into())),
        Err(_) => {
            connection.lent.silent.store(true, Ordering::Release);
            Err(SILENT.into())
        }
    }
}

/// Has the upstream listen for as long as it may and is wanted, in a task of its own; the port comes once it does.
fn begin_to_listen(
    connection: &Arc<Connection>,
    session: &Arc<Session>,
    asked: Destination,
) -> Result<oneshot::Receiver<Result<u16, String>>, String> {
    if !connection.can_lend() {
        return Err("forwards from there are not offered".into());
    }
    if connection.lent.silent.load(Ordering::Acquire) {
        return Err("the server did not answer before".into());
    }
    let action = Action::SshForwardFrom { at: asked.clone(), opaque: false };
    let (grant, underway) = session.attempt(action, Manner::Interactive).map_err(|denied| denied.to_string())?;
    let (number, over) = connection.lent.add(asked.clone())?;
    let kept = Kept { connection: connection.clone(), number };
    let (tell, told) = oneshot::channel();
    let (session, ends) = (session.clone(), session.clone());
    connection.spawn_beside(async move {
        tokio::select! {
            biased;
            () = ends.until_ending() => {}
            () = keep_listening(&kept, &session, asked, grant, underway, over, tell) => {}
        }
    });
    Ok(told)
}

async fn keep_listening(
    kept: &Kept,
    session: &Session,
    asked: Destination,
    grant: Grant,
    underway: Underway,
    over: CancellationToken,
    tell: oneshot::Sender<Result<u16, String>>,
) {
    let connection = &kept.connection;
    let listens = async {
        let upstream = connection.upstream().await?;
        serve(connection, &upstream);
        let port = upstream.listen(&grant).await?;
        Ok((upstream, port))
    };
    let (upstream, port) = match listens.await {
        Ok(listens) => listens,
        Err(error) => {
            let error: crate::upstream::UpstreamError = error;
            let _ = tell.send(Err(error.to_string()));
            return;
        }
    };
    let at = asked.chosen(port);
    connection.lent.listens(kept.number, at.clone());
    if tell.send(Ok(port)).is_err() {
        // It came too late: the client was told that it does not.
        return upstream.stop_listening(&at).await;
    }
    let about = json!({ "from": asked.to_string(), "port": port, "rule": grant.rule(), "listening": true });
    session.note(Event::now("ssh_forward", EventStatus::Success, about)).await;
    tokio::select! {
        () = over.cancelled() => upstream.stop_listening(&at).await,
        denied = underway.until_refused() => {
            connection.lent.remove(kept.number);
            upstream.stop_listening(&at).await;
            let about = json!({ "from": asked.to_string(), "reason": denied.to_string(), "rule": denied.rule() });
            session.note(Event::now("cut", EventStatus::Denied, about)).await;
        }
    }
}

/// Has the upstream listen there no longer; whether it did.
pub(super) fn cancel(connection: &Connection, asked: &Destination) -> bool {
    let mut listening = connection.lent.listening();
    let Some(place) = listening.iter().position(|one| one.at == *asked) else { return false };
    listening.swap_remove(place).over.cancel();
    true
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
    let denied = |denied: crate::policy::Denied| {
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
            Opener::Forward { at, .. } => find(&self.listening(), at).map(|one| one.asked.clone()),
            Opener::Agent => self.agent.load(Ordering::Acquire).then(nowhere),
            Opener::X11 { .. } => self.x11.load(Ordering::Acquire).then(nowhere),
        }
    }

    /// One more place that the upstream is going to listen on: before it is asked, because somebody may connect there as
    /// soon as it does.
    fn add(&self, asked: Destination) -> Result<(u64, CancellationToken), String> {
        let mut listening = self.listening();
        if listening.len() >= LISTENING {
            return Err("too many forwards on this connection".into());
        }
        if asked.port() != Some(0) && listening.iter().any(|one| one.at == asked) {
            return Err("it is forwarded already".into());
        }
        let (number, over) = (self.next.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        listening.push(Listening { number, at: asked.clone(), asked, over: over.clone() });
        Ok((number, over))
    }

    /// It listens there.
    fn listens(&self, number: u64, at: Destination) {
        if let Some(one) = self.listening().iter_mut().find(|one| one.number == number) {
            one.at = at;
        }
    }

    fn remove(&self, number: u64) {
        self.listening().retain(|one| one.number != number);
    }

    fn listening(&self) -> MutexGuard<'_, Vec<Listening>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Lent {
    fn default() -> Self {
        Self {
            agent: AtomicBool::new(false),
            x11: AtomicBool::new(false),
            listening: Mutex::default(),
            next: AtomicU64::new(0),
            served: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            pace: Pace::new(PER_MINUTE),
        }
    }
}

/// Which of them somebody has connected to, as the upstream tells it: by the address that was asked for, as OpenSSH and
/// most others repeat it, and the port (RFC 4254 section 7.2). A server may tell the address that it listens on instead;
/// where the port alone says which it is, that is enough.
fn find<'a>(listening: &'a [Listening], at: &Destination) -> Option<&'a Listening> {
    if let Some(exact) = listening.iter().find(|one| one.at == *at) {
        return Some(exact);
    }
    let port = at.port().filter(|port| *port != 0)?;
    let mut meant = listening.iter().filter(|one| one.at.port() == Some(port));
    meant.next().filter(|_| meant.next().is_none())
}

/// A place among those that the upstream listens on; nothing is there any more once this is dropped.
struct Kept {
    connection: Arc<Connection>,
    number: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.connection.lent.remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Destination {
        Destination::Tcp { host: host.into(), port }
    }

    fn forward(at: Destination) -> Opener {
        Opener::Forward { at, from: ("192.0.2.1".into(), 1) }
    }

    #[test]
    fn two_addresses_with_one_port_are_two_places() {
        let lent = Lent::default();
        let (first, _) = lent.add(tcp("127.0.0.1", 8080)).unwrap();
        lent.add(tcp("::1", 8080)).unwrap();
        let asked = |at| lent.asked(&forward(at));
        assert_eq!(asked(tcp("127.0.0.1", 8080)), Some(tcp("127.0.0.1", 8080)));
        assert_eq!(asked(tcp("::1", 8080)), Some(tcp("::1", 8080)));
        assert_eq!(asked(tcp("localhost", 8080)), None, "it may be either");
        assert_eq!(asked(tcp("127.0.0.1", 8081)), None);
        lent.remove(first);
        assert_eq!(asked(tcp("127.0.0.1", 8080)), Some(tcp("::1", 8080)), "the port alone tells which");
    }

    #[test]
    fn a_port_that_the_server_chose_is_known_once_it_is_told() {
        let lent = Lent::default();
        let (number, _) = lent.add(tcp("localhost", 0)).unwrap();
        lent.add(tcp("localhost", 0)).unwrap();
        assert_eq!(lent.asked(&forward(tcp("localhost", 0))).map(|_| ()), Some(()));
        assert_eq!(lent.asked(&forward(tcp("localhost", 40000))), None);
        lent.listens(number, tcp("localhost", 40000));
        assert_eq!(lent.asked(&forward(tcp("localhost", 40000))), Some(tcp("localhost", 0)));
        assert_eq!(lent.asked(&forward(tcp("127.0.0.1", 40000))), Some(tcp("localhost", 0)));
    }

    #[test]
    fn places_are_few_and_each_is_taken_once() {
        let lent = Lent::default();
        let path = Destination::Path("/run/a".into());
        lent.add(path.clone()).unwrap();
        assert!(lent.add(path.clone()).is_err());
        assert_eq!(lent.asked(&forward(path)), Some(Destination::Path("/run/a".into())));
        assert_eq!(lent.asked(&forward(Destination::Path("/run/b".into()))), None);
        for port in 1..LISTENING {
            lent.add(tcp("a", u16::try_from(port).unwrap())).unwrap();
        }
        assert!(lent.add(tcp("a", 9999)).unwrap_err().contains("too many"));
    }

    #[test]
    fn nothing_is_lent_unasked() {
        let lent = Lent::default();
        for by in [Opener::Agent, Opener::X11 { from: (String::new(), 0) }, forward(tcp("a", 1))] {
            assert_eq!(lent.asked(&by), None, "{by:?}");
        }
    }
}
