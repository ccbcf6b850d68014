//! What can be done in a session. Every protocol's actions are here, so that one function decides.

use std::fmt;

use super::Destination;

/// One thing that somebody wants to do in a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Reach the upstream with this login (`None`: the socket fixes it).
    Connect {
        /// The login asked for.
        login: Option<String>,
    },
    /// Start an interactive shell.
    SshShell,
    /// Run a command.
    SshExec {
        /// The command line as sent.
        command: Vec<u8>,
    },
    /// Move files.
    SshFiles {
        /// Whether something may be changed by it.
        write: bool,
    },
    /// Connect from the upstream (`-L`, `-D`, `-W`).
    SshForwardTo {
        /// Where to, as asked for.
        to: Destination,
        /// Whether what it carries is a protocol that is not looked into there: TLS, SSH, SQL.
        opaque: bool,
    },
    /// Listen at the upstream (`-R`), and carry what arrives there to the client.
    SshForwardFrom {
        /// Where, as asked for.
        at: Destination,
        /// As above.
        opaque: bool,
    },
    /// Lend the client's agent to the upstream.
    SshAgent,
    /// Lend the client's display to the upstream.
    SshX11,
    /// Run a statement.
    Database {
        /// In this database.
        database: String,
        /// What it does, at most.
        class: StatementClass,
    },
    /// Send a request.
    Http {
        /// Upper case, as on the wire (RFC 9110 section 9.1).
        method: String,
        /// The path, decoded and without dot segments (RFC 3986 section 5.2.4).
        path: String,
    },
    /// Ask the API server.
    Kubernetes {
        /// `get`, `list`, `watch`, `create`, …
        verb: String,
        /// The resource, with its subresource after a slash: `pods/exec`.
        resource: String,
        /// `None`: it belongs to the cluster, or to all namespaces.
        namespace: Option<String>,
    },
    /// Carry bytes.
    Tcp,
}

/// What a statement does, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatementClass {
    /// Changes nothing.
    Read,
    /// Changes rows.
    Write,
    /// Changes tables.
    Schema,
    /// Changes roles, settings or files, or cannot be told.
    Admin,
}

impl StatementClass {
    /// As it is configured.
    pub const NAMED: [(&'static str, Self); 4] =
        [("read", Self::Read), ("write", Self::Write), ("schema", Self::Schema), ("admin", Self::Admin)];
}

impl Action {
    /// The `type` of the event about it.
    pub fn event_kind(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "decision",
            Self::SshShell => "ssh_shell",
            Self::SshExec { .. } => "ssh_exec",
            Self::SshFiles { .. } => "ssh_transfer",
            Self::SshForwardTo { .. } | Self::SshForwardFrom { .. } => "ssh_forward",
            Self::SshAgent => "ssh_agent",
            Self::SshX11 => "ssh_x11",
            Self::Database { .. } => "statement",
            Self::Http { .. } => "http_request",
            Self::Kubernetes { .. } => "kubernetes_request",
            Self::Tcp => "tcp",
        }
    }

    /// Whether it is a thing that ends by itself once it is done, and may be given time to: a command, a transfer.
    pub fn finishes(&self) -> bool {
        matches!(self, Self::SshExec { .. } | Self::SshFiles { .. } | Self::Database { .. } | Self::Http { .. })
    }
}

impl Action {
    /// The forward of which these are the words, as its recording has them. `None`: they are another's.
    pub fn forward_named(words: &str) -> Option<Self> {
        let place = |text: &str| Destination::parse(text).ok();
        let to = words.strip_prefix(FORWARD_TO).and_then(place).map(|to| Self::SshForwardTo { to, opaque: false });
        let from = || words.strip_prefix(FORWARD_FROM).and_then(place);
        to.or_else(|| from().map(|at| Self::SshForwardFrom { at, opaque: false }))
    }
}

const FORWARD_TO: &str = "a forward to ";
const FORWARD_FROM: &str = "a forward from ";

impl fmt::Display for Action {
    /// As a denial names it, fit for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { .. } => f.write_str("to connect"),
            Self::SshShell => f.write_str("shell"),
            Self::SshExec { command } => write!(f, "exec \"{}\"", shown(&String::from_utf8_lossy(command))),
            Self::SshFiles { write: false } => f.write_str("reading files"),
            Self::SshFiles { write: true } => f.write_str("writing files"),
            Self::SshForwardTo { to, opaque: false } => write!(f, "{FORWARD_TO}{to}"),
            Self::SshForwardTo { to, opaque: true } => write!(f, "TLS, SSH or SQL in a forward to {to}"),
            Self::SshForwardFrom { at, opaque: false } => write!(f, "{FORWARD_FROM}{at}"),
            Self::SshForwardFrom { at, opaque: true } => write!(f, "TLS, SSH or SQL in a forward from {at}"),
            Self::SshAgent => f.write_str("agent forwarding"),
            Self::SshX11 => f.write_str("X11 forwarding"),
            Self::Database { database, class } => {
                let class = StatementClass::NAMED.iter().find(|(_, named)| named == class).map_or("", |(name, _)| name);
                write!(f, "{class} statements in \"{}\"", shown(database))
            }
            Self::Http { method, path } => write!(f, "{} {}", shown(method), shown(path)),
            Self::Kubernetes { verb, resource, namespace: None } => write!(f, "{} {}", shown(verb), shown(resource)),
            Self::Kubernetes { verb, resource, namespace: Some(namespace) } => {
                write!(f, "{} {} in {}", shown(verb), shown(resource), shown(namespace))
            }
            Self::Tcp => f.write_str("connections"),
        }
    }
}

/// Somebody else's words made fit for a terminal: nothing that moves a cursor, and not too long.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 120;
    let mut short: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        short.push_str("...");
    }
    short
}
