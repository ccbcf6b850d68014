//! Policy is asked as long as a session lives: every kind of change, for a session that is idle, one that is busy and one
//! whose client has stopped, over every protocol. What is no longer allowed ends within a second, with the reason, in the
//! row and to the client; what the change is not about lives on.
//!
//! A protocol joins by one line in [`PROTOCOLS`], a kind of change by a test that calls [`changed`].

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use gatescribe::store::{EventStatus, Outcome, SessionRow};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, Terminal, eventually, process, ssh::Running};

/// From the change until the row is closed.
const WITHIN: SignedDuration = SignedDuration::from_secs(1);

/// Alice is asked about by the first rule, bob by the second.
const POLICIES: &str = r#"
[[policy]]
name = "team"
effect = "allow"
who = { groups = ["engineering"] }
LIMITS
[policy.allow.ssh]
[[policy]]
name = "others"
effect = "allow"
who = { groups = ["contractors"] }
[policy.allow.ssh]
"#;

/// What a session does as the change comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing.
    Idle,
    /// Something all the time.
    Busy,
    /// Its client has stopped reading, and output waits for it.
    Stalled,
}

const STATES: [State; 3] = [State::Idle, State::Busy, State::Stalled];

/// A client of some protocol with a session.
struct Client {
    state: State,
    /// What it was told in the end.
    told: LocalBoxFuture<'static, String>,
}

/// How a client of a protocol comes into a state.
type Start = fn(&Ssh, State) -> LocalBoxFuture<'_, Client>;

/// Every protocol that there is, and its socket.
const PROTOCOLS: [(&str, Start); 1] = [("web", over_ssh)];

fn over_ssh(ssh: &Ssh, state: State) -> LocalBoxFuture<'_, Client> {
    Box::pin(async move {
        let told: LocalBoxFuture<'static, String> = match state {
            State::Idle => {
                let mut terminal = ssh.terminal(&["-tt", "web@gate"]);
                terminal.send("echo here-$((40+2))\n");
                terminal.expect("here-42").await;
                Box::pin(shown(terminal))
            }
            State::Busy => {
                let mut running = ssh.start(&["web@gate", "while :; do echo busy; sleep 0.02; done"]);
                running.receive_line().await;
                Box::pin(finished(running))
            }
            State::Stalled => {
                let mut running = ssh.start(&["web@gate", "echo begun; exec cat /dev/zero"]);
                running.receive_line().await;
                process::signal(running.pid(), Signal::STOP);
                Box::pin(async move {
                    // It hears nothing any more, because it does not listen.
                    process::signal(running.pid(), Signal::CONT);
                    drop(running);
                    String::new()
                })
            }
        };
        Client { state, told }
    })
}

async fn shown(mut terminal: Terminal) -> String {
    terminal.wait(SOON).await;
    terminal.text()
}

async fn finished(running: Running) -> String {
    running.finish(SOON).await.stderr
}

/// What is expected of the sessions that a change is about.
struct Expected<'a> {
    outcome: Outcome,
    /// In the row and to the client.
    words: &'a str,
    /// Which states end; the others live on.
    ends: &'a [State],
}

/// A gateway, its people's machines, and what runs on them.
struct Scene {
    gateway: Gateway,
    alice: Ssh,
    bystander: Running,
    _sshd: Sshd,
}

async fn scene(limits: &str) -> Scene {
    let sshd = Sshd::start().await;
    let policies = POLICIES.replace("LIMITS", limits);
    let gateway = Setup::new().ssh("web", &sshd).ssh("other", &sshd).policies(&policies).start().await;
    let bob = gateway.signed_in("bob", "other").await;
    let mut bystander = bob.start(&["other@gate", "cat"]);
    bystander.send(b"a").await;
    bystander.receive(1).await;
    let alice = gateway.signed_in("alice", "other").await;
    Scene { gateway, alice, bystander, _sshd: sshd }
}

