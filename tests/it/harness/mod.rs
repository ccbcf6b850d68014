//! What the tests stand on: a gateway, an sshd, the stock `ssh`, a browser, an API client. Each is started by a test,
//! lives in the test's own directory and on loopback only, and is ended by its process id when dropped.

pub mod api;
pub mod balancer;
pub mod browser;
pub mod cli;
pub mod collector;
pub mod gateway;
pub mod issuer;
pub mod login;
pub mod mmdb;
pub mod process;
pub mod recordings;
pub mod ssh;
pub mod sshd;
pub mod terminal;

use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub use api::Api;
pub use balancer::Balancer;
pub use browser::Browser;
pub use cli::Cli;
pub use gateway::{Gateway, Setup};
pub use ssh::Ssh;
pub use sshd::Sshd;
pub use terminal::Terminal;

/// How long anything that should happen soon may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits for `check` to give something, looking again every few milliseconds; fails with `what` when it takes longer.
pub async fn eventually<T>(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for this and it did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The future's value, or a failure that says what took too long.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(limit, future).await else { panic!("took longer than {limit:?}: {what}") };
    value
}

/// A loopback port that nothing listens on, below the range that outgoing connections take theirs from.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id().wrapping_mul(97) % 20_000) as u16;
    for _ in 0..1000 {
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Makes an Ed25519 key pair without passphrase and returns the private key's path.
pub fn make_key(path: &Path, comment: &str) -> PathBuf {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(path)
        .output()
        .expect("ssh-keygen is installed");
    assert!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
    path.to_owned()
}

/// Has an authority certify a public key with these options of `ssh-keygen`; the certificate is `<key>-cert.pub`.
pub fn certify(authority: &Path, public: &Path, options: &[&str]) {
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-q", "-I", "test"]).args(options).arg("-s").arg(authority).arg(public);
    let made = command.output().expect("ssh-keygen is installed");
    assert!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
}

/// The `SHA256:…` fingerprint of a public key file.
pub fn fingerprint(public: &Path) -> String {
    let told = std::process::Command::new("ssh-keygen").arg("-lf").arg(public).output().expect("ssh-keygen");
    let line = String::from_utf8(told.stdout).unwrap();
    line.split_whitespace().find(|word| word.starts_with("SHA256:")).expect("a fingerprint").to_owned()
}

/// Bytes that do not repeat soon and do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// A server behind a gateway as the socket `web`, and a client that has signed in as alice.
pub async fn gate() -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

/// A session on `web` in which a word is typed that the terminal does not show.
pub async fn type_in_secret(ssh: &Ssh, word: &str) {
    let mut terminal = ssh.terminal(&["-t", "web@gate", "stty -echo; echo ready; read word; stty echo; echo done"]);
    terminal.expect("ready").await;
    terminal.send(&format!("{word}\n"));
    terminal.expect("done").await;
    terminal.wait(SOON).await;
}
