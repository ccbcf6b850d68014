//! A channel that the server wants to open, until somebody has decided about it.

use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};

use super::channel::{Flows, halves};
use crate::upstream::{self, Opened, Opener};

/// Waits for a decision. Dropped, it is refused.
pub struct Waiting {
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    flows: Flows,
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

impl Opened {
    pub(super) fn waiting(by: Opener, channel: Waiting) -> Self {
        Self { by, channel }
    }
}
