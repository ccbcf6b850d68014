//! Is it the server that the configuration means? Nothing is sent to one that is not.
//!
//! A key of a type that was not expected is as wrong as a changed key: a man in the middle may offer whichever type
//! the record does not hold. So the expected types are asked for first, and anything else is refused with both
//! fingerprints told.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{ChannelOpenHandle, Handler, Msg, Session};
use russh::keys::known_hosts::known_host_keys_path;
use russh::keys::ssh_key::{Algorithm, HashAlg, PublicKey};
use russh::keys::{PublicKeyOrCertificate, parse_public_key_base64};
use russh::{Channel, ChannelId, Preferred, compression};
use tokio::sync::mpsc;

use super::channel::Flows;
use super::opened::Waiting;
use crate::policy::Destination;
use crate::socket::{HostKeyCheck, SshUpstream};
use crate::upstream::{Opened, Opener};

/// What the server may prove itself with.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// One of these fingerprints.
    Fingerprints(Vec<String>),
    /// One of these keys, and none that the file revokes.
    Keys {
        /// The keys of the address.
        known: Vec<PublicKey>,
        /// Keys marked `@revoked`, for whatever address.
        revoked: Vec<PublicKey>,
    },
    /// Anything, because the configuration says so in words.
    Anything,
}

/// Why a key was refused, told across russh's own error.
#[derive(Clone, Default)]
pub(super) struct Verdict(Arc<Mutex<Option<String>>>);

/// The client handler: verifies the key, paces the loop.
pub(super) struct Verifier {
    expected: Expected,
    verdict: Verdict,
    flows: Flows,
    wanted: mpsc::Sender<Opened>,
}

/// Reads what is expected. The error is in words for the user.
pub(super) async fn expected(spec: &SshUpstream) -> Result<Expected, String> {
    match &spec.host_key {
        HostKeyCheck::Fingerprints(fingerprints) => Ok(Expected::Fingerprints(fingerprints.clone())),
        HostKeyCheck::Unverified => Ok(Expected::Anything),
        HostKeyCheck::KnownHosts(path) => {
            let (path, address) = (path.clone(), spec.address.clone());
            let read = move || {
                // Read here first: russh takes a file that cannot be read for an empty one.
                let text = std::fs::read_to_string(&path).ok()?;
                let known = known_host_keys_path(&address.host, address.port, path).ok()?;
                Some((known, revoked(&text)))
            };
            let Ok(Some((known, revoked))) = tokio::task::spawn_blocking(read).await else {
                return Err("the known_hosts file cannot be read; tell whoever runs the gateway".into());
            };
            if known.is_empty() {
                return Err("the server is not in the known_hosts file; tell whoever runs the gateway".into());
            }
            Ok(Expected::Keys { known: known.into_iter().map(|(_, key)| key).collect(), revoked })
        }
    }
}

/// Algorithms: the expected key types first, no SHA-1, no compression; the key exchange list keeps the names that
/// switch strict key exchange on.
pub(super) fn preferred(expected: &Expected) -> Preferred {
    let mut keys: Vec<Algorithm> =
        Preferred::DEFAULT.key.iter().filter(|key| !matches!(key, Algorithm::Rsa { hash: None })).cloned().collect();
    if let Expected::Keys { known, .. } = expected {
        keys.sort_by_key(|offered| !known.iter().any(|key| same_family(&key.algorithm(), offered)));
    }
    let kex = Preferred::DEFAULT.kex.iter().filter(|name| is_fast(name.as_ref())).copied().collect();
    Preferred { kex, key: Cow::Owned(keys), compression: Cow::Borrowed(&[compression::NONE]), ..Preferred::DEFAULT }
}

/// Of the finite field groups only the smallest that is still good (RFC 9142): the others, and the group exchange in
/// which the server names one, take seconds of a runtime thread.
fn is_fast(name: &str) -> bool {
    !name.starts_with("diffie-hellman") || name == "diffie-hellman-group14-sha256"
}

fn same_family(one: &Algorithm, other: &Algorithm) -> bool {
    matches!((one, other), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. })) || one == other
}

/// Keys marked `@revoked` (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): refused for every address.
fn revoked(known_hosts: &str) -> Vec<PublicKey> {
    let lines = known_hosts.lines().filter_map(|line| line.trim().strip_prefix("@revoked"));
    lines.filter_map(|line| parse_public_key_base64(line.split_ascii_whitespace().nth(2)?).ok()).collect()
}

