//! Locks from the command line, as those meet them whom they keep out. What a lock does to what lives is tested elsewhere.

use std::time::Duration;

use gatescribe::store::{AuthResult, Outcome};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Cli, Gateway, SOON, Setup, Ssh, Sshd, eventually};

const POLICIES: &str = r#"
[[policy]]
name = "everybody"
effect = "allow"
who = { groups = ["engineering", "contractors"] }
[policy.allow.ssh]
"#;

/// Two sockets, alice and bob signed in, and an administrator's command line.
async fn gate() -> (Sshd, Gateway, [Ssh; 2], Cli) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).ssh("other", &sshd).policies(POLICIES).start().await;
    let people = [gateway.signed_in("alice", "web").await, gateway.signed_in("bob", "web").await];
    let admin = Cli::new();
    admin.login(&gateway, "admin", &[]).await;
    (sshd, gateway, people, admin)
}

/// Locks, and returns the id from the line that says how to take it off.
async fn lock(cli: &Cli, words: &[&str]) -> String {
    let told = cli.run(&[&["lock"], words].concat()).await.ok();
    let (_, id) = told.split_once("gatescribe unlock ").unwrap_or_else(|| panic!("{told}"));
    id.trim().to_owned()
}

async fn refused(ssh: &Ssh, socket: &str, words: &str) {
    let done = ssh.run(socket, "echo in").await;
    assert!(done.stdout.is_empty() && done.stderr.contains(words), "{done:?}");
}

async fn let_in(ssh: &Ssh, socket: &str) {
    assert_eq!(ssh.run(socket, "echo in").await.ok(), "in\n");
}

#[tokio::test]
async fn a_lock_keeps_out_whom_it_names_and_nobody_else_until_it_is_taken_off() {
    let (_sshd, gateway, [alice, bob], admin) = gate().await;
    let id = lock(&admin, &["user", "ALICE@example.com", "--reason", "laptop lost"]).await;
    for socket in ["web", "other"] {
        refused(&alice, socket, "laptop lost").await;
        let_in(&bob, socket).await;
    }
    let api = gateway.admin().await;
    let row = api.rows("user_email=alice@example.com&page_size=1").await.remove(0);
    assert_eq!((row.result, row.outcome), (AuthResult::Denied, Some(Outcome::Refused)));
    let why = row.end_reason.unwrap();
    assert!(why.contains("laptop lost") && why.contains("admin@example.com"), "{why}");
    let list = admin.run(&["lock"]).await;
    let shown = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(shown.contains("user ALICE@example.com") && shown.contains("laptop lost"), "{shown}");
    assert!(shown.contains(&id[..13]) && list.stderr.contains("gatescribe unlock"), "{shown}");
    let unlocked = admin.run(&["unlock", &id[..13]]).await.ok();
    assert_eq!(unlocked, "unlocked: user ALICE@example.com\n");
    let_in(&alice, "web").await;
    assert_eq!(admin.run(&["lock"]).await.stderr, "nothing is locked\n");
    assert!(admin.run(&["unlock", &id]).await.stderr.contains("no such lock"));
    assert!(admin.run(&["unlock", &id[..13]]).await.stderr.contains("`gatescribe lock` lists"));

    let id = lock(&admin, &["socket", "web", "--reason", "migration"]).await;
    for ssh in [&alice, &bob] {
        refused(ssh, "web", "migration").await;
        let_in(ssh, "other").await;
    }
    admin.run(&["unlock", &id]).await.ok();
    lock(&admin, &["group", "contractors", "--reason", "contract is over"]).await;
    refused(&bob, "web", "contract is over").await;
    let_in(&alice, "web").await;
    lock(&admin, &["all", "--reason", "incident 42"]).await;
    refused(&alice, "other", "incident 42").await;
}

#[tokio::test]
async fn a_lock_for_a_while_runs_out_by_itself() {
    let (_sshd, _gateway, [alice, _bob], admin) = gate().await;
    lock(&admin, &["socket", "web", "--reason", "migration", "--for", "4s"]).await;
    refused(&alice, "web", "migration").await;
    eventually("the lock runs out", SOON, async || (alice.run("web", "echo in").await.status == Some(0)).then_some(()))
        .await;
    assert_eq!(admin.run(&["lock"]).await.stderr, "nothing is locked\n");
}

