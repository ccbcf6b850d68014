//! A session's channels, by the recording that each has: so that one can be ended alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use uuid::Uuid;

use super::live::Live;
use super::{Kill, lock};

/// The channels that are open, and how each is told.
#[derive(Default)]
pub(super) struct Channels(Mutex<HashMap<Uuid, watch::Sender<Option<Kill>>>>);

/// One channel's place in them, until it is dropped.
pub(super) struct Ordered {
    live: Arc<Live>,
    id: Uuid,
    hears: watch::Receiver<Option<Kill>>,
}

impl Channels {
    /// Orders one to end; the first order stands. Resolves once it has gone; `None`: there is no such channel.
    pub(super) fn kill(&self, id: Uuid, kill: Kill) -> Option<impl Future<Output = ()> + use<>> {
        let channels = lock(&self.0);
        let channel = channels.get(&id)?;
        channel.send_if_modified(|order| {
            let first = order.is_none();
            order.get_or_insert(kill);
            first
        });
        let gone = channel.clone();
        Some(async move { gone.closed().await })
    }
}

impl Ordered {
    pub(super) fn enrol(live: &Arc<Live>, id: Uuid) -> Self {
        let (order, hears) = watch::channel(None);
        lock(&live.channels.0).insert(id, order);
        Self { live: live.clone(), id, hears }
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

impl Drop for Ordered {
    fn drop(&mut self) {
        lock(&self.live.channels.0).remove(&self.id);
    }
}