impl Scene {
    /// Sessions in every state over every protocol, as alice.
    async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for (_, start) in PROTOCOLS {
            for state in STATES {
                clients.push(start(&self.alice, state).await);
            }
        }
        clients
    }

    /// Replaces the configuration file as editors do, or gives back when it was replaced.
    fn rewrite(&self, change: impl FnOnce(String) -> String) -> Timestamp {
        let file = self.gateway.config_file();
        let text = change(std::fs::read_to_string(&file).unwrap());
        let new = file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
        Timestamp::now()
    }

    async fn post(&self, method: Method, path: &str, body: Value) -> Timestamp {
        let api = self.gateway.admin().await;
        let before = Timestamp::now();
        api.call(method, path, Some(body)).await.ok();
        before
    }

    /// Waits for what is to come of a change that was made at `at(row)`, and looks at everything.
    async fn changed(mut self, clients: Vec<Client>, at: impl Fn(&SessionRow) -> Timestamp, expected: Expected<'_>) {
        let api = self.gateway.admin().await;
        let ends = clients.iter().filter(|client| expected.ends.contains(&client.state)).count();
        let rows = eventually("the sessions have ended", SOON, async || {
            let rows = api.rows("socket_name=web&live=false&user_email=alice@example.com").await;
            (rows.len() >= ends).then_some(rows)
        })
        .await;
        assert_eq!(rows.len(), ends, "{rows:?}");
        for row in &rows {
            let reason = row.end_reason.as_deref().unwrap_or_default();
            assert_eq!(row.outcome, Some(expected.outcome), "{row:?}");
            assert!(reason.contains(expected.words), "{reason:?} has no {:?}", expected.words);
            let took = row.end_time.unwrap().duration_since(at(row));
            assert!(took < WITHIN, "it took {took:#}: {row:?}");
        }
        let (ended, others): (Vec<_>, Vec<_>) =
            clients.into_iter().partition(|client| expected.ends.contains(&client.state));
        for client in ended {
            let told = client.told.await;
            let silent = client.state == State::Stalled;
            assert!(silent || told.contains(expected.words), "{:?} was told {told:?}", client.state);
        }
        let live = api.rows("socket_name=web&live=true&user_email=alice@example.com").await;
        assert_eq!(live.len(), others.len(), "{live:?}");
        self.bystander.send(b"b").await;
        assert_eq!(self.bystander.receive(1).await, b"b", "what the change is not about lives on");
        assert_eq!(self.bystander.finish(SOON).await.status, Some(0));
    }
}

fn lines_of<'a>(text: &'a str, from: &str, until: &str) -> &'a str {
    let start = text.find(from).unwrap();
    let end = text[start..].find(until).map_or(text.len(), |end| start + end);
    &text[start..end]
}

const ALL: &[State] = &STATES;

#[tokio::test]
async fn a_rule_is_taken_out_of_the_file() {
    let scene = scene("").await;
    let clients = scene.clients().await;
    let at = scene.rewrite(|text| {
        let rule = lines_of(&text, "[[policy]]\nname = \"team\"", "[[policy]]\nname = \"others\"").to_owned();
        text.replace(&rule, "")
    });
    let words = "no policy lets alice@example.com in";
    scene.changed(clients, |_| at, Expected { outcome: Outcome::PolicyChanged, words, ends: ALL }).await;
}

#[tokio::test]
async fn a_rule_that_denies_is_put_into_the_file() {
    let scene = scene("").await;
    let clients = scene.clients().await;
    let deny = "\n[[policy]]\nname = \"not-now\"\neffect = \"deny\"\nsockets = { names = [\"web\"] }\n";
    let at = scene.rewrite(|text| text + deny);
    let words = "not-now denies alice@example.com";
    scene.changed(clients, |_| at, Expected { outcome: Outcome::PolicyChanged, words, ends: ALL }).await;
}

#[tokio::test]
async fn a_socket_is_taken_out_of_the_file() {
    let scene = scene("").await;
    let clients = scene.clients().await;
    let at = scene.rewrite(|text| {
        let socket = lines_of(&text, "[[socket]]\nname = \"web\"", "[[socket]]\nname = \"other\"").to_owned();
        text.replace(&socket, "")
    });
    let words = "there is no socket web any more";
    scene.changed(clients, |_| at, Expected { outcome: Outcome::PolicyChanged, words, ends: ALL }).await;
}

