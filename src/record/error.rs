//! How recording and reading can fail, and what of it a user may be told.

use std::io;

use super::container::Damage;
use super::crypt::Refused;
use crate::error::{Fault, UserFacing};

/// A recording that cannot go on. Its session ends, unless the socket says `continue`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingLost {
    /// The disk is full, or so full that this recording may not grow.
    #[error("the disk for recordings is full")]
    Full,
    /// The session's recordings have reached `max_recording` (in bytes).
    #[error("the session's recordings have reached their limit of {0} bytes")]
    Limit(u64),
    /// The disk did not take what was written for too long.
    #[error("the disk for recordings does not answer")]
    Stalled,
    /// Reading or writing failed. The words are the system's, for the log only.
    #[error("the recording cannot be written: {0}")]
    Io(String),
    /// The recording was finished before.
    #[error("the recording has ended")]
    Ended,
}

impl From<io::Error> for RecordingLost {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::Full,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl UserFacing for RecordingLost {
    fn told(&self) -> String {
        let why = match self {
            Self::Full => "the gateway's disk for recordings is full; tell its operators",
            Self::Limit(_) => "it has reached the longest recording that is allowed; start a new session",
            Self::Stalled => "the gateway's disk for recordings does not answer; tell its operators",
            Self::Io(_) => "the gateway cannot write it; tell its operators",
            Self::Ended => "its recording has ended",
        };
        format!("the session cannot be recorded any more: {why}")
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Limit(_) | Self::Ended => Fault::Client,
            Self::Full | Self::Stalled | Self::Io(_) => Fault::Gateway,
        }
    }
}

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such recording.
    #[error("there is no such recording")]
    NotFound,
    /// What is there is no recording, or of a later version. Damage further in is a verdict, not an error.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// It is encrypted, and the key is not here. The ids of the keys that could open it.
    #[error("{}", missing_key(.0))]
    UnknownKey(Vec<String>),
    /// Reading failed.
    #[error("the recording cannot be read: {0}")]
    Io(io::Error),
}

fn missing_key(ids: &[String]) -> String {
    match ids {
        [] => "this recording is encrypted for others, not for this gateway".to_owned(),
        ids => {
            let ids = ids.join(" or ");
            format!(
                "this recording was made with the key {ids}, which this gateway does not have; name it in [recording] old_keys"
            )
        }
    }
}

impl From<Refused> for RecordingLost {
    fn from(refused: Refused) -> Self {
        Self::Io(refused.to_string())
    }
}

impl From<Refused> for ReadError {
    fn from(refused: Refused) -> Self {
        Self::Io(refused.into())
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            _ => Self::Io(error),
        }
    }
}
