//! Builds everything, binds, runs, drains. The only file that knows all others.

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::accept::{Doors, Served};
use crate::api::pages::{self, PagesState};
use crate::api::server::Https;
use crate::api::{self, ApiState};
use crate::config::{Config, Durability, OtherAddress};
use crate::identity::link::{self, LinkSettings, Links};
use crate::identity::oidc::{Oidc, OidcSettings};
use crate::identity::tokens::Tokens;
use crate::identity::x509_ca::{self, GatewayCa};
use crate::proto::ssh;
use crate::record::{self, Recordings, Recovered};
use crate::session::{SessionSettings, Sessions};
use crate::socket::Socket;
use crate::store::{RecordingState, Store, StoreError};

/// How long a link holds.
const LINK_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Links that may be open at a time, in all and from one address.
const MAX_LINKS: usize = 10_000;
const MAX_LINKS_PER_ADDRESS: usize = 50;

/// What is pending in a recording's spool is moved to disk after this time at the latest.
const FLUSH_AFTER: Duration = Duration::from_secs(5);

/// How long answers on their way may take once everything else has stopped.
const LAST_ANSWERS: Duration = Duration::from_secs(16);

/// Why a gateway did not start. The words are for whoever starts it.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A directory or file of `data_dir` cannot be used.
    #[error("{what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// Why not.
        error: io::Error,
    },
    /// The book cannot be opened.
    #[error("the session log: {0}")]
    Store(#[from] StoreError),
    /// The SSH host key cannot be used.
    #[error(transparent)]
    HostKey(#[from] ssh::HostKeyError),
    /// The certificate cannot be used.
    #[error("certificate: {0}")]
    Certificate(#[from] x509_ca::CaError),
    /// The provider's settings cannot be used.
    #[error("sign-in: {0}")]
    Oidc(#[from] crate::identity::oidc::OidcError),
}

/// Bound listeners: `config` says where, and the addresses are known before anything is built on them.
pub struct Listeners {
    https: TcpListener,
    ssh: TcpListener,
    own: Vec<(Arc<Socket>, TcpListener)>,
    sockets: Vec<Arc<Socket>>,
    /// Where HTTPS is served.
    pub https_address: SocketAddr,
    /// Where SSH is served.
    pub ssh_address: SocketAddr,
}

/// A gateway that is ready to run.
pub struct Gateway {
    config: Config,
    listeners: Listeners,
    front: Arc<ssh::Front>,
    sessions: Sessions,
    oidc: Oidc,
    https: Https,
    stop: CancellationToken,
    /// Held for as long as the gateway lives: two on one directory would close each other's sessions.
    _lock: File,
    /// Who may call the API.
    pub tokens: Tokens,
}

impl Listeners {
    /// Binds everything that the configuration names.
    pub async fn bind(config: &mut Config) -> Result<Self, GatewayError> {
        let https = bind("listen.https", config.listen.https).await?;
        let ssh = bind("listen.ssh", config.listen.ssh).await?;
        let sockets: Vec<Arc<Socket>> = std::mem::take(&mut config.sockets).into_iter().map(Arc::new).collect();
        let mut own = Vec::new();
        for socket in &sockets {
            if let Some(address) = socket.listen {
                own.push((socket.clone(), bind(&format!("socket {}", socket.name), address).await?));
            }
        }
        let https_address = https.local_addr().map_err(io_error("listen.https"))?;
        let ssh_address = ssh.local_addr().map_err(io_error("listen.ssh"))?;
        Ok(Self { https, ssh, own, sockets, https_address, ssh_address })
    }
}

impl Gateway {
    /// Opens the book, closes what a crash left open, and builds everything. `approver` signs links in by itself; only
    /// `demo` has one.
    pub async fn build(config: Config, listeners: Listeners, approver: Option<Approver>) -> Result<Self, GatewayError> {
        let data = &config.gateway.data_dir;
        make_private(data)?;
        let lock = lock(data)?;
        let ca = Arc::new(GatewayCa::load_or_create(data)?);
        let store = Store::open(&data.join("sessions.db"))?;
        let recordings = Recordings::open(recording_settings(&config)).map_err(io_error("recordings"))?;
        recover(&store, &recordings).await?;
        let sessions = Sessions::new(session_settings(&config), store.clone(), recordings.clone());
        let public_url = public_url(&config)?;
        let oidc = Oidc::new(oidc_settings(&config)?)?;
        let links = match approver {
            Some(approver) => Links::approved_by(link_settings(&config, &public_url), approver(oidc.clone())),
            None => Links::new(link_settings(&config, &public_url)),
        };
        let tokens = Tokens::new(store.clone());
        let front = ssh::Front {
            config: Arc::new(ssh::server_config(ssh::host_key(&data.join("ssh_host_ed25519_key"))?)),
            sockets: listeners.sockets.clone(),
            sessions: sessions.clone(),
            links: links.clone(),
            link_lifetime: LINK_LIFETIME,
            store: store.clone(),
            issuer: config.oidc.issuer.clone(),
            handshake: config.limits.handshake,
            channels: config.limits.channels_per_connection as usize,
        };
        let state = ApiState {
            store,
            tokens: tokens.clone(),
            kill: Arc::new(sessions.clone()),
            recordings: Arc::new(recordings),
        };
        let admins = config.roles.admin.clone();
        let pages = PagesState {
            oidc: oidc.clone(),
            links,
            public_url,
            is_admin: Arc::new(move |who| who.groups().iter().any(|group| admins.contains(group))),
            tokens: Arc::new(tokens.clone()),
        };
        let router = api::router(state).merge(pages::router(pages));
        let tls = match &config.tls {
            Some(tls) => x509_ca::server_config_from(tls.certificates.clone(), tls.key.clone_key())?,
            None => ca.server_config(&names(&config, &listeners))?,
        };
        let stop = CancellationToken::new();
        let https = Https::new(tls, router, stop.clone());
        Ok(Self { config, listeners, front: Arc::new(front), sessions, oidc, https, stop, _lock: lock, tokens })
    }

    /// Where the provider sends browsers back to.
    pub fn redirect_uri(config: &Config) -> Result<Url, GatewayError> {
        public_url(config)?
            .join("oidc/callback")
            .map_err(|error| io_error("gateway.public_url")(io::Error::other(error)))
    }

    /// Runs until `stop`, then stops accepting, drains, ends what is left and closes every row.
    pub async fn run(self, told: CancellationToken) {
        let spool = recording_settings(&self.config).spool;
        let stop = self.stop;
        let stopping = stop.clone();
        tokio::spawn(async move {
            told.cancelled().await;
            stopping.cancel();
        });
        let doors = Doors::new(connections(), self.config.limits.connections_per_address as usize);
        let mut accepting = tokio::task::JoinSet::new();
        let mut ssh_listeners = vec![(None, self.listeners.ssh)];
        ssh_listeners.extend(self.listeners.own.into_iter().map(|(socket, listener)| (Some(socket), listener)));
        for (fixed, listener) in ssh_listeners {
            let (doors, stop, front) = (doors.clone(), stop.clone(), self.front.clone());
            accepting.spawn(async move {
                let serve = |stream, client| {
                    let served = ssh::serve(front.clone(), stream, client, fixed.clone());
                    async move { if served.await { Served::Somebody } else { Served::Nobody } }
                };
                doors.accept("ssh", listener, stop, serve).await;
            });
        }
        let https = self.https;
        let (web, doors_web, stop_web) = (self.listeners.https, doors.apart(), stop.clone());
        let answering = doors_web.clone();
        accepting.spawn(async move {
            let serve = |stream, client| {
                let served = https.serve(stream, client);
                async move { if served.await { Served::Somebody } else { Served::Nobody } }
            };
            doors_web.accept("https", web, stop_web, serve).await;
        });
        let sessions = self.sessions.clone();
        let housekeeping = tokio::spawn(async move {
            tokio::join!(sessions.keep_touched(), doors.keep_telling(), self.oidc.keep_fresh());
        });
        while accepting.join_next().await.is_some() {}
        tracing::info!(sessions = self.sessions.count(), "stopping: no new connections");
        self.sessions.drain(self.config.limits.drain).await;
        // Answers that are on their way, a kill's among them.
        let _ = tokio::time::timeout(LAST_ANSWERS, answering.until_empty()).await;
        housekeeping.abort();
        // Goes only when it is empty, which it is unless a recording could not be written out.
        let _ = std::fs::remove_dir(&spool);
        tracing::info!("stopped");
    }
}

/// How many connections may be open: a quarter of the descriptors, because a session takes several (client, upstream,
/// recording, spool). The soft limit is raised to the hard one first.
fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    files.map_or(100_000, |files| usize::try_from(files / 4).unwrap_or(100_000)).clamp(64, 100_000)
}

/// Makes what signs links in by itself.
pub type Approver = Box<dyn FnOnce(Oidc) -> Arc<dyn link::Approver> + Send>;

/// Closes what a crash left open: recordings first, then their sessions.
async fn recover(store: &Store, recordings: &Recordings) -> Result<(), GatewayError> {
    for found in blocking(recordings, Recordings::recover).await? {
        close_recording(store, &found).await?;
    }
    // After a restart of the host the spools are gone: what had reached the disk is still there.
    for (session, recording, started) in store.unfinished_recordings().await? {
        let found = blocking(recordings, move |all| all.recover_recording(session, recording, started)).await?;
        match found {
            Some(found) => close_recording(store, &found).await?,
            None => store.finish_recording(recording, started, RecordingState::Damaged, 0, None).await?,
        }
    }
    for session in store.close_orphans().await? {
        tracing::warn!(%session, "closed a session that a crash had left open");
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    recordings: &Recordings,
    work: impl FnOnce(&Recordings) -> T + Send + 'static,
) -> Result<T, GatewayError> {
    let recordings = recordings.clone();
    let done = tokio::task::spawn_blocking(move || work(&recordings)).await;
    done.map_err(|error| io_error("recovery of recordings")(io::Error::other(error)))
}

async fn close_recording(store: &Store, found: &Recovered) -> Result<(), GatewayError> {
    tracing::warn!(session = %found.session, recording = %found.recording, state = ?found.state, "recovered");
    match store.finish_recording(found.recording, found.ended, found.state, found.size, found.exit_status).await {
        // The crash came between the recording's file and its row: nothing had been forwarded yet.
        Err(StoreError::UnknownRecording) => Ok(()),
        closed => Ok(closed?),
    }
}

async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address).await.map_err(io_error(&format!("{what} = {address}")))
}

fn make_private(directory: &Path) -> Result<(), GatewayError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(io_error(&format!("data_dir {}", directory.display())))
}