#[tokio::test]
async fn a_lock_survives_a_restart() {
    let (_sshd, mut gateway, [alice, _bob], admin) = gate().await;
    let id = lock(&admin, &["user", "alice@example.com", "--reason", "laptop lost"]).await;
    gateway.stop().await;
    gateway.start_again().await;
    refused(&alice, "web", "laptop lost").await;
    admin.run(&["unlock", &id]).await.ok();
    let_in(&alice, "web").await;
    gateway.stop().await;
    gateway.start_again().await;
    let_in(&alice, "web").await;
}

#[tokio::test]
async fn an_address_is_locked_however_it_is_written() {
    let (_sshd, gateway, [alice, _bob], admin) = gate().await;
    lock(&admin, &["address", "198.51.100.0/24", "--reason", "elsewhere"]).await;
    let_in(&alice, "web").await;
    for address in ["::ffff:127.0.0.1", "127.0.0.0/8", "::ffff:127.0.0.1/128"] {
        let id = lock(&admin, &["address", address, "--reason", "stolen keys"]).await;
        refused(&alice, "web", "stolen keys").await;
        admin.run(&["unlock", &id]).await.ok();
    }
    let_in(&alice, "web").await;
    // Whoever locks everybody's address is not kept from unlocking.
    lock(&admin, &["address", "0.0.0.0/0", "--reason", "x"]).await;
    assert_eq!(gateway.admin().await.get("/api/v1/locks").await.ok_json()["locks"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn only_who_may_end_sessions_of_all_may_lock() {
    let (_sshd, gateway, [alice, _bob], admin) = gate().await;
    let wanted = json!({"target": {"user": "bob@example.com"}, "reason": "x"});
    for (person, locks, lists) in
        [("alice", false, false), ("audrey", false, true), ("oscar", true, true), ("admin", true, true)]
    {
        let api = gateway.api(Some(gateway.token_of(person).await));
        let locked = api.call(Method::POST, "/api/v1/locks", Some(wanted.clone())).await;
        assert_eq!(locked.status.as_u16(), if locks { 201 } else { 403 }, "{person}");
        let listed = api.get("/api/v1/locks").await.status.as_u16();
        assert_eq!(listed, if lists { 200 } else { 403 }, "{person}");
    }
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    let told = cli.run(&["lock", "all", "--reason", "x"]).await;
    assert!(told.status == Some(1) && told.stderr.contains("`sessions:kill`"), "{told:?}");
    let id = lock(&admin, &["user", "alice@example.com", "--reason", "x"]).await;
    assert_eq!(cli.run(&["unlock", &id]).await.status, Some(1));
    refused(&alice, "web", "locked").await;
    let refused = admin.run(&["lock", "socket", "wbe", "--reason", "x"]).await;
    assert!(refused.stderr.contains("other") && refused.stderr.contains("web"), "{refused:?}");
    let json: Value = serde_json::from_str(&admin.run(&["lock", "--json"]).await.ok()).unwrap();
    assert_eq!(json["locks"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_kill_with_a_lock_keeps_the_person_off_that_socket() {
    let (_sshd, gateway, [alice, bob], admin) = gate().await;
    let mut cat = alice.start(&["web@gate", "cat"]);
    cat.send(b"x").await;
    cat.receive(1).await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let path = format!("/api/v1/session/{}/{}", row.socket_id, row.session_id);
    let own = gateway.api(Some(gateway.token_of("alice").await));
    let order = json!({"killed": true, "reason": "x", "lock": "15m"});
    own.call(Method::PUT, &path, Some(order)).await.error(403);
    let session = row.session_id.to_string();
    let told = admin.run(&["sessions", "kill", &session, "--reason", "laptop lost", "--lock", "15m"]).await.ok();
    assert!(told.contains("alice@example.com is locked out of web"), "{told}");
    let ended = api.end_of(&row).await;
    assert_eq!(ended.outcome, Some(Outcome::Killed));
    assert!(ended.end_reason.unwrap().contains("laptop lost"));
    cat.finish(Duration::from_secs(10)).await;
    refused(&alice, "web", "laptop lost").await;
    let_in(&alice, "other").await;
    let_in(&bob, "web").await;
    let (_, id) = told.split_once("gatescribe unlock ").unwrap();
    admin.run(&["unlock", id.trim()]).await.ok();
    let_in(&alice, "web").await;
}
