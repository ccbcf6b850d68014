//! Makes every part of the gateway and joins them. What each wants to know is in `settings`.

use std::sync::Arc;

use reqwest::Url;
use tokio::signal::unix::Signal;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::changes::{self, Changes};
use super::locks::LocksInForce;
use super::people::{Newcomer, Wants};
use super::processes::{EndsAnywhere, Processes};
use super::reload::Reload;
use super::settings::{self, LINK_LIFETIME};
use super::{Gateway, GatewayError, Listeners, Seat, io_error, notify, shells};
use crate::api::health::Parts;
use crate::api::oauth::{self, OauthState};
use crate::api::pages::{self, PagesState};
use crate::api::server::Https;
use crate::api::watch::Watches;
use crate::api::{self, ApiState};
use crate::config::{self, Config};
use crate::identity::grants::Grants;
use crate::identity::link::{self, Links};
use crate::identity::newcomers::Newcomers;
use crate::identity::oidc::Oidc;
use crate::identity::people::People;
use crate::identity::sign_ins::{self, SignIns};
use crate::identity::ssh_ca::SshCa;
use crate::identity::ssh_ca_upstream::UpstreamCa;
use crate::identity::tokens::Tokens;
use crate::identity::x509_ca::{self, GatewayCa};
use crate::keeping::Keeping;
use crate::pace::{InsidePace, SignInPace};
use crate::proto::ssh;
use crate::record::Recordings;
use crate::session::{Rules, Sessions};
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::upstream::shell::Helper;

/// Makes what signs links in by itself.
pub type Approver = Box<dyn FnOnce(Oidc, Arc<dyn Newcomers>) -> Arc<dyn link::Approver> + Send>;

