//! The gateway's SSH authorities: one vouches for people, the other for the gateway's own host key. A third, which opens
//! upstreams, is in `ssh_ca_upstream`.
//!
//! What is issued and what is accepted stand side by side here. russh checks that the client holds the certificate's key,
//! that some authority's signature fits, and the time; everything, these too, is [`SshCa::check_user`]'s. Whether a
//! certificate is in the book, revoked or over is asked in `sign_ins`. Knows no connection.
//!
//! The principal of a person's certificate is the person (the e-mail address), not a login: the SSH user name means
//! `[login@]socket` here, and which of those the person may have is the policy's business.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::Ed25519Keypair;
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, Certificate, HashAlg, LineEnding, PrivateKey, PublicKey};

use super::random::NoRandomness;
use crate::files::write_atomically;

/// A key or certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SshCaError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no usable key. It is not replaced: a new one would lock out everybody who trusts the old one.
    #[error(
        "{path} holds no usable key ({source}); restore it from the back-up, or remove it to make a new one (clients must \
         then trust it anew)"
    )]
    NoKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: ssh_key::Error,
    },
    /// A key or a certificate could not be made.
    #[error("{0}")]
    Key(#[from] ssh_key::Error),
    /// There were no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A public key that somebody wants a certificate for is none that the gateway certifies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// It cannot be read.
    #[error("the SSH public key cannot be read; send one line as it stands in id_ed25519.pub")]
    Unreadable,
    /// It is of a kind that is not certified.
    #[error("{0} keys get no certificate; make one with `ssh-keygen -t ed25519`")]
    Algorithm(String),
    /// It is an RSA key under 2048 bits.
    #[error("RSA keys under 2048 bits get no certificate; make one with `ssh-keygen -t ed25519`")]
    Short,
}

/// Why a certificate is not accepted. The words are for its owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefused {
    /// Another authority signed it.
    #[error("another authority signed it; get one with `gatescribe login`")]
    OtherAuthority,
    /// The signature is not the authority's.
    #[error("its signature is wrong; get another with `gatescribe login`")]
    Signature,
    /// It is a host's.
    #[error("it is not a user's certificate")]
    NotAUsers,
    /// Its time has not come.
    #[error("it counts only from {0} on; look at the clock of this machine")]
    NotYet(Timestamp),
    /// Its time is over.
    #[error("it has expired; sign in with `gatescribe login`")]
    Expired,
    /// It names nobody, which would mean everybody.
    #[error("it names no principal")]
    NoPrincipal,
    /// It names somebody else than the one whom it was issued to.
    #[error("it names another principal than the one who signed in")]
    OtherPrincipal,
    /// It demands something that the gateway does not know or not do.
    #[error("the gateway does not know its critical option {0:?}")]
    CriticalOption(String),
    /// It may be used from elsewhere only.
    #[error("it is not for use from {0}")]
    SourceAddress(IpAddr),
    /// Its key is none that the gateway certifies.
    #[error("its key is too weak")]
    Key,
    /// The book does not know its serial number with this key.
    #[error("the gateway did not issue it; get one with `gatescribe login`")]
    Unknown,
    /// Its sign-in was revoked.
    #[error("it was revoked; sign in with `gatescribe login`, or ask an administrator")]
    Revoked,
    /// The provider that vouched is not the one in force.
    #[error("another identity provider vouched for it; sign in with `gatescribe login`")]
    OtherProvider,
}

/// An authority: an Ed25519 key in a file.
pub struct SshCa {
    key: PrivateKey,
}

/// What a person's certificate says.
#[derive(Clone, Debug)]
pub struct UserCertificate<'a> {
    /// The person's key; [`certifiable`] made sure of it.
    pub key: &'a PublicKey,
    /// Random, positive, in the book.
    pub serial: i64,
    /// The e-mail address: key id and only principal.
    pub email: &'a str,
    /// From when on it counts, in whole seconds.
    pub from: Timestamp,
    /// From when on it counts no more, in whole seconds.
    pub until: Timestamp,
}

/// A certificate that this authority signed for a person, with all that it says looked at. It does not count before the
/// book was asked about its serial number, its key and its principals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedUser {
    /// The serial number, which the gateway makes positive.
    pub serial: i64,
    /// The `SHA256:…` fingerprint of the key in it.
    pub fingerprint: String,
    /// Whom it names; never empty.
    pub principals: Vec<String>,
    /// Whether it may have a terminal (`permit-pty`).
    pub terminal: bool,
}

