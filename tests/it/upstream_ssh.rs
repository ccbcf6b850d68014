//! How the gateway logs in at SSH servers, and how they prove themselves to it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatescribe::store::Outcome;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Response, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::net::TcpListener;

use crate::harness::gateway::whoami;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, certify, fingerprint, make_key};

/// A server that lets in who has a certificate by the gateway, and nobody else.
const TRUSTS_THE_GATEWAY: &str = "TrustedUserCAKeys {at}/upstream_ca.pub\nAuthorizedKeysFile none";

/// A server that shows a certificate for its key.
const CERTIFIED: &str = "HostCertificate {at}/host_key-cert.pub";

/// A socket `web` to this server with these lines about login and host key.
fn web(sshd: &Sshd, lines: &str) -> String {
    socket("web", &sshd.address(), lines)
}

pub fn socket(name: &str, address: &str, lines: &str) -> String {
    format!("[[socket]]\nname = {name:?}\ntype = \"ssh\"\n[socket.upstream]\naddress = {address:?}\n{lines}\n")
}

/// Gives a server the key that the gateway publishes.
async fn trust(gateway: &Gateway, sshd: &Sshd) -> String {
    let public = gateway.api(None).get("/ssh_upstream_ca.pub").await.ok();
    fs::write(sshd.path("upstream_ca.pub"), &public).unwrap();
    let public = String::from_utf8(public).unwrap();
    assert_eq!(public, fs::read_to_string(gateway.data().join("ssh_upstream_ca.pub")).unwrap());
    public
}

/// A gateway with a socket `web` by certificate to a server that trusts it.
async fn by_certificate(more: &str) -> (Sshd, Gateway, Ssh) {
    let (sshd, plain) = (Sshd::start_with(&format!("{TRUSTS_THE_GATEWAY}\n{more}")).await, Sshd::start().await);
    let (me, host) = (whoami(), sshd.host_fingerprint());
    let lines = format!("username = {me:?}\ncertificate = true\nhost_key = {host:?}");
    let gateway = Setup::new().ssh("plain", &plain).socket(&web(&sshd, &lines)).start().await;
    trust(&gateway, &sshd).await;
    let ssh = gateway.signed_in("alice", "plain").await;
    (sshd, gateway, ssh)
}

#[tokio::test]
async fn a_certificate_logs_in_and_the_servers_log_names_the_person_and_the_session() {
    let (sshd, gateway, ssh) = by_certificate("").await;
    assert_eq!(ssh.run("web", "id -un").await.ok().trim(), whoami());
    let row = gateway.admin().await.ended("web").await;
    let named = format!("ID user=alice@example.com;session={} (serial ", row.session_id);
    let log = sshd.log_with(&named).await;
    assert!(log.contains(&format!("CA ED25519 {}", fingerprint(&sshd.path("upstream_ca.pub")))), "{log}");
    // A terminal too, and the next session has a key and an id of its own.
    let mut terminal = ssh.terminal(&["-t", "web@gate", "tty && echo $((6*7))"]);
    terminal.expect("42").await;
    terminal.wait(SOON).await;
    let next = gateway.admin().await.ended("web").await;
    assert_ne!(next.session_id, row.session_id);
    let log = sshd.log_with(&format!("session={} ", next.session_id)).await;
    let keys: Vec<_> = log.lines().filter_map(|line| line.split("ED25519-CERT ").nth(1)?.split(' ').next()).collect();
    assert!(keys.len() == 2 && keys[0] != keys[1], "{log}");
}