impl Gateway {
    /// Opens the book, closes what dead processes left open, and builds everything. `approver` signs links in by itself;
    /// only `demo` has one.
    /// `helper` is what the built-in shell of `serve` comes from: it is checked here that its users reach nothing.
    pub async fn build(
        config: Config,
        mut seat: Seat,
        listeners: Listeners,
        approver: Option<Approver>,
        telemetry: Telemetry,
        helper: Option<Helper>,
    ) -> Result<Self, GatewayError> {
        let data = &config.gateway.data_dir;
        let ca = Arc::new(GatewayCa::load_or_create(data)?);
        let store = Store::open(&data.join("sessions.db"))?.held_by(seat.process.id);
        // Before this process writes its own times.
        let newest = store.newest_time(jiff::Timestamp::now()).await?;
        let recordings = Recordings::open(settings::recording_settings(&config)?).map_err(io_error("recordings"))?;
        let processes = Processes::new(&seat.process, store.clone(), recordings.clone());
        store.begin_process(seat.process.id, std::process::id(), env!("CARGO_PKG_VERSION")).await?;
        seat.process.begun();
        processes.bury(notify::recovering).await?;
        let people = People::default();
        let rules = Rules::new(config.policies.clone(), listeners.sockets.clone());
        let locks = Arc::new(LocksInForce::new(store.clone(), rules.clone()));
        let about_sessions = settings::session_settings(&config, rules.clone(), people.clone(), &telemetry.metrics);
        let sessions = Sessions::new(about_sessions, store.clone(), recordings.clone());
        // Before anybody is let in.
        let changes = Changes::from_now(changes::Parts {
            store: store.clone(),
            locks: locks.clone(),
            people: people.clone(),
            sessions: sessions.clone(),
        })
        .await?;
        telemetry.metrics.sample_from(settings::sample_from(sessions.clone(), recordings.clone()));
        let stop = CancellationToken::new();
        let leave = stop.child_token();
        let public_url = settings::public_url(&config)?;
        let oidc = Oidc::new(settings::oidc_settings(&config)?)?;
        let pace = Arc::new(SignInPace::new(config.limits.sign_ins_per_minute));
        let about_links = settings::link_settings(&config, &public_url, &pace);
        let newcomer = Newcomer { store: store.clone(), people: people.clone(), sessions: sessions.clone() };
        let newcomers: Arc<dyn Newcomers> = Arc::new(newcomer);
        let links = match approver {
            Some(approver) => Links::approved_by(about_links, approver(oidc.clone(), newcomers.clone())),
            None => Links::new(about_links),
        };
        let tokens = Tokens::new(store.clone(), settings::role_groups(&config.roles), &config.oidc.issuer);
        let tokens = tokens.of_people(people.clone());
        let host_ca = SshCa::load_or_create(&data.join("ssh_host_ca"))?;
        let host_names = settings::ssh_names(&config, &listeners);
        let grants = Grants::new(settings::grant_settings(&config));
        let sign_ins = SignIns::new(sign_ins::Parts {
            store: store.clone(),
            tokens: tokens.clone(),
            grants: grants.clone(),
            links: links.clone(),
            issuer: config.oidc.issuer.clone(),
            ssh_ca: SshCa::load_or_create(&data.join("ssh_user_ca"))?,
            known_hosts: host_ca.known_hosts(&host_names)?,
            x509_ca: ca.clone(),
        });
        let upstream_ca = Arc::new(UpstreamCa::load_or_create(data)?);
        let host_key = ssh::host_key(&data.join("ssh_host_ed25519_key"))?;
        // By now everything that must not be reached is there.
        shells::vouch(helper.as_ref(), &config, &listeners.sockets).await?;
        let host = ssh::HostKey::new(host_key, host_ca, config.gateway.domain.clone());
        let front = ssh::Front {
            config: Arc::new(host.config(&host_names)?),
            host,
            rules: rules.clone(),
            sessions: sessions.clone(),
            links: links.clone(),
            link_lifetime: LINK_LIFETIME,
            store: store.clone(),
            issuer: config.oidc.issuer.clone(),
            sign_ins: sign_ins.clone(),
            upstream_ca: upstream_ca.clone(),
            handshake: config.limits.handshake,
            own: listeners.addresses(),
            channels: config.limits.channels_per_connection as usize,
            inside: InsidePace::new(config.limits.connections_per_minute),
            helper,
        };
        let parts = Parts {
            store: store.clone(),
            recordings: recordings.clone(),
            oidc: oidc.clone(),
            stop: stop.clone(),
            asking: Arc::new(Semaphore::new(1)),
        };
        let desk = settings::policy_desk(&config, rules.clone());
        let written = desk.written.clone();
        let state = ApiState {
            store: store.clone(),
            tokens: tokens.clone(),
            kill: Arc::new(EndsAnywhere { sessions: sessions.clone(), processes: processes.clone() }),
            lock: locks,
            rules: rules.clone(),
            watches: Watches::new(recordings.clone()),
            recordings: Arc::new(recordings.clone()),
            sign_ins: sign_ins.clone(),
            reachable: settings::reachable(&sessions),
            changes: Arc::new(changes.clone()),
            policy: desk,
            origin: public_url.origin().ascii_serialization(),
            stop: stop.clone(),
            readiness: Arc::new(parts),
            metrics: telemetry.metrics.clone(),
            log: telemetry.log.clone(),
        };
        let revoked = sign_ins.revoked_people();
        let oauth = OauthState {
            grants: grants.clone(),
            sign_ins: sign_ins.clone(),
            tokens: tokens.clone(),
            public_url: public_url.clone(),
        };
        let pages = PagesState {
            oidc: oidc.clone(),
            links: links.clone(),
            grants,
            revoked,
            public_url,
            geo: config.geo.clone(),
            tokens: Arc::new(sign_ins),
            newcomers,
            pace,
            renewals: Arc::new(Wants(sessions.clone())),
        };
        let router = api::router(state).merge(pages::router(pages)).merge(oauth::router(oauth));
        let port = listeners.ssh_address.port();
        let router = router.merge(api::about::router(ca.pem(), upstream_ca.public(), port));
        let tls = match &config.tls {
            Some(tls) => x509_ca::server_config_from(tls.certificates.clone(), tls.key.clone_key())?,
            None => ca.server_config(&settings::names(&config, &listeners))?,
        };
        Ok(Self {
            keeping: Keeping::new(store.clone(), recordings, config.recording.retention, newest),
            https: Https::new(tls, router, leave.clone(), stop.clone()),
            reload: Reload {
                rules: rules.clone(),
                tokens: tokens.clone(),
                store: store.clone(),
                metrics: telemetry.metrics.clone(),
                helper: front.helper.clone(),
                written,
                retired: leave.clone(),
            },
            rules,
            reread: None,
            doors: listeners.doors,
            front: Arc::new(front),
            config,
            seat,
            sessions,
            processes,
            changes,
            store,
            links,
            oidc,
            telemetry,
            leave,
            stop,
            tokens,
        })
    }

    /// In an upgrade: makes the process that served until now stop accepting. From then on [`Gateway::run`] must.
    pub async fn take_over(&mut self) -> Result<(), GatewayError> {
        self.seat.take_over().await?;
        // What the process before was told since this one was built.
        self.changes.now().await;
        // For tools on this host: without it the gateway serves all the same.
        if let Err(error) = config::in_force::save(&self.config) {
            tracing::error!(%error, "what is in force could not be written down for `config check --against-live`");
        }
        Ok(())
    }

    /// Reads the configuration file again whenever this is heard, and whenever the file changes. Without it, never.
    pub fn reread_when(&mut self, told: Signal) {
        self.reread = Some(told);
    }

    /// Cancelled once this process accepts no more: a newer one has taken over, or it stops.
    pub fn retired(&self) -> CancellationToken {
        self.leave.clone()
    }

    /// Where the provider sends browsers back to.
    pub fn redirect_uri(config: &Config) -> Result<Url, GatewayError> {
        settings::public_url(config)?
            .join("oidc/callback")
            .map_err(|error| io_error("gateway.public_url")(std::io::Error::other(error)))
    }
}
