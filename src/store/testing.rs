//! Samples for tests: a book in a directory of its own, identities, sessions.

use std::ops::Deref;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;

use super::{AuthResult, Event, EventStatus, NewSession, RecordingRow, RecordingState, Store};
use crate::identity::Identity;

/// A book that goes away with its directory.
pub(crate) struct Book {
    store: Store,
    dir: tempfile::TempDir,
}

impl Book {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(&dir.path().join("book.db")).unwrap(), dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Deref for Book {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.store
    }
}

/// A time with whole microseconds, which is what the book keeps.
pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn identity(expires: Timestamp) -> Identity {
    serde_json::from_value(json!({
        "issuer": "https://idp.example.com", "subject": "u-1", "email": "alice@example.com", "name": "Alice",
        "picture": "https://idp.example.com/alice.png", "nickname": "al", "groups": ["engineering"],
        "signed_in": Timestamp::now(), "expires": expires,
    }))
    .unwrap()
}

/// An allowed session that began in 2026, with one event.
pub(crate) fn new_session() -> NewSession {
    let start = time("2026-03-01T10:00:00.25Z");
    NewSession {
        session_id: Uuid::now_v7(),
        socket_name: "shell".to_owned(),
        session_type: "ssh",
        start_time: start,
        identity: identity(Timestamp::now() + SignedDuration::from_hours(12)),
        sign_in_id: None,
        client_ip: "192.0.2.7".parse().unwrap(),
        client_port: 50022,
        place: crate::geo::Place::default(),
        server_name: "shell.access.example.com".to_owned(),
        server_port: 2222,
        upstream: "10.0.0.5:22".to_owned(),
        ssh_user: Some("deploy".to_owned()),
        result: AuthResult::Success,
        rule: Some("engineers".to_owned()),
        durability: "process",
        audit_log: true,
        end_reason: None,
        events: vec![Event {
            created_at: start,
            kind: "sign_in".to_owned(),
            status: EventStatus::Success,
            metadata: json!({"how": "link"}),
        }],
    }
}

/// The same, refused.
pub(crate) fn denied_session() -> NewSession {
    NewSession {
        result: AuthResult::Denied,
        rule: None,
        audit_log: false,
        end_reason: Some("no rule allows it".to_owned()),
        ..new_session()
    }
}

pub(crate) fn recording() -> RecordingRow {
    RecordingRow {
        recording_id: Uuid::now_v7(),
        kind: "shell".to_owned(),
        command: None,
        start_time: time("2026-03-01T10:00:01Z"),
        end_time: None,
        state: RecordingState::Live,
        legibility: "screen".to_owned(),
        size: None,
        exit_status: None,
    }
}

pub(crate) fn socket_id(new: &NewSession) -> Uuid {
    crate::socket::socket_id(&new.socket_name)
}
