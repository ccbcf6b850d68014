//! Where sockets lead: one [`Upstream`] per session, any number of channels on it.
//!
//! Reaching it and starting something on it each consume a [`Grant`], so nothing is reached that policy did not allow.
//! Knows nothing of the client's side: the front relays between its own channel and [`Input`] and [`Output`].

pub mod reach;
pub mod shell;
pub mod ssh;
pub mod tcp;

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use crate::identity::ssh_ca_upstream::OnBehalf;

use crate::error::{Fault, UserFacing};
use crate::identity::ssh_ca_upstream::UpstreamCa;
use crate::policy::{Action, Destination, Grant};
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

/// What is started on a session channel (RFC 4254 section 6.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The login shell.
    Shell,
    /// A command line.
    Command(Vec<u8>),
    /// A subsystem.
    Subsystem(String),
}

/// How something is started: what the client asked for before `shell`, `exec` or `subsystem`.
#[derive(Debug, Default)]
pub struct Preparation {
    /// The terminal, if one was asked for.
    pub terminal: Option<Terminal>,
    /// Environment variables, in order.
    pub env: Vec<(String, String)>,
    /// The client's agent may be asked for.
    pub agent: Option<Grant>,
    /// The client's display may be used, like this.
    pub x11: Option<(Grant, X11)>,
}

/// A display that was offered (`x11-req`, RFC 4254 section 6.3.1).
#[derive(Clone, Debug)]
pub struct X11 {
    /// Only one connection.
    pub single: bool,
    /// The authentication protocol's name.
    pub protocol: String,
    /// The cookie. The client made it up for this channel.
    pub cookie: String,
    /// The screen's number.
    pub screen: u32,
}

/// A channel that the upstream wants to open, because something was lent to it.
pub struct Opened {
    /// What for.
    pub by: Opener,
    channel: ssh::Waiting,
}

/// What the upstream opens a channel for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opener {
    /// Somebody has connected to where it listens.
    Forward {
        /// Where it listens, as the upstream tells it.
        at: Destination,
        /// Who has connected, as the upstream tells it.
        from: (String, u32),
    },
    /// A program there asks the client's agent.
    Agent,
    /// A program there uses the client's display.
    X11 {
        /// Who, as the upstream tells it.
        from: (String, u32),
    },
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
    /// A connection from here.
    Tcp(tcp::Input),
}

/// The upstream's side of something started upstream.
#[expect(clippy::large_enum_variant, reason = "one a channel, never moved after the start")]
pub enum Output {
    /// An SSH channel.
    Ssh(ssh::Output),
    /// A process here.
    Shell(shell::Output),
    /// A connection from here.
    Tcp(tcp::Output),
}

/// The subsystem that moves files (draft-ietf-secsh-filexfer-02 section 2).
pub const SFTP: &str = "sftp";

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

/// Reaches the upstream of `socket`, on a child of `line`, within 30 seconds, jump hosts included. `ca` vouches for
/// `on_behalf` where the upstream wants a certificate; `helper` is what the built-in shell of `serve` comes from. The
/// grant is for the socket; the jump hosts on its way are the administrator's choice, and nobody's policy is asked about
/// them.
pub async fn dial(
    grant: Grant,
    socket: &Socket,
    on_behalf: &OnBehalf,
    ca: &UpstreamCa,
    helper: Option<&shell::Helper>,
    line: &KillLine,
) -> Result<Upstream, UpstreamError> {
    let Action::Connect { login } = grant.action() else {
        return Err(UpstreamError::new("this grant is not for a connection"));
    };
    match &socket.upstream {
        UpstreamSpec::Ssh(spec) => {
            let dialled = ssh::Connection::dial(spec, login.as_deref(), &ssh::Who { on_behalf, ca }, line).await;
            dialled.map(Upstream::Ssh).map_err(|words| UpstreamError::new(format!("{}: {words}", socket.name)))
        }
        UpstreamSpec::Shell { .. } => Ok(Upstream::Shell(shell::Host::own())),
        UpstreamSpec::ShellAs { username, shell } => {
            shell::Host::of(helper, username, shell.as_deref()).map(Upstream::Shell)
        }
    }
}

impl Upstream {
    /// Starts a program that the grant is for.
    pub async fn start(
        &self,
        grant: Grant,
        program: &Program,
        how: Preparation,
    ) -> Result<(Input, Output), UpstreamError> {
        if !program.fits(grant.action()) {
            return Err(UpstreamError::new("this grant is for something else"));
        }
        match self {
            Upstream::Ssh(connection) => {
                let split = grant.patterned() || matches!(grant.action(), Action::SshFiles { .. });
                connection.start(program, how, split).await
            }
            Upstream::Shell(host) => host.start(program, how).await,
        }
    }

    /// Connects to where the grant is for: from the SSH server, or from here to one of `addresses`, which were resolved
    /// and looked at before (`reach`).
    pub async fn connect(
        &self,
        grant: Grant,
        addresses: &[SocketAddr],
        line: &KillLine,
    ) -> Result<(Input, Output), UpstreamError> {
        let Action::SshForwardTo { to, .. } = grant.action() else {
            return Err(UpstreamError::new("this grant is for something else"));
        };
        match self {
            Upstream::Ssh(connection) => connection.connect(to).await,
            Upstream::Shell(_) => tcp::connect(addresses, line).await,
        }
    }

