//! What people may do over the API, each signed in at the real provider: their own sessions, everybody's, typed input.

use std::time::Duration;

use gatescribe::store::SessionRow;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, Gateway, Setup, Ssh, Sshd};

const POLICIES: &str = r#"
[[policy]]
name = "everybody"
effect = "allow"
who = { groups = ["engineering", "contractors"] }
[policy.allow.ssh]
"#;

const PEOPLE: [&str; 5] = ["alice", "bob", "audrey", "oscar", "admin"];

async fn gate() -> (Sshd, Gateway, [Ssh; 2]) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).policies(POLICIES).start().await;
    let alice = gateway.signed_in("alice", "web").await;
    let bob = gateway.signed_in("bob", "web").await;
    (sshd, gateway, [alice, bob])
}

/// The API as each of [`PEOPLE`] sees it.
async fn callers(gateway: &Gateway) -> Vec<(&'static str, Api)> {
    let mut callers = Vec::new();
    for person in PEOPLE {
        callers.push((person, gateway.api(Some(gateway.token_of(person).await))));
    }
    callers
}

fn path(row: &SessionRow) -> String {
    format!("/api/v1/session/{}/{}", row.socket_id, row.session_id)
}

#[tokio::test]
async fn everybody_sees_what_their_role_lets_them_see() {
    let (_sshd, gateway, [alice, bob]) = gate().await;
    alice.run("web", "echo of-alice").await;
    bob.run("web", "echo of-bob").await;
    let admin = gateway.admin().await;
    let newest = async |person: &str| {
        let query = format!("user_email={person}@example.com&page_size=1");
        admin.end_of(&admin.rows(&query).await.remove(0)).await
    };
    let (of_alice, of_bob) = (newest("alice").await, newest("bob").await);
    // Rows of alice's and bob's session: details, recording, with typed input.
    let table = [
        ("alice", "user", [200, 200, 403], [404, 404, 403]),
        ("bob", "user", [404, 404, 403], [200, 200, 403]),
        ("audrey", "auditor", [200, 200, 403], [200, 200, 403]),
        ("oscar", "operator", [200, 200, 403], [200, 200, 403]),
        ("admin", "admin", [200, 200, 200], [200, 200, 200]),
    ];
    for ((person, api), (name, role, alices, bobs)) in callers(&gateway).await.iter().zip(table) {
        assert_eq!(*person, name);
        let who = api.get("/api/v1/whoami").await.ok_json();
        assert_eq!((&who["email"], &who["role"]), (&json!(format!("{person}@example.com")), &json!(role)));
        assert!(who["sign_in_id"].is_string() && who["name"].is_string(), "{who}");
        for (row, expected) in [(&of_alice, alices), (&of_bob, bobs)] {
            let routes = ["", "/session_log", "/session_log?input=true"].map(|rest| format!("{}{rest}", path(row)));
            for (route, expected) in routes.iter().zip(expected) {
                assert_eq!(api.get(route).await.status.as_u16(), expected, "{person} {route}");
            }
        }
        let listed = api.rows("page_size=1000").await;
        let fed = api.sessions("changed_after=0&order=asc&page_size=1000").await;
        let fed: Vec<SessionRow> = serde_json::from_value(fed["session_logs"].clone()).unwrap();
        for rows in [&listed, &fed] {
            let sees = |row: &SessionRow| rows.iter().any(|one| one.session_id == row.session_id);
            assert_eq!((sees(&of_alice), sees(&of_bob)), (alices[0] == 200, bobs[0] == 200), "{person}");
        }
        if role == "user" {
            let own = format!("{person}@example.com");
            assert!(listed.iter().chain(&fed).all(|row| row.user_email == own), "{person}");
        }
        let tokens = api.get("/api/v1/tokens").await.status.as_u16();
        assert_eq!(tokens, if role == "admin" { 200 } else { 403 }, "{person}");
    }
}

