//! `[[socket]]` as typed to [`Socket`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use toml::Spanned;

use super::check::Checker;
use super::host;
use super::raw::{self, OneOrMore, Typed};
use crate::accounts::Account;
use crate::socket::{HostKeyCheck, Protocol, Socket, SshCredential, SshUpstream, UpstreamSpec};

/// Names that the portal keeps for itself.
const TAKEN: [&str; 2] = ["api", "replay"];

/// The only way to switch host key checking off.
const UNCHECKED: &str = "insecure-accept-any";

/// Every socket that is good; what is wrong with the others was told.
pub fn sockets(
    raw: &[Spanned<raw::Socket>],
    listen: &Spanned<raw::Listen>,
    check: &mut Checker<'_, '_>,
) -> Vec<Socket> {
    if raw.is_empty() {
        check.report.warn(&(0..0), "there is no [[socket]]: nothing can be reached");
    }
    let mut names: HashMap<&str, ()> = HashMap::new();
    let mut addresses = Addresses::default();
    let shared = listen.get_ref();
    for (what, typed) in [("[listen] https", &shared.https), ("[listen] ssh", &shared.ssh)] {
        typed.iter().for_each(|typed| addresses.take(typed, what.to_owned(), check));
    }
    let mut good = Vec::new();
    for socket in raw {
        let name = &socket.get_ref().name;
        if let Some(name) = name
            && names.insert(name.get_ref(), ()).is_some()
        {
            let words = format!("there is another socket called {:?}", name.get_ref());
            check.report.error(&name.span(), words, "give every socket its own name");
        }
        if let Some(listen) = &socket.get_ref().listen {
            let whose =
                name.as_ref().map_or("another socket".to_owned(), |name| format!("socket {:?}", name.get_ref()));
            addresses.take(listen, whose, check);
        }
        good.extend(check.socket(socket));
    }
    good
}

/// How people may sign in.
#[derive(Clone, Copy)]
struct Ways {
    link: bool,
    certificate: bool,
}

impl Checker<'_, '_> {
    fn socket(&mut self, table: &Spanned<raw::Socket>) -> Option<Socket> {
        let raw = table.get_ref();
        let name = self.need(&raw.name, table, "socket", "name", "\"web-1\"").and_then(|typed| {
            let name = self.report.value(typed, host::label(typed.get_ref()), "write a name such as \"web-1\"")?;
            if TAKEN.contains(&name.as_str()) {
                let words = format!("the name {name:?} is taken by the gateway itself");
                self.report.error(&typed.span(), words, "choose another name");
            }
            Some(name)
        });
        let protocol = self.need(&raw.kind, table, "socket", "type", "\"ssh\"").and_then(|typed| {
            self.choice(typed, &[("ssh", Protocol::Ssh)], &["postgres", "mysql", "http", "kubernetes", "tcp"])
        });
        let upstream = self.need(&raw.upstream, table, "socket", "upstream", UPSTREAM_EXAMPLE);
        let upstream = upstream.and_then(|upstream| self.upstream(upstream));
        let on_failure = self.on_failure(raw.on_failure.as_ref()?);
        let listen = raw.listen.as_ref().map(|typed| self.address(typed));
        let ways = self.sign_in_ways(raw);
        Some(Socket {
            name: name?,
            protocol: protocol?,
            tags: raw.tags.as_ref().map(|tags| tags.get_ref().clone()).unwrap_or_default(),
            record: *raw.record.as_ref()?.get_ref(),
            on_failure: on_failure?,
            notice: raw.notice.as_ref().map(|notice| notice.get_ref().clone()),
            listen: listen.map_or(Some(None), |listen| listen.map(Some))?,
            links: ways?.link,
            certificates: ways?.certificate,
            upstream: upstream?,
        })
    }

    fn sign_in_ways(&mut self, raw: &raw::Socket) -> Option<Ways> {
        let ways = raw.sign_in.as_ref()?;
        let (mut link, mut certificate) = (false, false);
        for way in ways.get_ref() {
            match self.choice(way, &[("link", true), ("certificate", false)], &[])? {
                true => link = true,
                false => certificate = true,
            }
        }
        if !link && !certificate {
            let words = "an empty `sign_in` lets nobody in";
            self.report.error(&ways.span(), words, "write [\"certificate\"] to turn links off, or leave it out");
        }
        Some(Ways { link, certificate })
    }

    fn upstream(&mut self, table: &Spanned<raw::Upstream>) -> Option<UpstreamSpec> {
        #[derive(Clone, Copy)]
        enum Kind {
            Ssh,
            Shell,
        }
        let later = ["docker", "kubernetes", "ssm", "ecs", "ec2-instance-connect"];
        let kind = table.get_ref().kind.as_ref()?;
        match self.choice(kind, &[("ssh", Kind::Ssh), ("shell", Kind::Shell)], &later)? {
            Kind::Ssh => {
                self.only_of(&[("shell", span(&table.get_ref().shell))], "shell");
                self.ssh(table).map(UpstreamSpec::Ssh)
            }
            Kind::Shell => self.shell(table),
        }
    }