    /// Listens where the grant is for. The port, where the upstream chose one.
    pub async fn listen(&self, grant: &Grant) -> Result<u16, UpstreamError> {
        let Action::SshForwardFrom { at, .. } = grant.action() else {
            return Err(UpstreamError::new("this grant is for something else"));
        };
        match self {
            Upstream::Ssh(connection) => connection.listen(at).await,
            Upstream::Shell(_) => Err(UpstreamError::new("forwards from this host are not offered")),
        }
    }

    /// Listens there no longer.
    pub async fn stop_listening(&self, at: &Destination) {
        if let Upstream::Ssh(connection) = self {
            connection.stop_listening(at).await;
        }
    }

    /// The channels that the upstream wants to open, from now on and until this is dropped; before and after, they are
    /// refused. `None`: it opens none.
    pub fn openings(&self) -> Option<mpsc::Receiver<Opened>> {
        match self {
            Upstream::Ssh(connection) => Some(connection.openings()),
            Upstream::Shell(_) => None,
        }
    }

    /// Whether forwards leave from another host, which resolves names itself.
    pub fn resolves(&self) -> bool {
        matches!(self, Upstream::Ssh(_))
    }

    /// Ends the connection in the protocol's own words, as a courtesy; the kill line is what really ends it.
    pub async fn goodbye(&self) {
        match self {
            Upstream::Ssh(connection) => connection.goodbye().await,
            Upstream::Shell(_) => {}
        }
    }
}

impl Program {
    /// Whether that is what `action` is about. Which commands move files was found out before the question was asked.
    fn fits(&self, action: &Action) -> bool {
        match (self, action) {
            (Self::Shell, Action::SshShell) => true,
            (Self::Command(command), Action::SshExec { command: allowed }) => command == allowed,
            (Self::Command(_), Action::SshFiles { .. }) => true,
            (Self::Subsystem(name), Action::SshFiles { .. }) => name == SFTP,
            _ => false,
        }
    }
}

impl Opened {
    /// Opens it.
    pub async fn accept(self) -> (Input, Output) {
        self.channel.accept().await
    }

    /// Refuses it, as a matter of policy.
    pub async fn refuse(self) {
        self.channel.refuse().await;
    }
}

impl Input {
    /// Sends data; waits until the upstream's window has taken it. Not cancel safe: a part may have been sent.
    pub async fn send(&mut self, data: Bytes) -> Result<(), UpstreamError> {
        match self {
            Input::Ssh(input) => input.send(data).await,
            Input::Shell(input) => input.send(data).await,
            Input::Tcp(input) => input.send(data).await,
        }
    }

    /// Says that no more data will come.
    pub async fn eof(&mut self) -> Result<(), UpstreamError> {
        match self {
            Input::Ssh(input) => input.eof().await,
            Input::Shell(input) => input.eof().await,
            Input::Tcp(input) => input.eof().await,
        }
    }

    /// Changes the terminal's size.
    pub async fn resize(&mut self, size: Size) -> Result<(), UpstreamError> {
        match self {
            Input::Ssh(input) => input.resize(size).await,
            Input::Shell(input) => input.resize(size),
            Input::Tcp(_) => Ok(()),
        }
    }

    /// Sends a signal, named without `SIG` (RFC 4254 section 6.10), to what was started.
    pub async fn signal(&mut self, signal: &str) -> Result<(), UpstreamError> {
        match self {
            Input::Ssh(input) => input.signal(signal).await,
            Input::Shell(input) => input.signal(signal),
            Input::Tcp(_) => Ok(()),
        }
    }

    /// Closes the channel. What was started is hung up by the upstream.
    pub async fn close(&mut self) {
        match self {
            Input::Ssh(input) => input.close().await,
            Input::Shell(input) => input.close(),
            Input::Tcp(input) => input.eof().await.unwrap_or_default(),
        }
    }
}

impl Output {
    /// The next thing said; `None` once the channel is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Said> {
        match self {
            Output::Ssh(output) => output.next().await,
            Output::Shell(output) => output.next().await,
            Output::Tcp(output) => output.next().await,
        }
    }

    /// Waits until an SSH server has closed the channel; what it still says is thrown away. Elsewhere it is [`Output::end`]
    /// that waits.
    pub async fn until_closed(&mut self) {
        if let Output::Ssh(output) = self {
            while let Some(said) = output.next().await {
                output.taken(&said);
            }
        }
    }

    /// Ends what was started, from outside. Tells whether it is known that nothing of it runs any more. At an SSH server
    /// it was sent a signal before (`Input::signal`), which not every server passes on.
    pub async fn end(self) -> bool {
        match self {
            Output::Ssh(_) => false,
            Output::Shell(output) => output.end().await,
            Output::Tcp(_) => true,
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
