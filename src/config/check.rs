//! As typed to ready values: everything but sockets and policies.
//!
//! Each table is checked to its end even where something is wrong in it, so that all of it is told at once; a function
//! gives `None` only after it has told why.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret, SecretString};
use toml::Spanned;

use super::raw::{self, List, Raw, Text, Typed};
use super::report::Report;
use super::secret::{Env, SecretError, SecretRef};
use super::{
    Config, Durability, Gateway, Limits, Listen, Log, LogFormat, Oidc, Origin, OtherAddress, Recording, Roles, SignIn,
    Tls, Traces, Written, host, policies, schema, size, sockets,
};
use crate::geo::Geo;
use crate::record::keys::RecordingKey;
use crate::socket::OnFailure;

/// What checks need beside the value: where paths start, where variables are, where mistakes go.
pub struct Checker<'a, 'b> {
    /// The directory of the file.
    pub base: &'a Path,
    /// The environment.
    pub env: Env<'a>,
    /// What was found.
    pub report: &'a mut Report<'b>,
}

/// Checks a file whose defaults are filled in.
pub fn config(raw: &Raw, file: &Path, env: Env<'_>, report: &mut Report<'_>) -> Option<Config> {
    let base = file.parent().unwrap_or(Path::new(""));
    let mut check = Checker { base, env, report };
    let listen = check.listen(raw.listen.as_ref()?);
    let gateway = check.gateway(raw.gateway.as_ref()?, listen.as_ref());
    let tls = raw.tls.as_ref().map(|tls| check.tls(tls));
    let oidc = check.oidc(raw.oidc.as_ref()?);
    let roles = check.roles(raw.roles.as_ref()?);
    let sign_in = check.sign_in(raw.sign_in.as_ref()?);
    check.store(raw.store.as_ref()?);
    let recording = check.recording(raw.recording.as_ref()?);
    let geo = check.geo(raw.geo.as_ref());
    let limits = check.limits(raw.limits.as_ref()?);
    let log = check.log(raw.log.as_ref()?);
    let traces = raw.telemetry.as_ref().map(|table| check.traces(table));
    let sockets = sockets::sockets(&raw.socket, raw.listen.as_ref()?, &mut check);
    let around = policies::Around {
        sockets: &sockets,
        sign_in_lasts: oidc.as_ref().map(|oidc| oidc.session_lifetime),
        groups_claim: oidc.as_ref().map(|oidc| oidc.groups_claim.as_str()),
        knows_countries: raw.geo.as_ref().is_some_and(|geo| geo.get_ref().names_any()),
    };
    let policies = policies::policies(&raw.policy, &around, &mut check);
    Some(Config {
        file: file.to_owned(),
        text: String::new(),
        gateway: gateway?,
        listen: listen?,
        tls: tls.map_or(Some(None), |tls| tls.map(Some))?,
        oidc: oidc?,
        roles,
        sign_in: sign_in?,
        recording: recording?,
        geo: geo?,
        limits: limits?,
        log: log?,
        traces: traces.map_or(Some(None), |traces| traces.map(Some))?,
        sockets,
        policies,
        written: Written::default(),
        warnings: Vec::new(),
    })
}

impl Checker<'_, '_> {
    fn gateway(&mut self, table: &Spanned<raw::Gateway>, listen: Option<&Listen>) -> Option<Gateway> {
        let raw = table.get_ref();
        let domain = self.need(&raw.domain, table, "gateway", "domain", "\"access.example.com\"");
        let domain = domain.and_then(|typed| self.report.value(typed, host::domain(typed.get_ref()), DOMAIN));
        let url = raw.public_url.as_ref().map(|typed| {
            let url = self.report.value(typed, host::origin(typed.get_ref()), PUBLIC_URL)?;
            if domain.as_ref().is_some_and(|domain| *domain != url.host) {
                self.report.warn(&typed.span(), "the host of `public_url` is not `domain`, where the portal is");
            }
            Some(url)
        });
        let data_dir = self.path(&raw.data_dir)?;
        let proxy_protocol_from = self.networks(&raw.proxy_protocol_from);
        if let Some(list) = raw.proxy_protocol_from.as_ref().filter(|_| proxy_protocol_from.iter().any(is_everybody)) {
            self.report
                .warn(&list.span(), "everybody may claim any address: name only the balancers before the gateway");
        }
        let public_url = match url {
            Some(url) => url?,
            None => Origin { host: domain.clone()?, port: listen?.https.port() },
        };
        Some(Gateway { domain: domain?, public_url, data_dir, proxy_protocol_from })
    }

