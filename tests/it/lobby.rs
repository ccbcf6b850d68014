//! A connection that has signed in and has no session: it opens no more than a new one would, and ends when it must.

use std::fs;

use gatescribe::store::{Outcome, Store};
use rustix::process::Signal;

use crate::harness::ssh::Running;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, fingerprint, process, within};

/// Connections that may be open inside of one.
const MOST_INSIDE: usize = 32;

/// Anybody on `web`, by certificate or link.
async fn gate(limits: &str) -> (Sshd, Gateway) {
    let sshd = Sshd::start().await;
    let more = format!("[limits]\n{limits}\n");
    let gateway = Setup::new().ssh("web", &sshd).more(&more).start().await;
    (sshd, gateway)
}

/// A machine that has signed in at the command line, and with what it ends that.
async fn certified(gateway: &Gateway) -> (Ssh, String) {
    let ssh = Ssh::new(gateway.ssh);
    let login = gateway.login("alice").await;
    gateway.certify(&login, &ssh).await;
    (ssh, login.token)
}

async fn sign_out(gateway: &Gateway, token: &str) {
    let (status, answer) = gateway.oauth("/oauth/revoke", &[("token", token), ("client_id", "gatescribe-cli")]).await;
    assert!(status.is_success(), "{answer}");
}

/// A lobby that is held open, and that every later `ssh` of this machine goes by.
async fn held(ssh: &Ssh) -> Running {
    let control = ssh.path("control");
    let config = fs::read_to_string(ssh.path("config")).unwrap();
    fs::write(ssh.path("config"), format!("{config}ControlPath {}\n", control.display())).unwrap();
    let outer = ssh.start(&["-M", "-N", "gate"]);
    eventually("the way is open", SOON, async || control.exists().then_some(())).await;
    outer
}

/// A command on a socket behind the gateway.
fn inside(ssh: &Ssh, command: &str) -> Running {
    let hosts = format!("UserKnownHostsFile={}", ssh.path("known_inside").display());
    ssh.start(&["-J", "gate", "-o", &hosts, "-o", "StrictHostKeyChecking=no", "web", command])
}

async fn echoing(mut cat: Running) -> Running {
    cat.send(b"here").await;
    assert_eq!(cat.receive(4).await, b"here");
    cat
}

async fn rows(gateway: &Gateway) -> usize {
    gateway.admin().await.rows("").await.len()
}