impl Expected {
    fn refusal(&self, presented: &PublicKey) -> Option<String> {
        let shown = presented.fingerprint(HashAlg::Sha256).to_string();
        let known = match self {
            Expected::Anything => return None,
            Expected::Fingerprints(fingerprints) => fingerprints.clone(),
            Expected::Keys { known, revoked } => {
                let same = |key: &PublicKey| key.key_data() == presented.key_data();
                if revoked.iter().any(same) {
                    return Some(format!("the server's host key {shown} is revoked; tell whoever runs the gateway"));
                }
                if known.iter().any(same) {
                    return None;
                }
                known.iter().map(|key| key.fingerprint(HashAlg::Sha256).to_string()).collect()
            }
        };
        if known.contains(&shown) {
            return None;
        }
        Some(format!(
            "the server's host key is not the expected one: it presents {shown} ({}), expected was {}; somebody may be \
             in between; tell whoever runs the gateway",
            presented.algorithm(),
            known.join(" or "),
        ))
    }
}

impl Verdict {
    pub(super) fn refusal(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Verifier {
    pub(super) fn new(
        expected: Expected,
        verdict: Verdict,
        flows: Flows,
        wanted: mpsc::Sender<Opened>,
    ) -> Self {
        Self { expected, verdict, flows, wanted }
    }

    /// Puts a channel before whoever decides about it. Never waits, because the loop would: what finds no room is
    /// refused, by dropping the reply.
    fn wants(&self, by: Opener, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let _ = self.wanted.try_send(Opened::waiting(by, Waiting::new(channel, reply, self.flows.clone())));
    }
}

impl Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        // Host certificates are not asked for, so one that comes anyway is refused.
        let refusal = match presented {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.expected.refusal(key),
            PublicKeyOrCertificate::Certificate(_) => {
                Some("the server presents a host certificate, which it was not asked for".into())
            }
        };
        let fits = refusal.is_none();
        *self.verdict.0.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        Ok(fits)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.flows.arrived(channel, data.len()).await
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.flows.arrived(channel, data.len()).await
    }

    // What was lent to the server is looked up by the front; what it may never open is refused by dropping the reply.
    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Ok(port) = u16::try_from(port) {
            let at = Destination::Tcp { host: address.to_owned(), port };
            self.wants(Opener::Forward { at, from: (from.to_owned(), from_port) }, channel, reply);
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let at = Destination::Path(path.to_owned());
        self.wants(Opener::Forward { at, from: (String::new(), 0) }, channel, reply);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.wants(Opener::Agent, channel, reply);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.wants(Opener::X11 { from: (from.to_owned(), from_port) }, channel, reply);
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32])).public_key().clone()
    }

    #[test]
    fn only_an_expected_key_is_taken_and_both_fingerprints_are_told() {
        let (known, other) = (key(1), key(2));
        let fingerprint = |key: &PublicKey| key.fingerprint(HashAlg::Sha256).to_string();
        let by_key = Expected::Keys { known: vec![known.clone()], revoked: Vec::new() };
        let by_fingerprint = Expected::Fingerprints(vec![fingerprint(&known)]);
        for expected in [by_key, by_fingerprint] {
            assert_eq!(expected.refusal(&known), None);
            let refusal = expected.refusal(&other).unwrap();
            assert!(refusal.contains(&fingerprint(&known)) && refusal.contains(&fingerprint(&other)), "{refusal}");
        }
        assert_eq!(Expected::Anything.refusal(&other), None);
    }

    #[test]
    fn a_revoked_key_is_refused_although_it_is_known() {
        let text = format!("@revoked * {}\n", key(1).to_openssh().unwrap());
        let expected = Expected::Keys { known: vec![key(1)], revoked: revoked(&text) };
        assert!(expected.refusal(&key(1)).unwrap().contains("revoked"));
        assert!(revoked("# @revoked\n@revoked * ssh-ed25519 no-key\n").is_empty());
    }

    #[test]
    fn the_expected_types_of_key_are_asked_for_first_and_never_sha1() {
        let expected = Expected::Keys { known: vec![key(1)], revoked: Vec::new() };
        let offered = preferred(&expected);
        assert_eq!(offered.key.first(), Some(&Algorithm::Ed25519));
        assert!(!offered.key.contains(&Algorithm::Rsa { hash: None }));
        assert!(!offered.kex.iter().any(|name| name.as_ref().contains("group16")));
    }
}
