//! Sockets: the resources that can be reached through the gateway. Plain, checked data; knows no file and no network.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use uuid::Uuid;

/// The namespace of socket ids: `socket_id` is the UUIDv5 of the socket's name in it.
const SOCKET_NAMESPACE: Uuid = Uuid::from_u128(0x6761_7465_7363_7269_6265_2073_6f63_6b65);

/// A resource that can be reached through the gateway.
#[derive(Debug)]
pub struct Socket {
    /// Unique; a DNS label (RFC 1035 section 2.3.1), because it becomes `<socket>.<domain>`.
    pub name: String,
    /// What protocol is spoken to the client.
    pub protocol: Protocol,
    /// Free labels, for policies and lists.
    pub tags: BTreeMap<String, String>,
    /// Whether channels are recorded.
    pub record: bool,
    /// What a recording that cannot be written does to its session.
    pub on_failure: OnFailure,
    /// What is kept of files that are moved.
    pub record_files: RecordFiles,
    /// Words shown before access.
    pub notice: Option<String>,
    /// The socket's own port, beside the shared one.
    pub listen: Option<SocketAddr>,
    /// Whether a person may sign in by a link in the terminal.
    pub links: bool,
    /// Whether a person may sign in with a certificate of the gateway's.
    pub certificates: bool,
    /// Where the socket leads.
    pub upstream: UpstreamSpec,
}

impl Socket {
    /// Into the built-in shell, as this user; everything else as where nothing is configured.
    pub fn into_shell(name: impl Into<String>, username: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            protocol: Protocol::Ssh,
            tags: BTreeMap::new(),
            record: true,
            on_failure: OnFailure::EndSession,
            record_files: RecordFiles::Metadata,
            notice: None,
            listen: None,
            links: true,
            certificates: true,
            upstream: UpstreamSpec::Shell { username: username.into() },
        }
    }

    /// The socket's stable id: UUIDv5 of its name.
    pub fn id(&self) -> Uuid {
        socket_id(&self.name)
    }
}

/// The id of the socket with this name, whether it exists or not.
pub fn socket_id(name: &str) -> Uuid {
    Uuid::new_v5(&SOCKET_NAMESPACE, name.as_bytes())
}

/// What is spoken to the client. More come with their issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// SSH (RFC 4251).
    Ssh,
}

impl Protocol {
    /// The row's `session_type`.
    pub fn session_type(self) -> &'static str {
        match self {
            Protocol::Ssh => "ssh",
        }
    }
}

/// What a recording that cannot be written does to its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The session ends (fail closed).
    #[default]
    EndSession,
    /// The session goes on; the gap is an entry in the recording and an event.
    Continue,
}

/// What is kept of files that are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordFiles {
    /// Which, how much, and their digest.
    #[default]
    Metadata,
    /// Their contents, too.
    Contents,
}

/// Where a socket leads and how the gateway logs in there. The user never sees these credentials.
#[derive(Debug)]
pub enum UpstreamSpec {
    /// An SSH server. Shared, because other sockets may lead through it.
    Ssh(Arc<SshUpstream>),
    /// A terminal on the gateway's own host, as the user who started the gateway. In `demo` only.
    Shell {
        /// That user's name.
        username: String,
    },
    /// A terminal on the gateway's own host, as another user of it.
    ShellAs {
        /// That user's name.
        username: String,
        /// Instead of that user's login shell.
        shell: Option<PathBuf>,
    },
}

/// An SSH server behind a socket.
#[derive(Debug)]
pub struct SshUpstream {
    /// Host name or address, and port.
    pub address: HostPort,
    /// The login there; left out: the login the user asked for, where policy allows it.
    pub username: Option<String>,
    /// How the gateway proves itself.
    pub credential: SshCredential,
    /// How the server proves itself.
    pub host_key: HostKeyCheck,
    /// The jump host that it is reached through; left out: directly.
    pub via: Option<JumpHost>,
}

/// Another socket's server, which leads on to this one by a forwarded connection (RFC 4254 section 7.2). A value that
/// holds its own way, so there are no loops.
#[derive(Clone, Debug)]
pub struct JumpHost {
    /// That socket's name.
    pub name: String,
    /// Its server, with its own login, credential and host key.
    pub server: Arc<SshUpstream>,
}

/// How the gateway logs in at an SSH server.
#[derive(Debug)]
pub enum SshCredential {
    /// A private key, in OpenSSH's form or PEM.
    PrivateKey {
        /// The file's text.
        key: SecretString,
        /// What it is encrypted with.
        passphrase: Option<SecretString>,
    },
    /// A password.
    Password(SecretString),
    /// A certificate of the gateway's own authority for upstreams, made for each session.
    Certificate,
}

/// How an SSH server is recognised.
#[derive(Clone, Debug)]
pub enum HostKeyCheck {
    /// One of these `SHA256:…` fingerprints.
    Fingerprints(Vec<String>),
    /// The entries for its address in an OpenSSH `known_hosts` file.
    KnownHosts(PathBuf),
    /// A host certificate by one of these authorities: public keys, as lines of OpenSSH's.
    Authorities(Vec<String>),
    /// Not at all, because the configuration says so in words.
    Unverified,
}

/// A host name or address and a port, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
