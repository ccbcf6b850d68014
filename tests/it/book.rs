//! The session log over the API, about real sessions: names and types, pages, filters, tokens.

use std::time::Duration;

use gatescribe::store::RecordingState;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually};

async fn gate() -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).ssh("other", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

/// The contract's names, each with what its value may be.
const ROW: &[(&str, &str)] = &[
    ("session_id", "uuid"),
    ("socket_id", "uuid"),
    ("socket_name", "string"),
    ("start_time", "time"),
    ("end_time", "time or null"),
    ("last_seen", "time"),
    ("user_email", "string"),
    ("name", "string or null"),
    ("picture", "string or null"),
    ("sub", "string"),
    ("nickname", "string or null"),
    ("actor", "string"),
    ("server_name", "string"),
    ("server_port", "port"),
    ("upstream", "string"),
    ("client_ip", "string"),
    ("client_port", "port"),
    ("country_code", "string or null"),
    ("country", "string or null"),
    ("city", "string or null"),
    ("session_type", "string"),
    ("sshuser", "string or null"),
    ("audit_log", "bool"),
    ("killed", "bool"),
    ("result", "string"),
    ("outcome", "string or null"),
    ("end_reason", "string or null"),
    ("rule", "string or null"),
    ("durability", "string"),
    ("legibility", "string or null"),
    ("recordings", "array"),
    ("events", "array"),
    ("events_total", "number"),
];

#[tokio::test]
async fn a_row_has_the_contracts_names_and_types_live_and_ended() {
    let (sshd, gateway, ssh) = gate().await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    let api = gateway.admin().await;
    let live = api.sessions("live=true").await["session_logs"][0].clone();
    assert_row(&live);
    assert_eq!((&live["end_time"], &live["outcome"]), (&Value::Null, &Value::Null));
    cat.finish(SOON).await;
    let row = api.ended("web").await;
    let ended = api.get(&format!("/api/v1/session/{}/{}", row.socket_id, row.session_id)).await.ok_json();
    assert_row(&ended);
    let expected = json!({
        "socket_name": "web", "server_name": "web.localhost", "server_port": gateway.ssh.to_string(),
        "client_ip": "127.0.0.1", "session_type": "ssh", "audit_log": true, "killed": false, "result": "success",
        "outcome": "closed", "rule": "engineers", "durability": "process", "actor": "person",
        "user_email": "alice@example.com", "sshuser": crate::harness::gateway::whoami(), "upstream": sshd.address(),
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&ended[name], value, "{name}");
    }
    let recording = &ended["recordings"][0];
    assert_eq!((&recording["state"], &recording["kind"]), (&json!("complete"), &json!("exec")));
    for event in ended["events"].as_array().unwrap() {
        assert!(
            is(&event["created_at"], "time") && event["type"].is_string() && event["metadata"].is_object(),
            "{event}"
        );
        assert!(["success", "denied", "error"].contains(&event["status"].as_str().unwrap()), "{event}");
    }
}

#[tokio::test]
async fn rows_are_closed_once_the_book_can_be_written_again() {
    let (_sshd, mut gateway, ssh) = gate().await;
    gateway.expect_errors();
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    // Somebody else's transaction, for longer than a lock is waited for.
    let other = rusqlite::Connection::open(gateway.data().join("sessions.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(cat.stdin.take());
    eventually("the recording's row is tried", SOON, async || {
        let log = gateway.log();
        let tried = |line: &str| line.contains("be closed") && line.contains("recording");
        log.lines().any(tried).then_some(())
    })
    .await;
    other.execute_batch("COMMIT").unwrap();
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    let state = eventually("the recording's row is closed", SOON, async || {
        let row = api.details(&row).await;
        Some(row.recordings[0].state).filter(|state| *state != RecordingState::Live)
    });
    assert_eq!(state.await, RecordingState::Complete);
}

fn assert_row(row: &Value) {
    for (name, kind) in ROW {
        assert!(row.get(name).is_some_and(|value| is(value, kind)), "{name} must be {kind}: {row}");
    }
}

fn is(value: &Value, kind: &str) -> bool {
    let text = value.as_str();
    match kind.split_once(" or null") {
        Some((kind, _)) => value.is_null() || is(value, kind),
        None => match kind {
            "uuid" => text.is_some_and(|t| t.parse::<uuid::Uuid>().is_ok()),
            "time" => text.is_some_and(|t| t.ends_with('Z') && t.parse::<jiff::Timestamp>().is_ok()),
            "port" => text.is_some_and(|t| t.parse::<u16>().is_ok()),
            "bool" => value.is_boolean(),
            "array" => value.is_array(),
            "number" => value.is_u64(),
            _ => value.is_string(),
        },
    }
}

#[tokio::test]
async fn pages_are_newest_first_and_filters_filter() {
    let (_sshd, gateway, ssh) = gate().await;
    for n in 0..4 {
        let socket = if n % 2 == 0 { "web" } else { "other" };
        assert_eq!(ssh.run(socket, "true").await.status, Some(0));
    }
    assert_ne!(ssh.run("none", "true").await.status, Some(0));
    let api = gateway.admin().await;
    eventually("all have ended", SOON, async || api.rows("live=true").await.is_empty().then_some(())).await;
    // The sign-in was one more on `web`.
    let list = api.sessions("page=1&page_size=4").await;
    assert_eq!(list["pagination"], json!({"current_page": 1, "next_page": 2, "total_records": 6, "total_pages": 2}));
    let rows = api.rows("").await;
    assert!(rows.is_sorted_by(|a, b| a.start_time >= b.start_time));
    let count = async |query: &str| api.sessions(query).await["pagination"]["total_records"].as_u64().unwrap();
    let middle = rows[3].start_time;
    for (query, expected) in [
        ("socket_name=web".to_owned(), 3),
        (format!("socket_id={}", rows[1].socket_id), 2),
        ("result=denied".to_owned(), 1),
        ("user_email=alice@example.com".to_owned(), 6),
        ("user_email=bob@example.com".to_owned(), 0),
        ("client_ip=127.0.0.1".to_owned(), 6),
        ("killed=true".to_owned(), 0),
        ("live=true".to_owned(), 0),
        ("session_type=ssh".to_owned(), 6),
        (format!("start_before={middle}"), 2),
    ] {
        assert_eq!(count(&query).await, expected, "{query}");
    }
    for query in ["colour=blue", "page=0", "page_size=1001", "live=maybe", "q=x", "start_after=yesterday"] {
        let words = api.get(&format!("/api/v1/sessions?{query}")).await.error(400);
        assert!(words.contains(query.split('=').next().unwrap()), "{query}: {words}");
    }
}

#[tokio::test]
async fn last_seen_moves_while_a_session_lives() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    let api = gateway.admin().await;
    let first = api.live("web").await;
    eventually("last_seen moves", Duration::from_secs(90), async || {
        cat.send(b"x").await;
        cat.receive(1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        (api.details(&first).await.last_seen > first.last_seen).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_route_but_health_wants_a_token() {
    let (_sshd, gateway, ssh) = gate().await;
    ssh.run("web", "true").await;
    let admin = gateway.admin().await;
    let row = admin.ended("web").await;
    let session = format!("/api/v1/session/{}/{}", row.socket_id, row.session_id);
    let routes =
        ["/api/v1/sessions".to_owned(), session.clone(), format!("{session}/session_log"), "/api/v1/whoami".to_owned()];
    let nobody = admin.with_token(None);
    assert_eq!(nobody.get("/healthz").await.status, 200);
    for route in &routes {
        nobody.get(route).await.error(401);
        admin.with_token(Some("gsa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")).get(route).await.error(401);
        assert_eq!(admin.get(route).await.status, 200, "{route}");
    }
    admin.get("/api/v1/nothing").await.error(404);
    admin.get(&format!("/api/v1/session/{}/{}", row.session_id, row.session_id)).await.error(404);
    admin.call(Method::DELETE, &session, None).await.error(405);
    admin.call(Method::PUT, &session, Some(json!({"killed": false, "reason": "x"}))).await.error(400);
    admin.call(Method::PUT, &session, Some(json!({"killed": true, "reason": "x", "colour": 1}))).await.error(400);
}

#[tokio::test]
async fn tokens_are_opaque_and_the_book_keeps_only_their_hash() {
    let (_sshd, gateway, _ssh) = gate().await;
    let token = gateway.token_of("admin").await;
    assert!(token.len() <= 64 && !token.contains('.'), "{token}");
    let api = gateway.api(Some(token.clone()));
    assert_eq!(api.get("/api/v1/whoami").await.ok_json()["email"], "admin@example.com");
    let mut dirs = vec![gateway.data()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => dirs.push(path),
                path => {
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
                    assert!(!found, "the token stands in {}", path.display());
                }
            }
        }
    }
    assert!(!gateway.log().contains(&token));
}