impl SshCa {
    /// Reads the authority's key (Ed25519, OpenSSH format) from `path`, or makes it there (0600) the first time.
    pub fn load_or_create(path: &Path) -> Result<Self, SshCaError> {
        match std::fs::read_to_string(path) {
            Ok(text) => match PrivateKey::from_openssh(text) {
                Ok(key) => Ok(Self { key }),
                Err(source) => Err(SshCaError::NoKey { path: path.to_owned(), source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { key: create_key(path)? }),
            Err(source) => Err(SshCaError::File { path: path.to_owned(), source }),
        }
    }

    /// The authority's public key, as a line for `TrustedUserCAKeys` or after `@cert-authority`.
    pub fn public_key(&self) -> Result<String, SshCaError> {
        Ok(PublicKey::from(self.key.public_key().key_data().clone()).to_openssh()?)
    }

    /// A line of `known_hosts` that trusts this authority for hosts of these names, on any port.
    pub fn known_hosts(&self, names: &[String]) -> Result<String, SshCaError> {
        // OpenSSH looks for `[name]:port` where the port is not 22.
        let patterns: Vec<_> = names.iter().flat_map(|name| [name.clone(), format!("[{name}]:*")]).collect();
        Ok(format!("@cert-authority {} {}", patterns.join(","), self.public_key()?))
    }

    /// Such a line, with more names of hosts that it stands for.
    pub fn known_hosts_with(line: &str, names: impl Iterator<Item = String>) -> String {
        let more: String = names.flat_map(|name| [format!(",{name}"), format!(",[{name}]:*")]).collect();
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some(mark), Some(patterns), Some(key)) => format!("{mark} {patterns}{more} {key}"),
            _ => line.to_owned(),
        }
    }

    /// Certifies a person's key.
    pub fn certify_user(&self, about: &UserCertificate<'_>) -> Result<Certificate, SshCaError> {
        let (from, until) = (seconds(about.from), seconds(about.until));
        let mut certificate = Builder::new(nonce()?, about.key.key_data().clone(), from, until)?;
        certificate.cert_type(CertType::User)?.serial(about.serial.unsigned_abs())?;
        certificate.key_id(about.email)?.valid_principal(about.email)?;
        for extension in EXTENSIONS {
            certificate.extension(*extension, "")?;
        }
        Ok(certificate.sign(&self.key)?)
    }

    /// Certifies a host's key for these names; `*` in one stands for any run of characters.
    pub fn certify_host(
        &self,
        key: &PublicKey,
        names: &[String],
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Certificate, SshCaError> {
        let mut certificate = Builder::new(nonce()?, key.key_data().clone(), seconds(from), seconds(until))?;
        certificate.cert_type(CertType::Host)?.key_id("gatescribe")?;
        for name in names {
            certificate.valid_principal(name)?;
        }
        Ok(certificate.sign(&self.key)?)
    }

    /// Signs what a sibling authority has put together.
    pub(super) fn sign(&self, certificate: Builder) -> Result<Certificate, SshCaError> {
        Ok(certificate.sign(&self.key)?)
    }

    /// Looks at everything that a user certificate says. `from` is where the client is.
    pub fn check_user(
        &self,
        certificate: &Certificate,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<CheckedUser, CertificateRefused> {
        use CertificateRefused as R;
        // The key itself, not a fingerprint of it; then the signature by it, which ssh-key leaves to be asked for.
        if certificate.signature_key() != self.key.public_key().key_data() {
            return Err(R::OtherAuthority);
        }
        certificate.verify_signature().map_err(|_| R::Signature)?;
        if certificate.cert_type() != CertType::User {
            return Err(R::NotAUsers);
        }
        check_time(certificate, now)?;
        check_key(certificate.public_key()).map_err(|_| R::Key)?;
        if certificate.valid_principals().is_empty() {
            return Err(R::NoPrincipal);
        }
        for (name, value) in certificate.critical_options().iter() {
            match name.as_str() {
                "source-address" if is_from(value, from) => {}
                "source-address" => return Err(R::SourceAddress(from.to_canonical())),
                other => return Err(R::CriticalOption(other.chars().take(64).collect())),
            }
        }
        let serial = i64::try_from(certificate.serial()).ok().filter(|serial| *serial > 0).ok_or(R::Unknown)?;
        Ok(CheckedUser {
            serial,
            fingerprint: certificate.public_key().fingerprint(HashAlg::Sha256).to_string(),
            principals: certificate.valid_principals().to_vec(),
            terminal: certificate.extensions().contains_key("permit-pty"),
        })
    }
}

impl fmt::Debug for SshCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshCa").field("public_key", self.key.public_key()).finish_non_exhaustive()
    }
}