#[tokio::test]
async fn a_certificate_is_for_its_login_alone_and_only_by_the_authority_for_upstreams() {
    let (sshd, gateway, ssh) = by_certificate("AuthorizedPrincipalsFile {at}/principals").await;
    fs::write(sshd.path("principals"), "somebody-else\n").unwrap();
    let done = ssh.run("web", "true").await;
    assert!(done.refusal().contains("refused the gateway's certificate"), "{done:?}");
    assert_eq!(gateway.admin().await.ended("web").await.outcome, Some(Outcome::UpstreamFailed));
    fs::write(sshd.path("principals"), format!("{}\n", whoami())).unwrap();
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    // What certifies people's keys opens nothing.
    let key = make_key(&ssh.path("direct"), "direct");
    let direct = async |authority: &str| {
        let _ = fs::remove_file(ssh.path("direct-cert.pub"));
        certify(&gateway.data().join(authority), &key.with_extension("pub"), &["-n", &whoami()]);
        let (port, key) = (sshd.port.to_string(), key.display().to_string());
        let options = ["-o", "StrictHostKeyChecking=no", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"];
        let mut command = std::process::Command::new("ssh");
        command.args(["-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-p", &port, "-i", &key]).args(options);
        command.args(["127.0.0.1", "true"]);
        crate::harness::ssh::Running::start(command).finish(SOON).await.status
    };
    assert_eq!(direct("ssh_user_ca").await, Some(255));
    assert_eq!(direct("ssh_host_ca").await, Some(255));
    assert_eq!(direct("ssh_upstream_ca").await, Some(0), "the test itself can tell");
}

#[tokio::test]
async fn a_login_that_is_not_fixed_is_the_persons_choice_within_the_rules() {
    let me = whoami();
    let rule = "[[policy]]\nname = \"engineers\"\neffect = \"allow\"\nwho = { groups = [\"engineering\"] }\n\
                [policy.allow.ssh]\nexec = true\n";
    let (sshd, plain) = (Sshd::start_with(TRUSTS_THE_GATEWAY).await, Sshd::start().await);
    let lines = format!("certificate = true\nhost_key = {:?}", sshd.host_fingerprint());
    let setup = Setup::new().ssh("plain", &plain).socket(&web(&sshd, &lines));
    let gateway = setup.policies(&format!("{rule}logins = [{me:?}, \"no-such-*\"]\n")).start().await;
    trust(&gateway, &sshd).await;
    let ssh = gateway.signed_in("alice", "plain").await;
    assert_eq!(ssh.run(&format!("{me}@web"), "id -un").await.ok().trim(), me);
    assert_eq!(gateway.admin().await.ended("web").await.sshuser, Some(me));
    // Allowed, and not there.
    let done = ssh.run("no-such-login@web", "true").await;
    assert!(done.refusal().contains("for this login"), "{done:?}");
    // There, and not allowed.
    let done = ssh.run("daemon@web", "true").await;
    assert!(done.refusal().contains("daemon"), "{done:?}");
    assert!(!sshd.log().contains("daemon"), "nobody tried: {}", sshd.log());
    // None at all: told what to type.
    let done = ssh.run("web", "true").await;
    assert!(done.refusal().contains("login@"), "{done:?}");
}

/// A server with a certificate that was made by `authority` with these options, and who may certify hosts.
async fn certified(authority: &Path, options: &[&str]) -> Sshd {
    Sshd::start_prepared(CERTIFIED, |at| certify(authority, &at.join("host_key.pub"), options)).await
}

fn ca(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    make_key(&dir.path().join(name), name)
}

fn public(key: &Path) -> String {
    fs::read_to_string(key.with_extension("pub")).unwrap().trim().to_owned()
}

/// What logs in at a server of the harness.
pub fn own_login(sshd: &Sshd) -> String {
    format!("username = {:?}\nprivate_key = \"file:{}\"\n", whoami(), sshd.login_key().display())
}

#[tokio::test]
async fn a_host_certificate_is_believed_when_everything_in_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (ca(&dir, "good"), ca(&dir, "other"));
    let plain = Sshd::start().await;
    let for_host = ["-h", "-n", "127.0.0.1"];
    let cases: [(&str, Sshd, Option<&str>); 7] = [
        ("good", certified(&good, &for_host).await, None),
        ("wild", certified(&good, &["-h", "-n", "web,127.0.0.*"]).await, None),
        ("other", certified(&other, &for_host).await, Some("expected authority")),
        ("expired", certified(&good, &["-h", "-n", "127.0.0.1", "-V", "20200101:20200102"]).await, Some("expired")),
        ("early", certified(&good, &["-h", "-n", "127.0.0.1", "-V", "20900101:20900102"]).await, Some("not valid yet")),
        ("elsewhere", certified(&good, &["-h", "-n", "127.0.0.2,localhost"]).await, Some("another host")),
        ("everywhere", certified(&good, &["-h"]).await, Some("names no host")),
    ];
    let mut setup = Setup::new().ssh("plain", &plain);
    for (name, sshd, _) in &cases {
        let lines = format!("{}host_ca = {:?}", own_login(sshd), public(&good));
        setup = setup.socket(&socket(name, &sshd.address(), &lines));
    }
    // A server without any certificate, and a list and a file of authorities.
    let lines = format!("{}host_ca = {:?}", own_login(&plain), public(&good));
    setup = setup.socket(&socket("bare", &plain.address(), &lines));
    let (_, sshd, _) = &cases[0];
    let lines = format!("{}host_ca = [{:?}, \"{}.pub\"]", own_login(sshd), public(&other), good.display());
    setup = setup.socket(&socket("listed", &sshd.address(), &lines));
    let gateway = setup.start().await;
    let ssh = gateway.signed_in("alice", "plain").await;
    assert_eq!(ssh.run("listed", "echo in").await.ok(), "in\n");
    for (name, sshd, refused) in &cases {
        let done = ssh.run(name, "echo in").await;
        match refused {
            None => assert_eq!(done.ok(), "in\n", "{name}"),
            Some(words) => {
                assert!(done.refusal().contains(words), "{name}: {done:?}");
                assert!(!sshd.log().contains("Accepted"), "nothing was sent to it: {}", sshd.log());
            }
        }
    }
    let done = ssh.run("bare", "true").await;
    assert!(done.refusal().contains("no host certificate") && done.refusal().contains(&plain.host_fingerprint()));
}

