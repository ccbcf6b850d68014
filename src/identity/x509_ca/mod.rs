//! The gateway's own certificate authority (ECDSA P-256), and the TLS settings of its listeners: by a certificate that
//! the authority issues, or by one that an administrator configured. Knows no listener and no protocol but ALPN.
//!
//! `client` issues and checks people's certificates.

mod client;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret, SecretString};

pub use self::client::{ClientCertificate, ClientRefused, CsrRefused};
use crate::files::write_atomically;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFETIME: Duration = DAY.saturating_mul(3652);
const LEAF_LIFETIME: Duration = DAY.saturating_mul(90);
/// A leaf with less left is issued anew.
const LEAF_RENEWAL: Duration = DAY.saturating_mul(30);
/// Certificates begin earlier than they are made: clients' clocks differ.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60 * 60);

/// Why there is no certificate to answer with.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the authority cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The authority's key is missing: a new one would lock out everybody who trusts the old one.
    #[error("{key} is missing beside {certificate}; restore it, or remove both to begin with a new authority")]
    NoCaKey {
        /// The file that is not there.
        key: PathBuf,
        /// The file that is.
        certificate: PathBuf,
    },
    /// A name for the certificate is neither an address nor a DNS name in ASCII.
    #[error("{0:?} is no name for a certificate")]
    Name(String),
    /// Making or reading a certificate failed.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The configured certificate's file holds no certificate, or something else.
    #[error("the configured certificate is not a PEM certificate: {0}")]
    NoCertificate(String),
    /// The configured key is no private key.
    #[error("the configured key is not a PEM private key without a passphrase")]
    NoKey,
    /// TLS does not accept them, as when the key belongs to another certificate.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The gateway's certificate authority, kept in two files.
#[derive(Debug)]
pub struct GatewayCa {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl GatewayCa {
    /// Reads `ca.pem` and `ca.key` in `dir`, which exists, or makes them, valid for ten years. The key's file has mode
    /// 0600 from its first byte.
    pub fn load_or_create(dir: &Path) -> Result<Self, CaError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        match (read(&certificate)?, read(&key)?) {
            (Some(pem), Some(key)) => {
                Self::from_pem(pem.expose_secret().to_owned(), KeyPair::from_pem(key.expose_secret())?)
            }
            (Some(_), None) => Err(CaError::NoCaKey { key, certificate }),
            // The gateway stopped between the two files. With the same key it stays the same authority.
            (None, Some(key)) => Self::create(&certificate, KeyPair::from_pem(key.expose_secret())?),
            (None, None) => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
                Self::create(&certificate, pair)
            }
        }
    }

    /// The authority's certificate: what clients must trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// TLS settings with a certificate for these names and addresses, which are DNS names (`*.` allowed) or addresses
    /// as text; `localhost` and the loopback addresses are added. It is issued anew while the gateway runs.
    pub fn server_config(self: &Arc<Self>, names: &[String]) -> Result<Arc<ServerConfig>, CaError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let names = with_loopback(names)?;
        let leaf = Leaf::issue(self, &names, &provider, SystemTime::now())?;
        let leaves = Leaves { ca: self.clone(), names, provider: provider.clone(), current: Mutex::new(leaf) };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(leaves));
        Ok(http(config))
    }

    fn create(certificate: &Path, pair: KeyPair) -> Result<Self, CaError> {
        let mut params = CertificateParams::default();
        let now = SystemTime::now();
        params.not_before = (now - CLOCK_DIFFERENCE).into();
        params.not_after = (now + CA_LIFETIME).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Gatescribe CA");
        let pem = params.self_signed(&pair)?.pem();
        write(certificate, pem.as_bytes(), 0o644)?;
        Self::from_pem(pem, pair)
    }

    fn from_pem(pem: String, pair: KeyPair) -> Result<Self, CaError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let certificate = certificate.map_err(|error| CaError::NoCertificate(error.to_string()))?;
        let key = PrivateKeyDer::try_from(pair.serialize_der()).map_err(|_| CaError::NoKey)?;
        // Refuses a key that belongs to another certificate; rcgen would sign with it all the same.
        CertifiedKey::from_der(vec![certificate], key, &aws_lc_rs::default_provider())?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, pair)?, pem })
    }
}

/// TLS settings with a configured certificate: the whole chain, leaf first, and its key.
pub fn server_config_from(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, CaError> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(http(config))
}

/// A certificate for the listeners, and when it must be replaced.
#[derive(Debug)]
struct Leaf {
    key: Arc<CertifiedKey>,
    renew: SystemTime,
}

/// The current leaf, issued anew by the handshake that finds it old.
#[derive(Debug)]
struct Leaves {
    ca: Arc<GatewayCa>,
    names: Vec<SanType>,
    provider: Arc<CryptoProvider>,
    current: Mutex<Leaf>,
}

impl Leaf {
    fn issue(ca: &GatewayCa, names: &[SanType], provider: &CryptoProvider, now: SystemTime) -> Result<Self, CaError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.not_before = (now - CLOCK_DIFFERENCE).into();
        params.not_after = (now + LEAF_LIFETIME).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, "Gatescribe");
        let certificate = params.signed_by(&pair, &ca.issuer)?;
        let key = PrivateKeyDer::try_from(pair.serialize_der()).map_err(|_| CaError::NoKey)?;
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], key, provider)?;
        Ok(Self { key: Arc::new(key), renew: now + LEAF_LIFETIME - LEAF_RENEWAL })
    }
}

