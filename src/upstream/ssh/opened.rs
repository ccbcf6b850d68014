//! A channel that the server wants to open, from the question to the decision about it.

use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::sync::mpsc;

use super::channel::{Flows, halves};
use crate::upstream::{self, Opened, Opener};

/// Channels that nobody has looked at yet. More are refused.
const WAITING: usize = 32;

/// Where the server knocks. Nobody is there until something is lent to it: then it is refused at once.
#[derive(Clone, Default)]
pub(super) struct Door(Arc<Mutex<Option<mpsc::Sender<Opened>>>>);

/// Waits for a decision. Dropped, it is refused.
pub struct Waiting {
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    flows: Flows,
}

impl Door {
    /// From now on somebody is there, until the receiver is dropped.
    pub(super) fn answer(&self) -> mpsc::Receiver<Opened> {
        let (wanted, opened) = mpsc::channel(WAITING);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        opened
    }

    /// Never waits, because the connection's loop would: what finds nobody or no room is refused.
    pub(super) fn knock(&self, by: Opener, waiting: Waiting) {
        if let Some(wanted) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = wanted.try_send(Opened { by, channel: waiting });
        }
    }
}

impl Waiting {
    pub(super) fn new(channel: Channel<Msg>, reply: ChannelOpenHandle, flows: Flows) -> Self {
        Self { channel, reply, flows }
    }

    pub(in crate::upstream) async fn accept(self) -> (upstream::Input, upstream::Output) {
        // Counted before the server may send.
        let (input, output) = halves(self.channel, &self.flows);
        self.reply.accept().await;
        (upstream::Input::Ssh(input), upstream::Output::Ssh(output))
    }

    pub(in crate::upstream) async fn refuse(self) {
        self.reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    }
}
