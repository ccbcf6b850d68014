//! The server side of `gatescribe login`: codes and devices, certificates on the SSH front, and everything that must not
//! work.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gatescribe::store::{AuthResult, EventStatus, Outcome};
use reqwest::{Method, StatusCode};
use russh::keys::{PublicKeyOrCertificate, load_openssh_certificate, load_secret_key};
use russh::{ChannelMsg, client};
use serde_json::json;

use crate::harness::login::{REDIRECT, VERIFIER};
use crate::harness::ssh::Done;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, make_key, within};

const BATCH: [&str; 4] = ["-o", "BatchMode=yes", "web@gate", "echo in"];

async fn gate() -> (Sshd, Gateway) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    (sshd, gateway)
}

#[tokio::test]
async fn a_code_with_its_verifier_is_a_sign_in_once() {
    let (_sshd, gateway) = gate().await;
    let back = gateway.authorized("alice").await;
    let given = |name: &str| back.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    assert_eq!(given("state").as_deref(), Some("the state & more"));
    assert_eq!(given("iss"), Some(gateway.url("")));
    let code = given("code").unwrap();
    let (status, answer) = gateway.redeem(&code).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((answer["token_type"].as_str(), answer["email"].as_str()), (Some("Bearer"), Some("alice@example.com")));
    assert_eq!(answer["name"], "Alice Archer");
    assert!(answer["expires_in"].as_i64().unwrap() > 0);
    let token = answer["access_token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("gsa_") && token.len() <= 64);
    let api = gateway.api(Some(token));
    let who = api.get("/api/v1/whoami").await.ok_json();
    assert_eq!(who["email"], "alice@example.com");
    // The same code again: refused, and what came of it ends, because one of the two was a thief (RFC 6749, 4.1.2).
    let (status, again) = gateway.redeem(&code).await;
    assert_eq!((status, again["error"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid_grant")));
    assert_eq!(api.get("/api/v1/whoami").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_certificate_signs_in_plain_ssh_and_the_row_says_so() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let login = gateway.login("alice").await;
    gateway.certify(&login, &ssh).await;
    let told = Command::new("ssh-keygen").arg("-Lf").arg(ssh.path("id-cert.pub")).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    for fact in ["user certificate", "Key ID: \"alice@example.com\"", "permit-pty", "Critical Options: (none)"] {
        assert!(told.contains(fact), "{fact} is not in {told}");
    }
    assert_eq!(ssh.start(&BATCH).finish(SOON).await.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!((row.user_email.as_str(), row.result), ("alice@example.com", AuthResult::Success));
    let event =
        row.events.iter().find(|event| event.kind == "sign_in" && event.status == EventStatus::Success).unwrap();
    assert_eq!(event.metadata["how"], "certificate");
    assert_eq!(event.metadata["sign_in_id"], login.sign_in_id.as_str());
    // It is the certificate that lets in, not the key.
    fs::remove_file(ssh.path("id-cert.pub")).unwrap();
    assert_eq!(ssh.start(&BATCH).finish(SOON).await.status, Some(255));
}

#[tokio::test]
async fn a_code_is_worth_nothing_without_all_that_it_was_made_for() {
    let (_sshd, gateway) = gate().await;
    let other = "http://127.0.0.1:45679/callback";
    let wrong_verifier = format!("{VERIFIER}x");
    for (redirect, verifier) in [(other, VERIFIER), (REDIRECT, wrong_verifier.as_str())] {
        let code = gateway.code_of("alice").await;
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "gatescribe-cli"),
            ("code", code.as_str()),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        let (status, answer) = gateway.oauth("/oauth/token", &form).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer.get("access_token").is_none());
        // Whoever guessed wrong does not get to guess again, and neither does anybody else.
        assert_eq!(gateway.redeem(&code).await.0, StatusCode::BAD_REQUEST);
    }
    let page =
        gateway.browser().open(&gateway.authorize_url(&[("redirect_uri", "https://evil.example.com/callback")])).await;
    assert_eq!((page.status, page.url.path()), (StatusCode::BAD_REQUEST, "/oauth/authorize"));
}

#[tokio::test]
async fn a_device_is_signed_in_only_for_the_groups_that_are_named() {
    let sshd = Sshd::start().await;
    let more = "[sign_in]\ndevice_groups = [\"engineering\"]\n";
    let gateway = Setup::new().ssh("web", &sshd).more(more).start().await;
    let ask = async || gateway.oauth("/oauth/device_authorization", &[("client_id", "gatescribe-cli")]).await.1;
    let device = ask().await;
    let poll = async |code: &str| {
        let grant = "urn:ietf:params:oauth:grant-type:device_code";
        gateway
            .oauth("/oauth/token", &[("grant_type", grant), ("client_id", "gatescribe-cli"), ("device_code", code)])
            .await
    };
    let code = device["device_code"].as_str().unwrap();
    let uri = device["verification_uri"].as_str().unwrap();
    let typed = device["user_code"].as_str().unwrap();
    assert_eq!(poll(code).await.1["error"], "authorization_pending");
    // Bob is a contractor.
    let mut bob = gateway.browser();
    let mut form = bob.sign_in(uri, "bob").await.form("continue");
    form.set("user_code", typed);
    let page = bob.submit(&form).await;
    assert!(page.status == StatusCode::FORBIDDEN && page.find_form("approve").is_none(), "{page:?}");
    let mut alice = gateway.browser();
    let mut form = alice.sign_in(uri, "alice").await.form("continue");
    form.set("user_code", typed);
    let page = alice.submit(&form).await;
    assert!(page.text().contains("127.0.0.1") && page.text().contains("alice@example.com"), "{page:?}");
    alice.submit(&page.form("approve")).await;
    // It asks no sooner than it was told to, which is the protocol's own wait.
    tokio::time::sleep(Duration::from_secs(device["interval"].as_u64().unwrap())).await;
    let (status, answer) = poll(code).await;
    assert_eq!((status, answer["email"].as_str()), (StatusCode::OK, Some("alice@example.com")), "{answer}");
    assert_eq!(poll(code).await.1["error"], "expired_token", "told once");
}

#[tokio::test]
async fn without_a_named_group_there_are_no_devices() {
    let (_sshd, gateway) = gate().await;
    let (status, answer) = gateway.oauth("/oauth/device_authorization", &[("client_id", "gatescribe-cli")]).await;
    assert_eq!((status, answer["error"].as_str()), (StatusCode::BAD_REQUEST, Some("unauthorized_client")));
    assert_eq!(gateway.browser().open(&gateway.url("/device")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_revoked_sign_in_opens_nothing() {
    let (_sshd, gateway) = gate().await;
    let (one, two) = (Ssh::new(gateway.ssh), Ssh::new(gateway.ssh));
    let (first, second) = (gateway.login("alice").await, gateway.login("alice").await);
    gateway.certify(&first, &one).await;
    gateway.certify(&second, &two).await;
    assert_eq!(one.start(&BATCH).finish(SOON).await.ok(), "in\n");
    // By session: its own person ends it, the other one stays.
    let alice = gateway.api(Some(first.token.clone()));
    let bob = gateway.api(Some(gateway.login("bob").await.token));
    let path = format!("/api/v1/sign-in/{}", first.sign_in_id);
    assert_eq!(bob.call(Method::DELETE, &path, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(alice.call(Method::DELETE, &path, None).await.status, StatusCode::OK);
    denied(&one.start(&BATCH).finish(SOON).await);
    gateway.log_with("it was revoked").await;
    assert_eq!(two.start(&BATCH).finish(SOON).await.ok(), "in\n");
    // By person: everything of hers, a key that a link remembered too.
    let mut browser = gateway.browser();
    browser.sign_in(&gateway.url("/sign-in"), "alice").await;
    assert!(browser.open(&gateway.url("/")).await.text().contains("alice@example.com"));
    let linked = gateway.signed_in("alice", "web").await;
    assert_eq!(linked.start(&BATCH).finish(SOON).await.ok(), "in\n");
    let path = "/api/v1/sign-ins?user_email=alice@example.com";
    assert_eq!(bob.call(Method::DELETE, path, None).await.status, StatusCode::FORBIDDEN);
    let ended = gateway.admin().await.call(Method::DELETE, path, None).await.ok_json();
    assert_eq!(ended, json!({ "sign_ins": 1, "remembered_keys": 1, "tokens": 0 }));
    denied(&two.start(&BATCH).finish(SOON).await);
    denied(&linked.start(&BATCH).finish(SOON).await);
    // Her browser is signed out too: else it would approve the next sign-in by itself.
    assert!(!browser.open(&gateway.url("/")).await.text().contains("alice@example.com"));
}

#[tokio::test]
async fn what_was_approved_before_a_revocation_lets_nobody_in() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).more("[sign_in]\ndevice_groups = [\"engineering\"]\n").start().await;
    let code = gateway.code_of("alice").await;
    let device = gateway.oauth("/oauth/device_authorization", &[("client_id", "gatescribe-cli")]).await.1;
    let mut browser = gateway.browser();
    let mut form = browser.sign_in(device["verification_uri"].as_str().unwrap(), "alice").await.form("continue");
    form.set("user_code", device["user_code"].as_str().unwrap());
    let page = browser.submit(&form).await;
    browser.submit(&page.form("approve")).await;
    let ssh = Ssh::new(gateway.ssh);
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;

    let path = "/api/v1/sign-ins?user_email=alice@example.com";
    gateway.admin().await.call(Method::DELETE, path, None).await.ok_json();
    let (status, answer) = gateway.redeem(&code).await;
    assert_eq!((status, answer["error"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid_grant")));
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", "gatescribe-cli"),
        ("device_code", device["device_code"].as_str().unwrap()),
    ];
    let (status, answer) = gateway.oauth("/oauth/token", &form).await;
    assert_eq!((status, answer["error"].as_str()), (StatusCode::BAD_REQUEST, Some("access_denied")));
    sign_in.answer(&digits);
    let done = sign_in.ssh.finish(SOON).await;
    assert!(done.status == Some(255) && done.stdout.is_empty(), "{done:?}");
    // She may sign in again, unless the provider says otherwise.
    gateway.login("alice").await;
}

#[tokio::test]
async fn logging_out_ends_the_whole_sign_in() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let login = gateway.login("alice").await;
    gateway.certify(&login, &ssh).await;
    let form = [("token", login.token.as_str()), ("client_id", "gatescribe-cli")];
    assert_eq!(gateway.oauth("/oauth/revoke", &form).await.0, StatusCode::OK);
    denied(&ssh.start(&BATCH).finish(SOON).await);
    assert_eq!(gateway.api(Some(login.token)).get("/api/v1/whoami").await.status, StatusCode::UNAUTHORIZED);
}

/// Offers a machine's certificate as `ssh` would not: it sends neither a host's nor one that has expired.
async fn offered(gateway: &Gateway, ssh: &Ssh) -> bool {
    offer(gateway, ssh).await.1
}

async fn offer(gateway: &Gateway, ssh: &Ssh) -> (client::Handle<impl client::Handler>, bool) {
    struct AnyHost;
    impl client::Handler for AnyHost {
        type Error = russh::Error;
        async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
            Ok(true)
        }
    }
    let key = Arc::new(load_secret_key(ssh.path("id"), None).unwrap());
    let certificate = load_openssh_certificate(ssh.path("id-cert.pub")).unwrap();
    let mut client = client::connect(Arc::default(), ("127.0.0.1", gateway.ssh), AnyHost).await.unwrap();
    let accepted = client.authenticate_openssh_cert("web", key, certificate).await.unwrap().success();
    (client, accepted)
}

/// Signed with the gateway's own key for the very key and serial number that it certified: what is wrong with each is
/// the one thing that is said to be wrong. russh itself refuses what is out of its time, without a word.
#[tokio::test]
async fn every_wrong_certificate_is_refused_and_the_log_says_why() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let login = gateway.login("alice").await;
    gateway.certify(&login, &ssh).await;
    let own = gateway.data().join("ssh_user_ca");
    let host = gateway.data().join("ssh_host_ca");
    let foreign = make_key(&ssh.path("foreign_ca"), "ca");
    let serial = serial(&ssh);
    let good = ["-z", serial.as_str(), "-n", "alice@example.com", "-V", "-1m:+1h"];
    let sign = |ca: &std::path::Path, args: &[&str]| {
        let done = Command::new("ssh-keygen")
            .args(["-q", "-s"])
            .arg(ca)
            .args(["-I", "forged"])
            .args(args)
            .arg(ssh.path("id.pub"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    sign(&own, &good);
    assert_eq!(ssh.start(&BATCH).finish(SOON).await.ok(), "in\n", "nothing wrong");
    assert!(offered(&gateway, &ssh).await);
    sign(&own, &[&good[..], &["-O", "source-address=127.0.0.0/8,::1/128"]].concat());
    assert_eq!(ssh.start(&BATCH).finish(SOON).await.ok(), "in\n", "from here it may");
    let wrong: &[(&std::path::Path, Vec<&str>, &str)] = &[
        (&foreign, good.to_vec(), "another authority signed it"),
        (&host, good.to_vec(), "another authority signed it"),
        (&own, [&["-h"], &good[..]].concat(), "not a user's certificate"),
        (&own, ["-z", &serial, "-n", "alice@example.com", "-V", "-2h:-1h"].to_vec(), ""),
        (&own, ["-z", &serial, "-n", "alice@example.com", "-V", "+1h:+2h"].to_vec(), ""),
        (&own, ["-z", &serial, "-V", "-1m:+1h"].to_vec(), "it names no principal"),
        (&own, ["-z", &serial, "-n", "admin@example.com", "-V", "-1m:+1h"].to_vec(), "names another principal"),
        (&own, ["-z", "77", "-n", "alice@example.com", "-V", "-1m:+1h"].to_vec(), "the gateway did not issue it"),
        (&own, [&good[..], &["-O", "force-command=true"]].concat(), "critical option \"force-command\""),
        (&own, [&good[..], &["-O", "critical:new@example.com=x"]].concat(), "critical option \"new@example.com"),
        (&own, [&good[..], &["-O", "source-address=192.0.2.0/24"]].concat(), "it is not for use from 127.0.0.1"),
    ];
    for (ca, args, words) in wrong {
        let before = gateway.log().len();
        sign(ca, args);
        assert!(!offered(&gateway, &ssh).await, "{args:?}");
        eventually(&format!("{words:?} ({args:?}) in the log"), SOON, async || {
            gateway.log()[before..].contains(words).then_some(())
        })
        .await;
    }
    assert_eq!(gateway.admin().await.sessions("").await["pagination"]["total_records"], 3, "strangers write no rows");
}

#[tokio::test]
async fn a_refused_certificate_is_told_to_a_person_who_may_then_use_a_link() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let login = gateway.login("alice").await;
    gateway.certify(&login, &ssh).await;
    let form = [("token", login.token.as_str()), ("client_id", "gatescribe-cli")];
    gateway.oauth("/oauth/revoke", &form).await;
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let shown = sign_in.ssh.stderr();
    assert!(shown.contains("gatescribe: your certificate was refused: it was revoked"), "{shown}");
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
}

#[tokio::test]
async fn a_socket_chooses_its_ways_in() {
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh_with("web", &sshd, "sign_in = [\"certificate\"]");
    let gateway = setup.ssh_with("people", &sshd, "sign_in = [\"link\"]").start().await;
    let ssh = Ssh::new(gateway.ssh);
    let login = gateway.login("alice").await;
    gateway.certify(&login, &ssh).await;
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
    let mut sign_in = ssh.sign_in(&["people@gate", "echo in"]).await;
    assert!(sign_in.ssh.stderr().contains("this socket takes no certificate"), "{}", sign_in.ssh.stderr());
    sign_in.ssh.child.kill().await.unwrap();
    // Where links are off, the reason is said, and a link opens nothing.
    let form = [("token", login.token.as_str()), ("client_id", "gatescribe-cli")];
    gateway.oauth("/oauth/revoke", &form).await;
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let shown = sign_in.ssh.stderr();
    assert!(shown.contains("your certificate was refused: it was revoked"), "{shown}");
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    let done = sign_in.ssh.finish(SOON).await;
    assert!(done.refusal().contains("takes no sign-in by link"), "{done:?}");
    // Now the key is remembered: both are said at once.
    let done = ssh.run("web", "echo in").await;
    assert!(done.refusal().contains("; your certificate was refused: it was revoked"), "{done:?}");
}

#[tokio::test]
async fn policy_has_the_last_word_about_a_certificate() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    gateway.certify(&gateway.login("bob").await, &ssh).await;
    let done = ssh.run("web", "echo in").await;
    assert!(done.refusal().contains("web refused: no policy lets bob@example.com in"), "{done:?}");
    assert_eq!(done.stderr.matches("no policy lets").count(), 1, "told once: {done:?}");
    let row = gateway.admin().await.newest("web").await;
    assert_eq!((row.result, row.outcome), (AuthResult::Denied, Some(Outcome::Refused)));
    assert_eq!(row.user_email, "bob@example.com");
}

#[tokio::test]
async fn a_certificate_without_permit_pty_gets_no_terminal() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    gateway.certify(&gateway.login("alice").await, &ssh).await;
    let tty = ["-tt", "-o", "BatchMode=yes", "web@gate", "test -t 0 && echo terminal || echo none"];
    assert_eq!(ssh.start(&tty).finish(SOON).await.ok().trim(), "terminal");
    let serial = serial(&ssh);
    let done = Command::new("ssh-keygen")
        .args(["-q", "-s"])
        .arg(gateway.data().join("ssh_user_ca"))
        .args(["-I", "x", "-z", &serial, "-n", "alice@example.com", "-O", "no-pty", "-V", "-1m:+1h"])
        .arg(ssh.path("id.pub"))
        .output()
        .unwrap();
    assert!(done.status.success());
    let done = ssh.start(&tty).finish(SOON).await;
    assert!(done.stderr.contains("PTY allocation request failed"), "{done:?}");
    assert!(!String::from_utf8_lossy(&done.stdout).contains("terminal"), "{done:?}");
    // Nor does a client that does not wait for the answer.
    let (client, _) = offer(&gateway, &ssh).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.exec(false, "test -t 0 && echo terminal || echo none").await.unwrap();
    let mut told = Vec::new();
    while let Some(message) = within(SOON, "the command ends", channel.wait()).await {
        if let ChannelMsg::Data { data } = message {
            told.extend_from_slice(&data);
        }
    }
    assert_eq!(String::from_utf8_lossy(&told).trim(), "none");
}

#[tokio::test]
async fn keys_of_other_kinds_are_certified_and_weak_ones_are_not() {
    let (_sshd, gateway) = gate().await;
    let login = gateway.login("alice").await;
    for (kind, bits) in [("ecdsa", "256"), ("rsa", "2048")] {
        let ssh = Ssh::without_key(gateway.ssh);
        make(&ssh, kind, bits);
        gateway.certify(&login, &ssh).await;
        assert_eq!(ssh.start(&BATCH).finish(SOON).await.ok(), "in\n", "{kind}");
    }
    let ssh = Ssh::without_key(gateway.ssh);
    make(&ssh, "rsa", "1024");
    let key = fs::read_to_string(ssh.path("id.pub")).unwrap();
    let api = gateway.api(Some(login.token));
    let answer = api.call(Method::POST, "/api/v1/credentials", Some(json!({ "ssh_public_key": key }))).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_host_key_is_trusted_by_its_authority_alone() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let answer = gateway.certify(&gateway.login("alice").await, &ssh).await;
    let line = answer["ssh_known_hosts"].as_str().unwrap().to_owned();
    let known = ssh.path("only_the_authority");
    let (port, id) = (gateway.ssh.to_string(), ssh.path("id").display().to_string());
    let file = format!("UserKnownHostsFile={}", known.display());
    let try_it = async |line: &str, host: &str| {
        fs::write(&known, format!("{line}\n")).unwrap();
        let strict = ["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none", "-o", &file];
        let to = format!("web@{host}");
        let args = [&["-p", &port, "-i", &id, "-o", "IdentitiesOnly=yes"][..], &strict, &BATCH[..2], &[&to, "echo in"]];
        ssh.start(&args.concat()).finish(SOON).await
    };
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(try_it(&line, host).await.ok(), "in\n", "{host}");
    }
    let other = fs::read_to_string(make_key(&ssh.path("other"), "ca").with_extension("pub")).unwrap();
    let names = line.split(' ').nth(1).unwrap();
    let done = try_it(&format!("@cert-authority {names} {}", other.trim()), "localhost").await;
    assert!(done.stderr.contains("Host key verification failed"), "{done:?}");
    // For a name that it is not certified for, the same authority counts for nothing.
    let key = line.split(' ').skip(2).collect::<Vec<_>>().join(" ");
    let done = try_it(&format!("@cert-authority * {key}"), "127.0.0.2").await;
    assert!(!done.stderr.contains("in\n") && done.status == Some(255), "{done:?}");
}

/// Refused without a word to a program: it could show none.
#[track_caller]
fn denied(done: &Done) {
    assert_eq!(done.status, Some(255), "{done:?}");
    assert!(done.stderr.contains("Permission denied"), "{done:?}");
}

/// The serial number of a machine's certificate.
fn serial(ssh: &Ssh) -> String {
    let told = Command::new("ssh-keygen").arg("-Lf").arg(ssh.path("id-cert.pub")).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let line = told.lines().find_map(|line| line.trim().strip_prefix("Serial: ")).unwrap();
    line.to_owned()
}

fn make(ssh: &Ssh, kind: &str, bits: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-b", bits, "-N", "", "-f"])
        .arg(ssh.path("id"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}