#[tokio::test]
async fn people_end_their_own_sessions_and_operators_all() {
    let (_sshd, gateway, [alice, bob]) = gate().await;
    let admin = gateway.admin().await;
    let callers = callers(&gateway).await;
    let api = |person: &str| &callers.iter().find(|(name, _)| *name == person).unwrap().1;
    for (owner, ssh, refused, by) in [
        ("alice", &alice, [("bob", 404), ("audrey", 403)], "alice"),
        ("bob", &bob, [("alice", 404), ("audrey", 403)], "oscar"),
    ] {
        let mut cat = ssh.start(&["web@gate", "cat"]);
        cat.send(b"x").await;
        cat.receive(1).await;
        let row = admin.live("web").await;
        assert_eq!(row.user_email, format!("{owner}@example.com"));
        for (person, status) in refused {
            api(person).try_kill(&row, "not mine").await.error(status);
        }
        assert!(!admin.details(&row).await.killed, "who may not end it has not");
        let ended = api(by).kill(&row, "forgotten", Duration::from_secs(10)).await;
        assert!(ended.end_reason.unwrap().contains(&format!("{by}@example.com")));
    }
}

#[tokio::test]
async fn programs_have_tokens_of_their_own_until_they_are_revoked() {
    let (_sshd, gateway, [alice, _bob]) = gate().await;
    alice.run("web", "true").await;
    let admin = gateway.admin().await;
    let row = admin.ended("web").await;
    let make = async |scopes: Value, networks: Value| {
        let wanted = json!({"label": "ci", "scopes": scopes, "networks": networks, "lifetime": "1h"});
        admin.call(Method::POST, "/api/v1/tokens", Some(wanted)).await.ok_json()
    };
    let made = make(json!(["recordings:read"]), json!([])).await;
    let program = gateway.api(Some(made["token"].as_str().unwrap().to_owned()));
    program.get(&format!("{}/session_log", path(&row))).await.ok();
    program.get("/api/v1/sessions").await.error(403);
    program.get(&path(&row)).await.error(403);
    program.try_kill(&row, "x").await.error(403);
    let elsewhere = make(json!(["admin"]), json!(["192.0.2.0/24"])).await;
    gateway.api(Some(elsewhere["token"].as_str().unwrap().to_owned())).get("/api/v1/whoami").await.error(401);
    let here = make(json!(["sessions:read"]), json!(["127.0.0.0/8", "::1"])).await;
    gateway.api(Some(here["token"].as_str().unwrap().to_owned())).get("/api/v1/sessions").await.ok();

    let listed = admin.get("/api/v1/tokens").await.ok_json();
    let listed = listed["tokens"].as_array().unwrap();
    let one = listed.iter().find(|token| token["token_id"] == made["token_id"]).unwrap();
    assert_eq!((&one["created_by"], &one["last_ip"]), (&json!("admin@example.com"), &json!("127.0.0.1")));
    let token = format!("/api/v1/token/{}", made["token_id"].as_str().unwrap());
    admin.call(Method::DELETE, &token, None).await.ok();
    program.get("/api/v1/whoami").await.error(401);
    // The page's own tokens are revoked in the same way, the administrator's too.
    let own = admin.get("/api/v1/whoami").await.ok_json()["token_id"].as_str().unwrap().to_owned();
    admin.call(Method::DELETE, &format!("/api/v1/token/{own}"), None).await.ok();
    admin.get("/api/v1/whoami").await.error(401);
}

#[tokio::test]
async fn sockets_are_those_that_the_policy_lets_one_reach() {
    let (_sshd, gateway, _ssh) = gate().await;
    for (person, api) in callers(&gateway).await {
        let reached = api.get("/api/v1/sockets").await.ok_json();
        let expected = if matches!(person, "alice" | "bob") { json!(["web"]) } else { json!([]) };
        let names: Vec<_> = reached["sockets"].as_array().unwrap().iter().map(|one| &one["socket_name"]).collect();
        assert_eq!(json!(names), expected, "{person}");
        assert!(!reached.to_string().contains("127.0.0.1"), "nothing of where it leads: {reached}");
    }
}

#[tokio::test]
async fn the_description_tells_tools_what_there_is() {
    let (_sshd, gateway, _ssh) = gate().await;
    gateway.api(None).get("/openapi.json").await.error(401);
    let admin = gateway.admin().await;
    for route in ["/openapi.json", "/api/v1/openapi.json"] {
        let document = admin.get(route).await.ok_json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
        assert!(document["paths"]["/api/v1/sessions"]["get"].is_object());
    }
}
