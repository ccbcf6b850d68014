//! The program itself: the demo as the README tells it, configuration that is wrong, and a graceful end.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use gatescribe::store::Outcome;

use crate::harness::issuer::Issuer;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, free_port, process};

fn gatescribe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gatescribe")).args(args).output().unwrap()
}

#[tokio::test]
async fn the_demo_leads_into_a_real_shell_without_any_configuration() {
    let gateway = Gateway::demo(Some("alice")).await;
    let printed = gateway.stdout().join("\n");
    assert!(printed.contains(&format!("ssh -p {} shell@127.0.0.1", gateway.ssh)), "{printed}");
    let ssh = Ssh::new(gateway.ssh);
    let user = crate::harness::gateway::whoami();
    assert_eq!(ssh.run("shell", "id -un; exit 0").await.ok(), format!("{user}\n"));
    let mut terminal = ssh.terminal(&["shell@gate"]);
    terminal.send("tty; stty size; echo $((6*7))\n");
    terminal.expect("/dev/pts/").await;
    terminal.expect("24 80").await;
    terminal.expect("42").await;
    terminal.resize(90, 33);
    eventually("the size follows", SOON, async || {
        terminal.send("stty size\n");
        tokio::time::sleep(Duration::from_millis(200)).await;
        terminal.text().contains("33 90").then_some(())
    })
    .await;
    terminal.send("exit 5\n");
    assert_eq!(terminal.wait(SOON).await.code(), Some(5));
    let api = gateway.admin().await;
    let row = api.ended("shell").await;
    assert_eq!((row.outcome, row.user_email.as_str()), (Some(Outcome::Closed), "alice@example.com"));
    assert!(!api.log(&row, None, "cast").await.ok().is_empty());
}

#[tokio::test]
async fn the_demo_signs_in_by_a_browser_and_bob_may_do_little() {
    let gateway = Gateway::demo(None).await;
    let ssh = gateway.signed_in("alice", "shell").await;
    assert_eq!(ssh.run("shell", "echo in").await.ok(), "in\n");
    let bob = gateway.signed_in("bob", "shell").await;
    let mut terminal = bob.terminal(&["-o", "LogLevel=ERROR", "shell@gate"]);
    terminal.expect("gatescribe: ").await;
    assert!(!terminal.wait(SOON).await.success());
}

#[tokio::test]
async fn the_demo_keeps_host_key_ca_and_log() {
    let mut gateway = Gateway::demo(Some("alice")).await;
    let ssh = Ssh::new(gateway.ssh);
    ssh.run("shell", "true").await.ok();
    let ca = std::fs::read(gateway.ca()).unwrap();
    assert!(gateway.stop().await.success());
    gateway.start_again().await;
    assert_eq!(std::fs::read(gateway.ca()).unwrap(), ca);
    ssh.run("shell", "true").await.ok();
    assert_eq!(gateway.admin().await.rows("").await.len(), 2);
}

#[tokio::test]
async fn the_built_in_shell_keeps_streams_signals_and_status_apart() {
    let gateway = Gateway::demo(Some("alice")).await;
    let ssh = Ssh::new(gateway.ssh);
    let done = ssh.run("shell", "echo out; echo err >&2; exit 42").await;
    assert_eq!((done.status, done.stdout.as_slice()), (Some(42), b"out\n".as_slice()));
    assert!(done.stderr.contains("err\n"));
    let done = ssh.bash("head -c 20M /dev/zero | $SSH shell@gate cat | cksum", Duration::from_secs(60)).await;
    assert_eq!(done.ok(), ssh.bash("head -c 20M /dev/zero | cksum", SOON).await.ok());
    assert_eq!(ssh.run("shell", "kill -KILL $$").await.status, Some(255));
}

#[tokio::test]
async fn the_demo_is_reachable_from_this_machine_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let https = format!("0.0.0.0:{}", free_port());
    let told = gatescribe(&["demo", "--data", &data, "--https", &https]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("loopback"), "{told:?}");
}

#[tokio::test]
async fn mistakes_in_the_configuration_are_told_with_line_and_column() {
    let sshd = Sshd::start().await;
    let issuer = Issuer::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let good = Setup::new().ssh("web", &sshd).config(&dir.path().join("data"), &issuer, 18443, 12222);
    let file = dir.path().join("gatescribe.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let told = gatescribe(&["config", "check", &file.display().to_string()]);
        (told.status.code(), String::from_utf8_lossy(&told.stderr).into_owned())
    };
    let (code, words) = check(&good);
    assert_eq!(code, Some(0), "{words}");
    let mistakes = [
        ("data_dir", "data_dri", "data_dri"),
        ("type = \"ssh\"", "type = \"sssh\"", "sssh"),
        ("who = {", "when = { hours = \"9-5\" }\nwho = {", "when"),
        ("[policy.allow.ssh]", "[policy.allow.ssh]\nsftp = \"reed\"", "sftp"),
        ("host_key = \"SHA256:", "host_key = \"SHA257:", "host_key"),
        ("name = \"web\"", "name = \"api\"", "api"),
        ("client_secret = \"file:", "client_secret = \"", "client_secret"),
    ];
    for (right, wrong, named) in mistakes {
        let text = good.replacen(right, wrong, 1);
        assert_ne!(text, good, "{right} is not in the file");
        let (code, words) = check(&text);
        assert_eq!(code, Some(2), "{wrong}: {words}");
        let at = 1 + text[..text.find(wrong).unwrap() + wrong.find(named).unwrap_or(0)].matches('\n').count();
        assert!(words.contains(named) && words.contains(&format!(":{at}:")), "line {at} of {wrong:?}: {words}");
        let told = gatescribe(&["serve", "--config", &file.display().to_string()]);
        assert_eq!(told.status.code(), Some(2), "serve refuses it as well");
    }
}

