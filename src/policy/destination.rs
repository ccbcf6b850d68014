//! Where a forward leads or listens, as the client wrote it, and the patterns of rules that describe such places.
//!
//! A rule is about what was written: what a name resolves to is the business of whoever connects.

use std::fmt;

use super::action::shown;
use super::wildcard;

/// Where a forward leads (`-L`, `-D`, `-W`) or listens (`-R`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A TCP port.
    Tcp {
        /// Host name or address, an IPv6 address without brackets.
        host: String,
        /// The port; 0 where the listener may choose.
        port: u16,
    },
    /// A Unix domain socket.
    Path(String),
}

/// `host:port`, where `*` in the host stands for any run of characters and as the port for every port; or an absolute
/// path, where `*` stands for any run of characters too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationPattern {
    /// A TCP port.
    Tcp {
        /// In small letters.
        host: String,
        /// `None`: every port.
        port: Option<u16>,
    },
    /// A Unix domain socket.
    Path(String),
}

/// This is neither `host:port` nor an absolute path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no host:port")]
pub struct NoDestination;

impl Destination {
    /// `10.0.0.1:443`, `db.example.com:5432`, `[2001:db8::1]:443`, `/run/app.sock`.
    pub fn parse(text: &str) -> Result<Self, NoDestination> {
        if text.starts_with('/') {
            return Ok(Self::Path(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or(NoDestination)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match port.parse() {
            Ok(port) if !bare.is_empty() => Ok(Self::Tcp { host: bare.to_owned(), port }),
            _ => Err(NoDestination),
        }
    }

    /// The port; `None` of a path.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } => Some(*port),
            Self::Path(_) => None,
        }
    }

    /// The same place, where the listener chose this port.
    pub fn chosen(&self, chosen: u16) -> Self {
        match self {
            Self::Tcp { host, port: 0 } => Self::Tcp { host: host.clone(), port: chosen },
            fixed => fixed.clone(),
        }
    }
}

impl fmt::Display for Destination {
    /// Fit for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{}]:{port}", shown(host)),
            Self::Tcp { host, port } => write!(f, "{}:{port}", shown(host)),
            Self::Path(path) => f.write_str(&shown(path)),
        }
    }
}

impl DestinationPattern {
    /// `10.0.0.7:443`, `*.example.com:*`, `[2001:db8::1]:443`, `/run/app/*.sock`.
    pub fn parse(text: &str) -> Result<Self, NoDestination> {
        if text.starts_with('/') {
            return if is_plain(text) { Ok(Self::Path(text.to_owned())) } else { Err(NoDestination) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(NoDestination)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let port = match port {
            "*" => None,
            // `parse` would read a sign too.
            port if !port.bytes().all(|byte| byte.is_ascii_digit()) => return Err(NoDestination),
            port => Some(port.parse::<u16>().ok().filter(|port| *port != 0).ok_or(NoDestination)?),
        };
        let fits =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*' | '_') || bare.is_some() && c == ':';
        match !host.is_empty() && host.chars().all(fits) {
            true => Ok(Self::Tcp { host: host.to_ascii_lowercase(), port }),
            false => Err(NoDestination),
        }
    }

    /// Host names are compared without case. A path with `..` or `.` in it is none that a pattern describes, because it
    /// means another one.
    pub fn matches(&self, to: &Destination) -> bool {
        match (self, to) {
            (Self::Tcp { host: pattern, port: allowed }, Destination::Tcp { host, port }) => {
                allowed.is_none_or(|allowed| allowed == *port) && wildcard::matches(pattern, &host.to_ascii_lowercase())
            }
            (Self::Path(pattern), Destination::Path(path)) => is_plain(path) && wildcard::matches(pattern, path),
            _ => false,
        }
    }
}

/// Absolute, and without steps that go elsewhere.
fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|step| matches!(step, "." | ".."))
}
