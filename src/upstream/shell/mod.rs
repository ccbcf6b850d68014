//! The built-in shell: a real terminal, or plain pipes, on the gateway's own host. In `demo` as the user who started the
//! gateway, in `serve` as a named other user.
//!
//! Every channel gets a keeper (`keeper.rs`): a small process of our own between us and the shell, which adopts all
//! that the shell leaves behind, however it detached itself, and ends all of it when the channel ends. Nothing started
//! here outlives its channel.
//!
//! Another user's keepers are started by the helper (`helper.rs`, its process is `lending.rs`), which was forked before the
//! gateway opened anything, and do what their lines say (`lent.rs`, `wire.rs`). Before the gateway serves, and
//! before it takes over a changed configuration, `probe.rs` and `exposed.rs` tell what that user could get at.

mod cgroup;
mod exposed;
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
pub use wire::Places;

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::{Preparation, Program, SFTP, UpstreamError};
use crate::wire::transfer::{self, Kind};
use crate::wire::words::{Unquoted, split};

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
        program: &Program,
        how: Preparation,
    ) -> Result<(super::Input, super::Output), UpstreamError> {
        let program = match program {
            Program::Shell => process::Program::Login,
            Program::Command(command) => match internal_sftp(command) {
                Some(arguments) => sftp(arguments)?,
                None => process::Program::Command(command),
            },
            Program::Subsystem(name) if name == SFTP => sftp(Vec::new())?,
            Program::Subsystem(_) => {
                return Err(UpstreamError::new("this host has no such subsystem; `sftp` is the only one"));
            }
        };
        let (input, output) = process::start(&self.0, program, how).await.map_err(|error| {
            tracing::error!(%error, "the built-in shell could not be started");
            UpstreamError::new("the built-in shell could not be started")
        })?;
        Ok((super::Input::Shell(input), super::Output::Shell(output)))
    }
}

/// The host's SFTP server.
fn sftp(arguments: Vec<String>) -> Result<process::Program<'static>, UpstreamError> {
    let server = lent::sftp_server().ok_or_else(|| UpstreamError::new("there is no sftp-server on this host"))?;
    Ok(process::Program::File(server, arguments))
}

/// The arguments of `internal-sftp`, if that is all of the command. No host has a program of that name: it is the SFTP
/// server that sshd has within it, and takes the same arguments (sftp-server(8)).
fn internal_sftp(command: &[u8]) -> Option<Vec<String>> {
    // The same reading as the one by which such a command is known to move files and to do nothing else.
    transfer::recognise(command).filter(|transfer| transfer.kind == Kind::SftpServer)?;
    let mut words = split(command, Unquoted::Paths).ok()?.into_iter().map(|word| word.text);
    words.next().filter(|program| program == INTERNAL_SFTP)?;
    Some(words.collect())
}

const INTERNAL_SFTP: &str = "internal-sftp";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sftp_server_within_sshd_is_known_with_its_arguments() {
        let arguments = |command: &str| internal_sftp(command.as_bytes());
        let table: [(&str, &[&str]); 4] = [
            ("internal-sftp", &[]),
            ("  internal-sftp  -R", &["-R"]),
            ("'internal-sftp' -l VERBOSE -d '/srv/two words'", &["-l", "VERBOSE", "-d", "/srv/two words"]),
            ("internal-sftp -u022 -e", &["-u022", "-e"]),
        ];
        for (command, expected) in table {
            assert_eq!(arguments(command).unwrap(), expected, "{command}");
        }
        for command in [
            "",
            "internal-sftpd",
            "/usr/bin/internal-sftp",
            "sudo internal-sftp",
            "env LANG=C internal-sftp",
            "internal-sftp; id",
            "internal-sftp -d $HOME",
            "internal-sftp -d *",
            // Serves files as well, but is nothing that is known to move them.
            "internal-sftp -c ls",
            "internal-sftp x",
            "sftp-server",
        ] {
            assert_eq!(arguments(command), None, "{command}");
        }
    }

    #[tokio::test]
    async fn no_other_subsystem_is_there() {
        for name in ["netconf", "SFTP", "sftp ", ""] {
            let started = Host::own().start(&Program::Subsystem(name.into()), Preparation::default()).await;
            let words = started.map(drop).unwrap_err().to_string();
            assert_eq!(words, "this host has no such subsystem; `sftp` is the only one", "{name:?}");
        }
    }
}
