//! An SSH server behind a socket: one connection per session, verified, with the socket's own credential. `host_key`,
//! `known_hosts` and `host_certificate` judge the server, `login` proves the gateway, `tunnel` leads through a jump host.

mod channel;
mod host_certificate;
mod host_key;
mod known_hosts;
mod login;
mod opened;
mod opening;
mod pattern;
pub mod tunnel;
mod version;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::{Channel, client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

pub use channel::{Input, Output, signal_name_of};
pub(super) use login::Who;
pub use opened::Waiting;
pub use opening::opening;

use self::channel::Flows;
use self::host_key::{Verdict, Verifier};
use self::opened::Door;
use super::{Opened, Preparation, Program, UpstreamError};
use crate::policy::Destination;
use crate::session::{Cut, KillLine};
use crate::socket::{HostPort, SshUpstream};
use crate::wire::words;

/// For the TCP connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// For everything until the login stands, at the jump hosts too.
const DIAL_DEADLINE: Duration = Duration::from_secs(30);

/// For opening a channel.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// Channels that are being opened at a time, those included that nobody waits for any more.
const OPENING: usize = 256;

/// For no longer listening.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);

/// For saying goodbye, to the jump hosts too.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(200);

/// Where a command was allowed for what its words are, and who gets it may find other words in it.
const OTHER_SHELL: &str = "this server may not read commands as a POSIX shell does, so what is quoted or escaped there \
                           needs the right to run any command; leave quotes and special characters out, or use SFTP";

/// Messages a channel may queue. Bytes are bounded by [`crate::session::Flow`], long before this.
const CHANNEL_MESSAGES: usize = 1 << 18;

/// A connection to an SSH server.
pub struct Connection {
    handle: Arc<client::Handle<Verifier>>,
    flows: Flows,
    door: Door,
    opening: Arc<Semaphore>,
    /// Whether commands are read as POSIX shells read them, as far as the server's version tells.
    posix: bool,
    /// The connection that this one runs through; it ends with its handle.
    via: Option<Box<Connection>>,
}

/// A connection to the server that is meant, before the login.
struct Met {
    handle: client::Handle<Verifier>,
    flows: Flows,
    door: Door,
    posix: bool,
}

impl Connection {
    /// Connects, verifies the host key and logs in: at each jump host, then at the server. The error is in words for the
    /// user.
    pub(super) async fn dial(
        spec: &SshUpstream,
        login: Option<&str>,
        who: &Who<'_>,
        line: &KillLine,
    ) -> Result<Self, String> {
        let user = spec.username.as_deref().or(login).ok_or("no login was asked for; use login@socket")?;
        let dialled = async {
            let mut via = None;
            for (name, hop) in jump_hosts(spec) {
                let user =
                    hop.username.as_deref().ok_or("the jump host has no login; tell whoever runs the gateway")?;
                let reached = Self::reach(hop, user, via, who, line).await.map_err(|words| {
                    tracing::info!(jump_host = name, words, "a jump host could not be used");
                    format!("at a jump host on the way: {words}")
                });
                via = Some(reached?);
            }
            Self::reach(spec, user, via, who, line).await
        };
        tokio::select! {
            () = line.until_cut() => Err("the session has ended".into()),
            dialled = timeout(DIAL_DEADLINE, dialled) => match dialled {
                Ok(done) => done,
                Err(_) => Err("the server does not answer; tell whoever runs it".into()),
            }
        }
    }

    /// One server, through the connection before it or directly. Everything hangs on `line`: the TCP connection itself,
    /// and each tunnel too, so that a cut does not have to travel.
    async fn reach(
        server: &SshUpstream,
        user: &str,
        via: Option<Connection>,
        who: &Who<'_>,
        line: &KillLine,
    ) -> Result<Self, String> {
        let mut met = match &via {
            None => handshake(server, Cut::new(connect(&server.address).await?, &line.child())).await?,
            Some(hop) => {
                let tunnel = tunnel::open(&hop.handle, &hop.flows, &server.address, line).await?;
                handshake(server, tunnel).await?
            }
        };
        login::log_in(&mut met.handle, user, &server.credential, who).await?;
        Ok(met.through(via))
    }

    /// `split`: whether the command was allowed for the words that it comes to.
    pub(super) async fn start(
        &self,
        program: &Program,
        how: Preparation,
        split: bool,
    ) -> Result<(super::Input, super::Output), UpstreamError> {
        if let Program::Command(command) = program
            && split
            && !self.posix
            && !words::are_bare(command)
        {
            return Err(UpstreamError::new(OTHER_SHELL));
        }
        let handle = self.handle.clone();
        let opened = self.open(async move { handle.channel_open_session().await }).await;
        let channel = answered(opened, "the server refused another channel")?;
        let (input, output) = channel::start(channel, &self.flows, program, how).await?;
        Ok((super::Input::Ssh(input), super::Output::Ssh(output)))
    }

    pub(super) async fn connect(&self, to: &Destination) -> Result<(super::Input, super::Output), UpstreamError> {
        let (handle, to) = (self.handle.clone(), to.clone());
        let open = async move {
            match to {
                // The originator is ours to make up: the client's own address is nobody's business there.
                Destination::Tcp { host, port } => {
                    handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await
                }
                Destination::Path(path) => handle.channel_open_direct_streamlocal(path).await,
            }
        };
        let opened = self.open(open).await;
        let channel = answered(opened, "the server cannot reach that, or does not forward")?;
        let (input, output) = channel::halves(channel, &self.flows);
        Ok((super::Input::Ssh(input), super::Output::Ssh(output)))
    }

