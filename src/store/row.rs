//! What the book holds, as it is told to API users: the contract's names and types.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::geo::Place;
use crate::identity::Identity;

/// A session about to be written into the book.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// UUIDv7.
    pub session_id: Uuid,
    /// The socket's name; its id follows from it.
    pub socket_name: String,
    /// `ssh`, later `database`, `http`, `kubernetes`, `tcp`.
    pub session_type: &'static str,
    /// When it began.
    pub start_time: Timestamp,
    /// Who.
    pub identity: Identity,
    /// The sign-in at the gateway that it came in by, where it was one.
    pub sign_in_id: Option<Uuid>,
    /// From where.
    pub client_ip: IpAddr,
    /// From which port.
    pub client_port: u16,
    /// Where that address is.
    pub place: Place,
    /// The name that the client reached, as `<socket>.<domain>`.
    pub server_name: String,
    /// The port that the client reached.
    pub server_port: u16,
    /// Where it leads.
    pub upstream: String,
    /// The login asked for or fixed; `None` unless SSH.
    pub ssh_user: Option<String>,
    /// Authorization.
    pub result: AuthResult,
    /// The rule that decided, if one did.
    pub rule: Option<String>,
    /// `process` or `disk`.
    pub durability: &'static str,
    /// Whether recordings are being made.
    pub audit_log: bool,
    /// Why it was refused, in words; `None` unless `result` is [`AuthResult::Denied`].
    pub end_reason: Option<String>,
    /// Events known at the start: sign-in, decision, client software.
    pub events: Vec<Event>,
}

/// Authorization, apart from how the connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthResult {
    /// Allowed in.
    Success,
    /// Refused by policy.
    Denied,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// In good order.
    Closed,
    /// The client went away without a goodbye.
    ClientGone,
    /// The upstream could not be reached, or failed.
    UpstreamFailed,
    /// The sign-in, or the longest time allowed, ran out.
    Expired,
    /// Nothing happened for too long.
    Idle,
    /// A policy change took the right away.
    PolicyChanged,
    /// The identity provider took the identity back.
    IdentityLost,
    /// Somebody ended it.
    Killed,
    /// It could not be recorded any more.
    RecordingLost,
    /// The gateway was stopped.
    Shutdown,
    /// The gateway died; written at its next start.
    Crashed,
    /// Refused by policy: it never began.
    Refused,
}

impl Outcome {
    /// The word for it in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientGone => "client_gone",
            Self::UpstreamFailed => "upstream_failed",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::PolicyChanged => "policy_changed",
            Self::IdentityLost => "identity_lost",
            Self::Killed => "killed",
            Self::RecordingLost => "recording_lost",
            Self::Shutdown => "shutdown",
            Self::Crashed => "crashed",
            Self::Refused => "refused",
        }
    }
}

/// Whether an event went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventStatus {
    /// It went well.
    Success,
    /// Policy refused it.
    Denied,
    /// It failed.
    Error,
}

/// Something worth a line in the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When.
    pub created_at: Timestamp,
    /// What kind: `sign_in`, `decision`, `client`, `ssh_shell`, `ssh_exec`, `ssh_subsystem`, `ssh_forward`, `kill`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// How it went.
    pub status: EventStatus,
    /// Details, an object.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
}

impl Event {
    /// An event that happens now.
    pub fn now(kind: &str, status: EventStatus, metadata: serde_json::Value) -> Self {
        Self { created_at: Timestamp::now(), kind: kind.to_owned(), status, metadata }
    }
}

/// The state of one recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordingState {
    /// Being written.
    Live,
    /// Sealed in good order.
    Complete,
    /// Readable up to a point, then cut (crash, full disk).
    Truncated,
    /// Its chain of hashes does not hold.
    Damaged,
}

/// One recording of a session (for SSH: one channel).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecordingRow {
    /// UUIDv7.
    pub recording_id: Uuid,
    /// `shell`, `exec`, `subsystem`.
    pub kind: String,
    /// The command line, where there is one (lossy UTF-8).
    #[schema(required)]
    pub command: Option<String>,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended; null while live.
    #[schema(required)]
    pub end_time: Option<Timestamp>,
    /// Its state.
    pub state: RecordingState,
    /// `screen`, `structured`, `opaque`.
    pub legibility: String,
    /// Bytes kept on disk; null while live.
    #[schema(required)]
    pub size: Option<u64>,
    /// The program's exit status, where one was told.
    #[schema(required)]
    pub exit_status: Option<u32>,
}

