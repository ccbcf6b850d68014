//! The authority that opens upstreams: for each session a key that is nowhere but in memory, and a certificate for it that
//! says on whose behalf, so that the target's own log names the person.
//!
//! It is a key of its own, and must be: servers trust it to log in. Were it the one that certifies people's keys for
//! `gatescribe login`, everybody with such a certificate could walk past the gateway, its policy and its recording,
//! straight to every server that trusts the gateway. What this one signs never leaves the process. Knows no connection.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::{Certificate, PrivateKey};
use uuid::Uuid;

use super::ssh_ca::{SshCa, SshCaError, new_key, nonce, seconds};
use crate::files::write_atomically;

/// The key's name in `data_dir`; its public half has `.pub` behind it.
pub const FILE: &str = "ssh_upstream_ca";

/// How far a server's clock may be behind.
const BEFORE: SignedDuration = SignedDuration::from_secs(60);

/// How long after the dial it counts: it is asked for once, at the login, and a chain of jump hosts takes a while.
const AFTER: SignedDuration = SignedDuration::from_secs(300);

/// Bytes of a key id: it stands in one line of the server's log.
const LONGEST_KEY_ID: usize = 256;

/// What a server grants to who has such a certificate. What of it is used, the policy decides. Not among them:
/// `permit-user-rc`, which would run a file of the account's at every login.
const EXTENSIONS: [&str; 4] =
    ["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];

/// The authority.
#[derive(Debug)]
pub struct UpstreamCa {
    ca: SshCa,
    public: String,
}

/// On whose behalf an upstream is reached.
#[derive(Clone, Debug)]
pub struct OnBehalf {
    /// The person's e-mail address.
    pub email: String,
    /// The session's id.
    pub session: Uuid,
}

/// What one login is done with.
pub struct Credential {
    /// The key.
    pub key: Arc<PrivateKey>,
    /// Its certificate.
    pub certificate: Certificate,
}

impl UpstreamCa {
    /// Reads the key below `data_dir`, or makes it the first time; writes its public half beside it. Blocking.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, SshCaError> {
        let path = data_dir.join(FILE);
        let ca = SshCa::load_or_create(&path)?;
        let public = format!("{} gatescribe-upstream-ca\n", ca.public_key()?);
        let beside = path.with_extension("pub");
        if std::fs::read_to_string(&beside).ok().as_ref() != Some(&public) {
            let written = write_atomically(&beside, public.as_bytes(), 0o644);
            written.map_err(|source| SshCaError::File { path: beside, source })?;
        }
        Ok(Self { ca, public })
    }

    /// The public key: one line, as `TrustedUserCAKeys` of sshd_config(5) wants it in a file.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// A new key and its certificate, for one login.
    pub fn credential(&self, on_behalf: &OnBehalf, login: &str, now: Timestamp) -> Result<Credential, SshCaError> {
        let key = new_key()?;
        let from = now.checked_sub(BEFORE).unwrap_or(Timestamp::MIN);
        let until = now.checked_add(AFTER).unwrap_or(Timestamp::MAX);
        let mut certificate =
            Builder::new(nonce()?, key.public_key().key_data().clone(), seconds(from), seconds(until))?;
        certificate.cert_type(CertType::User)?.serial(on_behalf.serial())?;
        certificate.key_id(on_behalf.key_id())?.valid_principal(login)?;
        for extension in EXTENSIONS {
            certificate.extension(extension, "")?;
        }
        Ok(Credential { certificate: self.ca.sign(certificate)?, key: Arc::new(key) })
    }
}

impl OnBehalf {
    /// The session id's first 63 bits. Only to find it again: the whole id is in the key id.
    fn serial(&self) -> u64 {
        u64::try_from(self.session.as_u128() >> 65).unwrap_or_default()
    }

