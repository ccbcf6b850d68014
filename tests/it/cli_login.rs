//! `gatescribe login` and what comes of it, with the real binary, the stock `ssh`, `ssh-add` and `openssl`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gatescribe::store::AuthResult;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::ssh::{Done, Running};
use crate::harness::{Cli, Gateway, SOON, Setup, Sshd, Terminal, eventually, make_key, process};

/// What a sign-in writes.
const FILES: [&str; 9] = [
    "token",
    "id_ed25519",
    "id_ed25519.pub",
    "id_ed25519-cert.pub",
    "known_hosts",
    "client.crt",
    "client.key",
    "client.p12",
    "client.pk8",
];

async fn gate() -> (Sshd, Gateway) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    (sshd, gateway)
}

/// `ssh` by the block that `ssh-config` prints; asks nobody anything, and knows no other host.
async fn plain_ssh(cli: &Cli) -> Done {
    let config = cli.dir().join("ssh_config");
    fs::write(&config, cli.run(&["ssh-config"]).await.ok()).unwrap();
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config).args(["-o", "BatchMode=yes", "web@gatescribe", "echo in"]).env_remove("SSH_AUTH_SOCK");
    Running::start(ssh).finish(SOON).await
}

#[tokio::test]
async fn login_then_plain_ssh_then_logout() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    let told = cli.login(&gateway, "alice", &["--no-browser"]).await;
    assert!(told.contains("as alice@example.com until ") && told.contains("gatescribe ssh-config"), "{told}");
    for name in FILES.into_iter().chain(["gateway.json", "ca.pem"]) {
        let mode = fs::metadata(cli.path(name)).unwrap_or_else(|e| panic!("{name}: {e}")).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(cli.path("")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(plain_ssh(&cli).await.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!((row.user_email.as_str(), row.result), ("alice@example.com", AuthResult::Success));
    assert!(row.events.iter().any(|event| event.kind == "sign_in" && event.metadata["how"] == "certificate"));
    // The one line that it printed works alone.
    let line = told.lines().find_map(|line| line.trim().strip_prefix("ssh ")).unwrap().replace("SOCKET@", "web@");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ssh -F none -o BatchMode=yes {line} echo one line")]).env_remove("SSH_AUTH_SOCK");
    assert_eq!(Running::start(shell).finish(SOON).await.ok(), "one line\n");

    // Signed in already: nobody is asked for anything, and nothing changes.
    let before = fs::read(cli.path("token")).unwrap();
    let again = cli.run(&["login"]).await.ok();
    assert!(again.contains("You are signed in") && again.contains("alice@example.com"), "{again}");
    assert_eq!(fs::read(cli.path("token")).unwrap(), before);

    let token = String::from_utf8(before).unwrap().trim().to_owned();
    let api = gateway.api(Some(token));
    assert_eq!(api.get("/api/v1/whoami").await.status, StatusCode::OK);
    let kept = ["id_ed25519", "id_ed25519.pub", "id_ed25519-cert.pub", "known_hosts"];
    let kept: Vec<_> = kept.iter().map(|name| (cli.path(name), fs::read(cli.path(name)).unwrap())).collect();
    assert_eq!(cli.run(&["logout"]).await.ok(), "Signed out.\n");
    for name in FILES {
        assert!(!cli.path(name).exists(), "{name} is left");
    }
    assert_eq!(api.get("/api/v1/whoami").await.status, StatusCode::UNAUTHORIZED);
    // Also for whoever had copied the files.
    for (path, content) in kept {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(plain_ssh(&cli).await.status, Some(255));
    let refused = cli.run(&["sessions", "list"]).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("you are not signed in; run: gatescribe login --gateway"), "{}", refused.stderr);
    assert_eq!(cli.run(&["logout"]).await.ok(), "Not signed in.\n");
}

#[tokio::test]
async fn the_files_are_what_other_programs_read() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").args(args).current_dir(cli.path("")).output().unwrap();
        assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let public = openssl(&["x509", "-in", "client.crt", "-noout", "-pubkey"]);
    assert_eq!(openssl(&["pkey", "-in", "client.key", "-pubout"]), public);
    assert_eq!(openssl(&["pkey", "-in", "client.pk8", "-inform", "DER", "-pubout"]), public);
    let p12 = openssl(&["pkcs12", "-in", "client.p12", "-passin", "pass:gatescribe", "-nodes"]);
    assert_eq!(p12.matches("BEGIN CERTIFICATE").count(), 2, "the certificate and its authority: {p12}");
    assert!(p12.contains("BEGIN PRIVATE KEY"), "{p12}");
    openssl(&["verify", "-CAfile", "ca.pem", "-purpose", "sslclient", "client.crt"]);
    let told = Command::new("ssh-keygen").arg("-Lf").arg(cli.path("id_ed25519-cert.pub")).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains("Key ID: \"alice@example.com\""), "{told:?}");
}

