//! Algorithms, windows and the host key of the SSH front.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use russh::keys::ssh_key::Algorithm;
use russh::keys::{PrivateKey, decode_secret_key};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, compression, kex};

use crate::identity::ssh_ca::{SshCa, SshCaError, create_key};

/// The receive window of a channel, and what a channel that lags is reduced to.
pub(super) const WINDOW: u32 = 2 << 20;
pub(super) const SMALL_WINDOW: u32 = 64 << 10;

/// Messages a channel may queue. Bytes are bounded by [`crate::session::Flow`], long before this.
const CHANNEL_MESSAGES: usize = 1 << 18;

/// The longest label of a name (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// The host key's certificate begins earlier than it is made, because clocks differ, and outlives the process: a start
/// makes another.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_hours(1);
const CERTIFIED_FOR: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// The gateway's host key and the authority that vouches for it.
pub struct HostKey {
    key: PrivateKey,
    ca: SshCa,
    domain: String,
}

impl HostKey {
    /// `domain` is where the sockets' own names are: `<socket>.<domain>`.
    pub fn new(key: PrivateKey, ca: SshCa, domain: String) -> Self {
        Self { key, ca, domain }
    }

    /// The name of the socket that the client means by this host: `SOCKET` or `SOCKET.DOMAIN`.
    pub(super) fn socket_of<'a>(&self, host: &'a str) -> &'a str {
        let label = host.strip_suffix(self.domain.as_str()).and_then(|label| label.strip_suffix('.'));
        label.filter(|label| !label.is_empty()).unwrap_or(host)
    }

    /// For the connections that lead to this socket through the gateway: the key is certified for its names, written out,
    /// because OpenSSH before 10.3 takes no pattern in a certificate. Where there is no such socket, for the name in the
    /// gateway's own domain alone, so that the client comes as far as the words that say so. `None`: this is no name.
    pub(super) fn config_of(&self, socket: &str, exists: bool) -> Result<Option<Config>, HostKeyError> {
        let is_label_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=LONGEST_LABEL).contains(&socket.len()) || !socket.bytes().all(is_label_byte) {
            return Ok(None);
        }
        let alone = exists.then(|| socket.to_owned());
        let names: Vec<String> = alone.into_iter().chain([format!("{socket}.{}", self.domain)]).collect();
        server_config(self.key.clone(), &self.ca, &names).map(Some)
    }

    /// For all others.
    pub fn config(&self, names: &[String]) -> Result<Config, HostKeyError> {
        server_config(self.key.clone(), &self.ca, names)
    }
}

/// The host key cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file cannot be read.
    #[error("the SSH host key {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no usable key. It is not replaced, because clients know it.
    #[error(
        "the SSH host key {path} cannot be used ({source}); restore it from the back-up, or remove it to make a new one \
         (clients must then trust it anew)"
    )]
    NoKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: russh::keys::Error,
    },
    /// A key or its certificate could not be made.
    #[error("the SSH host key could not be made: {0}")]
    Made(#[from] SshCaError),
}

/// russh's configuration: no compression, no SHA-1, strict key exchange. No keepalives of SSH's own: russh sends them during
/// authentication too, where OpenSSH takes a global request for an error, and people take their time over digits and
/// passphrases. TCP's do the work.
///
/// The host key is certified by `ca` for these names, for clients that trust it (`@cert-authority`); others see the key.
fn server_config(host_key: PrivateKey, ca: &SshCa, names: &[String]) -> Result<Config, HostKeyError> {
    let keys = Preferred::DEFAULT.key.iter().filter(|key| !matches!(key, Algorithm::Rsa { hash: None })).cloned();
    let now = Timestamp::now();
    let (from, until) = (now - CLOCK_DIFFERENCE, now + CERTIFIED_FOR);
    let certificate = ca.certify_host(host_key.public_key(), names, from, until)?;
    Ok(Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Gatescribe_", env!("CARGO_PKG_VERSION")))),
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
        auth_rejection_time: Duration::from_millis(300),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        certificates: vec![certificate],
        window_size: WINDOW,
        channel_buffer_size: CHANNEL_MESSAGES,
        event_buffer_size: 64,
        preferred: Preferred {
            kex: key_exchanges().collect(),
            key: keys.collect(),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        inactivity_timeout: None,
        keepalive_interval: None,
        nodelay: true,
        ..Config::default()
    })
}

/// russh's own list, with the names that switch strict key exchange on, but no finite field groups: their arithmetic
/// takes seconds of a runtime thread, before anybody has signed in.
fn key_exchanges() -> impl Iterator<Item = kex::Name> {
    Preferred::DEFAULT.kex.iter().filter(|name| !name.as_ref().starts_with("diffie-hellman")).copied()
}

/// Reads the host key (Ed25519) from `path`, or makes it there (0600) the first time.
pub fn host_key(path: &Path) -> Result<PrivateKey, HostKeyError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            decode_secret_key(&text, None).map_err(|source| HostKeyError::NoKey { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(create_key(path)?),
        Err(source) => Err(HostKeyError::File { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_exchange_is_fast_and_strict() {
        let offered: Vec<kex::Name> = key_exchanges().collect();
        assert!(offered.contains(&kex::CURVE25519) && offered.contains(&kex::MLKEM768X25519_SHA256));
        assert!(offered.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER));
        assert!(!offered.contains(&kex::DH_G14_SHA256) && !offered.contains(&kex::DH_GEX_SHA256));
    }

    #[test]
    fn a_host_behind_the_gateway_is_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let ca = SshCa::load_or_create(&directory.path().join("ca")).unwrap();
        let key = host_key(&directory.path().join("key")).unwrap();
        let host = HostKey::new(key, ca, "access.example.com".into());
        let table = [
            ("web", "web"),
            ("web.access.example.com", "web"),
            ("web.example.com", "web.example.com"),
            ("access.example.com", "access.example.com"),
            (".access.example.com", ".access.example.com"),
            ("webaccess.example.com", "webaccess.example.com"),
        ];
        for (host_name, socket) in table {
            assert_eq!(host.socket_of(host_name), socket);
        }
        let names = |socket, exists| {
            let config = host.config_of(socket, exists).unwrap();
            config.map(|config| config.certificates[0].valid_principals().to_vec())
        };
        assert_eq!(names("web", true), Some(vec!["web".into(), "web.access.example.com".into()]));
        assert_eq!(names("nix", false), Some(vec!["nix.access.example.com".into()]));
        assert_eq!([names("", false), names("a.b", false), names("*", false)], [None, None, None]);
    }

    #[test]
    fn the_host_key_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = host_key(&path).unwrap();
        assert_eq!(host_key(&path).unwrap().public_key(), made.public_key());
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        for broken in ["no key", ""] {
            std::fs::write(&path, broken).unwrap();
            let words = host_key(&path).unwrap_err().to_string();
            assert!(words.contains(&path.display().to_string()) && words.contains("restore it"), "{words}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), broken, "a broken key is told, never replaced");
        }
    }
}