    /// Opens a channel. Cancel safe: what is opened when nobody waits any more is closed.
    async fn open<O>(&self, open: O) -> Result<O::Output, Elapsed>
    where
        O: Future<Output = Result<Channel<client::Msg>, russh::Error>> + Send + 'static,
    {
        let places = self.opening.clone();
        let opened = async {
            let place = places.acquire_owned().await;
            opening(async move {
                // Until the server has answered.
                let _place = place;
                open.await
            })
            .await
        };
        timeout(OPEN_DEADLINE, opened).await
    }

    pub(super) async fn listen(&self, at: &Destination) -> Result<u16, UpstreamError> {
        const REFUSED: &str = "the server does not listen there";
        match at {
            Destination::Tcp { host, port } => {
                let chosen = self.handle.tcpip_forward(host.as_str(), u32::from(*port)).await;
                let chosen = answered(Ok(chosen), REFUSED)?;
                if *port != 0 {
                    return Ok(*port);
                }
                u16::try_from(chosen).map_err(|_| UpstreamError::new("the server told no port"))
            }
            Destination::Path(path) => {
                answered(Ok(self.handle.streamlocal_forward(path.as_str()).await), REFUSED).map(|()| 0)
            }
        }
    }

    pub(super) async fn stop_listening(&self, at: &Destination) {
        let _ = match at {
            Destination::Tcp { host, port } => {
                timeout(CANCEL_DEADLINE, self.handle.cancel_tcpip_forward(host.as_str(), u32::from(*port))).await
            }
            Destination::Path(path) => {
                timeout(CANCEL_DEADLINE, self.handle.cancel_streamlocal_forward(path.as_str())).await
            }
        };
    }

    pub(super) fn openings(&self) -> mpsc::Receiver<Opened> {
        self.door.answer()
    }

    pub(super) async fn goodbye(&self) {
        let all = async {
            let mut next = Some(self);
            while let Some(connection) = next {
                let _ = connection.handle.disconnect(russh::Disconnect::ByApplication, "session ended", "").await;
                next = connection.via.as_deref();
            }
        };
        let _ = timeout(GOODBYE_DEADLINE, all).await;
    }
}

impl Met {
    /// Once it is logged in.
    fn through(self, via: Option<Connection>) -> Connection {
        let Self { handle, flows, door, posix } = self;
        let opening = Arc::new(Semaphore::new(OPENING));
        Connection { handle: Arc::new(handle), flows, door, opening, posix, via: via.map(Box::new) }
    }
}

/// What a request to the server came to; `refused` is what a refusal means.
fn answered<T>(answer: Result<Result<T, russh::Error>, Elapsed>, refused: &'static str) -> Result<T, UpstreamError> {
    match answer {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(russh::Error::ChannelOpenFailure(_) | russh::Error::RequestDenied)) => Err(UpstreamError::new(refused)),
        Ok(Err(_)) => Err(UpstreamError::lost()),
        Err(_) => Err(UpstreamError::new("the server does not answer")),
    }
}

/// The jump hosts on the way to a server with their sockets' names, in the order in which they are dialled.
fn jump_hosts(mut server: &SshUpstream) -> Vec<(&str, &SshUpstream)> {
    let mut way = Vec::new();
    while let Some(hop) = &server.via {
        way.push((hop.name.as_str(), hop.server.as_ref()));
        server = &hop.server;
    }
    way.reverse();
    way
}

async fn connect(address: &HostPort) -> Result<TcpStream, String> {
    let connected = async {
        let addresses = lookup_host((address.host.as_str(), address.port)).await;
        let addresses: Vec<SocketAddr> = match addresses {
            Ok(addresses) => addresses.collect(),
            Err(_) => return Err("the server's name cannot be resolved; tell whoever runs the gateway".into()),
        };
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|error| cannot_reach(&error))?;
        stream.set_nodelay(true).map_err(|error| cannot_reach(&error))?;
        Ok(stream)
    };
    match timeout(CONNECT_DEADLINE, connected).await {
        Ok(connected) => connected,
        Err(_) => Err("the server cannot be reached: no answer; tell whoever runs it".into()),
    }
}

fn cannot_reach(error: &std::io::Error) -> String {
    // The kind's words hold no address.
    format!("the server cannot be reached: {}; tell whoever runs it", error.kind())
}

async fn handshake<S>(spec: &SshUpstream, stream: S) -> Result<Met, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let expected = host_key::expected(spec).await?;
    let config = client::Config {
        preferred: host_key::preferred(&expected),
        channel_buffer_size: CHANNEL_MESSAGES,
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 4,
        ..Default::default()
    };
    let flows = Flows::default();
    let verdict = Verdict::default();
    let door = Door::default();
    let verifier = Verifier::new(expected, verdict.clone(), flows.clone(), door.clone());
    match client::connect_stream(Arc::new(config), stream, verifier).await {
        Ok(handle) => {
            let posix = version::has_posix_shell(&verdict.version());
            Ok(Met { handle, flows, door, posix })
        }
        Err(error) => Err(verdict.refusal().unwrap_or_else(|| handshake_failed(&error))),
    }
}

fn handshake_failed(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo { kind, .. } => format!("no common {kind:?} algorithm with the server"),
        russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect => {
            "the server closed the connection before the login".into()
        }
        _ => "what answers there does not speak SSH as it should".into(),
    }
}
