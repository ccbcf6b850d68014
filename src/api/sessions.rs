//! The list and one row of it.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{owner, session_with_events, shown};
use super::parameters::{Ids, Pages, Pagination, Parameters, flag, page_size};
use super::{ApiError, Shared};
use crate::identity::tokens::{Caller, Scope};
use crate::store::{AuthResult, Filter, Owner, SessionRow, Store};

/// `GET /sessions`.
#[utoipa::path(
    get, path = "/api/v1/sessions", operation_id = "list_sessions", tag = "sessions",
    params(
        Pages,
        ("socket_id" = Option<Uuid>, Query, description = "On this socket."),
        ("socket_name" = Option<String>, Query, description = "On the socket of this name."),
        ("session_type" = Option<String>, Query, description = "`ssh`, `database`, `http`, `kubernetes` or `tcp`."),
        ("user_email" = Option<String>, Query, description = "Of the person with this address."),
        ("client_ip" = Option<String>, Query, description = "From this address."),
        ("country" = Option<String>, Query, description = "From this country, by name or two-letter code."),
        ("result" = Option<AuthResult>, Query, description = "Let in or refused."),
        ("live" = Option<bool>, Query, description = "Whether it goes on."),
        ("killed" = Option<bool>, Query, description = "Whether somebody ended it."),
        ("start_after" = Option<Timestamp>, Query, description = "Began after this time."),
        ("start_before" = Option<Timestamp>, Query, description = "Began before this time."),
        ("changed_after" = Option<u64>, Query, description =
            "The feed: what changed after this cursor, in order; 0 is the beginning. Takes `order` and `page_size` only."),
        ("order" = Option<String>, Query, description = "`asc`, with `changed_after`."),
    ),
    responses((status = 200, description = "Rows: newest first, or in the order of their changes.", body = Listed)),
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<Json<Listed>, ApiError> {
    let owner = owner(&caller, Scope::SessionsRead)?;
    parameters.refuse_unbuilt(&["q"])?;
    let cursor = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    if let Some(after) = parameters.take("changed_after", "a `next_cursor`, or 0", cursor)? {
        return feed(&shared.api.store, owner, after, parameters).await.map(|feed| Json(Listed::Feed(feed)));
    }
    if parameters.has("order") {
        return Err(ApiError::bad_request("`order` must come with `changed_after`: the list is newest first"));
    }
    let pages = Pages::take(&mut parameters)?;
    let only_own = owner.is_some();
    let filter = Filter { owner, ..filter(&mut parameters)? };
    parameters.finish()?;
    let found = shared.api.store.list(filter, pages.page, pages.size).await?;
    let session_logs = found.rows.into_iter().map(|row| shown(row, only_own)).collect();
    Ok(Json(Listed::Page(List { pagination: pages.of(found.total), session_logs })))
}

/// The feed takes no filter: a row that stops matching one would never be told of again.
async fn feed(store: &Store, owner: Option<Owner>, after: u64, mut parameters: Parameters) -> Result<Feed, ApiError> {
    parameters.take("order", "`asc` with `changed_after`", |text| (text == "asc").then_some(()))?;
    let size = page_size(&mut parameters)?;
    parameters.finish().map_err(|_| {
        ApiError::bad_request("with `changed_after` only `order` and `page_size` are taken: the feed tells all changes")
    })?;
    let only_own = owner.is_some();
    let fed = store.feed(owner, after, size).await?;
    let fed =
        fed.ok_or_else(|| ApiError::bad_request("`changed_after` is not from this session log: begin again with 0"))?;
    let session_logs = fed.rows.into_iter().map(|row| shown(row, only_own)).collect();
    Ok(Feed { session_logs, next_cursor: fed.next.to_string() })
}

/// `GET /session/{socket_id}/{session_id}`.
#[utoipa::path(
    get, path = "/api/v1/session/{socket_id}/{session_id}", operation_id = "session", tag = "sessions",
    params(
        Ids,
        ("events_after" = Option<u32>, Query, description =
            "Leaves out as many of the oldest events. A thousand come at once; `events_total` says how many there are."),
    ),
    responses((status = 200, description = "The row.", body = SessionRow)),
)]
pub(super) async fn details(
    State(shared): State<Shared>,
    caller: Caller,
    ids: Ids,
    mut parameters: Parameters,
) -> Result<Json<SessionRow>, ApiError> {
    let number = |text: &str| text.parse::<u32>().ok();
    let after = parameters.take("events_after", "a number from 0", number)?.unwrap_or(0);
    parameters.finish()?;
    session_with_events(&shared.api.store, &caller, Scope::SessionsRead, &ids, after).await.map(Json)
}

/// What a list is answered with.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Listed {
    Page(List),
    Feed(Feed),
}

/// A piece of the feed.
#[derive(Serialize, ToSchema)]
pub(super) struct Feed {
    /// The rows as they are now, in the order of their last changes; fewer than `page_size` when there are no more now.
    session_logs: Vec<SessionRow>,
    /// What to ask with next.
    next_cursor: String,
}

