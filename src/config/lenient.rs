//! Reading a configuration for what it allows, where its secrets cannot be read: in an administrator's shell, not in the
//! gateway's environment. Every rule of the file holds as always; only what it names outside of itself is not looked at.

use toml::Spanned;

use super::raw::{OneOrMore, Raw, Upstream};
use super::secret::SecretRef;
use super::sockets::upstream;

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
        if self.kind.as_ref().is_some_and(|kind| kind.get_ref() != "ssh") {
            // Whatever stands here beside is for servers, a mistake, and told by its own name.
            return;
        }
        let secrets = [&mut self.private_key, &mut self.private_key_passphrase, &mut self.password];
        secrets.into_iter().flatten().for_each(stand_in);
        let ca_file = self.host_ca.as_ref().filter(|typed| upstream::names_a_file(typed.get_ref()));
        let file = self.known_hosts.as_ref().map(Spanned::span).or(ca_file.map(Spanned::span));
        if self.host_key.is_none()
            && (self.known_hosts.is_none() || self.host_ca.is_none())
            && let Some(file) = file
        {
            (self.known_hosts, self.host_ca) = (None, None);
            let none = OneOrMore::One(format!("SHA256:{}", "0".repeat(43)));
            self.host_key = Some(Spanned::new(file, none));
        }
    }
}

/// A secret that was typed itself stays, and is the mistake that it always is.
fn stand_in(secret: &mut Spanned<SecretRef>) {
    if secret.get_ref().is_reference() {
        *secret.get_mut() = SecretRef::variable(VARIABLE);
    }
}
