//! Algorithms, windows, keepalives and the host key of the SSH front.

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{Algorithm, LineEnding};
use russh::keys::{PrivateKey, decode_secret_key};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, compression, kex};

/// The receive window of a channel, and what a channel that lags is reduced to.
pub(super) const WINDOW: u32 = 2 << 20;
pub(super) const SMALL_WINDOW: u32 = 64 << 10;

/// Messages a channel may queue. Bytes are bounded by [`crate::session::Flow`], long before this.
const CHANNEL_MESSAGES: usize = 1 << 18;

/// The host key cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file cannot be read or written.
    #[error("the SSH host key: {0}")]
    Io(#[from] io::Error),
    /// The file holds no usable key.
    #[error("the SSH host key cannot be read: {0}")]
    Key(#[from] russh::keys::Error),
    /// A key could not be made.
    #[error("the SSH host key could not be made: {0}")]
    Made(#[from] russh::keys::ssh_key::Error),
}

/// russh's configuration: no compression, no SHA-1, strict key exchange, keepalives every 15 seconds, four missed end it.
pub fn server_config(host_key: PrivateKey) -> Config {
    let keys = Preferred::DEFAULT.key.iter().filter(|key| !matches!(key, Algorithm::Rsa { hash: None })).cloned();
    Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Gatescribe_", env!("CARGO_PKG_VERSION")))),
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
        auth_rejection_time: Duration::from_millis(300),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
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
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 4,
        nodelay: true,
        ..Config::default()
    }
}

/// russh's own list, with the names that switch strict key exchange on, but no finite field groups: their arithmetic
/// takes seconds of a runtime thread, before anybody has signed in.
fn key_exchanges() -> impl Iterator<Item = kex::Name> {
    Preferred::DEFAULT.kex.iter().filter(|name| !name.as_ref().starts_with("diffie-hellman")).copied()
}

/// Reads the host key (Ed25519) from `path`, or makes it there (0600) the first time.
pub fn host_key(path: &Path) -> Result<PrivateKey, HostKeyError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(decode_secret_key(&text, None)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_host_key(path),
        Err(error) => Err(error.into()),
    }
}

fn make_host_key(path: &Path) -> Result<PrivateKey, HostKeyError> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| io::Error::other("no randomness"))?;
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    let text = key.to_openssh(LineEnding::LF)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(key)
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
    fn the_host_key_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = host_key(&path).unwrap();
        assert_eq!(host_key(&path).unwrap().public_key(), made.public_key());
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "no key").unwrap();
        assert!(host_key(&path).is_err(), "a broken key is told, never replaced");
    }
}