    fn listen(&mut self, table: &Spanned<raw::Listen>) -> Option<Listen> {
        let raw = table.get_ref();
        let https = self.address(raw.https.as_ref()?);
        let ssh = self.address(raw.ssh.as_ref()?);
        let all = raw.all.as_ref().map(|typed| self.address(typed));
        Some(Listen { https: https?, ssh: ssh?, all: all.map_or(Some(None), |all| all.map(Some))? })
    }

    fn tls(&mut self, table: &Spanned<raw::Tls>) -> Option<Tls> {
        let raw = table.get_ref();
        let at = self.need(&raw.certificate, table, "tls", "certificate", "\"certs/gateway.crt\"");
        let key_at = self.need(&raw.key, table, "tls", "key", "\"file:certs/gateway.key\"");
        let certificates = at.and_then(|typed| {
            let path = self.base.join(typed.get_ref());
            let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let read = read.map_err(|error| format!("cannot read certificates from {}: {error}", path.display()));
            let read = read.and_then(|list| match list.is_empty() {
                true => Err(format!("there is no certificate in {}", path.display())),
                false => Ok(list),
            });
            self.report.value(typed, read, "name a PEM file with the certificate first, then what leads to its root")
        });
        let key = key_at.and_then(|typed| {
            let pem = self.secret(typed)?;
            let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes());
            let key = key.map_err(|_| "there is no private key without passphrase in it");
            self.report.value(typed, key, "name a PEM file with the key, not encrypted")
        });
        let (certificates, key) = (certificates?, key?);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let pair = CertifiedKey::from_der(certificates.clone(), key.clone_key(), &provider);
        let pair = pair.map_err(|error| format!("certificate and key do not belong together: {error}"));
        self.report.value(key_at?, pair, "name the key that the certificate was made for")?;
        Some(Tls { certificates, key })
    }

    fn oidc(&mut self, table: &Spanned<raw::Oidc>) -> Option<Oidc> {
        let raw = table.get_ref();
        let issuer = self.need(&raw.issuer, table, "oidc", "issuer", "\"https://idp.example.com\"").and_then(|typed| {
            let host = host::issuer_host(typed.get_ref()).ok_or("this is no issuer: an https URL without `?` and `#`");
            self.report.value(typed, host, "write it exactly as the provider does; http is for this host alone")?;
            if typed.get_ref().starts_with("http:") {
                self.report.warn(&typed.span(), "the provider is reached without TLS");
            }
            Some(typed.get_ref().clone())
        });
        let client_id = self.need(&raw.client_id, table, "oidc", "client_id", "\"gatescribe\"");
        let client_id = client_id.and_then(|typed| self.filled(typed));
        let example = "\"env:GATESCRIBE_OIDC_SECRET\"";
        let client_secret = self.need(&raw.client_secret, table, "oidc", "client_secret", example);
        let client_secret = client_secret.and_then(|typed| self.secret(typed));
        let groups_claim = self.filled(raw.groups_claim.as_ref()?);
        let lifetime = raw.session_lifetime.as_ref()?;
        let session_lifetime = self.duration(lifetime, Duration::from_secs(60)..=DAY * 365, "between 1m and 365d");
        Some(Oidc {
            issuer: issuer?,
            client_id: client_id?,
            client_secret: client_secret?,
            groups_claim: groups_claim?,
            session_lifetime: session_lifetime?,
        })
    }

    fn roles(&mut self, table: &Spanned<raw::Roles>) -> Roles {
        let admin = self.list(&table.get_ref().admin);
        if admin.is_empty() {
            self.report.warn(
                &table.span(),
                "no group is `admin` in [roles]: nobody can make tokens for others or revoke them",
            );
        }
        let (operator, auditor) = (self.list(&table.get_ref().operator), self.list(&table.get_ref().auditor));
        Roles { admin, operator, auditor }
    }

    fn sign_in(&mut self, table: &Spanned<raw::SignIn>) -> Option<SignIn> {
        let choices = [("confirm", OtherAddress::Confirm), ("deny", OtherAddress::Deny)];
        let other_address = self.choice(table.get_ref().other_address.as_ref()?, &choices, &[])?;
        let device_groups = self.list(&table.get_ref().device_groups);
        Some(SignIn { other_address, device_groups })
    }

    fn store(&mut self, table: &Spanned<raw::Store>) -> Option<()> {
        let url = table.get_ref().url.as_ref()?;
        match url.get_ref().as_str() {
            "sqlite" => Some(()),
            // Such a URL may hold a password: it is not repeated.
            _ => {
                self.report.error(&url.span(), "a store other than sqlite is not built yet", "write \"sqlite\"");
                None
            }
        }
    }

    fn recording(&mut self, table: &Spanned<raw::Recording>) -> Option<Recording> {
        let raw = table.get_ref();
        if let Some(location) = raw.location.as_ref().filter(|typed| typed.get_ref() != "file") {
            self.report.error(&location.span(), "a location other than \"file\" is not built yet", "write \"file\"");
        }
        let on_failure = self.on_failure(raw.on_failure.as_ref()?);
        let durability = [("process", Durability::Process), ("disk", Durability::Disk)];
        let durability = self.choice(raw.durability.as_ref()?, &durability, &[]);
        let max_recording = self.size(raw.max_recording.as_ref()?, 1024..=u64::MAX, "1KiB or more");
        let keep_free = self.size(raw.keep_free.as_ref()?, 0..=u64::MAX, "a size");
        let key = raw.key.as_ref().map(|typed| self.recording_key(typed));
        let old_keys = raw.old_keys.iter().flat_map(|list| list.get_ref());
        let old_keys: Vec<_> = old_keys.map(|typed| self.recording_key(typed)).collect();
        let retention = raw.retention.as_ref()?;
        let hundred_years = DAY * 36_500;
        let kept = self.duration(retention, Duration::from_secs(1)..=hundred_years, "between 1s and 36500d");
        if kept.is_some_and(|kept| kept < DAY) {
            self.report.warn(&retention.span(), "sessions and their recordings are removed within a day of their end");
        }
        let spool = raw.spool.as_ref().map(|typed| self.filled(typed).map(|path| self.base.join(path)));
        Some(Recording {
            on_failure: on_failure?,
            durability: durability?,
            max_recording: max_recording?,
            keep_free: keep_free?,
            spool: spool.map_or(Some(None), |spool| spool.map(Some))?,
            key: key.map_or(Some(None), |key| key.map(Some))?,
            old_keys: old_keys.into_iter().collect::<Option<_>>()?,
            retention: kept?,
        })
    }

    /// Each file alone first, so that a mistake is told where it stands.
    fn geo(&mut self, table: Option<&Spanned<raw::Geo>>) -> Option<Geo> {
        let keys = table.map(|table| [&table.get_ref().city_database, &table.get_ref().country_database]);
        let mut databases = Vec::new();
        for typed in keys.into_iter().flatten().flatten() {
            let files: Vec<PathBuf> = match typed.get_ref() {
                raw::OneOrMore::One(file) => vec![self.base.join(file)],
                raw::OneOrMore::More(files) => files.iter().map(|file| self.base.join(file.get_ref())).collect(),
            };
            databases.push(self.report.value(typed, Geo::open(&files), "name files in MaxMind's format (.mmdb)"));
        }
        Some(Geo::all(databases.into_iter().collect::<Option<Vec<_>>>()?))
    }

    fn recording_key(&mut self, typed: &Spanned<SecretRef>) -> Option<RecordingKey> {
        let key = RecordingKey::parse(self.secret(typed)?.expose_secret());
        self.report.value(typed, key, "`openssl rand -base64 32` makes one")
    }

    fn limits(&mut self, table: &Spanned<raw::Limits>) -> Option<Limits> {
        let raw = table.get_ref();
        let connections_per_address = self.at_least_one(raw.connections_per_address.as_ref()?);
        let channels_per_connection = self.at_least_one(raw.channels_per_connection.as_ref()?);
        let sessions_per_user = self.at_least_one(raw.sessions_per_user.as_ref()?);
        let connections_per_minute = self.at_least_one(raw.connections_per_minute.as_ref()?);
        let sign_ins_per_minute = self.at_least_one(raw.sign_ins_per_minute.as_ref()?);
        let second = Duration::from_secs(1);
        let handshake = self.duration(raw.handshake.as_ref()?, second..=second * 600, "between 1s and 10m");
        let drain = self.duration(raw.drain.as_ref()?, Duration::ZERO..=DAY, "between 0s and 1d");
        Some(Limits {
            connections_per_address: connections_per_address?,
            handshake: handshake?,
            channels_per_connection: channels_per_connection?,
            drain: drain?,
            sessions_per_user: sessions_per_user?,
            connections_per_minute: connections_per_minute?,
            sign_ins_per_minute: sign_ins_per_minute?,
        })
    }

    fn log(&mut self, table: &Spanned<raw::Log>) -> Option<Log> {
        let raw = table.get_ref();
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = self.choice(raw.format.as_ref()?, &formats, &[]);
        let level = raw.level.as_ref()?;
        let parsed = tracing_subscriber::EnvFilter::builder().parse(level.get_ref());
        let parsed = parsed.map_err(|error| format!("this is no log level: {error}"));
        let help = "write error, warn, info, debug or trace, or a filter such as \"info,gatescribe::policy=debug\"";
        self.report.value(level, parsed, help)?;
        Some(Log { format: format?, level: level.get_ref().clone() })
    }

    fn traces(&mut self, table: &Spanned<raw::Telemetry>) -> Option<Traces> {
        let raw = table.get_ref();
        let otlp = self.need(&raw.otlp, table, "telemetry", "otlp", "\"http://127.0.0.1:4318\"");
        let otlp = otlp.and_then(|typed| {
            let url = host::collector(typed.get_ref());
            self.report.value(typed, url, "write where the collector takes OTLP over HTTP: \"http://HOST:4318\"")
        });
        let service_name = self.filled(raw.service_name.as_ref()?);
        let sample = raw.sample.as_ref()?;
        let sample = self.within(&sample.span(), *sample.get_ref(), 0.0..=1.0, "0.0 to 1.0");
        Some(Traces { otlp: otlp?, service_name: service_name?, sample: sample? })
    }

    /// The value of a key that must be there.
    pub fn need<'t, T, U>(
        &mut self,
        key: &'t Typed<T>,
        table: &Spanned<U>,
        path: &str,
        name: &str,
        example: &str,
    ) -> Option<&'t Spanned<T>> {
        if key.is_none() {
            self.report.missing(&table.span(), path, &[name], example);
        }
        key.as_ref()
    }

    /// The secret that is named there.
    pub fn secret(&mut self, typed: &Spanned<SecretRef>) -> Option<SecretString> {
        match typed.get_ref().read(self.base, self.env) {
            Ok(secret) => {
                if let Some(path) = secret.exposed {
                    let words = format!("everybody on this host may read the secret in {}: chmod o-r", path.display());
                    self.report.warn(&typed.span(), words);
                }
                Some(secret.value)
            }
            Err(error) => {
                let help = match error {
                    SecretError::Literal => "write \"env:NAME\" or \"file:PATH\", and keep the secret there",
                    SecretError::NoVariable(_) => "set it for the gateway, or name a file: \"file:PATH\"",
                    _ => "relative paths start at the configuration file's directory",
                };
                self.report.error(&typed.span(), error.to_string(), help);
                None
            }
        }
    }

    /// One of some words; `later` are the contract's words that are not built yet.
    pub fn choice<T: Copy>(&mut self, typed: &Spanned<String>, choices: &[(&str, T)], later: &[&str]) -> Option<T> {
        let word = typed.get_ref().as_str();
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*value);
        }
        let names = choices.iter().map(|(name, _)| *name);
        let all = names.clone().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
        let (words, help) = match (later.contains(&word), schema::meant(word, names)) {
            (true, _) => (format!("\"{word}\" is not built yet"), format!("there is {all}")),
            (false, Some(meant)) => (format!("unknown word {word:?}"), format!("did you mean \"{meant}\"?")),
            (false, None) => (format!("unknown word {word:?}"), format!("write {all}")),
        };
        self.report.error(&typed.span(), words, help);
        None
    }

    /// What a recording that fails does.
    pub fn on_failure(&mut self, typed: &Spanned<String>) -> Option<OnFailure> {
        self.choice(typed, &[("end-session", OnFailure::EndSession), ("continue", OnFailure::Continue)], &[])
    }

    /// Text that is not empty.
    pub fn filled(&mut self, typed: &Spanned<String>) -> Option<String> {
        let text = typed.get_ref();
        let words = match () {
            _ if text.is_empty() => "this is empty",
            _ if text.chars().any(char::is_control) => "there are control characters in this",
            _ => return Some(text.clone()),
        };
        self.report.error(&typed.span(), words, "write something, or leave the key out");
        None
    }

    /// A list's texts, none of them empty; repeated ones are warned of.
    pub fn list(&mut self, list: &List) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        for typed in list.iter().flat_map(|list| list.get_ref()) {
            let Some(text) = self.filled(typed) else { continue };
            match texts.contains(&text) {
                true => self.report.warn(&typed.span(), format!("{text:?} stands in this list twice")),
                false => texts.push(text),
            }
        }
        texts
    }

    /// Networks; a single address is one too.
    pub fn networks(&mut self, list: &List) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for typed in list.iter().flat_map(|list| list.get_ref()) {
            let text = typed.get_ref();
            let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let parsed = parsed.map_err(|_| "this is no network");
            networks.extend(self.report.value(
                typed,
                parsed,
                "write \"10.0.0.0/8\", \"2001:db8::/32\" or an IP address",
            ));
        }
        networks
    }

    /// An address to listen on.
    pub fn address(&mut self, typed: &Spanned<String>) -> Option<SocketAddr> {
        let address = typed.get_ref().parse().map_err(|_| "this is no address to listen on");
        self.report.value(typed, address, "write an IP address and a port: \"0.0.0.0:2222\" or \"[::]:2222\"")
    }

    fn path(&mut self, typed: &Text) -> Option<PathBuf> {
        self.filled(typed.as_ref()?).map(|path| self.base.join(path))
    }

    /// A span of time within a range, which `words` tell.
    pub fn duration(
        &mut self,
        typed: &Spanned<String>,
        range: RangeInclusive<Duration>,
        words: &str,
    ) -> Option<Duration> {
        let duration = self.report.value(typed, size::duration(typed.get_ref()), "")?;
        self.within(&typed.span(), duration, range, words)
    }

    fn size(&mut self, typed: &Spanned<String>, range: RangeInclusive<u64>, words: &str) -> Option<u64> {
        let size = self.report.value(typed, size::size(typed.get_ref()), "")?;
        self.within(&typed.span(), size, range, words)
    }

    fn at_least_one(&mut self, typed: &Spanned<u32>) -> Option<u32> {
        self.within(&typed.span(), *typed.get_ref(), 1..=u32::MAX, "1 or more")
    }

    fn within<T: PartialOrd>(
        &mut self,
        at: &Range<usize>,
        value: T,
        range: RangeInclusive<T>,
        words: &(impl Display + ?Sized),
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        self.report.error(at, "this is out of range", format!("write {words}"));
        None
    }
}

fn is_everybody(network: &IpNet) -> bool {
    network.prefix_len() == 0
}

const DAY: Duration = Duration::from_secs(86_400);
const DOMAIN: &str = "write a name that leads to this gateway, such as \"access.example.com\"";
const PUBLIC_URL: &str = "write \"https://HOST\" or \"https://HOST:PORT\"";