    fn shell(&mut self, table: &Spanned<raw::Upstream>) -> Option<UpstreamSpec> {
        let raw = table.get_ref();
        self.only_of(
            &[
                ("address", span(&raw.address)),
                ("private_key", span(&raw.private_key)),
                ("password", span(&raw.password)),
                ("host_key", span(&raw.host_key)),
                ("known_hosts", span(&raw.known_hosts)),
            ],
            "ssh",
        );
        let shell = raw.shell.as_ref().map(|typed| {
            let path = self.filled(typed).map(PathBuf::from)?;
            let good = path.is_absolute() && (raw.alone || path.is_file());
            let good = if good { Ok(path) } else { Err("this is no program of this host") };
            self.report.value(typed, good, "write the whole path: \"/bin/sh\"")
        });
        let username = self.need(&raw.username, table, "socket.upstream", "username", "\"support\"");
        let username = username.and_then(|typed| {
            let name = self.filled(typed)?;
            if raw.alone {
                return Some(name);
            }
            // Whether it is the gateway's own user is for the gateway to see: others may run this check.
            let account = Account::find(&name).and_then(|account| account.unprivileged(0));
            let account =
                self.report.value(typed, account, "name a user of this host who owns nothing of the gateway's")?;
            if raw.shell.is_none() && account.has_no_shell() {
                let words = format!("{} lets nobody in: name another `shell`", account.shell.display());
                self.report.warn(&typed.span(), words);
            }
            Some(name)
        });
        let shell = shell.map_or(Some(None), |shell| shell.map(Some))?;
        Some(UpstreamSpec::ShellAs { username: username?, shell })
    }

    /// Tells of keys that are there and mean nothing here.
    fn only_of(&mut self, keys: &[(&str, Option<Range<usize>>)], kind: &str) {
        for (key, at) in keys {
            if let Some(at) = at {
                let words = format!("`{key}` is for `kind = \"{kind}\"`");
                self.report.error(at, words, "leave it out");
            }
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
        })
    }

    fn credential(&mut self, table: &Spanned<raw::Upstream>) -> Option<SshCredential> {
        let raw = table.get_ref();
        match (&raw.private_key, &raw.password) {
            (Some(key), None) => self.private_key(key).map(SshCredential::PrivateKey),
            (None, Some(password)) => self.secret(password).map(SshCredential::Password),
            (Some(_), Some(password)) => {
                let words = "`private_key` and `password` exclude each other";
                self.report.error(&password.span(), words, "keep one of them");
                None
            }
            (None, None) => {
                self.report.missing(
                    &table.span(),
                    "socket.upstream",
                    &["private_key", "password"],
                    "\"file:keys/web-1\", or password",
                );
                None
            }
        }
    }

    fn private_key(&mut self, typed: &Spanned<super::secret::SecretRef>) -> Option<SecretString> {
        let key = self.secret(typed)?;
        let pem = key.expose_secret();
        let good = pem.trim_start().starts_with("-----BEGIN ") && pem.contains("PRIVATE KEY-----");
        let good = if good { Ok(key) } else { Err("this is no private key in OpenSSH or PEM form") };
        self.report.value(typed, good, "name what `ssh-keygen -t ed25519 -N ''` wrote, not its `.pub`")
    }

    fn host_key(&mut self, table: &Spanned<raw::Upstream>) -> Option<HostKeyCheck> {
        let raw = table.get_ref();
        match (&raw.host_key, &raw.known_hosts) {
            (Some(keys), None) => match keys.get_ref() {
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
            },
            (None, Some(path)) => {
                let file = self.base.join(path.get_ref());
                let read = std::fs::File::open(&file);
                let read = read.map_err(|error| format!("cannot read {}: {error}", file.display()));
                self.report.value(path, read, HOST_KEY).map(|_| HostKeyCheck::KnownHosts(file))
            }
            (Some(_), Some(path)) => {
                self.report.error(&path.span(), "`host_key` and `known_hosts` exclude each other", "keep one of them");
                None
            }
            (None, None) => {
                let example = "\"SHA256:...\" as `ssh-keyscan HOST | ssh-keygen -lf -` prints it, or known_hosts";
                self.report.missing(&table.span(), "socket.upstream", &["host_key", "known_hosts"], example);
                None
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
}

fn span<T>(key: &Typed<T>) -> Option<Range<usize>> {
    key.as_ref().map(Spanned::span)
}

/// Who listens where.
#[derive(Default)]
struct Addresses(Vec<(SocketAddr, String)>);

impl Addresses {
    /// Notes an address, and tells where somebody else has it.
    fn take(&mut self, typed: &Spanned<String>, whose: String, check: &mut Checker<'_, '_>) {
        // What is no address is told where it is checked.
        let Ok(address) = typed.get_ref().parse::<SocketAddr>() else { return };
        let all = |address: &SocketAddr| address.ip().is_unspecified();
        let clash = self.0.iter().find(|(other, _)| {
            let same = other.ip() == address.ip() || all(other) || all(&address);
            same && other.port() == address.port() && address.port() != 0
        });
        if let Some((_, other)) = clash {
            // Two defaults cannot clash, so where one side is a default the other has a place to point at.
            let words = format!("{address} is where {other} listens");
            check.report.error(&typed.span(), words, "choose another port");
        }
        self.0.push((address, whose));
    }
}

const UPSTREAM_EXAMPLE: &str = "{ address = \"10.0.0.5:22\", ... }, or a table [socket.upstream]";
const HOST_KEY: &str = "write \"SHA256:...\" as `ssh-keyscan HOST | ssh-keygen -lf -` prints it, a list of those, or \
                        known_hosts = PATH";
