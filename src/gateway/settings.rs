//! From the checked configuration to what each part wants to know.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::{Gateway, GatewayError, Listeners, io_error};
use crate::api::Reachable;
use crate::api::policy::{PolicyDesk, Written};
use crate::config::{self, Config, Durability, OtherAddress, Roles};
use crate::identity::grants::GrantSettings;
use crate::identity::link::{self, LinkSettings};
use crate::identity::oidc::OidcSettings;
use crate::identity::people::People;
use crate::identity::tokens::RoleGroups;
use crate::pace::SignInPace;
use crate::record::keys::{KeyError, Keys, RecordingKey};
use crate::record::{self, Recordings};
use crate::session::{Rules, SessionSettings, Sessions};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Sample;

/// How long a link holds.
pub(super) const LINK_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Links that may be open at a time, in all and from one address.
const MAX_LINKS: usize = 10_000;
const MAX_LINKS_PER_ADDRESS: usize = 50;

/// What is pending in a recording's spool is moved to disk after this time at the latest.
const FLUSH_AFTER: Duration = Duration::from_secs(5);

pub(super) fn recording_settings(config: &Config) -> Result<record::Settings, GatewayError> {
    let data = &config.gateway.data_dir;
    Ok(record::Settings {
        dir: data.join("recordings"),
        spool: spool(config),
        durability: match config.recording.durability {
            Durability::Process => record::Durability::Process,
            Durability::Disk => record::Durability::Disk,
        },
        keep_free: config.recording.keep_free,
        flush_after: FLUSH_AFTER,
        gateway: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, config.gateway.domain.as_bytes()),
        keys: recording_keys(config)?,
    })
}

pub(super) fn spool(config: &Config) -> PathBuf {
    config.recording.spool.clone().unwrap_or_else(|| record::default_spool(&config.gateway.data_dir))
}

/// The configured key, or the one in `data_dir`, which the first start makes.
pub(super) fn recording_keys(config: &Config) -> Result<Keys, GatewayError> {
    let path = config.gateway.data_dir.join("recording.key");
    let mut old = config.recording.old_keys.clone();
    let unusable = |error: KeyError| io_error(&path.display().to_string())(io::Error::other(error));
    let current = match &config.recording.key {
        Some(key) => {
            // Recordings from before it was configured stay readable.
            if path.exists() {
                old.push(RecordingKey::load(&path).map_err(unusable)?);
            }
            key.clone()
        }
        None => {
            let (key, new) = RecordingKey::load_or_create(&path).map_err(unusable)?;
            if new {
                let words = "made the key for recordings: keep a copy in a safe place, nobody can read them without it";
                tracing::warn!(key = key.id(), file = %path.display(), "{words}");
            }
            key
        }
    };
    Ok(Keys::new(current, old))
}

pub(super) fn public_url(config: &Config) -> Result<Url, GatewayError> {
    let url = config.gateway.public_url.to_string();
    url.parse().map_err(|error| io_error("gateway.public_url")(io::Error::other(error)))
}

pub(super) fn oidc_settings(config: &Config) -> Result<OidcSettings, GatewayError> {
    Ok(OidcSettings {
        issuer: config.oidc.issuer.clone(),
        client_id: config.oidc.client_id.clone(),
        client_secret: Some(config.oidc.client_secret.clone()),
        groups_claim: config.oidc.groups_claim.clone(),
        session_lifetime: config.oidc.session_lifetime,
        redirect_uri: Gateway::redirect_uri(config)?,
    })
}

pub(super) fn other_address(config: &Config) -> link::OtherAddress {
    match config.sign_in.other_address {
        OtherAddress::Confirm => link::OtherAddress::Confirm,
        OtherAddress::Deny => link::OtherAddress::Deny,
    }
}

pub(super) fn grant_settings(config: &Config) -> GrantSettings {
    GrantSettings { device_groups: config.sign_in.device_groups.clone(), other_address: other_address(config) }
}

pub(super) fn link_settings(config: &Config, public_url: &Url, pace: &Arc<SignInPace>) -> LinkSettings {
    LinkSettings {
        public_url: public_url.clone(),
        lifetime: LINK_LIFETIME,
        other_address: other_address(config),
        max_waiting: MAX_LINKS,
        max_per_address: MAX_LINKS_PER_ADDRESS,
        pace: pace.clone(),
    }
}

pub(super) fn reachable(sessions: &Sessions) -> Reachable {
    let sessions = sessions.clone();
    Arc::new(move |who, client_ip| sessions.reachable(who, client_ip))
}

pub(super) fn policy_desk(config: &Config, rules: Rules) -> PolicyDesk {
    let written = Written::default();
    written.replace(config::policies_as_written(&config.text));
    PolicyDesk { rules, geo: config.geo.clone(), session_lifetime: config.oidc.session_lifetime, written }
}

pub(super) fn role_groups(roles: &Roles) -> RoleGroups {
    let Roles { admin, operator, auditor } = roles.clone();
    RoleGroups { admin, operator, auditor }
}

/// What metrics ask for when they are read.
pub(super) fn sample_from(sessions: Sessions, recordings: Recordings) -> impl Fn() -> Sample + Send + Sync {
    move || {
        let vitals = recordings.vitals();
        Sample {
            sessions_live: sessions.count() as u64,
            recorded_input: vitals.input,
            recorded_output: vitals.output,
            recordings_live: vitals.live,
            pending_bytes: vitals.pending,
            pending_age: vitals.pending_age,
            spool_free: vitals.spool_free,
            recordings_free: vitals.free,
        }
    }
}

pub(super) fn session_settings(config: &Config, rules: Rules, people: People, metrics: &Metrics) -> SessionSettings {
    SessionSettings {
        domain: config.gateway.domain.clone(),
        max_recording: config.recording.max_recording,
        durability: config.recording.durability.as_str(),
        rules,
        people,
        sessions_per_user: config.limits.sessions_per_user,
        sessions_per_minute: config.limits.connections_per_minute,
        public_url: config.gateway.public_url.to_string(),
        geo: config.geo.clone(),
        metrics: metrics.clone(),
    }
}

/// The names that the gateway's SSH host key is certified for.
pub(super) fn ssh_names(config: &Config, listeners: &Listeners) -> Vec<String> {
    let domain = &config.gateway.domain;
    let mut names = vec![domain.clone(), format!("*.{domain}"), config.gateway.public_url.host.clone()];
    let address = listeners.ssh_address.ip();
    match address.is_loopback() {
        // Nobody else can be meant by these, so they are certified only where nobody else can come from.
        true => names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned)),
        false if !address.is_unspecified() => names.push(address.to_string()),
        false => {}
    }
    names.sort();
    names.dedup();
    names
}

/// The names that the gateway's own certificate is for.
pub(super) fn names(config: &Config, listeners: &Listeners) -> Vec<String> {
    let domain = &config.gateway.domain;
    let mut names = vec![domain.clone(), format!("*.{domain}"), config.gateway.public_url.host.clone()];
    let address = listeners.https_address.ip();
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    names
}
