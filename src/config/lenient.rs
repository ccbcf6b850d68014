//! Reading a configuration for what it allows, where its secrets cannot be read: in an administrator's shell, not in the
//! gateway's environment. Every rule of the file holds as always; only what it names outside of itself is not looked at.

use toml::Spanned;

use super::raw::{OneOrMore, Raw, Upstream};
use super::secret::SecretRef;

/// What every secret is. A private key must look like one.
pub(super) const NOT_READ: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nnot read\n-----END OPENSSH PRIVATE KEY-----";

/// The variable that stands for every secret.
const VARIABLE: &str = "NOT_READ";

/// Takes out what would be read from files or the environment and decides nothing about who may do what.
pub(super) fn without_the_outside(mut raw: Raw) -> Raw {
    raw.tls = None;
    raw.geo = None;
    if let Some(oidc) = &mut raw.oidc {
        oidc.get_mut().client_secret.iter_mut().for_each(stand_in);
    }
    if let Some(recording) = &mut raw.recording {
        recording.get_mut().key = None;
        recording.get_mut().old_keys = None;
    }
    for socket in &mut raw.socket {
        socket.get_mut().upstream.iter_mut().for_each(|upstream| upstream.get_mut().without_the_outside());
    }
    raw
}

impl Upstream {
    fn without_the_outside(&mut self) {
        self.alone = true;
        [&mut self.private_key, &mut self.password].into_iter().flatten().for_each(stand_in);
        if self.host_key.is_none()
            && let Some(file) = self.known_hosts.take()
        {
            let none = OneOrMore::One(format!("SHA256:{}", "0".repeat(43)));
            self.host_key = Some(Spanned::new(file.span(), none));
        }
    }
}

/// A secret that was typed itself stays, and is the mistake that it always is.
fn stand_in(secret: &mut Spanned<SecretRef>) {
    if secret.get_ref().is_reference() {
        *secret.get_mut() = SecretRef::variable(VARIABLE);
    }
}
