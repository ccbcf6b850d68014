//! What starting something on a channel comes to: which rights it takes, what its bytes are, and what is left of the
//! client's wishes for it.

use super::connection::Connection;
use super::files::{self, Transfer};
use super::rights::Rights;
use crate::policy::{Action, Denied, Grant};
use crate::session::{Kind, Legibility, Manner, Session};
use crate::upstream::{Preparation, Program};

/// What is going to be done on a channel.
pub(super) struct Deed {
    pub(super) program: Program,
    pub(super) kind: Kind,
    pub(super) transfer: Option<Transfer>,
}

impl Deed {
    /// What starting this comes to.
    pub(super) fn of(program: Program) -> Self {
        let transfer = files::recognise(&program);
        let screen = |name| Kind { name, legibility: Legibility::Screen };
        let kind = match (&transfer, &program) {
            (Some(transfer), _) => Kind { name: transfer.name(), legibility: Legibility::Structured },
            (None, Program::Command(_)) => screen("exec"),
            (None, Program::Shell | Program::Subsystem(_)) => screen("shell"),
        };
        Self { program, kind, transfer }
    }

    /// May it be done? A program that moves files needs the right to move files; one that another program starts for it
    /// needs the right to run that, too.
    pub(super) async fn ask(&self, session: &Session, terminal: bool) -> Result<(Grant, Rights), Denied> {
        let how = if terminal { Manner::Interactive } else { Manner::Alone };
        let exec = || match &self.program {
            Program::Command(command) => Action::SshExec { command: command.clone() },
            Program::Shell | Program::Subsystem(_) => Action::SshShell,
        };
        let Some(transfer) = &self.transfer else {
            return session.begin(exec(), how).await.map(|(grant, underway)| (grant, underway.into()));
        };
        let run = match transfer.is_plain() {
            true => None,
            false => Some(session.begin(exec(), Manner::Interactive).await?.1),
        };
        // Somebody at a prompt may have gone.
        let how = if transfer.finishes() { Manner::Alone } else { Manner::Interactive };
        let (grant, underway) = session.begin(Action::SshFiles { write: transfer.writes() }, how).await?;
        Ok((grant, Rights::both(underway, run)))
    }

    /// What is left of the client's wishes.
    pub(super) fn fitting(&self, mut how: Preparation, grant: &Grant, connection: &Connection) -> Preparation {
        // A pattern allows a command, and a transfer what it is, not a terminal to escape into, nor variables that change
        // what it means.
        let bare = grant.patterned() || self.transfer.is_some();
        if bare {
            how.env.retain(|(name, _)| is_locale(name));
        }
        if bare || !connection.permits_terminals() {
            how.terminal = None;
        }
        how
    }
}

/// The language of a program's words, and what kind of terminal there is.
fn is_locale(name: &str) -> bool {
    matches!(name, "LANG" | "TERM") || name.starts_with("LC_")
}
