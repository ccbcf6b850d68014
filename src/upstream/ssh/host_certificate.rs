//! Is it a good host certificate (PROTOCOL.certkeys)? Pure.
//!
//! What russh 0.65 does by itself: it asks for certificates before plain keys where they are named in
//! `Preferred::host_key_certificates`, parses what comes, and has the key *inside* prove itself by signing the exchange.
//! What it leaves to its user is everything that a certificate says: who signed it and whether that signature is right, its
//! type, its time, its principals, its critical options, and whether the signature is a SHA-1 one, which ssh-key as russh
//! builds it would accept. All of that is [`check`]'s. The key is judged once for each connection: russh asks for no
//! judgement at a new key exchange, which only who holds the first one's keys can make.

use jiff::Timestamp;
use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Algorithm, HashAlg, PublicKey};

use super::pattern;
use crate::identity::ssh_ca;

/// Why a host certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0} signed it, which is not the expected authority {1}")]
    OtherAuthority(String, String),
    #[error("its key or its authority's is revoked")]
    Revoked,
    #[error("it is signed with SHA-1")]
    Sha1,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is not a host's certificate")]
    NotAHosts,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it has expired")]
    Expired,
    #[error("its key is too weak")]
    Key,
    #[error("it names no host, which would mean every host")]
    NoPrincipal,
    #[error("it is for another host")]
    OtherHost,
    #[error("it has a critical option, and none is known for hosts")]
    CriticalOption,
}

/// Looks at everything that a certificate says. `host` is the name by which the server was asked for, without a port.
pub(super) fn check(
    certificate: &Certificate,
    authorities: &[PublicKey],
    revoked: &[PublicKey],
    host: &str,
    now: Timestamp,
) -> Result<(), Refused> {
    let authority = certificate.signature_key();
    let is_revoked = |key: &KeyData| revoked.iter().any(|revoked| revoked.key_data() == key);
    if !authorities.iter().any(|expected| expected.key_data() == authority) {
        let expected: Vec<_> = authorities.iter().map(|key| print(key.key_data())).collect();
        return Err(Refused::OtherAuthority(print(authority), expected.join(" or ")));
    }
    if is_revoked(authority) || is_revoked(certificate.public_key()) {
        return Err(Refused::Revoked);
    }
    if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Err(Refused::Sha1);
    }
    certificate.verify_signature().map_err(|_| Refused::Signature)?;
    if certificate.cert_type() != CertType::Host {
        return Err(Refused::NotAHosts);
    }
    // Valid after <= now < valid before.
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    if now < certificate.valid_after() {
        return Err(Refused::NotYet);
    }
    if now >= certificate.valid_before() {
        return Err(Refused::Expired);
    }
    ssh_ca::check_key(certificate.public_key()).map_err(|_| Refused::Key)?;
    let names = certificate.valid_principals();
    match () {
        () if names.is_empty() => Err(Refused::NoPrincipal),
        () if !names.iter().any(|name| pattern::matches(name, host)) => Err(Refused::OtherHost),
        () if !certificate.critical_options().is_empty() => Err(Refused::CriticalOption),
        () => Ok(()),
    }
}

fn print(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::certificate::Builder;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
    }

    /// A certificate of authority 1 for key 2, which is good but for what `change` does to it.
    fn made(kind: CertType, change: impl FnOnce(&mut Builder)) -> Certificate {
        let mut builder = Builder::new(vec![7; 32], key(2).public_key(), NOW - 60, NOW + 60).unwrap();
        builder.cert_type(kind).unwrap();
        change(&mut builder);
        builder.sign(&key(1)).unwrap()
    }

    fn named(names: &[&str]) -> Certificate {
        made(CertType::Host, |builder| {
            for name in names {
                builder.valid_principal(*name).unwrap();
            }
        })
    }

    fn at(certificate: &Certificate, seconds: u64) -> Result<(), Refused> {
        let now = Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
        check(certificate, &[key(9).public_key().clone(), key(1).public_key().clone()], &[], "web-1.example.com", now)
    }

    #[test]
    fn it_must_be_for_the_host_as_it_was_asked_for() {
        for names in [&["web-1.example.com"][..], &["x", "WEB-1.example.com"], &["*.example.com"], &["web-?.example.*"]]
        {
            assert_eq!(at(&named(names), NOW), Ok(()), "{names:?}");
        }
        for names in [&["web-1"][..], &["example.com"], &["web-1.example.com:22"], &["web-2.example.com", ""]] {
            assert_eq!(at(&named(names), NOW), Err(Refused::OtherHost), "{names:?}");
        }
        let all = made(CertType::Host, |builder| _ = builder.all_principals_valid().unwrap());
        assert_eq!(at(&all, NOW), Err(Refused::NoPrincipal));
    }

    #[test]
    fn everything_that_it_says_is_looked_at() {
        let good = named(&["*"]);
        for (seconds, expected) in [
            (NOW - 61, Err(Refused::NotYet)),
            (NOW - 60, Ok(())),
            (NOW + 59, Ok(())),
            (NOW + 60, Err(Refused::Expired)),
        ] {
            assert_eq!(at(&good, seconds), expected, "{seconds}");
        }
        let user = made(CertType::User, |builder| _ = builder.valid_principal("*").unwrap());
        assert_eq!(at(&user, NOW), Err(Refused::NotAHosts));
        let option = made(CertType::Host, |builder| {
            builder.valid_principal("*").unwrap().critical_option("x", "").unwrap();
        });
        assert_eq!(at(&option, NOW), Err(Refused::CriticalOption));
    }

    #[test]
    fn another_authority_a_revoked_key_and_a_changed_certificate_are_refused() {
        let good = named(&["*"]);
        let now = Timestamp::from_second(i64::try_from(NOW).unwrap()).unwrap();
        let public = |seed: u8| key(seed).public_key().clone();
        let other = check(&good, &[public(3)], &[], "a", now).unwrap_err();
        assert_eq!(other, Refused::OtherAuthority(print(public(1).key_data()), print(public(3).key_data())));
        assert!(check(&good, &[], &[], "a", now).is_err());
        for revoked in [1, 2] {
            assert_eq!(check(&good, &[public(1)], &[public(revoked)], "a", now), Err(Refused::Revoked));
        }
        assert_eq!(check(&good, &[public(1)], &[public(3)], "a", now), Ok(()));
        let bytes = good.to_bytes().unwrap();
        let mut wrong = 0;
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            if let Ok(changed) = Certificate::from_bytes(&bytes) {
                assert!(check(&changed, &[public(1)], &[], "a", now).is_err(), "byte {at}");
                wrong += 1;
            }
        }
        assert!(wrong > 100, "{wrong}");
    }
}
