//! A session's channels, by the recording that each has: so that one can be ended alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::live::Live;
use super::{Kill, lock};

/// How long an order's end waits for the recording to be sealed, once the channel is down.
const SEALING: Duration = Duration::from_secs(1);

/// The channels that are there, and how each is told.
#[derive(Default)]
pub(super) struct Channels(Mutex<HashMap<Uuid, Channel>>);

/// One of them, as those see it who give orders.
struct Channel {
    order: watch::Sender<Option<Kill>>,
    down: CancellationToken,
    closed: CancellationToken,
}

/// One of them, as it sees itself; it is down when this is dropped.
pub(super) struct Ordered {
    hears: watch::Receiver<Option<Kill>>,
    _down: DropGuard,
}

/// A channel's place among them, until its row is closed.
pub(super) struct Place {
    live: Arc<Live>,
    id: Uuid,
    _closed: DropGuard,
}

impl Channels {
    /// Orders one to end; the first order stands. Resolves once it is down and its row is closed, or late; `None`: there
    /// is no such channel.
    pub(super) fn kill(&self, id: Uuid, kill: Kill) -> Option<impl Future<Output = ()> + use<>> {
        let channels = lock(&self.0);
        let Channel { order, down, closed } = channels.get(&id)?;
        order.send_if_modified(|order| {
            let first = order.is_none();
            order.get_or_insert(kill);
            first
        });
        let (down, closed) = (down.clone(), closed.clone());
        Some(async move {
            down.cancelled().await;
            // A slow disk does not hold up who waits for the channel's end alone.
            let _ = timeout(SEALING, closed.cancelled()).await;
        })
    }

    /// Whether one is there that is not down.
    pub(super) fn is_open(&self, id: Uuid) -> bool {
        lock(&self.0).get(&id).is_some_and(|channel| !channel.down.is_cancelled())
    }
}

impl Ordered {
    pub(super) fn enrol(live: &Arc<Live>, id: Uuid) -> (Self, Place) {
        let (order, hears) = watch::channel(None);
        let channel = Channel { order, down: CancellationToken::new(), closed: CancellationToken::new() };
        let (_down, _closed) = (channel.down.clone().drop_guard(), channel.closed.clone().drop_guard());
        lock(&live.channels.0).insert(id, channel);
        (Self { hears, _down }, Place { live: live.clone(), id, _closed })
    }

    /// Cancel safe.
    pub(super) async fn until_given(&self) -> Kill {
        let given = self.hears.clone().wait_for(Option::is_some).await.ok().and_then(|order| order.clone());
        match given {
            Some(kill) => kill,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.live.channels.0).remove(&self.id);
    }
}