/// Why a private key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// It is encrypted, and there is no passphrase.
    #[error("the private key is encrypted, and there is no passphrase")]
    NoPassphrase,
    /// Another passphrase opens it.
    #[error("this passphrase does not open the private key")]
    WrongPassphrase,
}

/// A public key as one line, if it is one that the gateway certifies: Ed25519, ECDSA, or RSA from 2048 bits on.
pub fn certifiable(line: &str) -> Result<PublicKey, KeyRefused> {
    if line.len() > LONGEST_KEY {
        return Err(KeyRefused::Unreadable);
    }
    let key = PublicKey::from_openssh(line.trim()).map_err(|_| KeyRefused::Unreadable)?;
    check_key(key.key_data())?;
    Ok(key)
}

/// The public key of somebody else's authority as one line without comment, if it is of a kind that may vouch: Ed25519,
/// ECDSA, or RSA from 2048 bits on.
pub fn authority(line: &str) -> Result<String, KeyRefused> {
    let key = certifiable(line)?.key_data().clone();
    PublicKey::from(key).to_openssh().map_err(|_| KeyRefused::Unreadable)
}

/// Whether this private key can be used with this passphrase, or without one. Takes as long as the key's author wanted. Keys
/// in another form than OpenSSH's own are not looked into and count as good.
pub fn opens(key: &str, passphrase: Option<&str>) -> Result<(), Locked> {
    let Ok(key) = PrivateKey::from_openssh(key) else { return Ok(()) };
    match passphrase {
        _ if !key.is_encrypted() => Ok(()),
        None => Err(Locked::NoPassphrase),
        Some(passphrase) => key.decrypt(passphrase).map(drop).map_err(|_| Locked::WrongPassphrase),
    }
}

/// Makes an Ed25519 key in a file that only its owner can read, and that is there whole or not at all.
pub fn create_key(path: &Path) -> Result<PrivateKey, SshCaError> {
    let key = new_key()?;
    let text = key.to_openssh(LineEnding::LF)?;
    let written = write_atomically(path, text.as_bytes(), 0o600);
    written.map_err(|source| SshCaError::File { path: path.to_owned(), source })?;
    Ok(key)
}

/// Makes an Ed25519 key that is nowhere but here.
pub(super) fn new_key() -> Result<PrivateKey, NoRandomness> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| NoRandomness)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// Whether the gateway takes such a key seriously: see [`certifiable`].
pub fn check_key(key: &KeyData) -> Result<(), KeyRefused> {
    match (key.algorithm(), key.rsa()) {
        (Algorithm::Ed25519 | Algorithm::Ecdsa { .. }, _) => Ok(()),
        (_, Some(rsa)) if rsa.key_size() >= 2048 => Ok(()),
        (_, Some(_)) => Err(KeyRefused::Short),
        (other, None) => {
            Err(KeyRefused::Algorithm(other.as_str().chars().filter(char::is_ascii_graphic).take(64).collect()))
        }
    }
}

/// PROTOCOL.certkeys: valid after <= now < valid before.
fn check_time(certificate: &Certificate, now: Timestamp) -> Result<(), CertificateRefused> {
    let now = seconds(now);
    if now < certificate.valid_after() {
        let after = i64::try_from(certificate.valid_after()).ok().and_then(|at| Timestamp::from_second(at).ok());
        return Err(CertificateRefused::NotYet(after.unwrap_or(Timestamp::MAX)));
    }
    match now < certificate.valid_before() {
        true => Ok(()),
        false => Err(CertificateRefused::Expired),
    }
}

/// `source-address`: a list of addresses and networks (PROTOCOL.certkeys). What cannot be read holds nobody.
fn is_from(list: &str, from: IpAddr) -> bool {
    let from = from.to_canonical();
    list.split(',').map(str::trim).any(|entry| match (entry.parse::<IpNet>(), entry.parse::<IpAddr>()) {
        (Ok(network), _) => network.contains(&from),
        (_, Ok(address)) => address.to_canonical() == from,
        _ => false,
    })
}

/// Seconds since the epoch; times before it are none that a certificate can have.
pub(super) fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or_default()
}

pub(super) fn nonce() -> Result<Vec<u8>, NoRandomness> {
    let mut nonce = vec![0; 32];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| NoRandomness)?;
    Ok(nonce)
}

