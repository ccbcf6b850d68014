//! Where the upstream listens for the client (`-R`): has it begin, and end when that is no longer wanted or allowed, and knows
//! which place somebody has connected to. What comes of a connection is `lent`'s affair.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::lent;
use crate::policy::{Action, Destination, Grant};
use crate::session::{Manner, Session, Underway};
use crate::store::{Event, EventStatus};
use crate::upstream::UpstreamError;

/// How long the upstream may take to be reached, and then to listen. The connection's loop stands still for as long: the
/// answer to a global request has no number and must come in its turn (RFC 4254 section 4), and russh gives it as the
/// handler returns. Before the upstream is reached nothing could flow anyway; of one that has not answered in time
/// nothing of the kind is asked again.
const REACH_DEADLINE: Duration = Duration::from_secs(10);
const LISTEN_DEADLINE: Duration = Duration::from_secs(3);

/// Ports and paths that one connection listens on.
const LISTENING: usize = 64;

/// The places of one connection.
#[derive(Default)]
pub(super) struct Places {
    all: Mutex<Vec<Listening>>,
    next: AtomicU64,
    /// The upstream did not say in time whether it listens.
    silent: AtomicBool,
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
            connection.lent.places.silent.store(true, Ordering::Release);
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
    if connection.lent.places.silent.load(Ordering::Acquire) {
        return Err("the server did not answer before".into());
    }
    let action = Action::SshForwardFrom { at: asked.clone(), opaque: false };
    let (grant, underway) = session.attempt(action, Manner::Interactive).map_err(|denied| denied.to_string())?;
    let (number, over) = connection.lent.places.add(asked.clone())?;
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
        lent::serve(connection, &upstream);
        let port = upstream.listen(&grant).await?;
        Ok((upstream, port))
    };
    let (upstream, port) = match listens.await {
        Ok(listens) => listens,
        Err(error) => {
            let error: UpstreamError = error;
            let _ = tell.send(Err(error.to_string()));
            return;
        }
    };
    let at = asked.chosen(port);
    connection.lent.places.listens(kept.number, at.clone());
    if tell.send(Ok(port)).is_err() {
        // It came too late: the client was told that it does not.
        return upstream.stop_listening(&at).await;
    }
    let about = json!({ "from": asked.to_string(), "port": port, "rule": grant.rule(), "listening": true });
    session.note(Event::now("ssh_forward", EventStatus::Success, about)).await;
    tokio::select! {
        () = over.cancelled() => upstream.stop_listening(&at).await,
        denied = underway.until_refused() => {
            connection.lent.places.remove(kept.number);
            upstream.stop_listening(&at).await;
            let about = json!({ "from": asked.to_string(), "reason": denied.to_string(), "rule": denied.rule() });
            session.note(Event::now("cut", EventStatus::Denied, about)).await;
        }
    }
}

/// Has the upstream listen there no longer; whether it did.
pub(super) fn cancel(connection: &Connection, asked: &Destination) -> bool {
    let mut listening = connection.lent.places.all();
    let Some(place) = listening.iter().position(|one| one.at == *asked) else { return false };
    listening.swap_remove(place).over.cancel();
    true
}

impl Places {
    /// What was asked for where somebody has connected to, as the upstream tells it.
    pub(super) fn asked(&self, at: &Destination) -> Option<Destination> {
        find(&self.all(), at).map(|one| one.asked.clone())
    }

    /// One more place that the upstream is going to listen on: before it is asked, because somebody may connect there as
    /// soon as it does.
    fn add(&self, asked: Destination) -> Result<(u64, CancellationToken), String> {
        let mut listening = self.all();
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
        if let Some(one) = self.all().iter_mut().find(|one| one.number == number) {
            one.at = at;
        }
    }

    fn remove(&self, number: u64) {
        self.all().retain(|one| one.number != number);
    }

    fn all(&self) -> MutexGuard<'_, Vec<Listening>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.connection.lent.places.remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Destination {
        Destination::Tcp { host: host.into(), port }
    }

    #[test]
    fn two_addresses_with_one_port_are_two_places() {
        let places = Places::default();
        let (first, _) = places.add(tcp("127.0.0.1", 8080)).unwrap();
        places.add(tcp("::1", 8080)).unwrap();
        let asked = |at| places.asked(&at);
        assert_eq!(asked(tcp("127.0.0.1", 8080)), Some(tcp("127.0.0.1", 8080)));
        assert_eq!(asked(tcp("::1", 8080)), Some(tcp("::1", 8080)));
        assert_eq!(asked(tcp("localhost", 8080)), None, "it may be either");
        assert_eq!(asked(tcp("127.0.0.1", 8081)), None);
        places.remove(first);
        assert_eq!(asked(tcp("127.0.0.1", 8080)), Some(tcp("::1", 8080)), "the port alone tells which");
    }

    #[test]
    fn a_port_that_the_server_chose_is_known_once_it_is_told() {
        let places = Places::default();
        let (number, _) = places.add(tcp("localhost", 0)).unwrap();
        places.add(tcp("localhost", 0)).unwrap();
        assert_eq!(places.asked(&tcp("localhost", 0)).map(|_| ()), Some(()));
        assert_eq!(places.asked(&tcp("localhost", 40000)), None);
        places.listens(number, tcp("localhost", 40000));
        assert_eq!(places.asked(&tcp("localhost", 40000)), Some(tcp("localhost", 0)));
        assert_eq!(places.asked(&tcp("127.0.0.1", 40000)), Some(tcp("localhost", 0)));
    }

    #[test]
    fn places_are_few_and_each_is_taken_once() {
        let places = Places::default();
        let path = Destination::Path("/run/a".into());
        places.add(path.clone()).unwrap();
        assert!(places.add(path.clone()).is_err());
        assert_eq!(places.asked(&path), Some(Destination::Path("/run/a".into())));
        assert_eq!(places.asked(&Destination::Path("/run/b".into())), None);
        for port in 1..LISTENING {
            places.add(tcp("a", u16::try_from(port).unwrap())).unwrap();
        }
        assert!(places.add(tcp("a", 9999)).unwrap_err().contains("too many"));
    }
}
