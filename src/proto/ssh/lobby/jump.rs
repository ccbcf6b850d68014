//! `ssh -J gateway [login@]socket`: an SSH server of the gateway's own at the end of a forwarded connection, so that what
//! passes is checked and recorded as at the door.
//!
//! The person is the outer connection's, the rest is a connection of its own: its session, its recordings, and a kill
//! line below the outer one's. What can be refused before its handshake is refused with the channel, in words that
//! OpenSSH shows.

use std::sync::Arc;

use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};

use super::{Lobby, Use};
use crate::proto::ssh::connection::{Connection, Inner};
use crate::proto::ssh::drive;
use crate::session::Flow;
use crate::upstream::ssh::tunnel::{self, Counted};

/// The longest host that is looked at: a DNS name's length (RFC 1035 section 2.3.4).
const LONGEST_HOST: usize = 253;

/// Why a channel is not opened (RFC 4254 section 5.1), where the words are ours.
const PROHIBITED: u32 = 1;
const SHORTAGE: u32 = 4;

/// Serves one connection to `host` inside of `outer`, until it ends.
pub(in crate::proto::ssh) async fn to(
    outer: Arc<Connection>,
    channel: Channel<Msg>,
    flow: Arc<Flow>,
    host: String,
    reply: ChannelOpenHandle,
) {
    let Some(lobby) = outer.lobby().filter(|_| host.len() <= LONGEST_HOST) else {
        return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    };
    let _place = match enter(&outer, &lobby) {
        Ok(place) => place,
        Err(refused) => return reply.reject(refused).await,
    };
    let host = host.to_ascii_lowercase();
    let socket = outer.front.host.socket_of(&host).to_owned();
    let config = match outer.front.host.config_of(&socket, outer.socket(&socket).is_some()) {
        Ok(None) => outer.front.config.clone(),
        Ok(Some(config)) => Arc::new(config),
        Err(error) => {
            tracing::error!(%error, "a host key could not be certified");
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    reply.accept().await;
    let (near, far) = tunnel::pipe();
    let inner = Arc::new(Connection::inside(&outer, Inner { socket, lobby }));
    let line = inner.line.clone();
    tokio::join!(
        Box::pin(tunnel::carry(channel, far, &flow, Counted::Messages, &line)),
        Box::pin(drive(inner, config, near))
    );
}

/// Asks for one more connection inside, before it costs anything.
fn enter(outer: &Connection, lobby: &Lobby) -> Result<tokio::sync::OwnedSemaphorePermit, ChannelOpenFailure> {
    let refused = |code| move |reason| ChannelOpenFailure::Other { code, reason };
    lobby.claim(Use::Way).map_err(str::to_owned).map_err(refused(PROHIBITED))?;
    let place = lobby.place().map_err(refused(SHORTAGE))?;
    lobby.in_pace(&outer.front, outer.client.ip()).map_err(refused(SHORTAGE))?;
    Ok(place)
}
