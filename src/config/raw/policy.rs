//! `[[policy]]` as typed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{Exec, List, OneOrMore, Sftp, Text, Time, Typed};

/// `[[policy]]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub name: Text,
    pub effect: Text,
    pub max_session: Text,
    pub idle_timeout: Text,
    pub finish_grace: Text,
    pub sockets: Typed<PolicySockets>,
    pub who: Typed<PolicyWho>,
    #[serde(rename = "where")]
    pub place: Typed<PolicyWhere>,
    pub when: Typed<PolicyWhen>,
    pub require: Typed<PolicyRequire>,
    pub allow: Typed<Allow>,
}

/// `[policy.sockets]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySockets {
    pub names: List,
    pub tags: Typed<BTreeMap<String, Spanned<String>>>,
}

/// `[policy.who]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyWho {
    pub groups: List,
    pub emails: List,
    pub domains: List,
    pub service_accounts: List,
    pub claims: Typed<BTreeMap<String, Spanned<OneOrMore>>>,
}

/// `[policy.where]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyWhere {
    pub networks: List,
    pub countries: List,
    pub not_countries: List,
}

/// `[policy.when]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyWhen {
    pub days: List,
    pub hours: Text,
    pub timezone: Text,
    pub after: Typed<Time>,
    pub before: Typed<Time>,
}

/// `[policy.require]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyRequire {
    pub max_sign_in_age: Text,
    pub acr: List,
    pub amr: List,
    pub approval: Typed<bool>,
    pub watcher: Typed<bool>,
}

/// `[policy.allow]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    pub ssh: Typed<AllowSsh>,
    pub database: Typed<AllowDatabase>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<Spanned<AllowHttp>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes: Vec<Spanned<AllowKubernetes>>,
    pub tcp: Typed<AllowTcp>,
}

/// `[policy.allow.ssh]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowSsh {
    pub shell: Typed<bool>,
    pub exec: Typed<Exec>,
    pub sftp: Typed<Sftp>,
    pub forward_to: List,
    pub forward_from: List,
    pub forward_opaque: Typed<bool>,
    pub agent: Typed<bool>,
    pub x11: Typed<bool>,
    pub logins: List,
}

/// `[policy.allow.database]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowDatabase {
    pub databases: List,
    pub statements: List,
}

/// `[[policy.allow.http]]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowHttp {
    pub methods: List,
    pub paths: List,
}

/// `[[policy.allow.kubernetes]]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowKubernetes {
    pub namespaces: List,
    pub resources: List,
    pub verbs: List,
}

/// `[policy.allow.tcp]`, which has no keys.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowTcp {}
