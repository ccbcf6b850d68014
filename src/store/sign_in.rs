//! Rows about sign-ins at the gateway itself, and about what they issued.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::Identity;

/// A sign-in at the gateway (`gatescribe login`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInRow {
    /// Its id.
    pub sign_in_id: Uuid,
    /// Who signed in. It ends when this does.
    pub identity: Identity,
    /// Where the command line was.
    pub client_ip: IpAddr,
    /// What it said about itself.
    pub software: Option<String>,
    /// When.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// By whom, as it is shown.
    pub revoked_by: Option<String>,
}

/// Whose sign-ins to list or revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignInsOf {
    /// Everybody's.
    All,
    /// Those of the people with this e-mail address, compared without letter case.
    Email(String),
    /// One person's, as the provider knows them.
    Person {
        /// The provider.
        issuer: String,
        /// Its id for the person.
        subject: String,
    },
}

/// How much was revoked with a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevokedPerson {
    /// Sign-ins, each with all that it issued.
    pub sign_ins: usize,
    /// SSH keys that links remembered.
    pub keys: usize,
    /// API tokens that they made, or that those made.
    pub tokens: usize,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateKind {
    /// An OpenSSH user certificate.
    Ssh,
    /// An X.509 client certificate.
    X509,
}

/// A certificate about to be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCertificate {
    /// Random and positive.
    pub serial: i64,
    /// The sign-in that it belongs to.
    pub sign_in_id: Uuid,
    /// What for.
    pub kind: CertificateKind,
    /// SSH: `SHA256:…` of the key in it. X.509: SHA-256 of all of it, in hexadecimal.
    pub fingerprint: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it counts no more.
    pub expires: Timestamp,
}

/// A certificate as the book knows it, with its sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRow {
    /// Its serial number.
    pub serial: i64,
    /// As in [`NewCertificate`].
    pub fingerprint: String,
    /// From when on it counts no more.
    pub expires: Timestamp,
    /// Whose it is. It may be revoked or over.
    pub sign_in: SignInRow,
}

/// A token for one socket, about to be handed out. The secret itself never gets here.
#[derive(Clone, Debug)]
pub struct NewSocketToken {
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// The sign-in that it belongs to.
    pub sign_in_id: Uuid,
    /// The one socket that it opens.
    pub socket_name: String,
    /// The one address that it may be used from.
    pub client_ip: IpAddr,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it counts no more.
    pub expires: Timestamp,
}

/// A token for one socket as the book knows it, with its sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketTokenRow {
    /// The one socket that it opens.
    pub socket_name: String,
    /// The one address that it may be used from.
    pub client_ip: IpAddr,
    /// From when on it counts no more.
    pub expires: Timestamp,
    /// Whose it is. It may be revoked or over.
    pub sign_in: SignInRow,
}
