//! Upstreams that are not what they should be: each gets one clear line in the user's terminal and a row.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use gatescribe::store::{AuthResult as Authorization, Outcome};

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, fingerprint, free_port, make_key};

/// A socket `odd` that leads to this address, beside a good one.
async fn gate(address: &str) -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd);
    let gateway = setup.upstream("odd", "", address, &sshd.login_key(), &sshd.host_fingerprint()).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

/// The row says that the person was let in and the upstream failed; another socket works.
async fn only_the_upstream_failed(gateway: &Gateway, ssh: &Ssh, socket: &str) {
    let row = gateway.admin().await.ended(socket).await;
    assert_eq!(row.result, Authorization::Success);
    assert_eq!(row.outcome, Some(Outcome::UpstreamFailed), "{row:?}");
    assert!(row.end_reason.is_some());
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_told() {
    let (_sshd, gateway, ssh) = gate(&format!("127.0.0.1:{}", free_port())).await;
    let done = ssh.run("odd", "true").await;
    assert!(done.refusal().contains("refused") || done.refusal().contains("reach"), "{done:?}");
    only_the_upstream_failed(&gateway, &ssh, "odd").await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told() {
    let (_sshd, gateway, ssh) = gate("no-such-host.invalid:22").await;
    let done = ssh.run("odd", "true").await;
    assert!(!done.refusal().is_empty());
    only_the_upstream_failed(&gateway, &ssh, "odd").await;
}

#[tokio::test]
async fn garbage_instead_of_a_banner_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(&[0x16, 3, 1, 0, 200, b'\n'].repeat(200)));
        }
    });
    let (_sshd, gateway, ssh) = gate(&address).await;
    let done = ssh.run("odd", "true").await;
    assert!(!done.refusal().is_empty());
    only_the_upstream_failed(&gateway, &ssh, "odd").await;
}

#[tokio::test]
async fn an_upstream_that_says_nothing_runs_into_a_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_sshd, gateway, ssh) = gate(&listener.local_addr().unwrap().to_string()).await;
    let done = ssh.start(&["odd@gate", "true"]).finish(Duration::from_secs(90)).await;
    assert!(!done.refusal().is_empty());
    only_the_upstream_failed(&gateway, &ssh, "odd").await;
}

#[tokio::test]
async fn a_host_key_that_changed_is_refused_with_both_fingerprints() {
    let (mut sshd, gateway, ssh) = gate("127.0.0.1:1").await;
    let pinned = sshd.host_fingerprint();
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    // The same type, then another one: neither is the key that was pinned.
    for kind in ["ed25519", "ecdsa"] {
        sshd.change_host_key(kind).await;
        let done = ssh.run("web", "true").await;
        let words = done.refusal();
        assert!(words.contains(&pinned) && words.contains(&sshd.host_fingerprint()), "{words}");
        let row = gateway.admin().await.ended("web").await;
        assert_eq!(row.outcome, Some(Outcome::UpstreamFailed));
        // The gateway did not log in: the server never saw its key.
        assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
    }
}

#[tokio::test]
async fn known_hosts_are_read_and_a_new_type_of_key_is_not_trusted() {
    let mut sshd = Sshd::start().await;
    let known = sshd.path("known_hosts");
    let public = std::fs::read_to_string(sshd.path("host_key.pub")).unwrap();
    std::fs::write(&known, format!("[127.0.0.1]:{} {public}", sshd.port)).unwrap();
    let socket = format!(
        "[[socket]]\nname = \"web\"\ntype = \"ssh\"\n[socket.upstream]\nkind = \"ssh\"\naddress = \"{}\"\n\
         username = \"{}\"\nprivate_key = \"file:{}\"\nknown_hosts = \"{}\"\n",
        sshd.address(),
        crate::harness::gateway::whoami(),
        sshd.login_key().display(),
        known.display()
    );
    let gateway = Setup::new().socket(&socket).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    let pinned = sshd.host_fingerprint();
    sshd.change_host_key("ecdsa").await;
    let done = ssh.run("web", "true").await;
    assert!(done.refusal().contains(&pinned) && done.refusal().contains(&sshd.host_fingerprint()), "{done:?}");
}

#[tokio::test]
async fn a_key_that_the_upstream_does_not_accept_is_told() {
    let sshd = Sshd::start().await;
    let wrong = make_key(&sshd.path("wrong"), "wrong");
    assert_ne!(fingerprint(&wrong.with_extension("pub")), fingerprint(&sshd.login_key().with_extension("pub")));
    let setup = Setup::new().ssh("web", &sshd);
    let gateway = setup.upstream("odd", "", &sshd.address(), &wrong, &sshd.host_fingerprint()).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let done = ssh.run("odd", "true").await;
    // The user never sees the credential, and learns that it is not his own that failed.
    assert!(!done.refusal().contains("wrong"), "{done:?}");
    only_the_upstream_failed(&gateway, &ssh, "odd").await;
}

#[tokio::test]
async fn an_upstream_that_dies_in_mid_session_ends_it() {
    let (sshd, gateway, ssh) = gate("127.0.0.1:1").await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    for pid in sshd.sessions() {
        crate::harness::process::signal(pid, rustix::process::Signal::KILL);
    }
    let done = cat.finish(SOON).await;
    assert!(!done.refusal().is_empty(), "{done:?}");
    only_the_upstream_failed(&gateway, &ssh, "web").await;
}