#[tokio::test]
async fn a_users_certificate_is_no_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let good = ca(&dir, "good");
    // sshd shows whatever certificate it is given for its key.
    let (sshd, plain) = (certified(&good, &["-n", "127.0.0.1"]).await, Sshd::start().await);
    let lines = format!("{}host_ca = {:?}", own_login(&sshd), public(&good));
    let gateway = Setup::new().ssh("plain", &plain).socket(&web(&sshd, &lines)).start().await;
    let ssh = gateway.signed_in("alice", "plain").await;
    let done = ssh.run("web", "true").await;
    assert!(done.refusal().contains("not a host's certificate"), "{done:?} {}", sshd.log());
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
}

#[tokio::test]
async fn authorities_in_known_hosts_count_for_their_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (ca(&dir, "good"), ca(&dir, "other"));
    let (sshd, plain) = (certified(&good, &["-h", "-n", "127.0.0.1"]).await, Sshd::start().await);
    let known = sshd.path("known_hosts");
    fs::write(&known, "# nobody yet\n").unwrap();
    let lines = format!("{}known_hosts = \"{}\"", own_login(&sshd), known.display());
    let gateway = Setup::new().ssh("plain", &plain).socket(&web(&sshd, &lines)).start().await;
    let ssh = gateway.signed_in("alice", "plain").await;
    let (port, host_key) = (sshd.port, public(&sshd.path("host_key")));
    let by = |key: &Path, hosts: &str| format!("@cert-authority {hosts} {}\n", public(key));
    for (text, refused) in [
        (by(&good, &format!("[127.0.0.1]:{port}")), None),
        (by(&good, "*.example.com,127.0.0.*"), None),
        (by(&good, "*,!127.0.0.1"), Some("not in the known_hosts")),
        (by(&other, "*"), Some("expected authority")),
        // Known for itself as well.
        (format!("{}[127.0.0.1]:{port} {host_key}\n", by(&other, "*")), None),
        (format!("{}@revoked * {}\n", by(&good, "*"), public(&good)), Some("revoked")),
        (format!("{}@revoked * {host_key}\n", by(&good, "*")), Some("revoked")),
    ] {
        fs::write(&known, &text).unwrap();
        let done = ssh.run("web", "echo in").await;
        match refused {
            None => assert_eq!(done.ok(), "in\n", "{text}"),
            Some(words) => assert!(done.refusal().contains(words), "{text}: {done:?}"),
        }
    }
}

