//! What one person, and one address, may do at a time and in a minute.

use gatescribe::store::AuthResult;

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually};

async fn gate(limits: &str) -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let all = "[[policy]]\nname = \"all\"\neffect = \"allow\"\n[policy.allow.ssh]\n";
    let gateway = Setup::new().ssh("web", &sshd).policies(all).more(&format!("[limits]\n{limits}\n")).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

#[tokio::test]
async fn a_person_has_so_many_sessions_at_a_time() {
    let (_sshd, gateway, ssh) = gate("sessions_per_user = 2").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut cat = ssh.start(&["web@gate", "cat"]);
        cat.send(b"a").await;
        cat.receive(1).await;
        open.push(cat);
    }
    let done = ssh.run("web", "true").await;
    assert!(done.stderr.contains("you have 2 sessions open; close one"), "{done:?}");
    let row = gateway.admin().await.newest("web").await;
    assert_eq!(row.result, AuthResult::Denied);
    // Others are not counted with them, and a place that was given back can be had.
    let bob = gateway.signed_in("bob", "web").await;
    assert_eq!(bob.run("web", "echo in").await.ok(), "in\n");
    assert_eq!(open.pop().unwrap().finish(SOON).await.status, Some(0));
    gateway.admin().await.ended("web").await;
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
}

#[tokio::test]
async fn a_person_opens_so_many_sessions_a_minute() {
    let (_sshd, _gateway, ssh) = gate("connections_per_minute = 20").await;
    let mut refused = None;
    for _ in 0..25 {
        let done = ssh.run("web", "true").await;
        if done.status != Some(0) {
            refused = Some(done);
            break;
        }
    }
    // The person's own limit, or their address' before it, which closes without a word.
    assert!(refused.is_some(), "nobody was refused");
}

#[tokio::test]
async fn an_address_asks_for_so_many_links_a_minute() {
    // The browser that signs in asks too.
    let (_sshd, gateway, _ssh) = gate("sign_ins_per_minute = 6").await;
    let mut refused = 0;
    for _ in 0..8 {
        let stranger = Ssh::new(gateway.ssh);
        let asks = stranger.start(&["web@gate", "true"]);
        let too_many = "too many sign-ins are asked for from this address";
        refused += eventually("a link or a refusal", SOON, async || match asks.stderr() {
            told if told.contains(too_many) => Some(1),
            told if told.contains("/link/") => Some(0),
            _ => None,
        })
        .await;
    }
    assert!((2..8).contains(&refused), "{refused}");
}