/// A row of the session log, exactly as the API answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the contract's names, explained there and in NewSession")]
pub struct SessionRow {
    pub session_id: Uuid,
    pub socket_id: Uuid,
    pub socket_name: String,
    pub start_time: Timestamp,
    #[schema(required)]
    pub end_time: Option<Timestamp>,
    pub last_seen: Timestamp,
    pub user_email: String,
    #[schema(required)]
    pub name: Option<String>,
    #[schema(required)]
    pub picture: Option<String>,
    pub sub: String,
    #[schema(required)]
    pub nickname: Option<String>,
    pub actor: String,
    pub server_name: String,
    pub server_port: String,
    pub upstream: String,
    pub client_ip: String,
    pub client_port: String,
    #[schema(required)]
    pub country_code: Option<String>,
    #[schema(required)]
    pub country: Option<String>,
    #[schema(required)]
    pub city: Option<String>,
    pub session_type: String,
    #[schema(required)]
    pub sshuser: Option<String>,
    pub audit_log: bool,
    pub killed: bool,
    pub result: AuthResult,
    #[schema(required)]
    pub outcome: Option<Outcome>,
    #[schema(required)]
    pub end_reason: Option<String>,
    #[schema(required)]
    pub rule: Option<String>,
    pub durability: String,
    #[schema(required)]
    pub legibility: Option<String>,
    /// After a kill: `none`, `unknown`, or what still runs upstream. Null otherwise.
    #[schema(required)]
    pub remaining: Option<String>,
    pub recordings: Vec<RecordingRow>,
    /// In lists and in the feed the newest only; see `events_total`.
    pub events: Vec<Event>,
    /// How many events there are in all.
    pub events_total: u64,
}

/// Whose sessions. An e-mail address would not do: providers give them to somebody else later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    issuer: String,
    subject: String,
}

impl Owner {
    /// This person.
    pub fn of(identity: &Identity) -> Self {
        Self { issuer: identity.issuer().to_owned(), subject: identity.subject().to_owned() }
    }

    /// The person of this issuer and subject.
    pub fn named(issuer: &str, subject: &str) -> Self {
        Self { issuer: issuer.to_owned(), subject: subject.to_owned() }
    }

    /// `iss`
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `sub`
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// Which sessions to list. Every field that is set must hold.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the contract's filter names")]
pub struct Filter {
    pub owner: Option<Owner>,
    pub socket_id: Option<Uuid>,
    pub socket_name: Option<String>,
    pub session_type: Option<String>,
    pub user_email: Option<String>,
    pub client_ip: Option<IpAddr>,
    pub country: Option<String>,
    pub result: Option<AuthResult>,
    pub live: Option<bool>,
    pub killed: Option<bool>,
    pub start_after: Option<Timestamp>,
    pub start_before: Option<Timestamp>,
}

/// What became of an order to end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// It is live: the order stands in the session's row, and now it must come down.
    Live,
    /// It had already ended; nothing was changed.
    Ended,
    /// There is no such session, or no such recording in it.
    Unknown,
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number; they go up.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who: an e-mail address, a token's label, or `gateway`.
    pub actor: String,
    /// What was done: `session.removed`, …
    pub action: String,
    /// To what: an id.
    pub subject: String,
    /// Details, an object.
    pub details: serde_json::Value,
}

/// A session that has been kept for long enough, and its recordings with when they began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in SessionRow")]
pub struct ExpiredSession {
    pub session_id: Uuid,
    pub socket_id: Uuid,
    pub socket_name: String,
    pub user_email: String,
    pub start_time: Timestamp,
    pub end_time: Timestamp,
    pub recordings: Vec<(Uuid, Timestamp)>,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The rows, newest first.
    pub rows: Vec<SessionRow>,
    /// How many there are in all.
    pub total: u64,
}

/// A piece of the feed.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The rows as they are now, in the order of their last changes.
    pub rows: Vec<SessionRow>,
    /// The cursor behind the last of them; the one that was asked with when there are none.
    pub next: u64,
}
