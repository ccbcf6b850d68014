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
    /// Its time is over: the sign-in's, a window's, or the longest that a rule allows.
    Expired(String),
    /// Nothing happened for too long.
    Idle(String),
    /// Rules, locks or sockets changed, and what they are now would not let it in.
    PolicyChanged(String),
    /// The person lost what let them in: a group, or the sign-in itself.
    IdentityLost(String),
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

impl Kill {
    /// As it is told.
    pub fn words(&self) -> String {
        format!("{} (by {})", self.reason, self.by)
    }
}

impl End {
    /// The row's `outcome`.
    pub fn outcome(&self) -> Outcome {
        match self {
            End::Closed => Outcome::Closed,
            End::ClientGone => Outcome::ClientGone,
            End::UpstreamFailed(_) => Outcome::UpstreamFailed,
            End::Expired(_) => Outcome::Expired,
            End::Idle(_) => Outcome::Idle,
            End::PolicyChanged(_) => Outcome::PolicyChanged,
            End::IdentityLost(_) => Outcome::IdentityLost,
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
            End::Expired(why) | End::Idle(why) | End::PolicyChanged(why) | End::IdentityLost(why) => why.clone(),
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
