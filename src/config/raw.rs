//! The file as typed: every key there is, nothing checked. [`Raw::with_defaults`] is the one place of the defaults.
//!
//! Everything is optional here, so that what is missing is told in our words, all of it at once. Positions stay with
//! the values, for the checks that come after.

mod either;
mod policy;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

pub use self::either::{Exec, OneOrMore, Sftp, Time};
pub use self::policy::{
    Allow, AllowDatabase, AllowHttp, AllowKubernetes, AllowSsh, AllowTcp, Policy, PolicyRequire, PolicySockets,
    PolicyWhen, PolicyWhere, PolicyWho,
};
use super::secret::SecretRef;

/// A value with its position; a position of `0..0` is a default's.
pub type Typed<T> = Option<Spanned<T>>;

/// Text, the most common.
pub type Text = Typed<String>;

/// A list of text, each with its position.
pub type List = Typed<Vec<Spanned<String>>>;

/// The whole file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    pub gateway: Typed<Gateway>,
    pub listen: Typed<Listen>,
    pub tls: Typed<Tls>,
    pub oidc: Typed<Oidc>,
    pub roles: Typed<Roles>,
    pub sign_in: Typed<SignIn>,
    pub store: Typed<Store>,
    pub recording: Typed<Recording>,
    pub geo: Typed<Geo>,
    pub limits: Typed<Limits>,
    pub log: Typed<Log>,
    pub telemetry: Typed<Telemetry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub socket: Vec<Spanned<Socket>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<Spanned<Policy>>,
}

/// `[gateway]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    pub domain: Text,
    pub public_url: Text,
    pub data_dir: Text,
    pub proxy_protocol_from: List,
}

/// `[listen]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    pub https: Text,
    pub ssh: Text,
    pub all: Text,
}

/// `[tls]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub certificate: Text,
    pub key: Typed<SecretRef>,
}

/// `[oidc]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Oidc {
    pub issuer: Text,
    pub client_id: Text,
    pub client_secret: Typed<SecretRef>,
    pub groups_claim: Text,
    pub session_lifetime: Text,
}

/// `[roles]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    pub admin: List,
    pub operator: List,
    pub auditor: List,
}

/// `[sign_in]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignIn {
    pub other_address: Text,
    pub device_groups: List,
}

/// `[store]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    pub url: Text,
}

/// `[recording]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recording {
    pub location: Text,
    pub on_failure: Text,
    pub durability: Text,
    pub max_recording: Text,
    pub keep_free: Text,
    pub spool: Text,
    pub key: Typed<SecretRef>,
    pub old_keys: Typed<Vec<Spanned<SecretRef>>>,
    pub retention: Text,
}

/// `[geo]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Geo {
    pub country_database: Typed<OneOrMore>,
    pub city_database: Typed<OneOrMore>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub connections_per_address: Typed<u32>,
    pub handshake: Text,
    pub channels_per_connection: Typed<u32>,
    pub drain: Text,
    pub sessions_per_user: Typed<u32>,
    pub connections_per_minute: Typed<u32>,
    pub sign_ins_per_minute: Typed<u32>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: Text,
    pub level: Text,
}

/// `[telemetry]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    pub otlp: Text,
    pub service_name: Text,
    pub sample: Typed<f64>,
}

/// `[[socket]]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Socket {
    pub name: Text,
    #[serde(rename = "type")]
    pub kind: Text,
    pub tags: Typed<BTreeMap<String, String>>,
    pub record: Typed<bool>,
    pub on_failure: Text,
    pub record_files: Text,
    pub notice: Text,
    pub listen: Text,
    pub sign_in: List,
    pub upstream: Typed<Upstream>,
}