    /// `user=alice@example.com;session=<uuid>`. What somebody could forge a line or a field with stands as `%` and two
    /// hexadecimal digits for each byte; an address that is too long ends in `...`, so that the session is always there.
    fn key_id(&self) -> String {
        let (start, end) = ("user=", format!(";session={}", self.session));
        let room = LONGEST_KEY_ID - start.len() - end.len();
        // `whole` is where it can be cut: behind a character or an escape, with room for what stands for the rest.
        let (mut user, mut whole) = (String::new(), 0);
        for byte in self.email.bytes() {
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'@' | b'.' | b'-' | b'_' | b'+' => user.push(byte.into()),
                other => _ = write!(user, "%{other:02X}"),
            }
            if user.len() > room {
                user.truncate(whole);
                user.push_str(CUT);
                break;
            }
            if user.len() + CUT.len() <= room {
                whole = user.len();
            }
        }
        format!("{start}{user}{end}")
    }
}

/// What stands for the rest of an address.
const CUT: &str = "...";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SESSION: Uuid = Uuid::from_u128(0x019c_b0e8_3d4e_7abc_9def_0123_4567_89ab);

    fn alice(email: &str) -> OnBehalf {
        OnBehalf { email: email.into(), session: SESSION }
    }

    #[test]
    fn a_certificate_says_for_whom_and_for_which_login_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let ca = UpstreamCa::load_or_create(dir.path()).unwrap();
        let now: Timestamp = "2026-11-23T05:00:00Z".parse().unwrap();
        let Credential { key, certificate } = ca.credential(&alice("alice@example.com"), "deploy", now).unwrap();
        assert_eq!(certificate.public_key(), key.public_key().key_data());
        assert_eq!(certificate.cert_type(), CertType::User);
        assert_eq!(certificate.key_id(), format!("user=alice@example.com;session={SESSION}"));
        assert_eq!(certificate.serial(), 0x019c_b0e8_3d4e_7abc >> 1);
        assert_eq!(certificate.valid_principals(), ["deploy"]);
        assert_eq!(certificate.valid_after(), seconds(now) - 60);
        assert_eq!(certificate.valid_before(), seconds(now) + 300);
        assert!(certificate.critical_options().is_empty());
        let extensions: Vec<_> = certificate.extensions().iter().map(|(name, value)| (name.as_str(), value)).collect();
        assert_eq!(extensions.len(), EXTENSIONS.len());
        assert!(extensions.iter().zip(EXTENSIONS).all(|((name, value), ours)| *name == ours && value.is_empty()));
        assert!(certificate.verify_signature().is_ok());
        assert!(
            ca.public().contains(&ssh_key::PublicKey::from(certificate.signature_key().clone()).to_openssh().unwrap())
        );
        let again = ca.credential(&alice("alice@example.com"), "deploy", now).unwrap();
        assert_ne!(again.key.public_key(), key.public_key(), "every login has a key of its own");
    }

    #[test]
    fn the_key_stays_and_its_public_half_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = UpstreamCa::load_or_create(dir.path()).unwrap();
        let (key, public) = (dir.path().join(FILE), dir.path().join("ssh_upstream_ca.pub"));
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&public).unwrap(), first.public());
        assert_eq!(first.public().lines().count(), 1);
        std::fs::write(&public, "another").unwrap();
        assert_eq!(UpstreamCa::load_or_create(dir.path()).unwrap().public(), first.public());
        assert_eq!(std::fs::read_to_string(&public).unwrap(), first.public());
        assert!(!format!("{first:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_id_is_one_harmless_line_that_keeps_the_session() {
        let end = format!(";session={SESSION}");
        for (email, user) in [
            ("alice+x@example.com", "alice+x@example.com"),
            ("a;session=1", "a%3Bsession%3D1"),
            ("a\nAccepted publickey", "a%0AAccepted%20publickey"),
            ("a%0A", "a%250A"),
            ("é(\"", "%C3%A9%28%22"),
            ("", ""),
        ] {
            assert_eq!(alice(email).key_id(), format!("user={user}{end}"));
        }
        for (one, many) in [("x", 206), ("x", 207), ("x", 5000), ("é", 100), (";", 69), ("x;", 100)] {
            let id = alice(&one.repeat(many)).key_id();
            assert!(id.len() <= LONGEST_KEY_ID && id.ends_with(&end), "{id}");
            assert_eq!(id.contains("...;"), many > 206 || one != "x", "{id}");
            let escapes = id.split('%').skip(1);
            assert!(escapes.clone().all(|rest| u8::from_str_radix(&rest[..2], 16).is_ok()), "{id}");
        }
    }
}
