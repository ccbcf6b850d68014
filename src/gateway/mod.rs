//! Builds everything, runs, hands over, drains. The only module that knows all others.
//!
//! `build` makes the parts and `settings` what they want to know, `run` is the life of a process, `listeners` where to
//! listen, `first_bytes` which protocol a client speaks there, `handover` how a new process takes over from an old one, `processes` what the processes of one gateway owe each
//! other, `control` the wire between them, `changes` what they hear from each other through the book, `locks` puts the
//! book's locks into force, `people` hears who signed in, `notify` what the service manager hears, `shells` that no built-in shell
//! reaches what the gateway keeps. `reload` takes over a
//! changed configuration file, and `clock` hears of a clock that is set.

mod build;
mod changes;
mod clock;
mod control;
mod first_bytes;
mod handover;
mod listeners;
mod locks;
mod memory;
mod notify;
mod people;
mod processes;
mod reload;
mod run;
mod settings;
mod shells;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

pub use self::build::Approver;
pub use self::handover::Seat;
pub use self::listeners::{Inherited, Listeners};
pub use self::notify::{not_upgraded, upgrading};

use self::changes::Changes;
use self::listeners::Door;
use self::processes::Processes;
use self::reload::Reload;
use crate::api::server::Https;
use crate::config::Config;
use crate::identity::link::Links;
use crate::identity::oidc::Oidc;
use crate::identity::ssh_ca::SshCaError;
use crate::identity::tokens::Tokens;
use crate::identity::x509_ca;
use crate::keeping::Keeping;
use crate::proto::ssh;
use crate::session::{Rules, Sessions};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;

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
    /// A key of the SSH authorities cannot be used.
    #[error("an SSH authority's key: {0}")]
    SshCa(#[from] SshCaError),
    /// The certificate cannot be used.
    #[error("certificate: {0}")]
    Certificate(#[from] x509_ca::CaError),
    /// The provider's settings cannot be used.
    #[error("sign-in: {0}")]
    Oidc(#[from] crate::identity::oidc::OidcError),
    /// Another gateway serves from the data directory.
    #[error(
        "data_dir {}: another gateway uses it; stop that one, take over from it with `gatescribe serve --upgrade`, \
         or name another directory", data_dir.display()
    )]
    InUse {
        /// Which.
        data_dir: PathBuf,
    },
    /// The built-in shell of a socket cannot be given.
    #[error("socket {socket}: the built-in shell cannot be given: {why}")]
    Shell {
        /// Which.
        socket: String,
        /// Why not.
        why: String,
    },
    /// The running gateway does not hand over.
    #[error("the running gateway cannot be upgraded and goes on: {0}")]
    Upgrade(io::Error),
    /// The service manager passed a socket that the configuration has no use for.
    #[error(
        "the service manager passed a socket at {address} (named {name:?}), where [listen] and [[socket]] name none"
    )]
    Unwanted {
        /// Where it listens.
        address: SocketAddr,
        /// What the service manager calls it.
        name: String,
    },
}

/// A gateway that is ready to run.
pub struct Gateway {
    config: Config,
    seat: Seat,
    doors: Vec<Door>,
    front: Arc<ssh::Front>,
    sessions: Sessions,
    processes: Processes,
    changes: Changes,
    store: Store,
    links: Links,
    oidc: Oidc,
    https: Https,
    keeping: Keeping,
    rules: Rules,
    reload: Reload,
    /// What tells to read the configuration file again; without it the file is not watched either.
    reread: Option<Signal>,
    telemetry: Telemetry,
    /// Requests that run are finished, and no more are taken: somebody else answers from now on.
    leave: CancellationToken,
    stop: CancellationToken,
    /// Who may call the API.
    pub tokens: Tokens,
}

fn make_private(directory: &Path) -> Result<(), GatewayError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(io_error(&format!("data_dir {}", directory.display())))
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> GatewayError {
    let what = what.to_owned();
    move |error| GatewayError::Io { what, error }
}