impl Leaves {
    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= current.renew {
            match Leaf::issue(&self.ca, &self.names, &self.provider, now) {
                Ok(leaf) => *current = leaf,
                // The old one still has a month.
                Err(error) => tracing::error!(%error, "the listeners' certificate could not be issued anew"),
            }
        }
        current.key.clone()
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

fn http(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn with_loopback(names: &[String]) -> Result<Vec<SanType>, CaError> {
    let mut all: Vec<SanType> = vec![];
    for name in names.iter().map(String::as_str).chain(["localhost", "127.0.0.1", "::1"]) {
        let san = match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // A wildcard address is where we listen, not what anybody connects to.
            Ok(ip) if ip.is_unspecified() => continue,
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.try_into().map_err(|_| CaError::Name(name.to_owned()))?),
        };
        if !all.contains(&san) {
            all.push(san);
        }
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Option<SecretString>, CaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaError::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), CaError> {
    write_atomically(path, content, mode).map_err(|source| CaError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;

    fn ca() -> (tempfile::TempDir, Arc<GatewayCa>) {
        let dir = tempfile::tempdir().unwrap();
        let ca = GatewayCa::load_or_create(dir.path()).unwrap();
        (dir, Arc::new(ca))
    }

    /// A whole handshake in memory with a client that trusts this CA alone.
    fn handshake(ca: &str, config: Arc<ServerConfig>, name: &str) -> Result<Vec<u8>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(config)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = vec![];
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut bytes = vec![];
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(client.alpn_protocol().unwrap_or_default().to_vec())
    }

    #[test]
    fn clients_that_trust_it_reach_every_name_and_no_other() {
        let (_dir, ca) = ca();
        let names = ["access.example.com", "*.access.example.com", "0.0.0.0", "192.0.2.1"].map(str::to_owned);
        let config = ca.server_config(&names).unwrap();
        for name in ["access.example.com", "web.access.example.com", "localhost", "127.0.0.1", "::1", "192.0.2.1"] {
            assert_eq!(handshake(ca.pem(), config.clone(), name).unwrap(), b"http/1.1", "{name}");
        }
        for name in ["example.com", "a.b.access.example.com", "192.0.2.2"] {
            assert!(handshake(ca.pem(), config.clone(), name).is_err(), "{name}");
        }
        let (_dir, other) = self::ca();
        assert!(handshake(other.pem(), config, "localhost").is_err(), "another authority");
    }

    #[test]
    fn it_stays_the_same_over_restarts_and_keeps_its_key_private() {
        let (dir, first) = ca();
        let again = Arc::new(GatewayCa::load_or_create(dir.path()).unwrap());
        assert_eq!(first.pem(), again.pem());
        handshake(first.pem(), again.server_config(&[]).unwrap(), "localhost").unwrap();
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{again:?}").contains("PRIVATE"), "the key must not show in debug output");
    }

    #[test]
    fn a_lost_key_is_no_reason_for_a_new_authority() {
        let (dir, ca) = ca();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(GatewayCa::load_or_create(dir.path()), Err(CaError::NoCaKey { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("ca.pem")).unwrap(), ca.pem());
    }

    #[test]
    fn a_lost_certificate_is_made_again_from_the_key() {
        let (dir, before) = ca();
        fs::remove_file(dir.path().join("ca.pem")).unwrap();
        let after = Arc::new(GatewayCa::load_or_create(dir.path()).unwrap());
        handshake(before.pem(), after.server_config(&[]).unwrap(), "localhost").unwrap();
    }

    #[test]
    fn another_authoritys_key_is_refused() {
        let ((dir, _ca), (other, _)) = (ca(), ca());
        fs::copy(other.path().join("ca.key"), dir.path().join("ca.key")).unwrap();
        assert!(matches!(GatewayCa::load_or_create(dir.path()), Err(CaError::Tls(_))));
    }

    #[test]
    fn a_name_that_cannot_stand_in_a_certificate_is_told() {
        let (_dir, ca) = ca();
        assert!(matches!(ca.server_config(&["zugänge.example.com".into()]), Err(CaError::Name(_))));
    }

    #[test]
    fn a_leaf_is_issued_anew_in_its_last_month() {
        let (_dir, ca) = ca();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (names, now) = (with_loopback(&[]).unwrap(), SystemTime::now());
        let leaf = Leaf::issue(&ca, &names, &provider, now).unwrap();
        let leaves = Leaves { ca, names, provider, current: Mutex::new(leaf) };
        let first = leaves.at(now);
        assert_eq!(leaves.at(now + DAY * 59).cert, first.cert);
        let second = leaves.at(now + DAY * 61);
        assert_ne!(second.cert, first.cert);
        assert_eq!(leaves.at(now + DAY * 62).cert, second.cert);
    }

    #[test]
    fn a_configured_certificate_is_checked_with_its_key() {
        let made = rcgen::generate_simple_self_signed(["access.example.com".to_owned()]).unwrap();
        let (pem, own) = (made.cert.pem(), SecretString::from(made.signing_key.serialize_pem()));
        let chain = || CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = |pem: &SecretString| PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).unwrap();
        handshake(&pem, server_config_from(chain(), key(&own)).unwrap(), "access.example.com").unwrap();

        let other = SecretString::from(KeyPair::generate().unwrap().serialize_pem());
        assert!(matches!(server_config_from(chain(), key(&other)), Err(CaError::Tls(_))));
    }
}
