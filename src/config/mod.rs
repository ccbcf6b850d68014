//! Configuration: a TOML file in, a checked [`Config`] of ready values out, or every mistake in it with its place.
//!
//! Two steps: `read` makes the file as typed (`raw`) and `check` makes values of it. Nothing behind this module reads a
//! string again. It opens the files that the configuration names (secrets, certificates), and nothing else; whether an
//! address can be bound or a provider answers is not its business.

mod check;
mod difference;
mod error;
mod host;
pub mod in_force;
mod lenient;
mod policies;
mod raw;
mod read;
mod report;
mod schema;
pub mod secret;
pub mod size;
mod sockets;
mod written;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;

pub use difference::{Difference, Names, Written};
pub use error::{ConfigError, ConfigErrors, Position, Warning};
pub use host::{Origin, label};
pub use written::policies_as_written;

use crate::geo::Geo;
use crate::policy::Policies;
use crate::record::keys::RecordingKey;
use crate::socket::{OnFailure, Socket};
use report::Report;
use secret::Env;

/// Where `serve` looks when neither `--config` nor `GATESCRIBE_CONFIG` names a file.
const PLACES: [&str; 2] = ["config/gatescribe.toml", "/etc/gatescribe/gatescribe.toml"];

/// Longer files are refused.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A checked configuration. Every value is ready to use, every path as good as absolute.
#[derive(Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// What stood in it; empty: it was never a file.
    pub text: String,
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[listen]`
    pub listen: Listen,
    /// `[tls]`; `None`: the gateway's own CA issues the certificate.
    pub tls: Option<Tls>,
    /// `[oidc]`
    pub oidc: Oidc,
    /// `[roles]`
    pub roles: Roles,
    /// `[sign_in]`
    pub sign_in: SignIn,
    /// `[recording]`
    pub recording: Recording,
    /// `[geo]`: its databases, read.
    pub geo: Geo,
    /// `[limits]`
    pub limits: Limits,
    /// `[log]`
    pub log: Log,
    /// `[telemetry]`; `None`: no traces are sent.
    pub traces: Option<Traces>,
    /// Every `[[socket]]`, in the order of the file.
    pub sockets: Vec<Socket>,
    /// Every `[[policy]]`, in the order of the file.
    pub policies: Policies,
    /// The file as written, to tell what has changed when it is read again.
    pub written: Written,
    /// What works but is hardly meant.
    pub warnings: Vec<Warning>,
}

/// Names and places of the gateway itself.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The domain that sockets' names stand before, lower case.
    pub domain: String,
    /// Where browsers reach the gateway; links are made from it.
    pub public_url: Origin,
    /// Where the gateway keeps what must last.
    pub data_dir: PathBuf,
    /// Networks whose PROXY protocol header is required and believed.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// What the gateway listens on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Portal and API.
    pub https: SocketAddr,
    /// SSH.
    pub ssh: SocketAddr,
    /// Both on one port, told apart by their first bytes.
    pub all: Option<SocketAddr>,
}

/// A configured certificate for HTTPS. The key was checked to belong to it.
#[derive(Debug)]
pub struct Tls {
    /// The certificate, then what leads to its root.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// The OpenID provider.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// The issuer as typed, because it is compared as text (OpenID Connect Core, section 3.1.3.7).
    pub issuer: String,
    /// The gateway's id there.
    pub client_id: String,
    /// The gateway's secret there.
    pub client_secret: SecretString,
    /// The claim that lists groups.
    pub groups_claim: String,
    /// How long a sign-in counts.
    pub session_lifetime: Duration,
}

/// Who may do more than use sockets.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Groups of administrators.
    pub admin: Vec<String>,
    /// Groups of operators.
    pub operator: Vec<String>,
    /// Groups of auditors.
    pub auditor: Vec<String>,
}

/// How people sign in.
#[derive(Clone, Debug, Default)]
pub struct SignIn {
    /// What happens where browser and terminal come from different addresses.
    pub other_address: OtherAddress,
    /// Groups whose people may sign in a device without a browser (RFC 8628); empty: nobody may.
    pub device_groups: Vec<String>,
}

/// What happens where browser and terminal come from different addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherAddress {
    /// A red page and a fresh sign-in.
    #[default]
    Confirm,
    /// No.
    Deny,
}

/// How sessions are recorded.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What a recording that fails does to its session; a socket may say otherwise.
    pub on_failure: OnFailure,
    /// When something counts as written.
    pub durability: Durability,
    /// Most bytes of one session.
    pub max_recording: u64,
    /// Bytes of the disk that recordings leave free, for rows and events.
    pub keep_free: u64,
    /// A directory in memory for what is being written; `None`: chosen.
    pub spool: Option<PathBuf>,
    /// What recordings are encrypted with; `None`: a key in `data_dir`.
    pub key: Option<RecordingKey>,
    /// Keys of older recordings, to read them.
    pub old_keys: Vec<RecordingKey>,
    /// How long after their end sessions and their recordings are kept.
    pub retention: Duration,
}

/// When something counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When a crash of the gateway cannot lose it.
    #[default]
    Process,
    /// When a crash of the host cannot lose it.
    Disk,
}

/// Bounds that hold for everybody.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time from one address.
    pub connections_per_address: u32,
    /// How long a connection may take to sign in, apart from the five minutes of a link.
    pub handshake: Duration,
    /// SSH channels that one connection may have open.
    pub channels_per_connection: u32,
    /// How long a stop waits for sessions to end by themselves.
    pub drain: Duration,
    /// Sessions that one person may have at a time.
    pub sessions_per_user: u32,
    /// Connections that one address may make, and sessions that one person may open, in a minute.
    pub connections_per_minute: u32,
    /// Sign-ins that one address may ask for, and one person may make, in a minute.
    pub sign_ins_per_minute: u32,
}

/// The gateway's own log.
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged, in the words of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// Where traces are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// The collector's URL for traces.
    pub otlp: String,
    /// The gateway's name there.
    pub service_name: String,
    /// How many of all connections are traced: 0 to 1.
    pub sample: f64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads and checks a file, the secrets and certificates it names, and the environment variables it names.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        load(path, &|name| std::env::var(name).ok())
    }

    /// As [`Config::load`] for a text; `file` is its name in errors, and its directory what paths are relative to.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        parse(text, file, &|name| std::env::var(name).ok()).map(|(config, _)| config)
    }

    /// As [`Config::parse`] for who may do what: everything is checked as always, but no secret, certificate, key or
    /// database is read, so that it works where they cannot be. A gateway does not start on this.
    pub fn parse_leniently(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        let env = |_: &str| Some(lenient::NOT_READ.to_owned());
        parse_as(text, file, &env, lenient::without_the_outside).map(|(config, _)| config)
    }

    /// As [`Config::parse_leniently`] for a file.
    pub fn load_leniently(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse_leniently(&text_of(path)?, path)
    }
}

/// The configuration in effect, defaults filled in, as TOML. Secrets are shown as where they come from.
pub fn show(path: &Path) -> Result<String, ConfigErrors> {
    show_text(&text_of(path)?, path, &|name| std::env::var(name).ok())
}

/// The file to use: `given` (from `--config` or `GATESCRIBE_CONFIG`), else the first of the usual places that is there.
pub fn find(given: Option<&Path>) -> Result<PathBuf, ConfigErrors> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Some(named) = std::env::var_os("GATESCRIBE_CONFIG").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    PLACES.iter().map(PathBuf::from).find(|place| place.exists()).ok_or_else(|| {
        let help = format!("name one with --config or GATESCRIBE_CONFIG, or make {}", PLACES.join(" or "));
        ConfigErrors::new(vec![ConfigError::whole(Path::new("gatescribe"), "no configuration file found".into(), help)])
    })
}

fn load(path: &Path, env: Env<'_>) -> Result<Config, ConfigErrors> {
    parse(&text_of(path)?, path, env).map(|(config, _)| config)
}

fn show_text(text: &str, file: &Path, env: Env<'_>) -> Result<String, ConfigErrors> {
    let (_, raw) = parse(text, file, env)?;
    toml::to_string(&raw).map_err(|error| {
        ConfigErrors::new(vec![ConfigError::whole(file, format!("cannot be shown: {error}"), String::new())])
    })
}

fn parse(text: &str, file: &Path, env: Env<'_>) -> Result<(Config, raw::Raw), ConfigErrors> {
    parse_as(text, file, env, |raw| raw)
}

fn parse_as(
    text: &str,
    file: &Path,
    env: Env<'_>,
    prepare: impl FnOnce(raw::Raw) -> raw::Raw,
) -> Result<(Config, raw::Raw), ConfigErrors> {
    let mut report = Report::new(file, text);
    let raw = read::read(text, &mut report).map(raw::Raw::with_defaults).map(prepare);
    let config = raw.as_ref().and_then(|raw| check::config(raw, file, env, &mut report));
    let (both, warnings) = report.finish(config.zip(raw))?;
    let (mut config, mut raw) = both;
    config.warnings = warnings;
    config.written = Written::of(&raw);
    config.text = text.to_owned();
    // The one default that needs other values.
    if let Some(gateway) = &mut raw.gateway {
        let url = &mut gateway.get_mut().public_url;
        url.get_or_insert_with(|| toml::Spanned::new(0..0, config.gateway.public_url.to_string()));
    }
    Ok((config, raw))
}

fn text_of(path: &Path) -> Result<String, ConfigErrors> {
    let read = || {
        let file = std::fs::File::open(path)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_FILE + 1), &mut text)?;
        match text.len() as u64 > MAX_FILE {
            true => Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "longer than 16 MiB")),
            false => Ok(text),
        }
    };
    read().map_err(|error: std::io::Error| {
        let words = format!("cannot be read: {error}");
        ConfigErrors::new(vec![ConfigError::whole(path, words, String::new())])
    })
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            on_failure: OnFailure::default(),
            durability: Durability::default(),
            max_recording: 10 << 30,
            keep_free: 64 << 20,
            spool: None,
            key: None,
            old_keys: Vec::new(),
            retention: Duration::from_secs(365 * 86_400),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_address: 100,
            handshake: Duration::from_secs(60),
            channels_per_connection: 1000,
            drain: Duration::from_secs(10),
            sessions_per_user: 1000,
            connections_per_minute: 6000,
            sign_ins_per_minute: 120,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".to_owned() }
    }
}

impl Durability {
    /// The word for it in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
