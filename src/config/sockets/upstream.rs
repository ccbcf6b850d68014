//! `[socket.upstream]` as typed: where a socket leads, how the gateway logs in there, how the server proves itself.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use toml::Spanned;

use crate::config::check::Checker;
use crate::config::host;
use crate::config::raw::{self, OneOrMore};
use crate::config::secret::SecretRef;
use crate::identity::ssh_ca;
use crate::socket::{HostKeyCheck, SshCredential, SshUpstream, UpstreamSpec};

/// The only way to switch host key checking off.
const UNCHECKED: &str = "insecure-accept-any";

/// A file of authorities is not longer.
const MOST: u64 = 64 * 1024;

/// Whether any of this is not a public key itself but the name of a file with some.
pub fn names_a_file(keys: &OneOrMore) -> bool {
    match keys {
        OneOrMore::One(text) => !is_key(text),
        OneOrMore::More(list) => list.iter().any(|text| !is_key(text.get_ref())),
    }
}

/// Whether it is written as a public key: a kind of key and something behind it.
pub(in crate::config) fn is_key(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or_default();
    words.next().is_some() && ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start))
}

impl Checker<'_, '_> {
    pub(super) fn upstream(&mut self, table: &Spanned<raw::Upstream>) -> Option<UpstreamSpec> {
        #[derive(Clone, Copy)]
        enum Kind {
            Ssh,
            Shell,
        }
        let later = ["docker", "kubernetes", "ssm", "ecs", "ec2-instance-connect"];
        let kind = table.get_ref().kind.as_ref()?;
        match self.choice(kind, &[("ssh", Kind::Ssh), ("shell", Kind::Shell)], &later)? {
            Kind::Ssh => {
                self.only_of("shell", [place("shell", table.get_ref().shell.as_ref())]);
                self.ssh(table).map(|server| UpstreamSpec::Ssh(Arc::new(server)))
            }
            Kind::Shell => {
                self.only_of("ssh", only_ssh(table.get_ref()));
                self.shell(table)
            }
        }
    }

    /// Tells of keys that are there and mean something for another kind only.
    fn only_of<const N: usize>(&mut self, kind: &str, keys: [Place; N]) {
        for (key, at) in keys.into_iter().flatten() {
            let words = format!("`{key}` is for `kind = \"{kind}\"`");
            self.report.error(&at, words, "leave it out");
        }
    }

    fn ssh(&mut self, table: &Spanned<raw::Upstream>) -> Option<SshUpstream> {
        let raw = table.get_ref();
        let address = self.need(&raw.address, table, "socket.upstream", "address", "\"10.0.0.5:22\"");
        let address = address.and_then(|typed| {
            self.report.value(typed, host::host_port(typed.get_ref(), 22), "write \"host:port\" or \"[IPv6]:port\"")
        });
        let username = raw.username.as_ref().map(|typed| self.filled(typed));
        let credential = self.credential(table);
        let host_key = self.host_key(table);
        Some(SshUpstream {
            address: address?,
            username: username.map_or(Some(None), |username| username.map(Some))?,
            credential: credential?,
            host_key: host_key?,
            // Once all sockets are known.
            via: None,
        })
    }

    fn credential(&mut self, table: &Spanned<raw::Upstream>) -> Option<SshCredential> {
        let raw = table.get_ref();
        let certificate = raw.certificate.as_ref().filter(|typed| *typed.get_ref());
        let passphrase = raw.private_key_passphrase.as_ref();
        if let (None, Some(passphrase)) = (&raw.private_key, passphrase) {
            let words = "`private_key_passphrase` is for a `private_key`, and there is none";
            self.report.error(&passphrase.span(), words, "leave it out");
            return None;
        }
        let ways = [
            place("private_key", raw.private_key.as_ref()),
            place("password", raw.password.as_ref()),
            place("certificate", certificate),
        ];
        self.one_of(table, ways, ["private_key", "password", "certificate"], LOGIN_EXAMPLE)?;
        match (&raw.private_key, &raw.password) {
            (Some(key), _) => {
                let secret = passphrase.map(|typed| self.secret(typed));
                let pem = self.private_key(key)?;
                let secret = secret.map_or(Some(None), |secret| secret.map(Some))?;
                let opens = ssh_ca::opens(pem.expose_secret(), secret.as_ref().map(ExposeSecret::expose_secret));
                let opens = opens.map_err(|locked| locked.to_string());
                self.report.value(passphrase.unwrap_or(key), opens, PASSPHRASE)?;
                Some(SshCredential::PrivateKey { key: pem, passphrase: secret })
            }
            (_, Some(password)) => self.secret(password).map(SshCredential::Password),
            _ => Some(SshCredential::Certificate),
        }
    }

    fn private_key(&mut self, typed: &Spanned<SecretRef>) -> Option<SecretString> {
        let key = self.secret(typed)?;
        let pem = key.expose_secret();
        let good = pem.trim_start().starts_with("-----BEGIN ") && pem.contains("PRIVATE KEY-----");
        let good = if good { Ok(key) } else { Err("this is no private key in OpenSSH or PEM form") };
        self.report.value(typed, good, "name what `ssh-keygen -t ed25519` wrote, not its `.pub`")
    }

    fn host_key(&mut self, table: &Spanned<raw::Upstream>) -> Option<HostKeyCheck> {
        let raw = table.get_ref();
        let ways = [
            place("host_key", raw.host_key.as_ref()),
            place("known_hosts", raw.known_hosts.as_ref()),
            place("host_ca", raw.host_ca.as_ref()),
        ];
        self.one_of(table, ways, ["host_key", "known_hosts", "host_ca"], HOST_KEY_EXAMPLE)?;
        match (&raw.host_key, &raw.known_hosts, &raw.host_ca) {
            (Some(keys), ..) => self.pinned(keys),
            (_, Some(path), _) => {
                let file = self.base.join(path.get_ref());
                let read = File::open(&file);
                let read = read.map_err(|error| format!("cannot read {}: {error}", file.display()));
                self.report.value(path, read, HOST_KEY).map(|_| HostKeyCheck::KnownHosts(file))
            }
            (.., Some(keys)) => self.authorities(keys),
            _ => None,
        }
    }