#[tokio::test]
async fn a_right_is_taken_away_that_only_the_shell_needs() {
    let scene = scene("").await;
    let mut clients = scene.clients().await;
    let at = scene.rewrite(|text| text.replacen("[policy.allow.ssh]", "[policy.allow.ssh]\nexec = true", 1));
    // The session of the shell goes on, without the shell; its client has nothing else to do and leaves.
    let idle = clients.remove(0);
    assert_eq!(idle.state, State::Idle);
    let told = idle.told.await;
    assert!(told.contains("web refused: team does not allow shell"), "{told}");
    let took = Timestamp::now().duration_since(at);
    assert!(took < WITHIN + SignedDuration::from_secs(1), "it took {took:#}");
    let api = scene.gateway.admin().await;
    assert_eq!(api.rows("socket_name=web&live=true").await.len(), 2);
    let ended = api.rows("socket_name=web&live=false").await;
    assert_eq!(ended[0].outcome, Some(Outcome::Closed), "{ended:?}");
    let events = api.details(&ended[0]).await.events;
    let cut = events.iter().find(|event| event.kind == "cut").unwrap_or_else(|| panic!("{events:?}"));
    assert_eq!((cut.status, cut.metadata["rule"].as_str()), (EventStatus::Denied, Some("team")));
}

#[tokio::test]
async fn the_sighup_of_an_administrator_reads_the_file_at_once() {
    let scene = scene("").await;
    let clients = scene.clients().await;
    let file = scene.gateway.config_file();
    let text = std::fs::read_to_string(&file).unwrap().replace("\"engineering\"", "\"nobody\"");
    std::fs::write(&file, text).unwrap();
    let at = Timestamp::now();
    process::signal(scene.gateway.pid(), Signal::HUP);
    let words = "no policy lets alice@example.com in";
    scene.changed(clients, |_| at, Expected { outcome: Outcome::PolicyChanged, words, ends: ALL }).await;
}

#[tokio::test]
async fn a_window_closes() {
    let closes = Timestamp::now() + SignedDuration::from_secs(20);
    let scene = scene(&format!("when = {{ before = \"{closes}\" }}")).await;
    let clients = scene.clients().await;
    assert!(Timestamp::now() < closes, "this machine is too slow for this test");
    let words = "team allows nothing after";
    scene.changed(clients, |_| closes, Expected { outcome: Outcome::Expired, words, ends: ALL }).await;
}

#[tokio::test]
async fn the_longest_time_is_over() {
    let scene = scene("max_session = \"6s\"").await;
    let clients = scene.clients().await;
    let words = "team allows 6s at a time";
    let at = |row: &SessionRow| row.start_time + SignedDuration::from_secs(6);
    scene.changed(clients, at, Expected { outcome: Outcome::Expired, words, ends: ALL }).await;
}

#[tokio::test]
async fn the_sign_in_grows_too_old() {
    let limits = "require = { max_sign_in_age = \"20s\" }";
    let scene = scene(limits).await;
    let clients = scene.clients().await;
    let words = "team needs a sign-in not older than 20s";
    let signed_in = scene.signed_in().await;
    let at = move |_: &SessionRow| signed_in + SignedDuration::from_secs(20);
    scene.changed(clients, at, Expected { outcome: Outcome::Expired, words, ends: ALL }).await;
}

#[tokio::test]
async fn only_what_is_idle_ends_as_idle() {
    let scene = scene("idle_timeout = \"5s\"").await;
    let clients = scene.clients().await;
    let words = "team ends what is idle for 5s";
    let at = |row: &SessionRow| row.end_time.unwrap();
    scene.changed(clients, at, Expected { outcome: Outcome::Idle, words, ends: &[State::Idle] }).await;
}

#[tokio::test]
async fn locks_of_every_kind() {
    for target in [
        json!({ "user": "Alice@example.com", "socket": "web" }),
        json!({ "group": "engineering" }),
        json!({ "socket": "web" }),
        json!({ "socket": "web", "address": "127.0.0.0/8" }),
    ] {
        let scene = scene("").await;
        let clients = scene.clients().await;
        let lock = json!({ "target": target, "reason": "an incident" });
        let at = scene.post(Method::POST, "/api/v1/locks", lock).await;
        let words = "an incident";
        scene.changed(clients, |_| at, Expected { outcome: Outcome::PolicyChanged, words, ends: ALL }).await;
    }
}

#[tokio::test]
async fn everything_of_the_person_is_revoked() {
    let scene = scene("").await;
    let clients = scene.clients().await;
    let at = scene.post(Method::DELETE, "/api/v1/sign-ins?user_email=alice@example.com", json!({})).await;
    let words = "your sign-in was revoked";
    scene.changed(clients, |_| at, Expected { outcome: Outcome::IdentityLost, words, ends: ALL }).await;
}

