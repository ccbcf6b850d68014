//! The keys of a sign-in and the files that programs want them in. Private keys are made here and go nowhere else.

use anyhow::{Context, anyhow, bail};
use aws_lc_rs::rand;
use jiff::Timestamp;
use p12_keystore::{KeyStore, KeyStoreEntry, PrivateKey as P12Key, PrivateKeyChain};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{Certificate, LineEnding, PrivateKey};

use crate::cli::profile::{
    CLIENT_CERTIFICATE, CLIENT_KEY, CLIENT_P12, CLIENT_PK8, KNOWN_HOSTS, SSH_CERTIFICATE, SSH_KEY, SSH_PUBLIC_KEY,
};

/// Protects nothing: the key lies beside the file without a password, and both are their owner's alone. But programs
/// that read PKCS#12 insist on one.
pub(super) const P12_PASSWORD: &str = "gatescribe";

/// Two private keys.
pub(super) struct Keys {
    ssh: PrivateKey,
    x509: KeyPair,
}

/// What the gateway made of them.
#[derive(Debug, Deserialize)]
pub(super) struct Issued {
    ssh_certificate: String,
    ssh_known_hosts: String,
    x509_certificate: String,
    ca: String,
    pub expires: Timestamp,
}

impl Keys {
    pub fn make(email: &str) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        rand::fill(&mut seed).map_err(|_| anyhow!("the system gave no random bytes"))?;
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
        seed.fill(0);
        // The comment is one line of a file.
        let comment: String = email.chars().filter(|c| c.is_ascii_graphic()).collect();
        Ok(Self { ssh: PrivateKey::new(pair, comment)?, x509: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    pub fn ssh_public_key(&self) -> anyhow::Result<String> {
        Ok(self.ssh.public_key().to_openssh()?)
    }

    /// A request for a certificate. It only proves the key: the gateway chooses everything that stands in it.
    pub fn csr(&self) -> anyhow::Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.x509)?.pem()?)
    }

    /// The files of a sign-in with their content, except the token.
    pub fn files(&self, issued: &Issued) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
        let certificate: Certificate =
            issued.ssh_certificate.parse().context("the gateway's SSH certificate cannot be read")?;
        if certificate.public_key() != self.ssh.public_key().key_data() {
            bail!("the gateway's SSH certificate is for another key");
        }
        let line = issued.ssh_known_hosts.trim_end();
        if !line.starts_with("@cert-authority ") || line.chars().any(char::is_control) {
            bail!("the gateway does not say how ssh knows it");
        }
        let private = self.ssh.to_openssh(LineEnding::LF)?;
        Ok(vec![
            (SSH_KEY, private.as_bytes().to_vec()),
            (SSH_PUBLIC_KEY, format!("{}\n", self.ssh_public_key()?).into_bytes()),
            (SSH_CERTIFICATE, format!("{}\n", certificate.to_openssh()?).into_bytes()),
            (KNOWN_HOSTS, format!("{line}\n").into_bytes()),
            (CLIENT_CERTIFICATE, issued.x509_certificate.clone().into_bytes()),
            (CLIENT_KEY, self.x509.serialize_pem().into_bytes()),
            (CLIENT_PK8, self.x509.serialize_der()),
            (CLIENT_P12, self.p12(issued)?),
        ])
    }

    fn p12(&self, issued: &Issued) -> anyhow::Result<Vec<u8>> {
        let certificate = |pem: &str| {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok();
            let der = der.context("the gateway's certificate cannot be read")?;
            anyhow::Ok(p12_keystore::Certificate::from_der(&der)?)
        };
        let chain = [certificate(&issued.x509_certificate)?, certificate(&issued.ca)?];
        let key = P12Key::from_der(&self.x509.serialize_der())?;
        let mut store = KeyStore::new();
        store.add_entry("gatescribe", KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(vec![1], key, chain)));
        Ok(store.writer(P12_PASSWORD).write()?)
    }
}

#[cfg(test)]
mod tests {
    use ssh_key::certificate::{Builder, CertType};

    use super::*;

    /// As the gateway would issue them, for this key.
    fn issued(keys: &Keys, key: &PrivateKey) -> Issued {
        let authority = Keys::make("ca").unwrap();
        let mut certificate = Builder::new([7; 16], key.public_key().key_data().clone(), 0, u64::MAX).unwrap();
        certificate.cert_type(CertType::User).unwrap().valid_principal("alice@example.com").unwrap();
        let certificate = certificate.sign(&authority.ssh).unwrap();
        let ca = CertificateParams::default().self_signed(&authority.x509).unwrap();
        let issuer = rcgen::Issuer::new(CertificateParams::default(), &authority.x509);
        let request = rcgen::CertificateSigningRequestParams::from_pem(&keys.csr().unwrap()).unwrap();
        Issued {
            ssh_certificate: certificate.to_openssh().unwrap(),
            ssh_known_hosts: "@cert-authority localhost ssh-ed25519 AAAA".into(),
            x509_certificate: request.signed_by(&issuer).unwrap().pem(),
            ca: ca.pem(),
            expires: Timestamp::now(),
        }
    }

    #[test]
    fn the_files_hold_the_keys_that_were_certified() {
        let keys = Keys::make("alice@example.com\n").unwrap();
        let issued = issued(&keys, &keys.ssh);
        let files: std::collections::BTreeMap<_, _> = keys.files(&issued).unwrap().into_iter().collect();
        let ssh = PrivateKey::from_openssh(&files[SSH_KEY]).unwrap();
        let public = String::from_utf8(files[SSH_PUBLIC_KEY].clone()).unwrap();
        assert_eq!(ssh.public_key().to_openssh().unwrap(), public.trim_end());
        assert!(public.ends_with(" alice@example.com\n"), "{public}");
        let pem = KeyPair::from_pem(std::str::from_utf8(&files[CLIENT_KEY]).unwrap()).unwrap();
        assert_eq!(pem.serialize_der(), files[CLIENT_PK8]);
        let policy = p12_keystore::Pkcs12ImportPolicy::Strict;
        let store = KeyStore::from_pkcs12(&files[CLIENT_P12], P12_PASSWORD, policy).unwrap();
        let (alias, chain) = store.private_key_chain().unwrap();
        assert_eq!((alias, chain.key().as_der()), ("gatescribe", files[CLIENT_PK8].as_slice()));
        assert_eq!(chain.certs().len(), 2);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let keys = Keys::make("a").unwrap();
        let other = Keys::make("b").unwrap();
        let error = keys.files(&issued(&keys, &other.ssh)).unwrap_err().to_string();
        assert!(error.contains("another key"), "{error}");
        for line in ["", "localhost ssh-ed25519 AAAA", "@cert-authority a ssh-ed25519 AAAA\nlocalhost ssh-rsa AAAA"] {
            let issued = Issued { ssh_known_hosts: line.into(), ..issued(&keys, &keys.ssh) };
            assert!(keys.files(&issued).is_err(), "{line:?}");
        }
    }
}
