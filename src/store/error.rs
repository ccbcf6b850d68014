//! Why the book could not be written or read, in words that name nothing inside.
//!
//! The words (`Display`) may be shown to users; what the database said is the error's source, for the log alone.

use std::error::Error;
use std::sync::Arc;

use crate::error::{Fault, UserFacing};

type Source = Arc<dyn Error + Send + Sync>;

/// Why not. Cheap to clone, because one failed commit is told to everybody who had a write in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full (`SQLITE_FULL`).
    #[error("the disk that holds the session log is full; ask an administrator to free space")]
    Full,
    /// The disk or the file failed.
    #[error("the session log cannot be written or read; ask an administrator to look at the gateway's disk")]
    Io(#[source] Source),
    /// Another process holds the file's lock.
    #[error("the session log is busy; try again")]
    Busy,
    /// Nothing came back in time. What was asked for may still happen.
    #[error("the session log does not answer in time; try again later")]
    Slow,
    /// The file does not hold what it should.
    #[error("the session log is damaged; ask an administrator to look at it")]
    Damaged(#[source] Source),
    /// The file could not be opened, or brought to this version's layout.
    #[error("the session log cannot be opened")]
    Open(#[source] Source),
    /// The id is taken, or another rule of the book would be broken.
    #[error("the session log refused the entry")]
    Conflict(#[source] Source),
    /// No session has this id.
    #[error("there is no such session")]
    UnknownSession,
    /// No recording has this id.
    #[error("there is no such recording")]
    UnknownRecording,
    /// The thread that owns the file is gone.
    #[error("the session log is closed")]
    Closed,
}

impl UserFacing for StoreError {
    fn told(&self) -> String {
        self.to_string()
    }

    fn fault(&self) -> Fault {
        Fault::Gateway
    }
}
