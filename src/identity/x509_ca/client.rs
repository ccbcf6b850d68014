//! X.509 certificates of people: issued for a request's key, checked when one comes back.
//!
//! Of a request (RFC 2986) only the public key is taken, once the request's own signature has shown that its sender
//! holds the key. Everything else in the certificate is the gateway's choice. Whether a certificate is in the book,
//! revoked or over is asked in `identity/sign_ins`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use uuid::Uuid;

use super::{CaError, GatewayCa};

/// What stands in a person's certificate.
#[derive(Clone, Debug)]
pub struct ClientCertificate<'a> {
    /// The person: common name, and `rfc822Name` among the alternative names.
    pub email: &'a str,
    /// The sign-in, as `urn:uuid:…` among the alternative names.
    pub sign_in_id: Uuid,
    /// Random, positive, in the book.
    pub serial: i64,
    /// From when on it counts.
    pub from: Timestamp,
    /// From when on it counts no more.
    pub until: Timestamp,
}

/// A certificate that was just issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub pem: String,
    /// SHA-256 of it, in hexadecimal.
    pub fingerprint: String,
}

/// Why a request gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CsrRefused {
    /// It is no request, or its own signature is wrong.
    #[error("the certificate request cannot be read, or its signature is wrong")]
    Unreadable,
    /// Its key is of a kind that gets no certificate.
    #[error("the certificate request's key is too weak; use ECDSA P-256 or P-384, Ed25519, or RSA from 2048 bits on")]
    Key,
    /// The authority failed.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// A client's certificate is not from this authority, is not for clients, or is not in its time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate is not accepted: {0}")]
pub struct ClientRefused(String);

impl GatewayCa {
    /// Issues a person's certificate for the key of a request in PEM.
    pub fn issue_client(&self, csr: &str, about: &ClientCertificate<'_>) -> Result<Issued, CsrRefused> {
        let request = read_request(csr)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = Some(SerialNumber::from(about.serial.unsigned_abs()));
        params.not_before = time(about.from).into();
        params.not_after = time(about.until).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, about.email);
        params.subject_alt_names = names(about);
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(CaError::from)?;
        Ok(Issued { pem: certificate.pem(), fingerprint: fingerprint(certificate.der()) })
    }

    /// Checks a client's certificate against this authority, its purpose and its time; the answer is the fingerprint by
    /// which the book knows it. That a client holds its key is for the handshake to prove.
    pub fn check_client(&self, der: &[u8], now: Timestamp) -> Result<String, ClientRefused> {
        let refused = |error: &dyn std::fmt::Display| ClientRefused(error.to_string());
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.pem.as_bytes()).map_err(|error| refused(&error))?;
        roots.add(own).map_err(|error| refused(&error))?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| refused(&error))?;
        let certificate = CertificateDer::from(der);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default()));
        verifier.verify_client_cert(&certificate, &[], now).map_err(|error| refused(&error))?;
        Ok(fingerprint(&certificate))
    }
}

/// The request, with its signature checked (`from_der` does) and a key that is strong enough.
fn read_request(csr: &str) -> Result<CertificateSigningRequestParams, CsrRefused> {
    if csr.len() > LONGEST_REQUEST {
        return Err(CsrRefused::Unreadable);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).map_err(|_| CsrRefused::Unreadable)?;
    let request = CertificateSigningRequestParams::from_der(&der).map_err(|_| CsrRefused::Unreadable)?;
    let key = &request.public_key;
    let is_rsa = [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_RSA_SHA384, &rcgen::PKCS_RSA_SHA512].contains(&key.algorithm());
    // The modulus makes nearly all of an RSA key: two lengths and an exponent of three bytes come beside it.
    match is_rsa && key.der_bytes().len() < 2048 / 8 + 8 {
        true => Err(CsrRefused::Key),
        false => Ok(request),
    }
}

