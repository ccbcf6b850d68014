//! Why a session ended: one list for all protocols, told in the row, in the terminal and in the recording.

use crate::store::Outcome;

/// Why a session ended. The first reason stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Closed,
    /// The client went away without a goodbye.
    ClientGone,
    /// The upstream could not be reached or failed; the words were told to the user.
    UpstreamFailed(String),
    /// The sign-in ran out.
    Expired,
    /// Somebody ended it.
    Killed(Kill),
    /// It could not be recorded any more.
    RecordingLost(String),
    /// The gateway is being stopped.
    Shutdown,
}

/// An order to end a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Who ordered it, as it is shown.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl End {
    /// The row's `outcome`.
    pub fn outcome(&self) -> Outcome {
        match self {
            End::Closed => Outcome::Closed,
            End::ClientGone => Outcome::ClientGone,
            End::UpstreamFailed(_) => Outcome::UpstreamFailed,
            End::Expired => Outcome::Expired,
            End::Killed(_) => Outcome::Killed,
            End::RecordingLost(_) => Outcome::RecordingLost,
            End::Shutdown => Outcome::Shutdown,
        }
    }

    /// The words, for the row and the user.
    pub fn words(&self) -> String {
        match self {
            End::Closed => "closed".into(),
            End::ClientGone => "the client went away".into(),
            End::UpstreamFailed(why) => why.clone(),
            End::Expired => "your sign-in has expired; connect again to sign in".into(),
            End::Killed(kill) => format!("session ended by {}: {}", kill.by, kill.reason),
            End::RecordingLost(why) => why.clone(),
            End::Shutdown => "the gateway is being stopped; connect again in a moment".into(),
        }
    }

    /// Whether the user must be told: not where the client itself ended it.
    pub fn is_told(&self) -> bool {
        !matches!(self, End::Closed | End::ClientGone)
    }
}
