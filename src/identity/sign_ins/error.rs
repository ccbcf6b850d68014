//! Why a sign-in does nothing, and why a key gets no certificate or a certificate lets nobody in.

use crate::error::{Fault, UserFacing};
use crate::identity::random::NoRandomness;
use crate::identity::ssh_ca::{CertificateRefused, KeyRefused, SshCaError};
use crate::identity::tokens::TokenError;
use crate::identity::x509_ca::{ClientRefused, CsrRefused};
use crate::store::StoreError;

/// Why a sign-in does nothing.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// It has ended, was revoked, or never was.
    #[error("the sign-in is over; sign in again")]
    Over,
    /// It was made in a browser for a token, which must not grow into certificates.
    #[error("only `gatescribe login` gets credentials; this token was made in a browser")]
    Browser,
    /// There were no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The book failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its token could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Why a key gets no certificate, or a certificate lets nobody in.
#[derive(Debug, thiserror::Error)]
pub enum NotCertified {
    /// The sign-in.
    #[error(transparent)]
    SignIn(#[from] SignInError),
    /// The SSH key.
    #[error(transparent)]
    Key(#[from] KeyRefused),
    /// The request for an X.509 certificate.
    #[error(transparent)]
    Csr(#[from] CsrRefused),
    /// The certificate that was shown.
    #[error(transparent)]
    Certificate(#[from] CertificateRefused),
    /// The X.509 certificate that was shown.
    #[error(transparent)]
    Client(#[from] ClientRefused),
    /// The authority failed.
    #[error("the certificate could not be made: {0}")]
    Ca(#[from] SshCaError),
}

impl From<StoreError> for NotCertified {
    fn from(error: StoreError) -> Self {
        Self::SignIn(error.into())
    }
}

impl From<NoRandomness> for NotCertified {
    fn from(error: NoRandomness) -> Self {
        Self::SignIn(error.into())
    }
}

impl UserFacing for SignInError {
    fn told(&self) -> String {
        match self {
            Self::Over | Self::Browser => self.to_string(),
            Self::Store(error) => error.told(),
            Self::NoRandomness(_) | Self::Token(_) => "the gateway cannot do this now, tell an administrator".into(),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Over | Self::Browser => Fault::Client,
            Self::NoRandomness(_) | Self::Store(_) | Self::Token(_) => Fault::Gateway,
        }
    }
}

impl UserFacing for NotCertified {
    fn told(&self) -> String {
        match self {
            Self::SignIn(error) => error.told(),
            Self::Key(_) | Self::Certificate(_) | Self::Csr(CsrRefused::Unreadable | CsrRefused::Key) => {
                self.to_string()
            }
            Self::Client(_) => "the client certificate is not accepted; sign in with `gatescribe login`".into(),
            Self::Csr(CsrRefused::Ca(_)) | Self::Ca(_) => {
                "the gateway cannot do this now, tell an administrator".into()
            }
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::SignIn(error) => error.fault(),
            Self::Csr(CsrRefused::Ca(_)) | Self::Ca(_) => Fault::Gateway,
            _ => Fault::Client,
        }
    }
}