#[tokio::test]
async fn serve_gives_nobody_the_gateways_own_shell() {
    let sshd = Sshd::start().await;
    let issuer = Issuer::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let shell = "[[socket]]\nname = \"shell\"\ntype = \"ssh\"\n[socket.upstream]\nkind = \"shell\"\n";
    let text = Setup::new().ssh("web", &sshd).socket(shell).config(&dir.path().join("data"), &issuer, 18443, 12222);
    let file = dir.path().join("gatescribe.toml");
    std::fs::write(&file, text).unwrap();
    let told = gatescribe(&["serve", "--config", &file.display().to_string()]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("`username` is missing"));
}

#[tokio::test]
async fn secrets_are_printed_nowhere() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    ssh.run("web", "true").await.ok();
    let secret = std::fs::read_to_string(gateway.issuer.as_ref().unwrap().secret_file()).unwrap();
    let key = std::fs::read_to_string(sshd.login_key()).unwrap();
    let body = key.lines().nth(2).unwrap();
    let shown = gatescribe(&["config", "show", "--config", &gateway.config_file().display().to_string()]);
    gateway.stop().await;
    let everywhere = format!("{}{}{:?}", gateway.log(), gateway.stdout().join("\n"), shown);
    assert!(!everywhere.contains(&secret) && !everywhere.contains(body));
}

#[tokio::test]
async fn a_graceful_end_tells_the_sessions_and_closes_the_book() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).more("[limits]\ndrain = \"2s\"").start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    assert!(gateway.stop().await.success());
    let done = cat.finish(SOON).await;
    assert!(done.refusal().contains("stopped"), "{done:?}");
    assert_eq!(ssh.run("web", "true").await.status, Some(255));
    gateway.start_again().await;
    let row = gateway.admin().await.newest("web").await;
    assert_eq!(row.outcome, Some(Outcome::Shutdown), "{row:?}");
    assert!(sshd.sessions().is_empty());
}

#[tokio::test]
async fn a_session_that_ends_in_time_is_left_to_end_when_the_gateway_stops() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).more("[limits]\ndrain = \"10s\"").start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let mut last = ssh.start(&["web@gate", "echo begun; sleep 2; echo ended"]);
    assert_eq!(last.receive_line().await, "begun");
    process::signal(gateway.pid(), rustix::process::Signal::TERM);
    eventually("nobody else is let in meanwhile", SOON, async || {
        std::net::TcpStream::connect(("127.0.0.1", gateway.ssh)).is_err().then_some(())
    })
    .await;
    assert!(process::is_alive(gateway.pid()));
    assert_eq!(last.finish(SOON).await.ok(), "ended\n");
    eventually("the gateway stops", SOON, async || gateway.has_ended().then_some(())).await;
    gateway.start_again().await;
    assert_eq!(gateway.admin().await.newest("web").await.outcome, Some(Outcome::Closed));
}

#[tokio::test]
async fn a_hang_up_has_the_file_read_again() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    for round in 1..3 {
        process::signal(gateway.pid(), rustix::process::Signal::HUP);
        eventually("it is told", SOON, async || {
            (gateway.log().matches("the configuration file was read again").count() == round).then_some(())
        })
        .await;
    }
    cat.send(b"a").await;
    assert_eq!(cat.receive(1).await, b"a");
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
}

#[tokio::test]
async fn the_demo_stops_when_its_terminal_is_gone() {
    let mut gateway = Gateway::demo(Some("alice")).await;
    let ssh = Ssh::new(gateway.ssh);
    assert_eq!(ssh.run("shell", "echo in").await.ok(), "in\n");
    for _ in 0..2 {
        process::signal(gateway.pid(), rustix::process::Signal::HUP);
    }
    assert!(gateway.ended().await.success());
}

#[test]
fn help_fits_a_screen_and_shows_an_example() {
    for args in [&["--help"][..], &["demo", "--help"], &["serve", "--help"], &["config", "check", "--help"]] {
        let told = gatescribe(args);
        let text = String::from_utf8(told.stdout).unwrap();
        assert!(told.status.success() && text.contains("xample"), "{args:?}: {text}");
        assert!(text.lines().count() <= 40, "{args:?}: {} lines", text.lines().count());
    }
    assert_eq!(gatescribe(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn the_example_configuration_has_every_key() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gatescribe.toml");
    let text = std::fs::read_to_string(example).unwrap();
    for key in [
        "domain",
        "public_url",
        "data_dir",
        "on_failure",
        "durability",
        "max_recording",
        "keep_free",
        "host_key",
        "logins",
    ] {
        assert!(text.contains(key), "{key}");
    }
}