#[tokio::test]
async fn a_strange_host_key_is_refused_and_nobody_is_asked() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    let told = cli.login(&gateway, "alice", &[]).await;
    // As if somebody else answered: the authority on file is another one.
    let other = cli.dir().join("other");
    make_key(&other, "other");
    let key = fs::read_to_string(other.with_extension("pub")).unwrap();
    let line = fs::read_to_string(cli.path("known_hosts")).unwrap();
    let at = line.find("ssh-ed25519").expect("an authority");
    fs::write(cli.path("known_hosts"), format!("{}{key}", &line[..at])).unwrap();
    let config = cli.dir().join("ssh_config");
    fs::write(&config, cli.run(&["ssh-config"]).await.ok()).unwrap();
    let line = told.lines().find_map(|line| line.trim().strip_prefix("ssh ")).unwrap().replace("SOCKET@", "web@");
    for line in [format!("ssh -F {} web@gatescribe", config.display()), format!("ssh -F none {line}")] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{line} echo in")]).env_remove("SSH_AUTH_SOCK").env_remove("SSH_ASKPASS");
        let mut terminal = Terminal::start(&shell, 120, 40);
        let shown = terminal.expect("Host key verification failed").await;
        assert!(!shown.contains("yes/no"), "{line}: {shown}");
        assert_eq!(terminal.wait(SOON).await.code(), Some(255), "{line}");
    }
}

#[tokio::test]
async fn an_agent_gets_the_certificate_and_gives_it_back() {
    let (_sshd, gateway) = gate().await;
    let agent = Agent::start().await;
    let cli = Cli::new().environment("SSH_AUTH_SOCK", &agent.socket());
    cli.login(&gateway, "alice", &[]).await;
    let certificates = |listed: &str| listed.lines().filter(|line| line.contains("-cert-v01@")).count();
    assert_eq!(certificates(&agent.list()), 1);
    let ssh = |known_hosts: &Path| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentityFile=none", "-o", "StrictHostKeyChecking=yes"]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display()));
        ssh.args(["-p", &gateway.ssh.to_string(), "web@localhost", "echo by agent"]);
        ssh.env("SSH_AUTH_SOCK", agent.socket());
        Running::start(ssh).finish(SOON)
    };
    assert_eq!(ssh(&cli.path("known_hosts")).await.ok(), "by agent\n");
    // A sign-in anew puts its certificate in the place of the old one.
    let old = agent.list();
    cli.login(&gateway, "alice", &["--force"]).await;
    let new = agent.list();
    assert_eq!(certificates(&new), 1, "{new}");
    assert_ne!(old, new);
    assert_eq!(ssh(&cli.path("known_hosts")).await.ok(), "by agent\n");
    let known_hosts = cli.dir().join("known_hosts");
    fs::copy(cli.path("known_hosts"), &known_hosts).unwrap();
    cli.run(&["logout"]).await.ok();
    assert_eq!(certificates(&agent.list()), 0);
    assert_eq!(ssh(&known_hosts).await.status, Some(255));
}

