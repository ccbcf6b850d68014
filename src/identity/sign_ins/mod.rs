//! Sign-ins at the gateway itself (`gatescribe login`): what begins with a verified identity, hands out certificates and
//! tokens, and ends with the identity or by revocation, everything at once.
//!
//! Whatever was handed out is in the book before it leaves, and counts only while its sign-in does: so one question at
//! the book answers for all of it. Knows no HTTP and no connection.

mod error;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use ssh_key::{Certificate, HashAlg};
use uuid::Uuid;

use super::Identity;
use super::approval::{Approval, RevokedPeople};
use super::grants::Grants;
use super::link::Links;
use super::random::{self, NoRandomness};
use super::ssh_ca::{self, CertificateRefused, SshCa, UserCertificate};
use super::tokens::{Issued, Role, Tokens};
use super::x509_ca::{ClientCertificate, GatewayCa};
use crate::store::{
    CertificateKind, CertificateRow, IN_BROWSER, NewCertificate, NewSocketToken, RevokedPerson, SignInRow, SignInsOf,
    Store, StoreError,
};

pub use self::error::{NotCertified, SignInError};

/// All sign-ins of the gateway. Cheap to clone.
#[derive(Clone)]
pub struct SignIns(Arc<Parts>, RevokedPeople);

/// What [`SignIns`] is made of.
pub struct Parts {
    /// The book.
    pub store: Store,
    /// What makes a sign-in's API token.
    pub tokens: Tokens,
    /// What was granted on the way to a sign-in.
    pub grants: Grants,
    /// The links that people approve.
    pub links: Links,
    /// The identity provider in force: whom another one vouched for is not let in.
    pub issuer: String,
    /// The authority for people's SSH keys.
    pub ssh_ca: SshCa,
    /// A line of `known_hosts` that trusts the gateway's own host key.
    pub known_hosts: String,
    /// The authority for X.509 certificates.
    pub x509_ca: Arc<GatewayCa>,
}

/// A sign-in that has just begun.
#[derive(Debug)]
pub struct Begun {
    /// Its id.
    pub sign_in_id: Uuid,
    /// Its API token; the only copy.
    pub token: SecretString,
    /// When it ends.
    pub expires: Timestamp,
}

/// What a sign-in's owner gets for his keys.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// An OpenSSH certificate, as one line.
    pub ssh_certificate: Option<String>,
    /// A line of `known_hosts` that trusts the gateway.
    pub ssh_known_hosts: String,
    /// An X.509 certificate, in PEM.
    pub x509_certificate: Option<String>,
    /// The gateway's authority, in PEM.
    pub ca: String,
    /// When all of it ends.
    pub expires: Timestamp,
}

/// A token for one socket that was just made.
#[derive(Debug)]
pub struct SocketToken {
    /// The token itself; the only copy.
    pub token: SecretString,
    /// From when on nothing can be opened with it.
    pub expires: Timestamp,
}

/// Somebody who showed a certificate that counts. Made by [`SignIns`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Who.
    pub identity: Identity,
    /// By which sign-in.
    pub sign_in_id: Uuid,
    /// The certificate's serial number.
    pub serial: i64,
    /// SSH: the `SHA256:…` fingerprint of its key. X.509: SHA-256 of all of it.
    pub fingerprint: String,
    /// Whether it may have a terminal.
    pub terminal: bool,
    /// When it ends.
    pub expires: Timestamp,
}