/// `[socket.upstream]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    pub kind: Text,
    pub address: Text,
    pub username: Text,
    pub certificate: Typed<bool>,
    pub private_key: Typed<SecretRef>,
    pub private_key_passphrase: Typed<SecretRef>,
    pub password: Typed<SecretRef>,
    pub host_key: Typed<OneOrMore>,
    pub known_hosts: Text,
    pub host_ca: Typed<OneOrMore>,
    pub via: Text,
    pub shell: Text,
    /// What the file names outside of itself is not to be looked at.
    #[serde(skip)]
    pub alone: bool,
}

impl Raw {
    /// Fills in what was left out and has a default. What is absent from a rule is refused and therefore stays absent.
    pub fn with_defaults(mut self) -> Self {
        let gateway = filled(&mut self.gateway);
        text(&mut gateway.data_dir, "/var/lib/gatescribe");
        gateway.proxy_protocol_from.get_or_insert_with(|| unplaced(Vec::new()));
        let listen = filled(&mut self.listen);
        text(&mut listen.https, "0.0.0.0:8443");
        text(&mut listen.ssh, "0.0.0.0:2222");
        let oidc = filled(&mut self.oidc);
        text(&mut oidc.groups_claim, "groups");
        text(&mut oidc.session_lifetime, "12h");
        let roles = filled(&mut self.roles);
        for groups in [&mut roles.admin, &mut roles.operator, &mut roles.auditor] {
            groups.get_or_insert_with(|| unplaced(Vec::new()));
        }
        let sign_in = filled(&mut self.sign_in);
        text(&mut sign_in.other_address, "confirm");
        sign_in.device_groups.get_or_insert_with(|| unplaced(Vec::new()));
        text(&mut filled(&mut self.store).url, "sqlite");
        let recording = filled(&mut self.recording);
        text(&mut recording.location, "file");
        text(&mut recording.on_failure, "end-session");
        text(&mut recording.durability, "process");
        text(&mut recording.max_recording, "10GiB");
        text(&mut recording.keep_free, "64MiB");
        text(&mut recording.retention, "365d");
        let on_failure = recording.on_failure.as_ref().map(|typed| typed.get_ref().clone()).unwrap_or_default();
        let limits = filled(&mut self.limits);
        limits.connections_per_address.get_or_insert_with(|| unplaced(100));
        text(&mut limits.handshake, "60s");
        limits.channels_per_connection.get_or_insert_with(|| unplaced(1000));
        text(&mut limits.drain, "10s");
        limits.sessions_per_user.get_or_insert_with(|| unplaced(1000));
        limits.connections_per_minute.get_or_insert_with(|| unplaced(6000));
        limits.sign_ins_per_minute.get_or_insert_with(|| unplaced(120));
        let log = filled(&mut self.log);
        text(&mut log.format, "text");
        text(&mut log.level, "info");
        if let Some(telemetry) = &mut self.telemetry {
            let telemetry = telemetry.get_mut();
            text(&mut telemetry.service_name, "gatescribe");
            telemetry.sample.get_or_insert_with(|| unplaced(1.0));
        }
        for socket in &mut self.socket {
            socket.get_mut().fill(&on_failure);
        }
        self
    }
}

impl Geo {
    /// Whether a database is named.
    pub fn names_any(&self) -> bool {
        self.country_database.is_some() || self.city_database.is_some()
    }
}

impl Socket {
    fn fill(&mut self, on_failure: &str) {
        self.record.get_or_insert_with(|| unplaced(true));
        text(&mut self.on_failure, on_failure);
        text(&mut self.record_files, "metadata");
        self.sign_in.get_or_insert_with(|| unplaced(["link", "certificate"].map(|way| unplaced(way.into())).into()));
        if let Some(upstream) = &mut self.upstream {
            text(&mut upstream.get_mut().kind, "ssh");
        }
    }
}

fn filled<T: Default>(table: &mut Typed<T>) -> &mut T {
    table.get_or_insert_with(|| unplaced(T::default())).get_mut()
}

fn text(key: &mut Text, default: &str) {
    key.get_or_insert_with(|| unplaced(default.to_owned()));
}

fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}