    fn pinned(&mut self, keys: &Spanned<OneOrMore>) -> Option<HostKeyCheck> {
        match keys.get_ref() {
            OneOrMore::One(key) if key == UNCHECKED => {
                let words = "the host key is not checked: whoever answers at this address is believed";
                self.report.warn(&keys.span(), words);
                Some(HostKeyCheck::Unverified)
            }
            OneOrMore::One(key) => {
                let key = Spanned::new(keys.span(), key.clone());
                self.fingerprint(&key).map(|key| HostKeyCheck::Fingerprints(vec![key]))
            }
            OneOrMore::More(list) if list.is_empty() => {
                self.report.error(&keys.span(), "no host key is listed", HOST_KEY);
                None
            }
            OneOrMore::More(list) => {
                let keys: Vec<_> = list.iter().map(|key| self.fingerprint(key)).collect();
                keys.into_iter().collect::<Option<_>>().map(HostKeyCheck::Fingerprints)
            }
        }
    }

    /// `SHA256:` and 32 bytes in base64 without padding, as OpenSSH prints it.
    fn fingerprint(&mut self, typed: &Spanned<String>) -> Option<String> {
        let text = typed.get_ref();
        let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
        let good = text.strip_prefix("SHA256:").is_some_and(|hash| hash.len() == 43 && hash.chars().all(base64));
        let good = if good { Ok(text.clone()) } else { Err("this is no SHA256 fingerprint of a host key") };
        self.report.value(typed, good, HOST_KEY)
    }

    fn authorities(&mut self, keys: &Spanned<OneOrMore>) -> Option<HostKeyCheck> {
        let one;
        let list = match keys.get_ref() {
            OneOrMore::One(key) => {
                one = [Spanned::new(keys.span(), key.clone())];
                one.as_slice()
            }
            OneOrMore::More(list) => list.as_slice(),
        };
        let mut found = Vec::new();
        let mut bad = list.is_empty();
        if bad {
            self.report.error(&keys.span(), "no authority is listed", HOST_CA);
        }
        for typed in list {
            let text = typed.get_ref();
            let read = match is_key(text) {
                true => ssh_ca::authority(text).map(|key| vec![key]).map_err(|_| NO_AUTHORITY.to_owned()),
                false => authorities_in(&self.base.join(text)),
            };
            match self.report.value(typed, read, HOST_CA) {
                Some(keys) => found.extend(keys),
                None => bad = true,
            }
        }
        (!bad).then_some(HostKeyCheck::Authorities(found))
    }

    /// Exactly one of these must be there; if it is not, what is wrong was told.
    fn one_of(
        &mut self,
        table: &Spanned<raw::Upstream>,
        there: [Place; 3],
        names: [&str; 3],
        example: &str,
    ) -> Option<()> {
        let there: Vec<_> = there.into_iter().flatten().collect();
        match there.as_slice() {
            [_] => Some(()),
            [(first, _), (second, at), ..] => {
                let words = format!("`{first}` and `{second}` exclude each other");
                self.report.error(at, words, "keep one of them");
                None
            }
            [] => {
                self.report.missing(&table.span(), "socket.upstream", &names, example);
                None
            }
        }
    }
}

/// What only a server has.
fn only_ssh(raw: &raw::Upstream) -> [Place; 9] {
    [
        place("address", raw.address.as_ref()),
        place("certificate", raw.certificate.as_ref()),
        place("private_key", raw.private_key.as_ref()),
        place("private_key_passphrase", raw.private_key_passphrase.as_ref()),
        place("password", raw.password.as_ref()),
        place("host_key", raw.host_key.as_ref()),
        place("known_hosts", raw.known_hosts.as_ref()),
        place("host_ca", raw.host_ca.as_ref()),
        place("via", raw.via.as_ref()),
    ]
}

/// A key and where it is, if it is there.
type Place = Option<(&'static str, Range<usize>)>;

fn place<T>(name: &'static str, typed: Option<&Spanned<T>>) -> Place {
    typed.map(|typed| (name, typed.span()))
}

/// The keys in a file, one on each line.
fn authorities_in(file: &Path) -> Result<Vec<String>, String> {
    let shown = file.display();
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(MOST).read_to_string(&mut text));
    read.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|(number, line)| {
        ssh_ca::authority(line).map_err(|_| format!("line {} of {shown}: {NO_AUTHORITY}", number + 1))
    });
    let keys: Vec<String> = keys.collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(format!("there is no public key in {shown}")) } else { Ok(keys) }
}

const PASSPHRASE: &str = "name the one that `ssh-keygen -y -f KEY` asks for as `private_key_passphrase`";
const LOGIN_EXAMPLE: &str = "\"file:keys/web-1\", or password, or certificate = true";
const HOST_KEY_EXAMPLE: &str =
    "\"SHA256:...\" as `ssh-keyscan HOST | ssh-keygen -lf -` prints it, or known_hosts, or host_ca";
const HOST_KEY: &str = "write \"SHA256:...\" as `ssh-keyscan HOST | ssh-keygen -lf -` prints it, a list of those, or \
                        known_hosts = PATH";
const HOST_CA: &str = "write the line of the authority's .pub file, or the name of such a file";
const NO_AUTHORITY: &str = "this is no public key of an authority: Ed25519, ECDSA, or RSA from 2048 bits on";