impl SignIns {
    /// Sign-ins kept in this book.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts), RevokedPeople::default())
    }

    /// Begins a sign-in for somebody whom the provider vouched for; `from` is where the command line is.
    pub async fn begin(
        &self,
        approval: impl Into<Approval>,
        from: IpAddr,
        software: &str,
    ) -> Result<Begun, SignInError> {
        let (approval, sign_in_id, created) = (approval.into(), Uuid::now_v7(), Timestamp::now());
        let identity = approval.identity();
        if identity.expires() <= created || identity.issuer() != self.0.issuer || !self.1.leave(&approval) {
            return Err(SignInError::Over);
        }
        let row = SignInRow {
            sign_in_id,
            identity: identity.clone(),
            client_ip: from.to_canonical(),
            software: Some(printable(software)).filter(|software| !software.is_empty()),
            created,
            revoked: None,
            revoked_by: None,
        };
        self.0.store.add_sign_in(row).await?;
        let token = self.0.tokens.issue_for_sign_in(sign_in_id, identity, "gatescribe login").await?;
        self.unless_revoked(&approval, sign_in_id).await?;
        tracing::info!(email = identity.email(), %sign_in_id, %from, "signed in at the command line");
        Ok(Begun { sign_in_id, token, expires: identity.expires() })
    }

    /// Makes a token for somebody who asked for it in a browser at `from`, and the sign-in that it counts with.
    pub async fn begin_in_browser(
        &self,
        approval: &Approval,
        from: IpAddr,
        label: &str,
        lifetime: Duration,
    ) -> Result<Issued, SignInError> {
        let issued = self.0.tokens.issue_in_browser(approval.identity(), from, label, lifetime).await?;
        if let Some(sign_in) = issued.row.sign_in_id {
            self.unless_revoked(approval, sign_in).await?;
        }
        Ok(issued)
    }

    /// Remembers the SSH key for which a link vouched, until the approving sign-in ends.
    pub async fn remember_key(&self, fingerprint: &str, approval: &Approval) -> Result<(), SignInError> {
        self.0.store.remember_key(fingerprint, approval.identity()).await?;
        if !self.1.leave(approval) {
            self.0.store.forget_key(fingerprint).await?;
            return Err(SignInError::Over);
        }
        Ok(())
    }

    /// The role of a person's tokens.
    pub fn role_of(&self, who: &Identity) -> Role {
        self.0.tokens.role_of(who)
    }

    /// Certifies the owner's keys until the sign-in ends. Either may be left out.
    pub async fn certify(
        &self,
        sign_in: Uuid,
        ssh_public_key: Option<&str>,
        x509_csr: Option<&str>,
    ) -> Result<Credentials, NotCertified> {
        let row = self.of_command_line(sign_in).await?;
        let mut credentials = Credentials {
            ssh_certificate: None,
            ssh_known_hosts: self.0.known_hosts.clone(),
            x509_certificate: None,
            ca: self.0.x509_ca.pem().to_owned(),
            expires: row.identity.expires(),
        };
        if let Some(line) = ssh_public_key {
            credentials.ssh_certificate = Some(self.certify_ssh(&row, line).await?);
        }
        if let Some(csr) = x509_csr {
            credentials.x509_certificate = Some(self.certify_x509(&row, csr).await?);
        }
        Ok(credentials)
    }

    /// Makes a token for one socket from one address, good for ten minutes. Whether the socket exists and may be
    /// reached is the caller's question.
    pub async fn socket_token(&self, sign_in: Uuid, socket: &str, from: IpAddr) -> Result<SocketToken, SignInError> {
        let row = self.of_command_line(sign_in).await?;
        let created = Timestamp::now();
        let expires = (created + SOCKET_TOKEN_LIFETIME).min(row.identity.expires());
        let token = SecretString::from(format!("{SOCKET_TOKEN_PREFIX}{}{}", random::code()?, random::code()?));
        let hash = random::hashed(token.expose_secret()).bytes();
        let (socket_name, client_ip) = (socket.to_owned(), from.to_canonical());
        let new = NewSocketToken { hash, sign_in_id: sign_in, socket_name, client_ip, created, expires };
        self.0.store.add_socket_token(new).await?;
        Ok(SocketToken { token, expires })
    }

    /// Whose token for this socket this is, used from `from` now; `None` where it does not count there.
    pub async fn by_socket_token(
        &self,
        token: &str,
        socket: &str,
        from: IpAddr,
    ) -> Result<Option<Identity>, SignInError> {
        if token.len() > LONGEST_TOKEN || !token.starts_with(SOCKET_TOKEN_PREFIX) {
            return Ok(None);
        }
        let row = self.0.store.socket_token(random::hashed(token).bytes()).await?;
        let now = Timestamp::now();
        let row = row.filter(|row| {
            row.expires > now && row.socket_name == socket && super::link::same_place(row.client_ip, from)
        });
        let row = row.filter(|row| self.check(&row.sign_in, now).is_ok());
        Ok(row.map(|row| row.sign_in.identity))
    }

    /// Who shows this SSH certificate, whose key was proved by signature. `from` is where the client is.
    pub async fn by_ssh_certificate(&self, shown: &Certificate, from: IpAddr) -> Result<Certified, NotCertified> {
        let now = Timestamp::now();
        let checked = self.0.ssh_ca.check_user(shown, from, now)?;
        let row = self.0.store.ssh_certificate(checked.serial).await?;
        // The same key too: a serial number says nothing about a certificate that came about otherwise.
        let row = row.filter(|row| row.fingerprint == checked.fingerprint).ok_or(CertificateRefused::Unknown)?;
        self.check_row(&row, now)?;
        if !checked.principals.iter().any(|principal| principal == row.sign_in.identity.email()) {
            return Err(CertificateRefused::OtherPrincipal.into());
        }
        Ok(certified(row, checked.terminal))
    }

    /// Who shows this X.509 certificate (DER), at `now`. That its key was proved is for the handshake that it came in.
    pub async fn verify_client_certificate(&self, der: &[u8], now: Timestamp) -> Result<Certified, NotCertified> {
        let fingerprint = self.0.x509_ca.check_client(der, now)?;
        let row = self.0.store.client_certificate(&fingerprint).await?.ok_or(CertificateRefused::Unknown)?;
        self.check_row(&row, now)?;
        Ok(certified(row, true))
    }

    /// A page of the sign-ins that count now, newest first, and how many there are. Pages count from 1.
    pub async fn list(&self, of: SignInsOf, page: u32, page_size: u32) -> Result<(Vec<SignInRow>, u64), SignInError> {
        Ok(self.0.store.sign_ins(of, Timestamp::now(), page, page_size).await?)
    }

    /// The sign-in with this id, while it counts.
    pub async fn living(&self, sign_in: Uuid) -> Result<SignInRow, SignInError> {
        let row = self.0.store.sign_in(sign_in).await?.ok_or(SignInError::Over)?;
        match self.check(&row, Timestamp::now()) {
            Ok(()) => Ok(row),
            Err(_) => Err(SignInError::Over),
        }
    }

    /// Ends a sign-in whose owner is done with it, with all that it issued. What is open goes on: whoever signs in anew ends
    /// the sign-in before.
    pub async fn sign_out(&self, sign_in: Uuid, by: &str) -> Result<bool, SignInError> {
        let ended = self.0.store.sign_out(sign_in, by, Timestamp::now()).await?;
        if ended {
            tracing::info!(%sign_in, by, "signed out");
        }
        Ok(ended)
    }

    /// Revokes a sign-in with all that it issued; what was opened by it ends. `false`: it had ended before.
    pub async fn revoke(&self, sign_in: Uuid, by: &str) -> Result<bool, SignInError> {
        let revoked = self.0.store.revoke_sign_in(sign_in, by, Timestamp::now()).await?;
        if revoked {
            tracing::info!(%sign_in, by, "a sign-in was revoked");
        }
        Ok(revoked)
    }

    /// Revokes everything of a person: sign-ins with what they issued, SSH keys that links remembered, browsers, and what
    /// they approved, and tokens that they made for programs.
    pub async fn revoke_person(&self, email: &str, by: &str) -> Result<RevokedPerson, SignInError> {
        // Before the book: what is written for them meanwhile is looked at again after it (`unless_revoked`).
        self.1.note(email);
        self.0.grants.forget(email);
        self.0.links.forget(email);
        let revoked = self.0.store.revoke_person(email, by, Timestamp::now()).await?;
        tracing::info!(email, by, ?revoked, "a person was revoked");
        Ok(revoked)
    }

    /// Who was revoked when.
    pub fn revoked_people(&self) -> RevokedPeople {
        self.1.clone()
    }

    /// The sign-in, while it counts, of the command line. A token from the browser's page is for programs and must not grow
    /// into certificates.
    pub async fn of_command_line(&self, sign_in: Uuid) -> Result<SignInRow, SignInError> {
        let row = self.living(sign_in).await?;
        match row.software.as_deref() {
            Some(IN_BROWSER) => Err(SignInError::Browser),
            _ => Ok(row),
        }
    }

    /// Ends a sign-in that was written while its person was being revoked. Whoever is revoked only after this look is
    /// revoked in the book after the sign-in was written there, and the sign-in with them.
    async fn unless_revoked(&self, approval: &Approval, sign_in: Uuid) -> Result<(), SignInError> {
        if self.1.leave(approval) {
            return Ok(());
        }
        self.revoke(sign_in, "the gateway: its person was revoked").await?;
        Err(SignInError::Over)
    }

    async fn certify_ssh(&self, row: &SignInRow, line: &str) -> Result<String, NotCertified> {
        let key = ssh_ca::certifiable(line)?;
        let (serial, now) = (serial()?, Timestamp::now());
        let about = UserCertificate {
            key: &key,
            serial,
            email: row.identity.email(),
            from: now - CLOCK_DIFFERENCE,
            until: row.identity.expires(),
        };
        let certificate = self.0.ssh_ca.certify_user(&about)?.to_openssh().map_err(ssh_ca::SshCaError::from)?;
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        self.note(row, serial, CertificateKind::Ssh, fingerprint).await?;
        Ok(certificate)
    }

    async fn certify_x509(&self, row: &SignInRow, csr: &str) -> Result<String, NotCertified> {
        let (serial, now) = (serial()?, Timestamp::now());
        let about = ClientCertificate {
            email: row.identity.email(),
            sign_in_id: row.sign_in_id,
            serial,
            from: now - CLOCK_DIFFERENCE,
            until: row.identity.expires(),
        };
        let issued = self.0.x509_ca.issue_client(csr, &about)?;
        self.note(row, serial, CertificateKind::X509, issued.fingerprint).await?;
        Ok(issued.pem)
    }

    /// Writes a certificate into the book; it must not be handed out before.
    async fn note(
        &self,
        row: &SignInRow,
        serial: i64,
        kind: CertificateKind,
        fingerprint: String,
    ) -> Result<(), StoreError> {
        let (sign_in_id, created, expires) = (row.sign_in_id, Timestamp::now(), row.identity.expires());
        self.0.store.add_certificate(NewCertificate { serial, sign_in_id, kind, fingerprint, created, expires }).await
    }

    fn check_row(&self, row: &CertificateRow, now: Timestamp) -> Result<(), CertificateRefused> {
        match row.expires > now {
            true => self.check(&row.sign_in, now),
            false => Err(CertificateRefused::Expired),
        }
    }

    /// Whether a sign-in counts.
    fn check(&self, row: &SignInRow, now: Timestamp) -> Result<(), CertificateRefused> {
        if row.revoked.is_some() {
            return Err(CertificateRefused::Revoked);
        }
        if row.identity.expires() <= now {
            return Err(CertificateRefused::Expired);
        }
        match row.identity.issuer() == self.0.issuer {
            true => Ok(()),
            false => Err(CertificateRefused::OtherProvider),
        }
    }
}

impl fmt::Debug for SignIns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIns").field("issuer", &self.0.issuer).finish_non_exhaustive()
    }
}

fn certified(row: CertificateRow, terminal: bool) -> Certified {
    let CertificateRow { serial, fingerprint, sign_in, expires, .. } = row;
    Certified { identity: sign_in.identity, sign_in_id: sign_in.sign_in_id, serial, fingerprint, terminal, expires }
}

/// A random number from 1 to 2^63 - 1: both kinds of certificate and the book can hold it.
fn serial() -> Result<i64, NoRandomness> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok((i64::from_be_bytes(bytes) & i64::MAX).max(1))
}

/// What a program says about itself, fit for a page and a terminal.
fn printable(text: &str) -> String {
    text.chars().take(100).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// Certificates begin earlier than they are made: clocks differ.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_secs(60);
/// How long something may be opened with a token for a socket.
const SOCKET_TOKEN_LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// What they begin with, so that secret scanners can find them.
const SOCKET_TOKEN_PREFIX: &str = "gss_";
/// No token of ours is longer than this many bytes.
const LONGEST_TOKEN: usize = 64;