/// A page of the list.
#[derive(Serialize, ToSchema)]
pub(super) struct List {
    pagination: Pagination,
    session_logs: Vec<SessionRow>,
}

fn filter(parameters: &mut Parameters) -> Result<Filter, ApiError> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let time = |text: &str| text.parse::<Timestamp>().ok();
    Ok(Filter {
        owner: None,
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
    use crate::store::{Event, EventStatus, NewSession, Outcome, RecordingState};

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
    async fn lists_have_the_newest_events_and_details_all_of_them() {
        let api = Api::new().await;
        let new = NewSession { events: Vec::new(), ..new_session() };
        api.book.open_session(new.clone()).await.unwrap();
        for n in 0..1003 {
            let event = Event::now("ssh_exec", EventStatus::Success, json!({"n": n}));
            api.book.add_event(new.session_id, event).await.unwrap();
        }
        let numbers = |row: &Value| {
            assert_eq!(row["events_total"], 1003);
            let events = row["events"].as_array().unwrap().iter();
            events.map(|event| event["metadata"]["n"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        for list in ["/api/v1/sessions", "/api/v1/sessions?changed_after=0"] {
            let row = api.get(list).await.json()["session_logs"][0].clone();
            assert_eq!(numbers(&row), (983..1003).collect::<Vec<_>>(), "{list}");
        }
        for (query, expected) in [("", 0..1000), ("?events_after=1000", 1000..1003), ("?events_after=2000", 0..0)] {
            let row = api.get(&format!("{}{query}", path(&new))).await.json();
            assert_eq!(numbers(&row), expected.collect::<Vec<_>>(), "{query}");
        }
    }

    #[tokio::test]
    async fn where_watchers_are_is_for_those_who_read_everybody_s() {
        let api = Api::new().await;
        let new = new_session();
        api.book.open_session(new.clone()).await.unwrap();
        for kind in ["watch", "watch_end", "typed_input_read", "kill"] {
            let about = json!({"by": "audrey@example.com", "from": "198.51.100.7"});
            api.book.add_event(new.session_id, Event::now(kind, EventStatus::Success, about)).await.unwrap();
        }
        let lists = ["/api/v1/sessions", "/api/v1/sessions?changed_after=0"];
        for (person, told) in [("alice", 1), ("audrey", 4)] {
            let token = api.person(person).await;
            let mut rows = vec![api.get_as(&token, &path(&new)).await.json()];
            for list in lists {
                rows.push(api.get_as(&token, list).await.json()["session_logs"][0].clone());
            }
            for row in rows {
                let events = row["events"].as_array().unwrap().iter().map(|event| &event["metadata"]);
                let by = events.clone().filter(|about| about["by"] == "audrey@example.com").count();
                let from = events.filter(|about| about["from"] == "198.51.100.7").count();
                assert_eq!((by, from), (4, told), "{person}: {row}");
            }
        }
    }

    #[tokio::test]
    async fn the_feed_goes_on_where_its_cursor_says() {
        let api = Api::new().await;
        let feed = async |cursor: &str| {
            let fed = api.get(&format!("/api/v1/sessions?changed_after={cursor}&order=asc&page_size=2")).await.json();
            let rows = fed["session_logs"].as_array().unwrap();
            let ids = rows.iter().map(|row| row["session_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
            (ids, fed["next_cursor"].as_str().unwrap().to_owned())
        };
        assert_eq!(feed("").await, (vec![], "0".to_owned()));
        let mut opened = Vec::new();
        for _ in 0..3 {
            let new = new_session();
            opened.push(new.session_id.to_string());
            api.book.open_session(new).await.unwrap();
        }
        let (ids, cursor) = feed("0").await;
        assert_eq!(ids, opened[..2]);
        let first = opened[0].parse().unwrap();
        let end = time("2026-03-01T11:00:00Z");
        api.book.close_session(first, end, Outcome::Closed, String::new(), None).await.unwrap();
        let (ids, cursor) = feed(&cursor).await;
        assert_eq!(ids, [&opened[2], &opened[0]].map(String::clone));
        assert_eq!(feed(&cursor).await, (vec![], cursor.clone()));
        let row =
            api.get(&format!("/api/v1/sessions?changed_after={}", cursor.parse::<u64>().unwrap() - 1)).await.json();
        assert_eq!(row["session_logs"][0]["outcome"], "closed");
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
            ("changed_after=x", "`changed_after`"),
            ("changed_after=-1", "`changed_after`"),
            ("changed_after=18446744073709551616", "`changed_after`"),
            ("changed_after=1", "begin again"),
            ("changed_after=0&order=desc", "`asc`"),
            ("changed_after=0&page=2", "only `order` and `page_size`"),
            ("changed_after=0&live=true", "only `order` and `page_size`"),
            ("changed_after=0&page_size=0", "`page_size`"),
            ("order=asc", "`order` must come with"),
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
        }],
        "events_total": 1
    }"#;
}
