//! Is it the server that the configuration means? Nothing is sent to one that is not.
//!
//! A key of a type that was not expected is as wrong as a changed key: a man in the middle may offer whichever type
//! the record does not hold. So the expected types are asked for first, and anything else is refused with both
//! fingerprints told.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use russh::client::{ChannelOpenHandle, Handler, Msg, Session};
use russh::keys::ssh_key::{Algorithm, HashAlg, PublicKey};
use russh::keys::{Certificate, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, Names, Preferred, compression};

use super::channel::Flows;
use super::host_certificate::{self, Refused};
use super::known_hosts::{self, Listed};
use super::opened::{Door, Waiting};
use crate::identity::ssh_ca;
use crate::policy::Destination;
use crate::socket::{HostKeyCheck, SshUpstream};
use crate::upstream::Opener;

/// What the server may prove itself with.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// One of these fingerprints.
    Fingerprints(Vec<String>),
    /// One of these keys, or a certificate by one of these authorities, and nothing that is revoked.
    Listed(Listed),
    /// Anything, because the configuration says so in words.
    Anything,
}

/// What the handshake found out: told beside russh's own result.
#[derive(Clone, Default)]
pub(super) struct Verdict(Arc<Mutex<Findings>>);

#[derive(Default)]
struct Findings {
    /// Why a key was refused.
    refusal: Option<String>,
    /// The server's identification string.
    version: Vec<u8>,
}

/// The client handler: verifies the key, paces the loop.
pub(super) struct Verifier {
    expected: Expected,
    verdict: Verdict,
    flows: Flows,
    door: Door,
}

/// Reads what is expected. The error is in words for the user.
pub(super) async fn expected(spec: &SshUpstream) -> Result<Expected, String> {
    match &spec.host_key {
        HostKeyCheck::Fingerprints(fingerprints) => Ok(Expected::Fingerprints(fingerprints.clone())),
        HostKeyCheck::Unverified => Ok(Expected::Anything),
        HostKeyCheck::KnownHosts(path) => {
            let (path, address) = (path.clone(), spec.address.clone());
            let read = tokio::task::spawn_blocking(move || known_hosts::read(&path, &address)).await;
            let Ok(Some(listed)) = read else {
                return Err("the known_hosts file cannot be read; tell whoever runs the gateway".into());
            };
            if listed.keys.is_empty() && listed.authorities.is_empty() {
                return Err("the server is not in the known_hosts file; tell whoever runs the gateway".into());
            }
            Ok(Expected::Listed(listed))
        }
        HostKeyCheck::Authorities(lines) => {
            let authorities: Result<Vec<_>, _> = lines.iter().map(|line| ssh_ca::certifiable(line)).collect();
            let authorities =
                authorities.map_err(|_| "the key of `host_ca` cannot be read; tell whoever runs the gateway")?;
            Ok(Expected::Listed(Listed { host: spec.address.host.clone(), authorities, ..Listed::default() }))
        }
    }
}

/// Algorithms: certificates first where an authority is known, then the expected key types, no SHA-1, no compression; the
/// key exchange list keeps the names that switch strict key exchange on. Plain keys are asked for where a certificate
/// must come too, so that a server without one is told apart from what does not speak SSH.
pub(super) fn preferred(expected: &Expected) -> Preferred {
    let mut keys: Vec<Algorithm> =
        Preferred::DEFAULT.key.iter().filter(|key| !matches!(key, Algorithm::Rsa { hash: None })).cloned().collect();
    let mut certificates = Vec::new();
    if let Expected::Listed(listed) = expected {
        if !listed.authorities.is_empty() {
            certificates.clone_from(&keys);
        }
        keys.sort_by_key(|offered| !listed.keys.iter().any(|key| same_family(&key.algorithm(), offered)));
    }
    let kex = Preferred::DEFAULT.kex.iter().filter(|name| is_fast(name.as_ref())).copied().collect();
    Preferred {
        kex,
        key: Cow::Owned(keys),
        host_key_certificates: Cow::Owned(certificates),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    }
}

/// Of the finite field groups only the smallest that is still good (RFC 9142): the others, and the group exchange in
/// which the server names one, take seconds of a runtime thread.
fn is_fast(name: &str) -> bool {
    !name.starts_with("diffie-hellman") || name == "diffie-hellman-group14-sha256"
}

fn same_family(one: &Algorithm, other: &Algorithm) -> bool {
    matches!((one, other), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. })) || one == other
}