fn lock(data: &Path) -> Result<File, GatewayError> {
    let what = format!("data_dir {}", data.display());
    let file = File::create(data.join("lock")).map_err(io_error(&what))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(io_error(&what)(io::Error::other("another gateway uses it; stop that one, or name another directory")))
        }
        Err(TryLockError::Error(error)) => Err(io_error(&what)(error)),
    }
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> GatewayError {
    let what = what.to_owned();
    move |error| GatewayError::Io { what, error }
}

fn recording_settings(config: &Config) -> record::Settings {
    let data = &config.gateway.data_dir;
    record::Settings {
        dir: data.join("recordings"),
        spool: config.recording.spool.clone().unwrap_or_else(|| record::default_spool(data)),
        durability: match config.recording.durability {
            Durability::Process => record::Durability::Process,
            Durability::Disk => record::Durability::Disk,
        },
        keep_free: config.recording.keep_free,
        flush_after: FLUSH_AFTER,
        gateway: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, config.gateway.domain.as_bytes()),
    }
}

fn public_url(config: &Config) -> Result<Url, GatewayError> {
    let url = config.gateway.public_url.to_string();
    url.parse().map_err(|error| io_error("gateway.public_url")(io::Error::other(error)))
}

fn oidc_settings(config: &Config) -> Result<OidcSettings, GatewayError> {
    Ok(OidcSettings {
        issuer: config.oidc.issuer.clone(),
        client_id: config.oidc.client_id.clone(),
        client_secret: Some(config.oidc.client_secret.clone()),
        groups_claim: config.oidc.groups_claim.clone(),
        session_lifetime: config.oidc.session_lifetime,
        redirect_uri: Gateway::redirect_uri(config)?,
    })
}

fn link_settings(config: &Config, public_url: &Url) -> LinkSettings {
    LinkSettings {
        public_url: public_url.clone(),
        lifetime: LINK_LIFETIME,
        other_address: match config.sign_in.other_address {
            OtherAddress::Confirm => link::OtherAddress::Confirm,
            OtherAddress::Deny => link::OtherAddress::Deny,
        },
        max_waiting: MAX_LINKS,
        max_per_address: MAX_LINKS_PER_ADDRESS,
    }
}

fn session_settings(config: &Config) -> SessionSettings {
    SessionSettings {
        domain: config.gateway.domain.clone(),
        max_recording: config.recording.max_recording,
        durability: config.recording.durability.as_str(),
        policies: Arc::new(config.policies.clone()),
    }
}

/// The names that the gateway's own certificate is for.
fn names(config: &Config, listeners: &Listeners) -> Vec<String> {
    let domain = &config.gateway.domain;
    let mut names = vec![domain.clone(), format!("*.{domain}"), config.gateway.public_url.host.clone()];
    let address = listeners.https_address.ip();
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    names
}