#[tokio::test]
async fn a_new_sign_in_ends_the_one_whose_place_it_takes() {
    let (_sshd, gateway) = gate().await;
    let (_sshd, other) = gate().await;
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    let first = gateway.api(Some(token(&cli)));
    cli.login(&gateway, "alice", &["--force"]).await;
    let second = gateway.api(Some(token(&cli)));
    assert_eq!(first.get("/api/v1/whoami").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(second.get("/api/v1/whoami").await.status, StatusCode::OK);
    // At another gateway, whose authority takes the place of the first one's.
    cli.login(&other, "alice", &[]).await;
    assert_eq!(second.get("/api/v1/whoami").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(other.api(Some(token(&cli))).get("/api/v1/whoami").await.status, StatusCode::OK);
}

#[tokio::test]
async fn somebody_else_than_before_is_asked_about() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    let living = async || {
        let of_bob = gateway.admin().await.get("/api/v1/sign-ins?user_email=bob@example.com").await.ok_json();
        of_bob["sign_ins"].as_array().unwrap().len()
    };
    let of_alice = fs::read(cli.path("token")).unwrap();
    let status: Value = serde_json::from_str(&cli.run(&["status", "--json"]).await.ok()).unwrap();
    let path = format!("/api/v1/sign-in/{}", status["sign_in_id"].as_str().unwrap());
    gateway.admin().await.call(Method::DELETE, &path, None).await.ok();

    // Nobody to ask: refused, and what was granted does not go on counting.
    let (login, page) = cli.begin_login(&gateway, &[]).await;
    gateway.browser().sign_in_command_line(&page, "bob", "approve").await;
    let done = login.finish(SOON).await;
    assert_eq!(done.status, Some(1));
    assert!(done.stderr.contains("bob@example.com signed in, but alice@example.com did before"), "{done:?}");
    assert!(done.stderr.contains("run: gatescribe login --force"), "{done:?}");
    for (answer, expected) in [("no", "nothing was changed"), ("yes", "as bob@example.com until")] {
        assert_eq!(fs::read(cli.path("token")).unwrap(), of_alice);
        assert_eq!(living().await, 0, "before {answer}");
        let mut terminal = cli.terminal(&["login", "--force"], 200);
        let page = terminal.expect("Waiting").await;
        let page = crate::harness::ssh::link_in(&page).unwrap();
        gateway.browser().sign_in_command_line(&page, "bob", "approve").await;
        terminal.expect("[yes/no]").await;
        terminal.send(&format!("{answer}\n"));
        terminal.expect(expected).await;
        assert_eq!(terminal.wait(SOON).await.success(), answer == "yes");
    }
    assert_eq!(living().await, 1);
    // The same person again, and then, by force, the first one without anybody to ask.
    cli.login(&gateway, "bob", &["--force"]).await;
    assert!(cli.login(&gateway, "alice", &["--force"]).await.contains("as alice@example.com"));
}

#[tokio::test]
async fn an_agent_that_takes_nothing_is_no_failure() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new().environment("SSH_AUTH_SOCK", "/nonexistent/agent");
    let (login, page) = cli.begin_login(&gateway, &[]).await;
    gateway.browser().sign_in_command_line(&page, "alice", "approve").await;
    let done = login.finish(SOON).await;
    assert!(done.stderr.contains("note: the ssh-agent did not take the certificate"), "{}", done.stderr);
    done.ok();
}

#[tokio::test]
async fn who_comes_second_waits_and_uses_what_the_first_one_got() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    let (first, page) = cli.begin_login(&gateway, &[]).await;
    let (url, ca) = (gateway.url(""), gateway.ca().display().to_string());
    let mut second = cli.start(&["login", "--gateway", &url, "--ca", &ca, "--force"]);
    second.told("another sign-in on this machine is under way").await;
    gateway.browser().sign_in_command_line(&page, "alice", "approve").await;
    first.finish(SOON).await.ok();
    let second = second.finish(SOON).await;
    assert!(!second.stderr.contains("To sign in"), "{}", second.stderr);
    assert!(second.ok().contains("You are signed in"));
    let sign_ins = gateway.admin().await.get("/api/v1/sign-ins?user_email=alice@example.com").await.ok_json();
    assert_eq!(sign_ins["sign_ins"].as_array().unwrap().len(), 1, "{sign_ins}");
}

#[tokio::test]
async fn an_unknown_authority_is_compared_by_a_person_and_pinned() {
    let (_sshd, gateway) = gate().await;
    let url = gateway.url("");
    // Nobody to ask.
    let cli = Cli::new();
    let refused = cli.run(&["login", "--gateway", &url]).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("no terminal to ask at") && refused.stderr.contains("--ca FILE"), "{refused:?}");
    // Another authority.
    let other = cli.dir().join("other.pem");
    fs::write(&other, rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem()).unwrap();
    let refused = cli.run(&["login", "--gateway", &url, "--ca", &other.display().to_string()]).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("is not signed by the authority in"), "{refused:?}");
    assert!(!cli.path("ca.pem").exists());

    // Somebody says no, somebody says yes.
    let mut shown = Command::new("openssl");
    let shown = shown.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(gateway.ca()).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let fingerprint: Vec<&str> = shown.trim().split_once('=').unwrap().1.split(':').collect();
    for (answer, expected) in [("no", "not trusted"), ("yes", "To sign in")] {
        let mut terminal = cli.terminal(&["login", "--gateway", &url], 120);
        let asked = terminal.expect("[yes/no]").await;
        for line in fingerprint.chunks(16) {
            assert!(asked.contains(&line.join(":")), "{asked}");
        }
        terminal.send(&format!("{answer}\n"));
        terminal.expect(expected).await;
        if answer == "no" {
            assert_eq!(terminal.wait(SOON).await.code(), Some(1));
            assert!(!cli.path("ca.pem").exists() && !cli.path("gateway.json").exists());
            continue;
        }
        let page = terminal.expect("Waiting").await;
        let page = crate::harness::ssh::link_in(&page).unwrap();
        gateway.browser().sign_in_command_line(&page, "alice", "approve").await;
        terminal.expect("You are signed in").await;
        assert!(terminal.wait(SOON).await.success());
    }
    assert_eq!(
        fs::read_to_string(cli.path("ca.pem")).unwrap().trim(),
        fs::read_to_string(gateway.ca()).unwrap().trim()
    );
    // Pinned: no question any more, and a file in its place is found out.
    let status: Value = serde_json::from_str(&cli.run(&["status", "--json"]).await.ok()).unwrap();
    assert_eq!(status["ca_sha256"].as_str().unwrap().to_uppercase(), fingerprint.concat());
    fs::copy(&other, cli.path("ca.pem")).unwrap();
    let refused = cli.run(&["sessions", "list"]).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("is not the authority that was pinned"), "{refused:?}");
}