#[tokio::test]
async fn a_key_with_a_passphrase_is_opened_with_it() {
    let sshd = Sshd::start().await;
    let key = sshd.path("locked");
    fs::copy(sshd.login_key(), &key).unwrap();
    let changed = std::process::Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "open sesame", "-a", "1", "-f"])
        .arg(&key)
        .status();
    assert!(changed.unwrap().success());
    let lines = |passphrase: &str| {
        let (me, key, host) = (whoami(), key.display(), sshd.host_fingerprint());
        format!("username = {me:?}\nprivate_key = \"file:{key}\"\n{passphrase}host_key = {host:?}")
    };
    let setup = Setup::new()
        .environment("GOOD", "open sesame")
        .environment("BAD", "open barley")
        .ssh("plain", &sshd)
        .socket(&socket("good", &sshd.address(), &lines("private_key_passphrase = \"env:GOOD\"\n")));
    let mut gateway = setup.start().await;
    let ssh = gateway.signed_in("alice", "plain").await;
    assert_eq!(ssh.run("good", "echo in").await.ok(), "in\n");
    // A file with one that is not opened does not come into force.
    gateway.expect_errors();
    let file = gateway.config_file();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("env:GOOD", "env:BAD")).unwrap();
    let log = gateway.log_with("this passphrase does not open the private key").await;
    assert!(!log.contains("barley"), "{log}");
    assert_eq!(ssh.run("good", "echo still in").await.ok(), "still in\n");
}

#[tokio::test]
async fn a_server_that_asks_for_the_password_by_keyboard_gets_it_once() {
    let (server, plain) = (Asking::start("s3same").await, Sshd::start().await);
    let lines = |variable: &str| {
        let host = &server.fingerprint;
        format!("username = \"deploy\"\npassword = \"env:{variable}\"\nhost_key = {host:?}")
    };
    let setup = Setup::new()
        .environment("GOOD", "s3same")
        .environment("BAD", "b4rley")
        .ssh("plain", &plain)
        .socket(&socket("good", &server.address.to_string(), &lines("GOOD")))
        .socket(&socket("bad", &server.address.to_string(), &lines("BAD")));
    let gateway = setup.start().await;
    let ssh = gateway.signed_in("alice", "plain").await;
    assert_eq!(ssh.run("good", "true").await.ok(), "deploy is in\n");
    let done = ssh.run("bad", "true").await;
    assert!(done.refusal().contains("refused the gateway's credential"), "{done:?}");
    assert!(!done.stderr.contains("b4rley") && !gateway.log().contains("b4rley"));
}

/// A server as many appliances are: no password method, only a question by keyboard-interactive (RFC 4256).
struct Asking {
    address: SocketAddr,
    fingerprint: String,
}

#[derive(Clone)]
struct Asked {
    password: &'static str,
    user: String,
}

impl Asking {
    async fn start(password: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = make_key(&dir.path().join("key"), "host");
        let fingerprint = fingerprint(&key.with_extension("pub"));
        let config = russh::server::Config {
            keys: vec![russh::keys::load_secret_key(&key, None).unwrap()],
            methods: MethodSet::from(&[MethodKind::KeyboardInteractive][..]),
            auth_rejection_time: std::time::Duration::ZERO,
            ..Default::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(config);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let handler = Asked { password, user: String::new() };
                let config = config.clone();
                tokio::spawn(async move {
                    if let Ok(running) = russh::server::run_stream(config, stream, handler).await {
                        let _ = running.await;
                    }
                });
            }
        });
        Self { address, fingerprint }
    }
}

impl Handler for Asked {
    type Error = russh::Error;

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut answers) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Password: ".into(), false)].into(),
            });
        };
        let good = answers.next().is_some_and(|answer| answer == self.password) && answers.next().is_none();
        user.clone_into(&mut self.user);
        Ok(if good { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        session.data(id, format!("{} is in\n", self.user))?;
        session.exit_status_request(id, 0)?;
        session.eof(id)?;
        session.close(id)
    }
}
