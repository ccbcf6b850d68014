//! Ways to a socket beside its name at the gateway: the menu, `ssh -J`, and one port for everything.

use std::fs;
use std::io::{Read as _, Write as _};

use gatescribe::identity::dev_issuer::ACR;
use gatescribe::store::{AuthResult, EventStatus, Outcome};
use reqwest::Method;
use rustix::process::Signal;

use crate::harness::ssh::Done;
use crate::harness::{Cli, Gateway, SOON, Setup, Ssh, Sshd, eventually, free_port, process};

/// Far less than any deadline that would end something by itself.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Who may go where.
const POLICIES: &str = "[[policy]]\nname = \"engineers\"\neffect = \"allow\"\nwho = { groups = [\"engineering\"] }\n\
                        sockets = { names = [\"web\", \"db\", \"certified\"] }\n[policy.allow.ssh]\n";

/// Two servers that may be reached, one that may not, and one for certificates alone.
struct Site {
    _sshd: Sshd,
    gateway: Gateway,
    ssh: Ssh,
    /// What the sign-in at the command line left.
    cli: Cli,
}

impl Site {
    async fn start() -> Self {
        let sshd = Sshd::start().await;
        let setup = Setup::new().policies(POLICIES).ssh("web", &sshd).ssh("db", &sshd).ssh("secret", &sshd);
        let setup = setup.ssh_with("certified", &sshd, "sign_in = [\"certificate\"]");
        let gateway = setup.start().await;
        let ssh = gateway.signed_in("alice", "web").await;
        let cli = Cli::new();
        cli.login(&gateway, "alice", &[]).await;
        Self { _sshd: sshd, gateway, ssh, cli }
    }

    /// Options of an `ssh` that goes through the gateway, and trusts what `gatescribe login` wrote down and nothing else.
    fn through(&self) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.cli.path("known_hosts").display());
        let options = [&known, "GlobalKnownHostsFile=none", "StrictHostKeyChecking=yes", "IdentityFile=none"];
        let mut all = vec!["-J".to_owned(), "gate".to_owned()];
        all.extend(options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
        all
    }

    fn args<'a>(options: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
        options.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    /// Runs a command on a host behind the gateway.
    async fn jump(&self, host: &str, command: &str) -> Done {
        self.ssh.start(&Self::args(&self.through(), &[host, command])).finish(SOON).await
    }

    async fn rows(&self) -> usize {
        self.gateway.admin().await.rows("").await.len()
    }
}

#[tokio::test]
async fn a_socket_behind_the_gateway_is_a_host_of_its_own() {
    let site = Site::start().await;
    let before = site.rows().await;
    // Every name is the certified host's, nobody is asked, and whoever one is at home means nothing where the login is fixed.
    for host in ["web", "web.localhost", "somebody@web", "somebody@web@web"] {
        let done = site.jump(host, "echo in; echo out >&2; exit 3").await;
        assert_eq!((done.status, done.stdout.as_slice()), (Some(3), b"in\n".as_slice()), "{host}: {done:?}");
        assert!(done.stderr.contains("out\n") && !done.stderr.contains("(yes/no"), "{host}: {done:?}");
    }
    let admin = site.gateway.admin().await;
    let row = admin.ended("web").await;
    // The inner goodbye and the end of the connection that it came by are seen in either order.
    assert!(matches!(row.outcome, Some(Outcome::Closed | Outcome::ClientGone)), "{row:?}");
    assert_eq!(row.result, AuthResult::Success);
    assert_eq!((row.user_email.as_str(), row.client_ip.to_string().as_str()), ("alice@example.com", "127.0.0.1"));
    assert_eq!(row.server_name, "web.localhost");
    let ways: Vec<_> =
        row.events.iter().filter(|event| event.kind == "sign_in").map(|event| &event.metadata["how"]).collect();
    assert_eq!(ways, ["remembered key"]);
    let version = row.events.iter().find(|event| event.kind == "client").unwrap();
    assert!(version.metadata["version"].as_str().unwrap().contains("OpenSSH"), "{version:?}");
    // One row each: the way there is none.
    assert_eq!(site.rows().await, before + 4);
}

#[tokio::test]
async fn who_may_not_or_asks_for_nothing_that_is_there_is_told_inside() {
    let site = Site::start().await;
    let denied = site.jump("secret.localhost", "true").await;
    assert!(denied.refusal().contains("secret") && !denied.refusal().contains("no socket"), "{denied:?}");
    let unknown = site.jump("nix.localhost", "true").await;
    assert!(unknown.refusal().starts_with("there is no socket nix ("), "{unknown:?}");
    let direct = site.ssh.run("nix", "true").await;
    let end = |done: &Done| done.refusal().split(" (").next().unwrap().split(':').next().unwrap().to_owned();
    assert_eq!(end(&direct), end(&unknown), "{direct:?}");
    let certified = site.jump("certified", "true").await;
    assert!(certified.refusal().contains("takes no sign-in by link"), "{certified:?}");
    let admin = site.gateway.admin().await;
    for socket in ["secret", "nix", "certified"] {
        let row = admin.newest(socket).await;
        assert_eq!((row.result, row.user_email.as_str()), (AuthResult::Denied, "alice@example.com"), "{row:?}");
    }
    // With a certificate it is the certificate's way, inside too.
    for name in ["id_ed25519", "id_ed25519-cert.pub"] {
        let to = site.ssh.path(&name.replace("id_ed25519", "id"));
        fs::copy(site.cli.path(name), to).unwrap();
    }
    let done = site.jump("certified", "echo in").await;
    assert_eq!(done.ok(), "in\n");
}

