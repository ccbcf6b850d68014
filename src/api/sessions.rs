//! The list and one row of it.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;

use super::auth::require;
use super::parameters::{Ids, Parameters, flag};
use super::{ApiError, Shared};
use crate::identity::tokens::{Caller, Scope};
use crate::store::{AuthResult, Filter, SessionRow, Store};

/// `GET /sessions`.
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<Json<List>, ApiError> {
    require(&caller, Scope::ReadLog)?;
    parameters.refuse_unbuilt(&["q", "changed_after", "order"])?;
    let number = |text: &str| text.parse::<u32>().ok();
    let page = parameters.take("page", "a number from 1", |text| number(text).filter(|page| *page >= 1))?.unwrap_or(1);
    let page_size = parameters
        .take("page_size", "a number from 1 to 1000", |text| number(text).filter(|size| (1..=1000).contains(size)))?
        .unwrap_or(100);
    let filter = filter(&mut parameters)?;
    parameters.finish()?;
    let found = shared.api.store.list(filter, page, page_size).await?;
    let total_pages = found.total.div_ceil(page_size.into());
    let pagination = Pagination {
        current_page: page,
        next_page: if u64::from(page) < total_pages { page.saturating_add(1) } else { 0 },
        total_records: found.total,
        total_pages,
    };
    Ok(Json(List { pagination, session_logs: found.rows }))
}

/// `GET /session/{socket_id}/{session_id}`.
pub(super) async fn details(
    State(shared): State<Shared>,
    caller: Caller,
    ids: Ids,
    parameters: Parameters,
) -> Result<Json<SessionRow>, ApiError> {
    require(&caller, Scope::ReadLog)?;
    parameters.finish()?;
    find(&shared.api.store, &ids).await.map(Json)
}

/// The row, or 404: also when the session is on another socket.
pub(super) async fn find(store: &Store, ids: &Ids) -> Result<SessionRow, ApiError> {
    let found = store.session(ids.socket, ids.session).await?;
    found.ok_or_else(|| ApiError::not_found("there is no such session on this socket"))
}

#[derive(Serialize)]
pub(super) struct List {
    pagination: Pagination,
    session_logs: Vec<SessionRow>,
}

#[derive(Serialize)]
struct Pagination {
    current_page: u32,
    /// 0 on the last page.
    next_page: u32,
    total_records: u64,
    total_pages: u64,
}

fn filter(parameters: &mut Parameters) -> Result<Filter, ApiError> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let time = |text: &str| text.parse::<Timestamp>().ok();
    Ok(Filter {
        socket_id: parameters.take("socket_id", "a UUID", |text| text.parse().ok())?,
        socket_name: parameters.take("socket_name", "a name", text)?,
        session_type: parameters.take("session_type", "`ssh`, `database`, `http`, `kubernetes` or `tcp`", |text| {
            SESSION_TYPES.contains(&text).then(|| text.to_owned())
        })?,
        user_email: parameters.take("user_email", "an e-mail address", text)?,
        client_ip: parameters.take("client_ip", "an IP address", |text| text.parse().ok())?,
        country: parameters.take("country", "a country's name or two-letter code", text)?,
        result: parameters.take("result", "`success` or `denied`", |text| match text {
            "success" => Some(AuthResult::Success),
            "denied" => Some(AuthResult::Denied),
            _ => None,
        })?,
        live: parameters.take("live", "`true` or `false`", flag)?,
        killed: parameters.take("killed", "`true` or `false`", flag)?,
        start_after: parameters.take("start_after", "a time (RFC 3339)", time)?,
        start_before: parameters.take("start_before", "a time (RFC 3339)", time)?,
    })
}