impl Expected {
    /// Why a plain key is refused.
    fn refusal(&self, presented: &PublicKey) -> Option<String> {
        let shown = print(presented);
        let known = match self {
            Expected::Anything => return None,
            Expected::Fingerprints(fingerprints) => fingerprints.clone(),
            Expected::Listed(listed) => {
                let same = |key: &PublicKey| key.key_data() == presented.key_data();
                if listed.revoked.iter().any(same) {
                    return Some(format!("the server's host key {shown} is revoked; tell whoever runs the gateway"));
                }
                if listed.keys.iter().any(same) {
                    return None;
                }
                if listed.keys.is_empty() {
                    let authorities: Vec<_> = listed.authorities.iter().map(print).collect();
                    return Some(format!(
                        "the server presents no host certificate but the key {shown}, expected was one by the authority \
                         {}; tell whoever runs the server",
                        authorities.join(" or ")
                    ));
                }
                listed.keys.iter().map(print).collect()
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

    /// Why a certificate is refused. One that is no good still holds a key, which may be known for itself, as in OpenSSH: its
    /// owner has proved to have it.
    fn refusal_of_certificate(&self, presented: &Certificate, now: Timestamp) -> Option<String> {
        let Expected::Listed(listed) = self else {
            return Some("the server presents a host certificate, which it was not asked for".into());
        };
        let Listed { host, authorities, revoked, .. } = listed;
        let why = host_certificate::check(presented, authorities, revoked, host, now).err()?;
        let key = PublicKey::from(presented.public_key().clone());
        if why != Refused::Revoked && !listed.keys.is_empty() && self.refusal(&key).is_none() {
            return None;
        }
        Some(format!(
            "the server's host certificate is not good: {why}; somebody may be in between; tell whoever runs it"
        ))
    }
}

fn print(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

impl Verdict {
    pub(super) fn refusal(&self) -> Option<String> {
        self.findings().refusal.clone()
    }

    pub(super) fn version(&self) -> Vec<u8> {
        self.findings().version.clone()
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verifier {
    pub(super) fn new(expected: Expected, verdict: Verdict, flows: Flows, door: Door) -> Self {
        Self { expected, verdict, flows, door }
    }

    /// Puts a channel before whoever decides about it.
    fn wants(&self, by: Opener, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        self.door.knock(by, Waiting::new(channel, reply, self.flows.clone()));
    }
}

impl Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let refusal = match presented {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.expected.refusal(key),
            PublicKeyOrCertificate::Certificate(certificate) => {
                self.expected.refusal_of_certificate(certificate, Timestamp::now())
            }
        };
        let fits = refusal.is_none();
        self.verdict.findings().refusal = refusal;
        Ok(fits)
    }

    async fn kex_done(&mut self, _: Option<&[u8]>, _: &Names, session: &mut Session) -> Result<(), Self::Error> {
        self.verdict.findings().version = session.remote_sshid().to_vec();
        Ok(())
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
    use russh::keys::ssh_key::certificate::{Builder, CertType};
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32])).public_key().clone()
    }

    fn listed(keys: &[u8], authorities: &[u8], revoked: &[u8]) -> Expected {
        let all = |seeds: &[u8]| seeds.iter().map(|seed| key(*seed)).collect();
        Expected::Listed(Listed {
            host: "web".into(),
            keys: all(keys),
            authorities: all(authorities),
            revoked: all(revoked),
        })
    }

    #[test]
    fn only_an_expected_key_is_taken_and_both_fingerprints_are_told() {
        let (known, other) = (key(1), key(2));
        for expected in [listed(&[1], &[], &[]), Expected::Fingerprints(vec![print(&known)])] {
            assert_eq!(expected.refusal(&known), None);
            let refusal = expected.refusal(&other).unwrap();
            assert!(refusal.contains(&print(&known)) && refusal.contains(&print(&other)), "{refusal}");
        }
        assert_eq!(Expected::Anything.refusal(&other), None);
    }

    #[test]
    fn a_revoked_key_is_refused_although_it_is_known() {
        assert!(listed(&[1], &[], &[1]).refusal(&key(1)).unwrap().contains("revoked"));
        for revoked in [1, 9] {
            let refusal = listed(&[1], &[9], &[revoked]).refusal_of_certificate(&certificate("web", 9), now());
            assert!(refusal.unwrap().contains("revoked"));
        }
    }

    #[test]
    fn a_certificate_counts_where_an_authority_is_expected_and_a_plain_key_then_does_not() {
        let by_authority = listed(&[], &[9], &[]);
        assert_eq!(by_authority.refusal_of_certificate(&certificate("web", 9), now()), None);
        for bad in [certificate("other", 9), certificate("web", 8)] {
            assert!(by_authority.refusal_of_certificate(&bad, now()).unwrap().contains("not good"));
            // Known for itself, without anybody's word.
            assert_eq!(listed(&[1], &[9], &[]).refusal_of_certificate(&bad, now()), None);
            assert!(listed(&[2], &[9], &[]).refusal_of_certificate(&bad, now()).is_some());
        }
        let words = by_authority.refusal(&key(1)).unwrap();
        assert!(words.contains("no host certificate") && words.contains(&print(&key(9))), "{words}");
        for nobody in [Expected::Anything, Expected::Fingerprints(vec![print(&key(1))])] {
            assert!(nobody.refusal_of_certificate(&certificate("web", 9), now()).is_some());
        }
    }

    #[test]
    fn the_expected_types_of_key_are_asked_for_first_and_never_sha1() {
        let offered = preferred(&listed(&[1], &[], &[]));
        assert_eq!(offered.key.first(), Some(&Algorithm::Ed25519));
        assert!(!offered.key.contains(&Algorithm::Rsa { hash: None }));
        assert!(!offered.kex.iter().any(|name| name.as_ref().contains("group16")));
        assert!(offered.host_key_certificates.is_empty());
        let offered = preferred(&listed(&[], &[1], &[]));
        assert!(!offered.host_key_certificates.is_empty() && !offered.key.is_empty());
        assert!(!offered.host_key_certificates.contains(&Algorithm::Rsa { hash: None }));
    }

    fn now() -> Timestamp {
        Timestamp::from_second(100).unwrap()
    }

    /// For key 1, by this authority.
    fn certificate(host: &str, authority: u8) -> Certificate {
        let mut builder = Builder::new(vec![7; 32], key(1), 50, 150).unwrap();
        builder.cert_type(CertType::Host).unwrap().valid_principal(host).unwrap();
        builder.sign(&PrivateKey::from(Ed25519Keypair::from_seed(&[authority; 32]))).unwrap()
    }
}
