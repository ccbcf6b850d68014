//! A row of the session log as the commands read it: what they show, and nothing that a newer gateway may not change.
//! Text in it is as users and servers wrote it: escape it before it is printed.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::escape;

/// One page of the list.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub pagination: Pagination,
    pub session_logs: Vec<Row>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pagination {
    /// 0 on the last page.
    pub next_page: u32,
    pub total_records: u64,
}

/// A session.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the contract's names, explained there")]
pub struct Row {
    pub session_id: Uuid,
    pub socket_id: Uuid,
    pub socket_name: String,
    pub session_type: String,
    pub start_time: Timestamp,
    pub end_time: Option<Timestamp>,
    pub user_email: String,
    pub name: Option<String>,
    pub client_ip: String,
    pub client_port: String,
    pub country_code: Option<String>,
    pub country: Option<String>,
    pub city: Option<String>,
    pub sshuser: Option<String>,
    pub server_name: String,
    pub upstream: String,
    pub killed: bool,
    pub result: String,
    pub outcome: Option<String>,
    pub end_reason: Option<String>,
    pub rule: Option<String>,
    pub remaining: Option<String>,
    pub recordings: Vec<Recording>,
    pub events: Vec<Event>,
}

/// A recording of a session.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the contract's names, explained there")]
pub struct Recording {
    pub recording_id: Uuid,
    pub kind: String,
    pub command: Option<String>,
    pub start_time: Timestamp,
    pub end_time: Option<Timestamp>,
    pub state: String,
    pub legibility: String,
    pub size: Option<u64>,
    pub exit_status: Option<u32>,
}

/// Something that happened in a session.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the contract's names, explained there")]
pub struct Event {
    pub created_at: Timestamp,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub metadata: Value,
}

impl Row {
    /// Where the API has this session.
    pub fn path(&self) -> String {
        format!("/api/v1/session/{}/{}", self.socket_id, self.session_id)
    }

    /// Whether it was let in and has not ended.
    pub fn is_live(&self) -> bool {
        self.end_time.is_none()
    }
}

impl Recording {
    /// What it is of, escaped: `shell`, or `exec uptime`.
    pub fn title(&self) -> String {
        let kind = escape::line(&self.kind);
        match &self.command {
            Some(command) => format!("{kind} {}", escape::line(command)),
            None => kind.to_string(),
        }
    }
}