#[tokio::test]
async fn a_kill_ends_one_session_and_neither_the_way_nor_the_others() {
    let site = Site::start().await;
    let control = site.ssh.path("control");
    let config = fs::read_to_string(site.ssh.path("config")).unwrap();
    fs::write(site.ssh.path("config"), format!("{config}ControlPath {}\n", control.display())).unwrap();
    let mut outer = site.ssh.start(&["-M", "-N", "gate"]);
    eventually("the way is open", SOON, async || control.exists().then_some(())).await;
    let options = site.through();
    let mut web = site.ssh.start(&Site::args(&options, &["web", "cat"]));
    let mut db = site.ssh.start(&Site::args(&options, &["db", "cat"]));
    for cat in [&mut web, &mut db] {
        cat.send(b"here").await;
        assert_eq!(cat.receive(4).await, b"here");
    }
    assert_eq!(process::established_at(site.gateway.ssh), 1);
    let admin = site.gateway.admin().await;
    let killed = admin.kill(&admin.live("web").await, "lunch is ready", AT_ONCE).await;
    assert_eq!((killed.killed, killed.outcome), (true, Some(Outcome::Killed)));
    let done = web.finish(SOON).await;
    assert!(done.status != Some(0) && done.stderr.contains("lunch is ready"), "{done:?}");
    db.send(b"still").await;
    assert_eq!(db.receive(5).await, b"still");
    assert_eq!(site.jump("web", "echo again").await.ok(), "again\n");
    assert_eq!(process::established_at(site.gateway.ssh), 1);
    // A client that does not read is cut off all the same.
    let mut flood = site.ssh.start(&Site::args(&options, &["web", "echo $$; exec cat /dev/zero"]));
    let source: u32 = flood.receive_line().await.parse().unwrap();
    process::signal(flood.pid(), Signal::STOP);
    eventually("output is queued to the brim", SOON, async || {
        let before = process::cpu_ticks(source);
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        (process::cpu_ticks(source) <= before + 1).then_some(())
    })
    .await;
    admin.kill(&admin.live("web").await, "stuck", AT_ONCE).await;
    process::signal(flood.pid(), Signal::CONT);
    db.send(b"and still").await;
    assert_eq!(db.receive(9).await, b"and still");
    // A revocation ends all of it, the way too.
    let revoked = admin.call(Method::DELETE, "/api/v1/sign-ins?user_email=alice@example.com", None).await;
    revoked.ok();
    let done = db.finish(SOON).await;
    assert!(done.stderr.contains("your sign-in was revoked"), "{done:?}");
    drop(outer.stdin.take());
    assert_ne!(outer.finish(SOON).await.status, Some(0));
}

#[tokio::test]
async fn files_go_through_the_way_as_at_the_door() {
    let site = Site::start().await;
    let (from, to) = (site.ssh.path("from"), site.ssh.path("to"));
    let content = crate::harness::noise(7, 3 << 20);
    fs::write(&from, &content).unwrap();
    let options = site.through().iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let config = site.ssh.path("config");
    let tools = |line: &str| line.replace("OPTIONS", &format!("-F {} {options}", config.display()));
    let scp = format!("scp OPTIONS {} web:{}", from.display(), to.display());
    site.ssh.bash(&tools(&scp), SOON).await.ok();
    assert!(fs::read(&to).unwrap() == content);
    let sftp = format!("echo 'get {} {}.back' | sftp OPTIONS -b - web", to.display(), to.display());
    site.ssh.bash(&tools(&sftp), SOON).await.ok();
    assert!(fs::read(to.with_extension("back")).unwrap() == content);
    let row = site.gateway.admin().await.ended("web").await;
    assert!(row.events.iter().any(|event| event.kind == "ssh_file"), "{:?}", row.events);
}

