//! Where sockets lead: one [`Upstream`] per session, any number of channels on it.
//!
//! Reaching it and starting something on it each consume a [`Grant`], so nothing is reached that policy did not allow.
//! Knows nothing of the client's side: the front relays between its own channel and [`Input`] and [`Output`].

pub mod shell;
pub mod ssh;

use bytes::Bytes;

use crate::error::{Fault, UserFacing};
use crate::policy::{Action, Grant};
use crate::session::KillLine;
use crate::socket::{Socket, UpstreamSpec};

/// A reached upstream.
pub enum Upstream {
    /// An SSH connection.
    Ssh(ssh::Connection),
    /// The gateway's own host.
    Shell(shell::Host),
}

/// Why an upstream cannot be used. The words name the socket and nothing behind it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{words}")]
pub struct UpstreamError {
    words: String,
    gone: bool,
}

/// How something is started: what the client asked for before `shell` or `exec`.
#[derive(Clone, Debug, Default)]
pub struct Preparation {
    /// The terminal, if one was asked for.
    pub terminal: Option<Terminal>,
    /// Environment variables, in order.
    pub env: Vec<(String, String)>,
}

/// A terminal that was asked for (`pty-req`, RFC 4254 section 6.2).
#[derive(Clone, Debug)]
pub struct Terminal {
    /// The `TERM` value.
    pub term: String,
    /// Width and height in characters.
    pub size: Size,
    /// Terminal modes: opcode and argument (RFC 4254 section 8).
    pub modes: Vec<(u8, u32)>,
}

/// A terminal's size: characters, then pixels (0: not known).
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Width in characters.
    pub cols: u32,
    /// Height in characters.
    pub rows: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// The client's side of something started upstream.
pub enum Input {
    /// An SSH channel.
    Ssh(ssh::Input),
    /// A process here.
    Shell(shell::Input),
}

/// The upstream's side of something started upstream.
#[expect(clippy::large_enum_variant, reason = "one a channel, never moved after the start")]
pub enum Output {
    /// An SSH channel.
    Ssh(ssh::Output),
    /// A process here.
    Shell(shell::Output),
}

/// What comes from the upstream, in order.
#[derive(Debug)]
pub enum Said {
    /// Data of a stream: 0 is the main one, else the extended data type (1: stderr).
    Data(u32, Bytes),
    /// The upstream refused to start what was asked for.
    Refused,
    /// The connection to the upstream is lost.
    Lost,
    /// No more data will come.
    Eof,
    /// The program ended with this status.
    ExitStatus(u32),
    /// The program was ended by a signal.
    ExitSignal {
        /// Which, without `SIG`.
        signal: String,
        /// Whether a core was dumped.
        core_dumped: bool,
        /// The upstream's words.
        message: String,
    },
}

/// Reaches the upstream of `socket`, on a child of `line`, within 30 seconds. `login` is the one the grant is for.
/// `helper` is what the built-in shell of `serve` comes from.
pub async fn dial(
    grant: Grant,
    socket: &Socket,
    line: &KillLine,
    helper: Option<&shell::Helper>,
) -> Result<Upstream, UpstreamError> {
    let Action::Connect { login } = grant.action() else {
        return Err(UpstreamError::new("this grant is not for a connection"));
    };
    match &socket.upstream {
        UpstreamSpec::Ssh(spec) => {
            let dialled = ssh::Connection::dial(spec, login.as_deref(), line).await;
            dialled.map(Upstream::Ssh).map_err(|words| UpstreamError::new(format!("{}: {words}", socket.name)))
        }
        UpstreamSpec::Shell { .. } => Ok(Upstream::Shell(shell::Host::own())),
        UpstreamSpec::ShellAs { username, shell } => {
            shell::Host::of(helper, username, shell.as_deref()).map(Upstream::Shell)
        }
    }
}

impl Upstream {
    /// Starts what the grant is for.
    pub async fn start(&self, grant: Grant, how: Preparation) -> Result<(Input, Output), UpstreamError> {
        match self {
            Upstream::Ssh(connection) => connection.start(grant.action(), how).await,
            Upstream::Shell(host) => host.start(grant.action(), how).await,
        }
    }

    /// Ends the connection in the protocol's own words, as a courtesy; the kill line is what really ends it.
    pub async fn goodbye(&self) {
        match self {
            Upstream::Ssh(connection) => connection.goodbye().await,
            Upstream::Shell(_) => {}
        }
    }
}

impl Input {
    /// Sends data; waits until the upstream's window has taken it. Not cancel safe: a part may have been sent.
    pub async fn send(&mut self, data: Bytes) -> Result<(), UpstreamError> {
        match self {
            Input::Ssh(input) => input.send(data).await,
            Input::Shell(input) => input.send(data).await,
        }
    }

    /// Says that no more data will come.
    pub async fn eof(&mut self) -> Result<(), UpstreamError> {
        match self {
            Input::Ssh(input) => input.eof().await,
            Input::Shell(input) => input.eof().await,
        }
    }

    /// Changes the terminal's size.
    pub async fn resize(&mut self, size: Size) -> Result<(), UpstreamError> {
        match self {
            Input::Ssh(input) => input.resize(size).await,
            Input::Shell(input) => input.resize(size),
        }
    }

    /// Sends a signal, named without `SIG` (RFC 4254 section 6.10), to what was started.
    pub async fn signal(&mut self, signal: &str) -> Result<(), UpstreamError> {
        match self {
            Input::Ssh(input) => input.signal(signal).await,
            Input::Shell(input) => input.signal(signal),
        }
    }

    /// Closes the channel. What was started is hung up by the upstream.
    pub async fn close(&mut self) {
        match self {
            Input::Ssh(input) => input.close().await,
            Input::Shell(input) => input.close(),
        }
    }
}

impl Output {
    /// The next thing said; `None` once the channel is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Said> {
        match self {
            Output::Ssh(output) => output.next().await,
            Output::Shell(output) => output.next().await,
        }
    }

    /// Ends what was started, from outside. Tells whether it is known that nothing of it runs any more.
    pub async fn end(self) -> bool {
        match self {
            Output::Ssh(_) => false,
            Output::Shell(output) => output.end().await,
        }
    }

    /// Tells the upstream's connection that `said` was forwarded, so that it may read on.
    pub fn taken(&self, said: &Said) {
        if let Output::Ssh(output) = self {
            output.taken(said);
        }
    }
}

impl UpstreamError {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), gone: false }
    }

    /// The connection is lost: nothing more can be started on it.
    pub(crate) fn lost() -> Self {
        Self { words: "the connection to the server is lost".into(), gone: true }
    }

    /// Whether nothing more can be started there.
    pub fn is_gone(&self) -> bool {
        self.gone
    }
}

impl UserFacing for UpstreamError {
    fn told(&self) -> String {
        self.words.clone()
    }
    fn fault(&self) -> Fault {
        Fault::Upstream
    }
}