#[tokio::test]
async fn after_a_sign_out_nothing_more_is_opened_and_what_is_open_goes_on() {
    let (_sshd, gateway) = gate("").await;
    let (ssh, token) = certified(&gateway).await;
    let mut menu = ssh.terminal(&["gate"]);
    menu.expect("q to leave: ").await;
    let mut outer = held(&ssh).await;
    let mut cat = echoing(inside(&ssh, "cat")).await;
    let before = rows(&gateway).await;
    sign_out(&gateway, &token).await;
    let ended = "your sign-in has ended; connect again and sign in";
    menu.send("web\r");
    menu.expect(ended).await;
    assert_ne!(menu.wait(SOON).await.code(), Some(0));
    let done = inside(&ssh, "echo in").finish(SOON).await;
    assert!(done.refusal().contains(ended) && done.stdout.is_empty(), "{done:?}");
    assert_eq!(rows(&gateway).await, before, "a stranger leaves no row");
    cat = echoing(cat).await;
    assert_eq!(cat.finish(SOON).await.status, Some(0));
    // With the last that was open, the lobby ends.
    assert!(outer.told(ended).await.contains("Received disconnect"), "{}", outer.stderr());
    assert_ne!(outer.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn a_key_that_was_forgotten_opens_nothing_more() {
    let (_sshd, gateway) = gate("").await;
    let ssh = gateway.signed_in("alice", "web").await;
    let _outer = held(&ssh).await;
    assert_eq!(inside(&ssh, "echo in").finish(SOON).await.ok(), "in\n");
    let book = Store::open(&gateway.data().join("sessions.db")).unwrap();
    book.forget_key(&fingerprint(&ssh.path("id.pub"))).await.unwrap();
    let done = inside(&ssh, "echo in").finish(SOON).await;
    assert!(done.refusal().contains("your sign-in has ended"), "{done:?}");
}

#[tokio::test]
async fn what_is_asked_for_too_fast_is_refused_without_a_row() {
    let (_sshd, gateway) = gate("connections_per_minute = 40").await;
    let ssh = gateway.signed_in("alice", "web").await;
    let outer = held(&ssh).await;
    let admin = gateway.admin().await;
    let before = admin.rows("page_size=1000").await.len();
    let too_fast = "you ask for sockets too fast; wait ";
    let (mut told, mut asked) = (0, 0);
    while told < 3 {
        asked += 1;
        assert!(asked < 100, "nobody was refused");
        let done = ssh.start(&["gate", "uptime"]).finish(SOON).await;
        told += usize::from(done.stderr.contains(too_fast));
    }
    assert!(asked > 40, "{asked}");
    assert_eq!(admin.rows("page_size=1000").await.len(), before + asked - told);
    // A way in is refused before its handshake. As time goes by one or the other is allowed.
    eventually("a way in is refused", SOON, async || {
        ssh.start(&["-W", "web:22", "gate"]).finish(SOON).await;
        outer.stderr().contains(too_fast).then_some(())
    })
    .await;
}

#[tokio::test]
async fn so_many_connections_are_inside_and_each_has_to_sign_in_in_time() {
    let (_sshd, gateway) = gate("handshake = \"15s\"").await;
    let ssh = gateway.signed_in("alice", "web").await;
    let outer = held(&ssh).await;
    let mut silent = Vec::new();
    for _ in 0..MOST_INSIDE {
        let mut raw = ssh.start(&["-W", "web:22", "gate"]);
        assert!(raw.receive_line().await.starts_with("SSH-2.0-Gatescribe"));
        silent.push(raw);
    }
    let one_more = ssh.start(&["-W", "web:22", "gate"]).finish(SOON).await;
    assert!(one_more.status != Some(0) && one_more.stdout.is_empty(), "{one_more:?}");
    let words = format!("{MOST_INSIDE} connections are open through this one; close one");
    assert!(outer.stderr().contains(&words), "{}", outer.stderr());
    for mut raw in silent {
        // Its stdin stays open: the gateway ends it.
        assert!(within(2 * SOON, "a silent connection ends", raw.child.wait()).await.is_ok());
    }
    assert_eq!(inside(&ssh, "echo in").finish(SOON).await.ok(), "in\n");
}

#[tokio::test]
async fn a_stop_is_told_in_the_menu_inside_and_to_who_waits() {
    let (_sshd, mut gateway) = gate("drain = \"2s\"").await;
    let ssh = gateway.signed_in("alice", "web").await;
    let mut menu = ssh.terminal(&["gate"]);
    menu.expect("q to leave: ").await;
    let mut idle = ssh.start(&["-N", "gate"]);
    idle.told("sessions are recorded").await;
    let mut outer = held(&ssh).await;
    let mut cat = echoing(inside(&ssh, "cat")).await;
    let stopping = "the gateway is being stopped; connect again in a moment";
    process::signal(gateway.pid(), Signal::TERM);
    menu.expect(stopping).await;
    menu.wait(SOON).await;
    idle.told(stopping).await;
    cat.told(stopping).await;
    outer.told(stopping).await;
    for ssh in [idle, cat, outer] {
        assert_ne!(ssh.finish(SOON).await.status, Some(0));
    }
    assert!(gateway.ended().await.success());
    gateway.start_again().await;
    let admin = gateway.admin().await;
    assert_eq!(admin.newest("web").await.outcome, Some(Outcome::Shutdown));
}

#[tokio::test]
async fn what_is_inside_ends_with_the_way() {
    let (_sshd, gateway) = gate("").await;
    let ssh = gateway.signed_in("alice", "web").await;
    let outer = held(&ssh).await;
    let cat = echoing(inside(&ssh, "cat")).await;
    let admin = gateway.admin().await;
    let row = admin.live("web").await;
    process::signal(outer.pid(), Signal::KILL);
    // Which is seen first, the end of its channel or of the stream, is chance; it is no failure of the upstream.
    let outcome = admin.end_of(&row).await.outcome;
    assert!(matches!(outcome, Some(Outcome::ClientGone | Outcome::Closed)), "{outcome:?}");
    assert_ne!(cat.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn one_menu_picks_for_the_connection() {
    let (_sshd, gateway) = gate("").await;
    let ssh = gateway.signed_in("alice", "web").await;
    let _outer = held(&ssh).await;
    let (mut one, mut other) = (ssh.terminal(&["gate"]), ssh.terminal(&["gate"]));
    one.expect("q to leave: ").await;
    other.expect("q to leave: ").await;
    one.send("1\r");
    gateway.admin().await.live("web").await;
    other.expect("a socket was picked in another terminal of this connection; connect again").await;
    assert_eq!(other.wait(SOON).await.code(), Some(126));
    // From now on it is a connection to that socket.
    assert_eq!(ssh.start(&["gate", "echo in"]).finish(SOON).await.ok(), "in\n");
    one.send("exit\r");
    assert!(one.wait(SOON).await.success());
}

#[tokio::test]
async fn a_link_for_one_socket_does_not_come_to_stand_for_all() {
    let (_sshd, gateway) = gate("").await;
    let mut sign_in = Ssh::new(gateway.ssh).sign_in(&["-tt", "web@gate"]).await;
    let config = fs::read_to_string(gateway.config_file()).unwrap();
    fs::write(gateway.config_file(), config.replace("name = \"web\"", "name = \"other\"")).unwrap();
    process::signal(gateway.pid(), Signal::HUP);
    gateway.log_with("the configuration file was read again").await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    let done = sign_in.ssh.finish(SOON).await;
    assert!(done.stderr.contains("what you asked for was changed during the sign-in; connect again"), "{done:?}");
}