#[tokio::test]
async fn a_gateway_that_the_platform_vouched_for_is_not_taken_on_a_person_s_word_later() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    let known = serde_json::json!({"url": gateway.url(""), "ca_sha256": null, "ssh_port": null});
    fs::create_dir_all(cli.path("")).unwrap();
    fs::write(cli.path("gateway.json"), known.to_string()).unwrap();
    // With somebody at the terminal, who would say yes.
    let mut terminal = cli.terminal(&["login"], 120);
    let shown = terminal.expect("--ca FILE").await;
    assert!(!shown.contains("yes/no"), "{shown}");
    assert_eq!(terminal.wait(SOON).await.code(), Some(1));
    assert!(!cli.path("ca.pem").exists());
    cli.login(&gateway, "alice", &[]).await;
}

#[tokio::test]
async fn a_denial_in_the_browser_leaves_nothing() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    let (login, page) = cli.begin_login(&gateway, &[]).await;
    let words = gateway.browser().sign_in_command_line(&page, "alice", "deny").await;
    assert!(words.contains("is not signed in"), "{words}");
    let done = login.finish(SOON).await;
    assert_eq!(done.status, Some(1));
    assert!(done.stderr.contains("the sign-in was denied in the browser"), "{done:?}");
    for name in FILES.into_iter().chain(["gateway.json"]) {
        assert!(!cli.path(name).exists(), "{name} was written");
    }
}

#[tokio::test]
async fn a_sign_in_that_was_ended_elsewhere_is_noticed() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    let status: Value = serde_json::from_str(&cli.run(&["status", "--json"]).await.ok()).unwrap();
    assert_eq!((&status["signed_in"], &status["email"]), (&true.into(), &"alice@example.com".into()));
    assert_eq!(status["files"].as_array().unwrap().len(), FILES.len() + 2, "{status}");
    let path = format!("/api/v1/sign-in/{}", status["sign_in_id"].as_str().unwrap());
    gateway.admin().await.call(Method::DELETE, &path, None).await.ok();
    let status = cli.run(&["status"]).await;
    assert_eq!(status.status, Some(1));
    assert!(String::from_utf8(status.stdout).unwrap().contains("the gateway has ended it"));
    let refused = cli.run(&["sessions", "list"]).await;
    assert!(refused.stderr.contains("does not accept your sign-in any more"), "{refused:?}");
    // `login` then signs in anew, without being forced.
    cli.login(&gateway, "alice", &[]).await;
    assert_eq!(cli.run(&["status"]).await.status, Some(0));
}

#[tokio::test]
async fn logout_works_without_the_gateway() {
    let (_sshd, mut gateway) = gate().await;
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    assert!(gateway.stop().await.success());
    let status: Value = serde_json::from_str(&cli.run(&["status", "--json"]).await.ok()).unwrap();
    assert_eq!((&status["accepted"], &status["signed_in"]), (&Value::Null, &true.into()));
    let done = cli.run(&["logout"]).await;
    assert!(done.stderr.contains("note: the gateway was not told") && done.stderr.contains("counts until"), "{done:?}");
    assert_eq!(done.ok(), "Signed out.\n");
    assert!(!cli.path("token").exists() && !cli.path("id_ed25519").exists());
    let refused = cli.run(&["login"]).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("cannot be reached"), "{refused:?}");
}

