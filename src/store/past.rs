//! Sessions as they were, for deciding them again.

use std::net::IpAddr;

use jiff::Timestamp;
use uuid::Uuid;

use super::AuthResult;
use crate::identity::Identity;

/// A session, with what it was decided by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in SessionRow")]
pub struct PastSession {
    pub session_id: Uuid,
    pub start_time: Timestamp,
    /// `None` while it is live.
    pub end_time: Option<Timestamp>,
    pub socket_name: String,
    pub session_type: String,
    /// Who, as they were when it began. What the sign-in proved is missing in sessions from before it was written down:
    /// then [`PastSession::proved`] is false.
    pub identity: Identity,
    /// Whether the row tells what the sign-in proved.
    pub proved: bool,
    pub client_ip: IpAddr,
    pub country_code: Option<String>,
    pub country: Option<String>,
    pub ssh_user: Option<String>,
    pub result: AuthResult,
    pub rule: Option<String>,
}

impl PastSession {
    /// Where a list goes on behind this one.
    pub fn cursor(&self) -> PastCursor {
        PastCursor { start_time: self.start_time, session_id: self.session_id }
    }
}

/// A place in the list of sessions by their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastCursor {
    pub(super) start_time: Timestamp,
    pub(super) session_id: Uuid,
}
