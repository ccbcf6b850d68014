//! What a terminal is told of an end that can be foreseen, and how its session goes on.

use gatescribe::identity::dev_issuer::Flaw;

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd};

/// Whoever signed in an hour ago has four minutes left, and is warned at once.
const YOUNG: &str = r#"
[[policy]]
name = "young"
effect = "allow"
require = { max_sign_in_age = "64m" }
[policy.allow.ssh]
"#;

async fn gate() -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).policies(YOUNG).start().await;
    let issuer = gateway.issuer.as_ref().unwrap().own.as_ref().unwrap();
    issuer.set_flaw(Flaw::SignedInAnHourAgo);
    let ssh = gateway.signed_in("alice", "web").await;
    issuer.set_flaw(Flaw::default());
    (sshd, gateway, ssh)
}

#[tokio::test]
async fn a_shell_is_warned_and_goes_on_by_the_link() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut terminal = ssh.terminal(&["-tt", "web@gate"]);
    let text = terminal.expect("to go on, sign in again: ").await;
    assert!(
        text.contains("gatescribe: this session ends in 4 minutes: young needs a sign-in not older than 1h 4m"),
        "{text}"
    );
    let id = gateway.admin().await.live("web").await.session_id;
    let link = gateway.url(&format!("/renew/{id}"));
    terminal.expect(&link).await;
    let shown = String::from_utf8_lossy(&terminal.bytes()).into_owned();
    assert!(shown.contains("\u{1b}]2;gatescribe: this session ends in 4 minutes\u{7}"), "{shown:?}");
    let page = gateway.browser().sign_in(&link, "alice").await;
    assert!(page.body.contains("renewed"), "{page:?}");
    terminal.expect("gatescribe: this session goes on").await;
    terminal.send("echo still-$((40+2)); exit\n");
    terminal.expect("still-42").await;
    terminal.wait(SOON).await;
    // What the gateway said is in the recording too.
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    let cast = String::from_utf8(api.log(&row, None, "cast").await.ok()).unwrap();
    assert!(cast.contains("this session ends in") && cast.contains("this session goes on"), "{cast}");
}

#[tokio::test]
async fn another_persons_sign_in_renews_nothing() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut terminal = ssh.terminal(&["-tt", "web@gate"]);
    terminal.expect("to go on, sign in again: ").await;
    let id = gateway.admin().await.live("web").await.session_id;
    let page = gateway.browser().sign_in(&gateway.url(&format!("/renew/{id}")), "bob").await;
    assert!(!page.body.contains("alice"), "{page:?}");
    terminal.send("echo $((40+2))\n");
    terminal.expect("42").await;
    assert!(!terminal.text().contains("goes on"), "{}", terminal.text());
}

#[tokio::test]
async fn commands_are_never_written_into() {
    let (_sshd, _gateway, ssh) = gate().await;
    assert_eq!(ssh.run("web", "sleep 1; echo out").await.ok(), "out\n");
    let mut terminal = ssh.terminal(&["-tt", "web@gate", "sleep 1; echo out"]);
    terminal.wait(SOON).await;
    let shown = String::from_utf8_lossy(&terminal.bytes()).into_owned();
    assert!(shown.contains("out") && !shown.contains("this session ends"), "{shown:?}");
}