/// The contract's `session_type`s, also those that no socket has yet.
const SESSION_TYPES: [&str; 5] = ["ssh", "database", "http", "kubernetes", "tcp"];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use crate::api::testing::{Api, path};
    use crate::socket::socket_id;
    use crate::store::testing::{denied_session, new_session, recording, time};
    use crate::store::{NewSession, Outcome, RecordingState};

    #[tokio::test]
    async fn a_row_has_the_contracts_names_and_types() {
        let api = Api::new().await;
        let (new, recording) = (new_session(), recording());
        let end = time("2026-03-01T11:00:00Z");
        api.book.open_session(new.clone()).await.unwrap();
        api.book.add_recording(new.session_id, recording.clone()).await.unwrap();
        let id = recording.recording_id;
        api.book.finish_recording(id, end, RecordingState::Complete, 4096, Some(0)).await.unwrap();
        let text = ROW.replace("SESSION", &new.session_id.to_string()).replace("RECORDING", &id.to_string());
        let mut expected: Value =
            serde_json::from_str(&text.replace("SOCKET", &socket_id("shell").to_string())).unwrap();
        assert_eq!(api.get(&path(&new)).await.json(), expected);

        api.book.close_session(new.session_id, end, Outcome::ClientGone, "went away".into(), None).await.unwrap();
        for (name, value) in [("end_time", "2026-03-01T11:00:00Z"), ("last_seen", "2026-03-01T11:00:00Z")] {
            expected[name] = value.into();
        }
        expected["outcome"] = "client_gone".into();
        expected["end_reason"] = "went away".into();
        assert_eq!(api.get(&path(&new)).await.json(), expected);
        let pagination = json!({"current_page": 1, "next_page": 0, "total_records": 1, "total_pages": 1});
        let list = api.get("/api/v1/sessions").await.json();
        assert_eq!(list, json!({"pagination": pagination, "session_logs": [expected]}));
    }

    #[tokio::test]
    async fn a_denied_attempt_is_a_row() {
        let api = Api::new().await;
        let new = denied_session();
        api.book.open_session(new.clone()).await.unwrap();
        let row = api.get(&path(&new)).await.json();
        assert_eq!((&row["result"], &row["outcome"]), (&json!("denied"), &json!("refused")));
        assert_eq!((&row["end_reason"], &row["rule"]), (&json!("no rule allows it"), &json!(null)));
        assert_eq!(row["end_time"], row["start_time"]);
    }

    #[tokio::test]
    async fn a_session_is_found_on_its_socket_alone() {
        let api = Api::new().await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        let other = NewSession { socket_name: "other".into(), ..new.clone() };
        api.get(&path(&other)).await.refused(404, "no such session");
        api.get(&path(&NewSession { session_id: Uuid::now_v7(), ..new.clone() })).await.refused(404, "no such session");
        api.get(&format!("{}?x=1", path(&new))).await.refused(400, "`x`");
        api.get(&format!("/api/v1/session/shell/{}", new.session_id)).await.refused(400, "`socket_id`");
        api.get(&format!("/api/v1/session/{}/1", socket_id("shell"))).await.refused(400, "`session_id`");
    }

    #[tokio::test]
    async fn pages_tell_where_the_next_one_is() {
        let api = Api::new().await;
        let empty = json!({"current_page": 1, "next_page": 0, "total_records": 0, "total_pages": 0});
        assert_eq!(api.get("/api/v1/sessions").await.json(), json!({"pagination": empty, "session_logs": []}));
        for _ in 0..5 {
            api.book.open_session(new_session()).await.unwrap();
        }
        for (page, next, rows) in [(1, 2, 2), (2, 3, 2), (3, 0, 1), (4, 0, 0), (u32::MAX, 0, 0)] {
            let list = api.get(&format!("/api/v1/sessions?page={page}&page_size=2")).await.json();
            let expected = json!({"current_page": page, "next_page": next, "total_records": 5, "total_pages": 3});
            assert_eq!(list["pagination"], expected);
            assert_eq!(list["session_logs"].as_array().unwrap().len(), rows);
        }
    }

    #[tokio::test]
    async fn filters_reach_the_book() {
        let api = Api::new().await;
        api.book.open_session(new_session()).await.unwrap();
        api.book.open_session(denied_session()).await.unwrap();
        let (shell, other) = (socket_id("shell"), socket_id("other"));
        let table = [
            (format!("socket_id={shell}"), 2),
            (format!("socket_id={other}"), 0),
            ("socket_name=shell".into(), 2),
            ("socket_name=other".into(), 0),
            ("session_type=ssh".into(), 2),
            ("session_type=tcp".into(), 0),
            ("user_email=Alice%40example.com".into(), 2),
            ("user_email=bob@example.com".into(), 0),
            ("client_ip=192.0.2.7".into(), 2),
            ("client_ip=::ffff:192.0.2.7".into(), 2),
            ("client_ip=192.0.2.8".into(), 0),
            ("country=NL".into(), 0),
            ("result=denied".into(), 1),
            ("result=success&live=true".into(), 1),
            ("result=success&live=false".into(), 0),
            ("live=false".into(), 1),
            ("killed=false".into(), 2),
            ("killed=true".into(), 0),
            ("start_after=2026-03-01T10:00:00Z".into(), 2),
            ("start_after=2026-03-01T12:00:00%2B02:00&start_before=2026-03-01T10:00:01Z".into(), 2),
            ("start_before=2026-03-01T10:00:00Z".into(), 0),
        ];
        for (query, hits) in table {
            let list = api.get(&format!("/api/v1/sessions?{query}")).await.json();
            assert_eq!(list["pagination"]["total_records"], json!(hits), "{query}");
        }
    }

    #[tokio::test]
    async fn what_is_not_understood_is_named() {
        let api = Api::new().await;
        let table = [
            ("page=0", "`page`"),
            ("page=-1", "`page`"),
            ("page=x", "`page`"),
            ("page=4294967296", "`page`"),
            ("page=", "`page`"),
            ("page_size=0", "`page_size`"),
            ("page_size=1001", "`page_size`"),
            ("socket_id=shell", "`socket_id`"),
            ("socket_name=", "`socket_name`"),
            ("session_type=telnet", "`session_type`"),
            ("user_email=", "`user_email`"),
            ("client_ip=10.0.0.0/8", "`client_ip`"),
            ("country=", "`country`"),
            ("result=Success", "`result`"),
            ("live=1", "`live`"),
            ("killed=yes", "`killed`"),
            ("start_after=yesterday", "`start_after`"),
            ("start_before=2026-03-01", "`start_before`"),
            ("page=1&page=2", "`page` is given twice"),
            ("q=secret", "`q` is not built yet"),
            ("changed_after=1", "`changed_after` is not built yet"),
            ("order=asc", "`order` is not built yet"),
            ("sort=asc", "unknown parameter `sort`"),
            ("Page=1", "unknown parameter `Page`"),
        ];
        for (query, words) in table {
            api.get(&format!("/api/v1/sessions?{query}")).await.refused(400, words);
        }
    }

    /// A row as the API answers it, while live.
    const ROW: &str = r#"{
        "session_id": "SESSION",
        "socket_id": "SOCKET",
        "socket_name": "shell",
        "start_time": "2026-03-01T10:00:00.25Z",
        "end_time": null,
        "last_seen": "2026-03-01T10:00:00.25Z",
        "user_email": "alice@example.com",
        "name": "Alice",
        "picture": "https://idp.example.com/alice.png",
        "sub": "u-1",
        "nickname": "al",
        "actor": "person",
        "server_name": "shell.access.example.com",
        "server_port": "2222",
        "upstream": "10.0.0.5:22",
        "client_ip": "192.0.2.7",
        "client_port": "50022",
        "country_code": null,
        "country": null,
        "city": null,
        "session_type": "ssh",
        "sshuser": "deploy",
        "audit_log": true,
        "killed": false,
        "result": "success",
        "outcome": null,
        "end_reason": null,
        "rule": "engineers",
        "durability": "process",
        "legibility": "screen",
        "remaining": null,
        "recordings": [{
            "recording_id": "RECORDING",
            "kind": "shell",
            "command": null,
            "start_time": "2026-03-01T10:00:01Z",
            "end_time": "2026-03-01T11:00:00Z",
            "state": "complete",
            "legibility": "screen",
            "size": 4096,
            "exit_status": 0
        }],
        "events": [{
            "created_at": "2026-03-01T10:00:00.25Z",
            "type": "sign_in",
            "status": "success",
            "metadata": {"how": "link"}
        }]
    }"#;
}