#[tokio::test]
async fn a_device_signs_in_by_a_code_where_the_config_names_its_groups() {
    let sshd = Sshd::start().await;
    let more = "[sign_in]\ndevice_groups = [\"engineering\"]\n";
    let gateway = Setup::new().ssh("web", &sshd).more(more).start().await;
    let cli = Cli::new();
    let (mut login, page) = cli.begin_login(&gateway, &["--device"]).await;
    let told = login.told("Waiting for it").await;
    let code = told.lines().map(str::trim).filter(|line| !line.is_empty()).nth(2).unwrap().to_owned();
    let mut browser = gateway.browser();
    let mut form = browser.sign_in(&page, "alice").await.form("continue");
    form.set("user_code", &code);
    let page = browser.submit(&form).await;
    let page = browser.submit(&page.form("approve")).await;
    assert!(page.text().contains("signed in"), "{page:?}");
    assert!(login.finish(SOON).await.ok().contains("as alice@example.com"));
    assert_eq!(plain_ssh(&cli).await.ok(), "in\n");
    // Without the groups there is no such sign-in.
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    let (url, ca) = (gateway.url(""), gateway.ca().display().to_string());
    let refused = Cli::new().run(&["login", "--device", "--gateway", &url, "--ca", &ca]).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("signs nobody in with --device"), "{refused:?}");
}

#[tokio::test]
async fn a_token_for_a_socket_is_all_that_is_printed() {
    let (_sshd, gateway) = gate().await;
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    let token = cli.run(&["token", "--socket", "web"]).await.ok();
    assert!(token.starts_with("gss_") && token.ends_with('\n') && token.lines().count() == 1, "{token}");
    assert!(token.trim().len() <= 64);
    let refused = cli.run(&["token", "--socket", "none"]).await;
    assert_eq!((refused.status, refused.stdout.len()), (Some(1), 0));
    assert!(refused.stderr.contains("there is no such socket, or you may not reach it"), "{refused:?}");
}

#[tokio::test]
async fn the_sign_in_goes_to_its_own_gateway_alone() {
    let (_sshd, gateway) = gate().await;
    let (_sshd, other) = gate().await;
    let cli = Cli::new();
    cli.login(&gateway, "alice", &[]).await;
    let (url, ca) = (other.url(""), other.ca().display().to_string());
    let refused = cli.run(&["sessions", "list", "--gateway", &url, "--ca", &ca]).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains(&format!("run: gatescribe login --gateway {url}")), "{refused:?}");
    // By an address instead of its name.
    let address = format!("https://127.0.0.1:{}", gateway.https);
    let ca = gateway.ca().display().to_string();
    let refused = Cli::new().run(&["login", "--gateway", &address, "--ca", &ca]).await;
    assert!(refused.stderr.contains(&format!("--gateway {}", gateway.url(""))), "{refused:?}");
}

#[tokio::test]
async fn wrong_usage_is_two_and_help_fits_a_screen() {
    let cli = Cli::new();
    for args in [
        vec!["login"],
        vec!["login", "--gateway", "http://a.example.com"],
        vec!["token"],
        vec!["sessions", "show", "xyz"],
        vec!["sessions", "kill", "01234567"],
        vec!["sessions", "list", "--since", "yesterday"],
        vec!["lock", "user", "alice@example.com"],
        vec!["lock", "--json", "all", "--reason", "x"],
        vec!["unlock", "xyz"],
        vec!["nonsense"],
    ] {
        let done = cli.run(&args).await;
        assert_eq!(done.status, Some(2), "{args:?}: {done:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}: {done:?}");
    }
    let commands = ["login", "logout", "status", "token", "ssh", "ssh-config", "sessions", "lock", "unlock"]
        .map(|name| vec![name]);
    let sessions = ["list", "show", "text", "kill", "export"].map(|name| vec!["sessions", name]);
    let locks = ["user", "group", "socket", "address", "all"].map(|whom| vec!["lock", whom]);
    for command in commands.into_iter().chain(sessions).chain(locks) {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let help = cli.run(&args).await.ok();
        assert!(help.contains("Example: ") && help.lines().count() <= 50, "{command:?}:\n{help}");
    }
    let status = cli.run(&["status"]).await;
    assert_eq!(status.status, Some(1), "nobody is signed in");
}

/// The token of the profile's sign-in.
fn token(cli: &Cli) -> String {
    fs::read_to_string(cli.path("token")).unwrap().trim().to_owned()
}

/// An ssh-agent of its own.
struct Agent {
    child: Child,
    dir: tempfile::TempDir,
}

impl Agent {
    async fn start() -> Self {
        let dir = tempfile::TempDir::with_prefix("gatescribe-agent-").unwrap();
        let socket = dir.path().join("s");
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { child, dir };
        eventually("the agent listens", SOON, async || socket.exists().then_some(())).await;
        agent
    }

    fn socket(&self) -> String {
        self.dir.path().join("s").display().to_string()
    }

    fn list(&self) -> String {
        let listed = Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", self.socket()).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}