fn names(about: &ClientCertificate<'_>) -> Vec<SanType> {
    // An address outside ASCII cannot be an rfc822Name (RFC 5280 section 4.2.1.6); the common name holds it.
    let email = about.email.try_into().map(SanType::Rfc822Name).ok();
    let sign_in = about.sign_in_id.urn().to_string().try_into().map(SanType::URI).ok();
    email.into_iter().chain(sign_in).collect()
}

fn time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default())
}

fn fingerprint(der: &CertificateDer<'_>) -> String {
    digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request with an RSA key of 8192 bits, in PEM.
const LONGEST_REQUEST: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::*;

    fn ca() -> (tempfile::TempDir, GatewayCa) {
        let dir = tempfile::tempdir().unwrap();
        let ca = GatewayCa::load_or_create(dir.path()).unwrap();
        (dir, ca)
    }

    fn about(email: &str) -> ClientCertificate<'_> {
        let now = Timestamp::now();
        ClientCertificate {
            email,
            sign_in_id: Uuid::nil(),
            serial: i64::MAX,
            from: now - SignedDuration::from_secs(60),
            until: now + SignedDuration::from_secs(600),
        }
    }

    /// A request that asks for more than it gets.
    fn greedy_request(key: &KeyPair) -> String {
        let mut params = CertificateParams::new(["gateway.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_request_gives_a_key_and_nothing_else() {
        let (_dir, ca) = ca();
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let issued = ca.issue_client(&greedy_request(&key), &about("alice@example.com")).unwrap();
            let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
            let has = |needle: &[u8]| der.windows(needle.len()).any(|window| window == needle);
            assert!(has(b"alice@example.com") && has(b"urn:uuid:00000000-0000-0000-0000-000000000000"));
            assert!(!has(b"gateway.example.com") && !has(b"root"));
            assert!(has(key.public_key_raw()));
            assert_eq!(ca.check_client(&der, Timestamp::now()).unwrap(), issued.fingerprint);
        }
    }

    #[test]
    fn a_request_must_be_signed_by_its_own_key() {
        let (_dir, ca) = ca();
        let key = KeyPair::generate().unwrap();
        let mut der = CertificateSigningRequestDer::from_pem_slice(greedy_request(&key).as_bytes()).unwrap().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let broken = pem("CERTIFICATE REQUEST", &der);
        for csr in [broken.as_str(), "", "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"] {
            let refused = ca.issue_client(csr, &about("alice@example.com"));
            assert!(matches!(refused, Err(CsrRefused::Unreadable)), "{csr:?}");
        }
        let long = format!("{}{}", greedy_request(&key), " ".repeat(LONGEST_REQUEST));
        assert!(ca.issue_client(&long, &about("alice@example.com")).is_err());
    }

    #[test]
    fn certificates_of_others_of_other_kinds_and_of_other_times_are_refused() {
        let ((_dir, ca), (_other_dir, other)) = (ca(), ca());
        let key = KeyPair::generate().unwrap();
        let about = about("alice@example.com");
        let der_of = |ca: &GatewayCa| {
            let issued = ca.issue_client(&greedy_request(&key), &about).unwrap();
            CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap()
        };
        let (mine, theirs) = (der_of(&ca), der_of(&other));
        assert!(ca.check_client(&mine, Timestamp::now()).is_ok());
        assert!(ca.check_client(&theirs, Timestamp::now()).is_err(), "another authority");
        assert!(ca.check_client(&mine, about.until + SignedDuration::from_secs(1)).is_err(), "too late");
        assert!(ca.check_client(&mine, about.from - SignedDuration::from_secs(1)).is_err(), "too early");
        assert!(ca.check_client(&[], Timestamp::now()).is_err());
        let mut server = CertificateParams::new(["localhost".to_owned()]).unwrap();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.not_before = time(about.from).into();
        server.not_after = time(about.until).into();
        let server = server.signed_by(&key, &ca.issuer).unwrap();
        assert!(ca.check_client(server.der(), Timestamp::now()).is_err(), "a listener's certificate");
    }

    fn pem(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }
}