#[tokio::test]
async fn the_sign_in_of_the_certificate_is_revoked() {
    let mut scene = scene("").await;
    let login = scene.gateway.login("alice").await;
    scene.alice = Ssh::new(scene.gateway.ssh);
    scene.gateway.certify(&login, &scene.alice).await;
    let clients = scene.clients().await;
    let path = format!("/api/v1/sign-in/{}", login.sign_in_id);
    let at = scene.post(Method::DELETE, &path, json!({})).await;
    let words = "your sign-in was revoked";
    scene.changed(clients, |_| at, Expected { outcome: Outcome::IdentityLost, words, ends: ALL }).await;
}

#[tokio::test]
async fn a_group_is_lost_at_a_new_sign_in() {
    let scene = scene("").await;
    let clients = scene.clients().await;
    scene.gateway.issuer.as_ref().unwrap().own.as_ref().unwrap().set_groups("alice", &["gardening"]);
    let at = Timestamp::now();
    scene.gateway.login("alice").await;
    let signing_in = Timestamp::now().duration_since(at);
    let words = "no policy lets alice@example.com in";
    let at = move |_: &SessionRow| at + signing_in;
    scene.changed(clients, at, Expected { outcome: Outcome::IdentityLost, words, ends: ALL }).await;
}

#[tokio::test]
async fn a_new_sign_in_extends_what_would_have_ended() {
    let scene = scene("require = { max_sign_in_age = \"15s\" }").await;
    let clients = scene.clients().await;
    let first = scene.signed_in().await;
    // Provider and gateway tell times in whole seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.gateway.login("alice").await;
    let past = first + SignedDuration::from_secs(17);
    tokio::time::sleep(past.duration_since(Timestamp::now()).try_into().unwrap_or_default()).await;
    let api = scene.gateway.admin().await;
    assert_eq!(api.rows("socket_name=web&live=true").await.len(), clients.len());
}

#[tokio::test]
async fn a_broken_or_missing_file_changes_nothing_and_is_told() {
    let mut scene = scene("").await;
    scene.gateway.expect_errors();
    let file = scene.gateway.config_file();
    let good = std::fs::read_to_string(&file).unwrap();
    let mut cat = scene.alice.start(&["web@gate", "cat"]);
    let mut lives = async |what: &str| {
        cat.send(b"x").await;
        assert_eq!(cat.receive(1).await, b"x", "{what}");
    };
    for (broken, told) in [
        (good.replace("effect = \"allow\"", "effect = \"alow\""), "alow"),
        (good[..good.len() / 2].to_owned(), "was not taken"),
        (String::new(), "was not taken"),
    ] {
        let errors = scene.gateway.log().matches("was not taken").count();
        std::fs::write(&file, &broken).unwrap();
        eventually("it is told", SOON, async || {
            let log = scene.gateway.log();
            (log.matches("was not taken").count() > errors && log.contains(told)).then_some(())
        })
        .await;
        lives("what was in force stays in force").await;
    }
    std::fs::remove_file(&file).unwrap();
    scene.gateway.log_with("the configuration file is gone").await;
    lives("the file is gone").await;
    std::fs::write(&file, good.replace("\"engineering\"", "\"nobody\"")).unwrap();
    cat.told("no policy lets alice@example.com in").await;
}

#[tokio::test]
async fn what_a_new_file_brings_can_be_reached_and_the_difference_is_told() {
    let scene = scene("").await;
    let shell = scene.alice.run("third", "true").await;
    assert!(shell.stderr.contains("there is no socket third"), "{shell:?}");
    scene.rewrite(|text| {
        let other = lines_of(&text, "[[socket]]\nname = \"other\"", "[[policy]]").to_owned();
        text.replace(&other, &format!("{other}\n{}", other.replace("\"other\"", "\"third\"")))
    });
    let log = scene.gateway.log_with("was read again").await;
    assert!(log.contains("+third"), "{log}");
    assert_eq!(scene.alice.run("third", "echo in").await.ok(), "in\n");
}

impl Scene {
    /// When alice signed in, by the provider's word.
    async fn signed_in(&self) -> Timestamp {
        let row = self.gateway.admin().await.newest("other").await;
        let row = self.gateway.admin().await.details(&row).await;
        row.events
            .iter()
            .find_map(|event| event.metadata.get("signed_in")?.as_str()?.parse().ok())
            .unwrap_or_else(|| panic!("no sign-in: {row:?}"))
    }
}