/// What a certificate permits, in the order that the format demands. The policy decides about all of it; without
/// `permit-pty` there is no terminal, whatever the policy says.
const EXTENSIONS: &[&str] = &["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];
/// An RSA key of 16384 bits in base64, with a comment.
const LONGEST_KEY: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::SignedDuration;

    use super::*;

    const HERE: &str = "192.0.2.7";

    struct Made {
        ca: SshCa,
        person: PrivateKey,
        now: Timestamp,
        _dir: tempfile::TempDir,
    }

    fn made() -> Made {
        let dir = tempfile::tempdir().unwrap();
        let ca = SshCa::load_or_create(&dir.path().join("ca")).unwrap();
        let person = create_key(&dir.path().join("person")).unwrap();
        Made { ca, person, now: Timestamp::now(), _dir: dir }
    }

    impl Made {
        fn check(&self, certificate: &Certificate) -> Result<CheckedUser, CertificateRefused> {
            self.ca.check_user(certificate, HERE.parse().unwrap(), self.now)
        }

        /// A good certificate but for what `change` does to it.
        fn with(&self, change: impl FnOnce(&mut Builder)) -> Certificate {
            let now = seconds(self.now);
            let mut builder = Builder::new(vec![7; 32], self.person.public_key(), now - 60, now + 60).unwrap();
            change(&mut builder);
            builder.sign(&self.ca.key).unwrap()
        }

        fn named(&self, change: impl FnOnce(&mut Builder)) -> Certificate {
            self.with(|builder| {
                builder.cert_type(CertType::User).unwrap().serial(5).unwrap();
                builder.valid_principal("alice@example.com").unwrap();
                change(builder);
            })
        }
    }

    #[test]
    fn a_file_without_a_key_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ssh_host_ca");
        for bad in ["", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl"] {
            std::fs::write(&path, bad).unwrap();
            let words = SshCa::load_or_create(&path).err().unwrap().to_string();
            assert!(words.starts_with(&path.display().to_string()) && words.contains("restore it"), "{words}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let words = SshCa::load_or_create(&path).err().unwrap().to_string();
        assert!(words.starts_with(&path.display().to_string()), "{words}");
    }

    #[test]
    fn what_is_issued_is_accepted_and_says_what_it_should() {
        let made = made();
        let (from, until) = (made.now - SignedDuration::from_secs(60), made.now + SignedDuration::from_hours(1));
        let key = made.person.public_key();
        let about = UserCertificate { key, serial: i64::MAX, email: "alice@example.com", from, until };
        let certificate = made.ca.certify_user(&about).unwrap();
        assert_eq!(certificate.key_id(), "alice@example.com");
        assert_eq!(certificate.valid_after(), seconds(from));
        assert_eq!(certificate.valid_before(), seconds(until));
        assert_ne!(certificate.nonce(), made.ca.certify_user(&about).unwrap().nonce());
        let checked = made.check(&certificate).unwrap();
        assert_eq!((checked.serial, checked.terminal), (i64::MAX, true));
        assert_eq!(checked.principals, ["alice@example.com"]);
        assert_eq!(checked.fingerprint, key.fingerprint(HashAlg::Sha256).to_string());
        // As it travels.
        let again = Certificate::from_openssh(&certificate.to_openssh().unwrap()).unwrap();
        assert!(made.check(&again).is_ok());
    }

    #[test]
    fn everything_that_a_certificate_says_is_looked_at() {
        use CertificateRefused as R;
        let made = made();
        assert!(made.check(&made.named(|_| {})).is_ok());
        assert!(!made.check(&made.named(|_| {})).unwrap().terminal, "no permit-pty");
        let option = |name: &'static str, value: &'static str| {
            made.check(&made.named(|builder| _ = builder.critical_option(name, value).unwrap()))
        };
        for good in ["192.0.2.7", "10.0.0.0/8,192.0.2.0/24", " 192.0.2.7 ", "::/0,0.0.0.0/0"] {
            assert!(option("source-address", good).is_ok(), "{good}");
        }
        for bad in ["", "192.0.2.8", "10.0.0.0/8", "192.0.2.7/33", "*", "::/0", "!192.0.2.7"] {
            assert_eq!(option("source-address", bad), Err(R::SourceAddress(HERE.parse().unwrap())), "{bad}");
        }
        for unknown in ["force-command", "verify-required", "Source-Address", "x"] {
            assert_eq!(option(unknown, "true"), Err(R::CriticalOption(unknown.into())));
        }
        let host = made.with(|builder| {
            builder.cert_type(CertType::Host).unwrap().serial(5).unwrap();
            builder.valid_principal("alice@example.com").unwrap();
        });
        assert_eq!(made.check(&host), Err(R::NotAUsers));
        let everybody = made.with(|builder| {
            builder.cert_type(CertType::User).unwrap().serial(5).unwrap();
            builder.all_principals_valid().unwrap();
        });
        assert_eq!(made.check(&everybody), Err(R::NoPrincipal));
        for serial in [0, 1 << 63, u64::MAX] {
            let certificate = made.with(|builder| {
                builder.cert_type(CertType::User).unwrap().serial(serial).unwrap();
                builder.valid_principal("alice@example.com").unwrap();
            });
            assert_eq!(made.check(&certificate), Err(R::Unknown), "{serial}");
        }
    }

    #[test]
    fn time_counts_from_its_first_second_to_before_its_last() {
        let made = made();
        let certificate = made.named(|_| {});
        let at = |seconds: i64| {
            let now = made.now + SignedDuration::from_secs(seconds);
            made.ca.check_user(&certificate, HERE.parse().unwrap(), now).err()
        };
        assert!(matches!(at(-61), Some(CertificateRefused::NotYet(_))));
        assert_eq!([at(-60), at(59)], [None, None]);
        assert_eq!(at(60), Some(CertificateRefused::Expired));
    }

    #[test]
    fn another_authority_and_a_changed_certificate_are_refused() {
        let (mine, other) = (made(), made());
        assert_eq!(other.check(&mine.named(|_| {})), Err(CertificateRefused::OtherAuthority));
        // Every bit of it that can be read at all is covered by the signature.
        let good = mine.named(|_| {}).to_bytes().unwrap();
        let mut wrong = 0;
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            if let Ok(changed) = Certificate::from_bytes(&bytes) {
                assert!(mine.check(&changed).is_err(), "byte {at}");
                wrong += 1;
            }
        }
        assert!(wrong > 100, "{wrong}");
        // Self-signed: the person's own key as the authority.
        let now = seconds(mine.now);
        let mut own = Builder::new(vec![7; 32], mine.person.public_key(), now - 60, now + 60).unwrap();
        own.cert_type(CertType::User).unwrap().serial(5).unwrap().valid_principal("alice@example.com").unwrap();
        assert_eq!(mine.check(&own.sign(&mine.person).unwrap()), Err(CertificateRefused::OtherAuthority));
    }

    #[test]
    fn the_authority_stays_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca");
        let first = SshCa::load_or_create(&path).unwrap();
        assert_eq!(SshCa::load_or_create(&path).unwrap().public_key().unwrap(), first.public_key().unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains("PRIVATE"));
        std::fs::write(&path, "no key").unwrap();
        assert!(SshCa::load_or_create(&path).is_err(), "a broken key is told, never replaced");
    }

    #[test]
    fn a_line_of_known_hosts_names_every_host_on_every_port() {
        let made = made();
        let line = made.ca.known_hosts(&["access.example.com".into(), "*.access.example.com".into()]).unwrap();
        let start = "@cert-authority access.example.com,[access.example.com]:*,*.access.example.com,[*.access.example.com]:* ssh-ed25519 AAAA";
        assert!(line.starts_with(start), "{line}");
        assert_eq!(line.split(' ').count(), 4, "no comment: {line}");
    }

    #[test]
    fn a_line_of_known_hosts_takes_more_names() {
        let line = "@cert-authority a.example.com,[a.example.com]:* ssh-ed25519 AAAA";
        let more = SshCa::known_hosts_with(line, ["web".to_owned()].into_iter());
        assert_eq!(more, "@cert-authority a.example.com,[a.example.com]:*,web,[web]:* ssh-ed25519 AAAA");
        assert_eq!(SshCa::known_hosts_with("", ["web".to_owned()].into_iter()), "");
    }

    #[test]
    fn only_one_line_with_a_key_is_certifiable() {
        let line = made().person.public_key().to_openssh().unwrap();
        assert!(certifiable(&line).is_ok());
        assert!(certifiable(&format!("{line} a comment\n")).is_ok());
        let certificate = made().named(|_| {}).to_openssh().unwrap();
        let (cut, long) = (&line[..line.len() - 5], format!("{line} {}", "x".repeat(LONGEST_KEY)));
        for bad in ["", "ssh-ed25519", cut, &long, &certificate, "-----BEGIN OPENSSH PRIVATE KEY-----"] {
            assert!(certifiable(bad).is_err() && authority(bad).is_err(), "{bad}");
        }
        assert_eq!(authority(&format!("{line} a comment\n")), Ok(line));
    }
}
