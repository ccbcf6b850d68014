//! The SSH front: one client connection, from its first bytes to the closed row.
//!
//! `config` holds the algorithms and the host key, `sign_in` turns an authentication into a session, `handler` is what
//! russh calls, `lobby` receives who named no socket, `channel` runs one channel (`client` is its end there, `deed` what
//! starting something comes to, `rights` what it lives by), `relay` carries its bytes in two `directions`, `forward` and
//! `lent` open connections for either side, `listening` has the upstream listen, and `notices` speaks in between. This file
//! drives a connection: the deadlines before sign-in, the goodbye when the session is ordered to end, the cut, the closed
//! row.
//!
//! A newcomer's trap: russh runs one loop per connection, and a handler that waits stops every channel on it. So
//! handlers only note things down; whatever takes time runs in a channel's own task, and how long the loop waits for a
//! slow channel is bounded by [`crate::session::Flow`].

mod carried;
mod channel;
mod client;
mod config;
mod connection;
mod deed;
mod directions;
mod files;
mod forward;
mod greeting;
mod handler;
mod lent;
mod listening;
mod lobby;
mod notices;
mod relay;
mod rights;
mod sign_in;
mod together;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::server::{RunningSession, run_stream};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use config::{HostKey, HostKeyError, host_key};

use self::connection::Connection;
use self::handler::Handler;
use crate::identity::link::Links;
use crate::identity::sign_ins::SignIns;
use crate::identity::ssh_ca_upstream::UpstreamCa;
use crate::pace::InsidePace;
use crate::session::{Cut, End, KillLine, Rules, Session, Sessions};
use crate::socket::Socket;
use crate::store::Store;
use crate::upstream::shell::Helper;

/// TCP keepalives: after how long without a byte, how far apart, and how many may be missed. A client whose machine is gone
/// is noticed in little more than a minute.
const QUIET: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// How long the goodbye of a session that is ended from outside may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long a client may take to show what it was told before it is told to disconnect.
const TO_SHOW: Duration = Duration::from_millis(250);

/// How long russh's loop may take to notice the cut: it may be waiting for room in a channel.
const TO_NOTICE: Duration = Duration::from_secs(2);

/// How long a connection's channels have to seal their recordings after the cut.
const SETTLE: Duration = Duration::from_secs(5);

/// What every SSH connection needs.
pub struct Front {
    /// russh's configuration: algorithms, host key, windows.
    pub config: Arc<russh::server::Config>,
    /// The host key, for connections inside of others.
    pub host: HostKey,
    /// What is in force: sockets, among others.
    pub rules: Rules,
    /// The registry of sessions.
    pub sessions: Sessions,
    /// Link sign-in.
    pub links: Links,
    /// How long a link holds.
    pub link_lifetime: Duration,
    /// Remembered keys.
    pub store: Store,
    /// What certificates are worth.
    pub sign_ins: SignIns,
    /// What opens upstreams that trust it.
    pub upstream_ca: Arc<UpstreamCa>,
    /// The identity provider in force: whom another one vouched for is not remembered.
    pub issuer: String,
    /// How long a client may take to sign in, apart from the time that a link is open.
    pub handshake: Duration,
    /// Where the gateway itself listens: no forward leads there.
    pub own: Arc<[SocketAddr]>,
    /// How many channels one connection may have open.
    pub channels: usize,
    /// How often somebody may ask for a socket once they are in a lobby.
    pub inside: InsidePace,
    /// What the built-in shell of `serve` comes from.
    pub helper: Option<Helper>,
}

/// Serves one connection; whether anybody signed in on it. `reached` is the address that the client connected to, and
/// `fixed` the socket of a listener that belongs to one.
pub async fn serve(
    front: Arc<Front>,
    stream: TcpStream,
    client: SocketAddr,
    reached: SocketAddr,
    fixed: Option<Arc<Socket>>,
) -> bool {
    let Some(software) = greeting::peek(&stream).await else { return false };
    if let Err(error) = keep_alive(&stream) {
        tracing::debug!(%error, "the connection died before it was served");
        return false;
    }
    let line = KillLine::new();
    let cut = Cut::new(stream, &line);
    let config = front.config.clone();
    let connection = Arc::new(Connection::new(front, client, reached, fixed, software, line));
    drive(connection, config, cut).await
}

