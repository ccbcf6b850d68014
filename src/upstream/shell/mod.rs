//! The built-in shell: a real terminal, or plain pipes, on the gateway's own host. In `demo` as the user who started the
//! gateway, in `serve` as a named other user.
//!
//! Every channel gets a keeper (`keeper.rs`): a small process of our own between us and the shell, which adopts all
//! that the shell leaves behind, however it detached itself, and ends all of it when the channel ends. Nothing started
//! here outlives its channel.
//!
//! Another user's keepers are started by the helper (`helper.rs`, its process is `lending.rs`), which was forked before the
//! gateway opened anything, and do what their lines say (`lent.rs`, `wire.rs`). Before the gateway serves, `probe.rs`
//! tells what that user could reach.

mod helper;
pub mod keeper;
mod kept;
pub mod lending;
pub mod lent;
pub mod probe;
mod process;
mod terminal;
mod wire;

pub use helper::Helper;
pub use process::{Input, Output};

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::{Preparation, UpstreamError};
use crate::policy::Action;
use process::Program;

/// The gateway's own host as an upstream, for one user of it.
pub struct Host(Whose);

/// As whom things are started.
enum Whose {
    /// As who runs the gateway.
    Own,
    /// As another user.
    Other { helper: Helper, user: String, shell: Option<PathBuf> },
}

impl Host {
    /// As the user who runs the gateway.
    pub(super) fn own() -> Self {
        Self(Whose::Own)
    }

    /// As another user, in this shell or else that user's own.
    pub(super) fn of(helper: Option<&Helper>, user: &str, shell: Option<&Path>) -> Result<Self, UpstreamError> {
        match helper.filter(|helper| helper.knows(user)) {
            Some(helper) => Ok(Self(Whose::Other {
                helper: helper.clone(),
                user: user.to_owned(),
                shell: shell.map(Path::to_owned),
            })),
            // Whoever could become anybody would be worth breaking into, so the helper is told at its start whom it may.
            None => Err(UpstreamError::new(
                "this shell was configured after the gateway started; an administrator must restart or upgrade it",
            )),
        }
    }

    pub(super) async fn start(
        &self,
        action: &Action,
        how: Preparation,
    ) -> Result<(super::Input, super::Output), UpstreamError> {
        let program = match action {
            Action::SshShell => Program::Login,
            Action::SshExec { command } => Program::Command(command),
            Action::SshFiles { .. } => {
                let server = lent::sftp_server();
                Program::File(server.ok_or_else(|| UpstreamError::new("there is no sftp-server on this host"))?)
            }
            _ => return Err(UpstreamError::new("nothing to start")),
        };
        let (input, output) = process::start(&self.0, program, how).await.map_err(|error| {
            tracing::error!(%error, "the built-in shell could not be started");
            UpstreamError::new("the built-in shell could not be started")
        })?;
        Ok((super::Input::Shell(input), super::Output::Shell(output)))
    }
}

/// Signals that a client may send (RFC 4254 section 6.10), by name.
const SIGNALS: [(&str, Signal); 13] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

fn signal_called(name: &str) -> Option<Signal> {
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

fn signal_name(number: i32) -> &'static str {
    SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number).map_or("KILL", |(name, _)| name)
}

/// Whether a client's variable is one of the locale, which is all that it may set here.
fn is_locale(name: &str) -> bool {
    name == "LANG" || name.starts_with("LC_")
}
