//! Channels that move files: the subsystem `sftp`, and the commands that are known to do so.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::carried::Carried;
use super::connection::Connection;
use crate::policy::Action;
use crate::socket::RecordFiles;
use crate::upstream::Program;
use crate::wire::transfer::{self, Kind};
use crate::wire::{Keep, rsync, scp, sftp};

/// A channel that moves files.
pub(super) enum Transfer {
    /// By the subsystem.
    Subsystem,
    /// By a command.
    Command(transfer::Transfer),
}

/// Whether starting this moves files.
pub(super) fn recognise(program: &Program) -> Option<Transfer> {
    match program {
        Program::Subsystem(_) => Some(Transfer::Subsystem),
        Program::Command(command) => transfer::recognise(command).map(Transfer::Command),
        Program::Shell => None,
    }
}

/// Reads what it carries.
pub(super) fn carried(
    connection: &Connection,
    transfer: Transfer,
    keep: RecordFiles,
) -> (Carried<'_>, mpsc::Receiver<Bytes>) {
    let keep = match keep {
        RecordFiles::Metadata => Keep::Metadata,
        RecordFiles::Contents => Keep::Contents,
    };
    let more = Some(Action::SshFiles { write: true });
    match transfer {
        Transfer::Subsystem => Carried::new(connection, sftp::Files::new(keep), more),
        Transfer::Command(transfer) => match transfer.kind {
            Kind::SftpServer => Carried::new(connection, sftp::Files::new(keep), more),
            Kind::Scp(scp) => Carried::new(connection, scp::Files::new(&scp, keep), more),
            Kind::Rsync(options) => Carried::new(connection, rsync::Files::new(*options, keep), more),
        },
    }
}

impl Transfer {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Subsystem => "sftp",
            Self::Command(transfer) => match transfer.kind {
                Kind::SftpServer => "sftp",
                Kind::Scp(_) => "scp",
                Kind::Rsync(_) => "rsync",
            },
        }
    }

    /// Whether it changes files as a whole. Over SFTP each request is judged for itself.
    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::Command(transfer) if transfer.writes)
    }

    /// Whether the right to move files is enough for it.
    pub(super) fn is_plain(&self) -> bool {
        match self {
            Self::Subsystem => true,
            Self::Command(transfer) => transfer.plain,
        }
    }

    /// Whether it ends by itself, without anybody at a prompt.
    pub(super) fn finishes(&self) -> bool {
        !matches!(self.name(), "sftp")
    }
}