/// Serves what comes over a stream that ends when the connection's line is cut; whether anybody signed in on it.
async fn drive<S>(connection: Arc<Connection>, config: Arc<russh::server::Config>, stream: S) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handler = Handler::new(connection.clone());
    let started = timeout(connection.front.handshake, Box::pin(run_stream(config, stream, handler))).await;
    let Ok(Ok(mut running)) = started else { return false };
    let line = connection.line.clone();
    let end = tokio::select! {
        biased;
        () = connection.until_ending() => {
            let end = connection.session().and_then(|session| session.ended()).unwrap_or(End::Closed);
            let gone = timeout(GOODBYE, Box::pin(goodbye(&connection, end.words(), &mut running))).await;
            if gone.is_err() {
                cut_off(&line, &mut running).await;
            }
            end
        }
        leave = connection.until_sent_away() => {
            // What is inside ends too, and may say why.
            let _ = timeout(SETTLE, connection.until_channels_gone()).await;
            let words = leave.words().to_owned();
            if timeout(GOODBYE, Box::pin(goodbye(&connection, words, &mut running))).await.is_err() {
                cut_off(&line, &mut running).await;
            }
            End::ClientGone
        }
        () = connection.until_overdue() => {
            tracing::debug!("the client did not sign in, or nothing in its lobby, in time");
            // A sign-in may just be coming to its end: the session that it opened is looked for below.
            cut_off(&line, &mut running).await;
            End::ClientGone
        }
        ended = &mut running => match ended {
            Ok(()) => End::Closed,
            Err(error) => {
                tracing::debug!(%error, "the client's connection ended");
                match connection.is_done_inside() {
                    true => End::Closed,
                    false => End::ClientGone,
                }
            }
        },
    };
    match connection.session() {
        Some(session) => {
            finish(&connection, &session, end).await;
            true
        }
        None => {
            // What is inside hears that its stream has ended, and ends by that. Cut at once, it would lose what is on its way,
            // and take the end of its upstream, which hangs on the same line, for the reason.
            let _ = timeout(SETTLE, connection.until_channels_gone()).await;
            line.cut();
            let _ = timeout(SETTLE, connection.until_channels_gone()).await;
            connection.is_somebodys()
        }
    }
}

fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, QUIET)?;
    sockopt::set_tcp_keepintvl(stream, QUIET)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)
}

/// Cuts the bytes and waits for russh's loop to notice, which it does at its next read or write.
async fn cut_off(line: &KillLine, running: &mut RunningSession<Handler>) {
    line.cut();
    let _ = timeout(TO_NOTICE, running).await;
}

/// A line in every terminal, then the protocol's own disconnect, then the client closes. All of it a courtesy.
///
/// A client that is told to disconnect drops what it has not shown yet, so it gets a moment to show it and go by itself:
/// most do once their last channel is closed. Returns once the connection is gone.
async fn goodbye(connection: &Connection, words: String, running: &mut RunningSession<Handler>) {
    connection.until_channels_gone().await;
    if connection.had_channels() && timeout(TO_SHOW, &mut *running).await.is_ok() {
        return;
    }
    let handle = running.handle();
    let _ = handle.disconnect(russh::Disconnect::ByApplication, words, String::new()).await;
    let _ = running.await;
}

async fn finish(connection: &Connection, session: &Session, end: End) {
    // Ends what its channels still do, and the dial if it still dials.
    session.end(end.clone());
    if let Some(upstream) = connection.upstream_now() {
        upstream.goodbye().await;
    }
    session.line().cut();
    let settled = timeout(SETTLE, connection.until_channels_gone()).await.is_ok();
    let remaining = matches!(session.ended(), Some(End::Killed(_))).then(|| connection.remaining(settled));
    session.finish(end, remaining);
    connection.tell_refusals(session).await;
}