#[tokio::test]
async fn a_better_sign_in_is_asked_for_inside() {
    let sshd = Sshd::start().await;
    let mfa = ACR[1];
    let policies = format!(
        "[[policy]]\nname = \"plain\"\neffect = \"allow\"\nsockets = {{ names = [\"plain\"] }}\n[policy.allow.ssh]\n\
         [[policy]]\nname = \"strict\"\neffect = \"allow\"\nsockets = {{ names = [\"web\"] }}\n\
         require = {{ acr = [\"{mfa}\"] }}\n[policy.allow.ssh]\n"
    );
    let gateway = Setup::new().policies(&policies).ssh("plain", &sshd).ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "plain").await;
    let hosts = format!("UserKnownHostsFile={}", ssh.path("known_inside").display());
    let args = ["-J", "gate", "-o", &hosts, "-o", "StrictHostKeyChecking=no", "web", "echo in"];
    let mut sign_in = ssh.sign_in(&args).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    let ways: Vec<_> =
        row.events.iter().filter(|event| event.kind == "sign_in").map(|event| &event.metadata["how"]).collect();
    assert_eq!(ways, ["remembered key", "step-up"]);
}

#[tokio::test]
async fn the_menu_lists_what_one_may_reach_and_leads_there() {
    let site = Site::start().await;
    let before = site.rows().await;
    let mut terminal = site.ssh.terminal(&["gate"]);
    let shown = terminal.expect("q to leave: ").await;
    assert!(shown.contains("  1  web") && shown.contains("  2  db"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("certified"), "{shown}");
    terminal.send("9\r");
    assert!(terminal.expect("q to leave: ").await.contains("there is no number 9"));
    terminal.send("secret\r");
    let refused = terminal.expect("q to leave: ").await;
    assert!(refused.contains("gatescribe: secret"), "{refused}");
    terminal.resize(132, 50);
    terminal.send("wex\x7fb\r");
    let admin = site.gateway.admin().await;
    let row = admin.live("web").await;
    assert_eq!(row.result, AuthResult::Success);
    terminal.send("PS1=; stty size; echo $((6*7))\r");
    terminal.expect("50 132").await;
    terminal.expect("42").await;
    terminal.send("exit 5\r");
    assert_eq!(terminal.wait(SOON).await.code(), Some(5));
    let row = admin.end_of(&row).await;
    assert_eq!(row.outcome, Some(Outcome::Closed));
    assert!(row.events.iter().any(|event| event.kind == "client" && event.status == EventStatus::Success), "{row:?}");
    assert_eq!(admin.newest("secret").await.result, AuthResult::Denied);
    assert_eq!(site.rows().await, before + 2);
}

#[tokio::test]
async fn the_menu_is_left_without_a_trace() {
    let site = Site::start().await;
    let before = site.rows().await;
    for keys in ["\x04", "\x03", "q\r"] {
        let mut terminal = site.ssh.terminal(&["gate"]);
        terminal.expect("q to leave: ").await;
        terminal.send(keys);
        assert_eq!(terminal.wait(SOON).await.code(), Some(0), "{keys:?}");
    }
    assert_eq!(site.rows().await, before);
}

#[tokio::test]
async fn without_a_terminal_the_gateway_alone_is_no_place_to_be() {
    let site = Site::start().await;
    for args in [&["gate", "uptime"][..], &["-T", "gate"], &["-s", "gate", "sftp"], &["-tt", "gate", "uptime"]] {
        let done = site.ssh.start(args).finish(SOON).await;
        assert_eq!(done.status, Some(126), "{args:?}: {done:?}");
        let words = format!("{}{}", done.stderr, String::from_utf8_lossy(&done.stdout));
        assert!(words.contains("there is no socket") && words.contains("ssh -J GATEWAY SOCKET"), "{args:?}: {words}");
    }
    let denied = site.gateway.admin().await.rows("result=denied").await;
    assert_eq!(denied.len(), 4);
    // Nothing leads out of it but sockets.
    let forward = site.ssh.start(&["-W", "127.0.0.1:22", "gate"]).finish(SOON).await;
    assert!(!String::from_utf8_lossy(&forward.stdout).contains("OpenSSH"), "{forward:?}");
    let refused =
        site.ssh.start(&["-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:127.0.0.1:22", "gate"]).finish(SOON).await;
    assert_eq!(refused.status, Some(255), "{refused:?}");
}

#[tokio::test]
async fn one_port_serves_ssh_and_https() {
    let sshd = Sshd::start().await;
    let all = free_port();
    let setup = Setup::new().ssh("web", &sshd).listen(&format!("all = \"127.0.0.1:{all}\""));
    let gateway = setup.start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let port = all.to_string();
    let done = ssh.start(&["-p", &port, "web@gate", "echo in"]).finish(SOON).await;
    assert_eq!(done.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!(row.server_port, port);
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--cacert"])
        .arg(gateway.ca())
        .arg(format!("https://localhost:{all}/healthz"))
        .output()
        .unwrap();
    assert!(curl.status.success() && !curl.stdout.is_empty(), "{curl:?}");
    // What is neither is hung up on, and who says nothing at first hears an SSH server.
    let connect = move || std::net::TcpStream::connect(("127.0.0.1", all)).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let (mut plain, mut silent) = (connect(), connect());
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut first = [0; 4];
        let hung_up = !matches!(plain.read(&mut first), Ok(1..));
        silent.read_exact(&mut first).unwrap();
        (hung_up, first)
    });
    assert_eq!(ended.await.unwrap(), (true, *b"SSH-"));
}
