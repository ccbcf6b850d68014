//! What systemd is told and what it passes, with its own tools where there is one.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::issuer::Issuer;
use crate::harness::{SOON, Setup, Sshd, eventually, free_port, process, within};

/// The service manager's end of sd_notify(3).
struct Manager {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { dir, socket }
    }

    fn path(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    /// The next message that has this line.
    async fn told(&self, line: &str) -> String {
        eventually(line, SOON, async || self.next().filter(|text| text.lines().any(|told| told == line))).await
    }

    /// All messages that are there already.
    fn all(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

/// A gateway that `systemd-socket-activate` starts at the first connection.
struct Activated {
    dir: tempfile::TempDir,
    child: Child,
    _issuer: Issuer,
}

impl Activated {
    async fn start(sshd: &Sshd, https: u16, ssh: u16, names: &str, listen: &[String]) -> Self {
        let issuer = Issuer::start(https).await;
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("gatescribe.toml");
        let text = Setup::new().ssh("web", sshd).config(&dir.path().join("data"), &issuer, https, ssh);
        std::fs::write(&config, text).unwrap();
        let child = Command::new("systemd-socket-activate")
            .args(listen.iter().flat_map(|address| ["--listen", address]))
            .args((!names.is_empty()).then(|| format!("--fdname={names}")))
            .arg(env!("CARGO_BIN_EXE_gatescribe"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .expect("systemd-socket-activate is installed");
        let started = Self { dir, child, _issuer: issuer };
        eventually("it listens", SOON, async || started.log().contains("Listening on").then_some(())).await;
        started
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::KILL);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(gatescribe::record::default_spool(&self.dir.path().join("data")));
    }
}

/// Says hello as an SSH client; what comes back.
async fn greeting(port: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"SSH-2.0-hello\r\n").await?;
    let mut greeting = vec![0; 8];
    within(SOON, "a greeting or an end", stream.read_exact(&mut greeting)).await?;
    Ok(greeting)
}

#[tokio::test]
async fn the_service_manager_is_told_of_start_upgrade_watchdog_and_stop() {
    let manager = Manager::new();
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd).environment("NOTIFY_SOCKET", &manager.path());
    let mut gateway = setup.environment("WATCHDOG_USEC", "300000").start().await;
    let told = manager.told("READY=1").await;
    assert!(told.contains(&format!("MAINPID={}\n", gateway.pid())), "{told}");
    assert!(told.contains("STATUS=serving; sessions: 0\n"), "{told}");
    manager.told("WATCHDOG=1").await;
    let ssh = gateway.signed_in("alice", "web").await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    manager.told("STATUS=serving; sessions: 1").await;

    process::signal(gateway.pid(), Signal::USR2);
    let told = manager.told("RELOADING=1").await;
    assert!(told.contains("MONOTONIC_USEC="), "{told}");
    let told = manager.told("READY=1").await;
    let new = told.lines().find_map(|line| line.strip_prefix("MAINPID=")).unwrap();
    let new: u32 = new.parse().unwrap();
    assert_ne!(new, gateway.pid(), "the new process is the main one");
    assert!(told.contains("older processes that serve what they have: 1"), "{told}");
    manager.told("WATCHDOG=1").await;
    process::signal(new, Signal::TERM);
    manager.told("STOPPING=1").await;
    cat.child.kill().await.unwrap();
    eventually("both stop", SOON, async || (!process::is_alive(new) && gateway.has_ended()).then_some(())).await;
}

#[tokio::test]
async fn a_start_that_has_recordings_to_recover_asks_for_more_time() {
    let manager = Manager::new();
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd).environment("NOTIFY_SOCKET", &manager.path());
    let mut gateway = setup.start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    gateway.crash();
    let before = manager.all().join("");
    assert!(!before.contains("EXTEND_TIMEOUT_USEC"), "{before}");
    gateway.start_again().await;
    manager.told("EXTEND_TIMEOUT_USEC=300000000").await;
    manager.told("READY=1").await;
}

/// Otherwise systemd takes the end of its main process for the end of the service, and stops the new one.
#[tokio::test]
async fn an_old_process_without_sessions_stays_until_the_new_one_is_the_main_one() {
    let manager = Manager::new();
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd).environment("NOTIFY_SOCKET", &manager.path());
    let mut gateway = setup.start().await;
    manager.told("READY=1").await;
    process::signal(gateway.pid(), Signal::USR2);
    eventually("the old process ends", SOON, async || gateway.has_ended().then_some(())).await;
    let told = manager.all().join("");
    let new = told.lines().find_map(|line| line.strip_prefix("MAINPID=")).unwrap_or_else(|| panic!("{told}"));
    assert!(process::is_alive(new.parse().unwrap()));
    process::signal(new.parse().unwrap(), Signal::TERM);
}

#[tokio::test]
async fn sockets_are_taken_by_name_and_by_address_and_the_rest_is_bound() {
    let sshd = Sshd::start().await;
    // By its name, although the configuration says another port: here https is bound by the gateway itself.
    let (https, ssh, passed) = (free_port(), free_port(), free_port());
    let listen = [format!("127.0.0.1:{passed}")];
    let gateway = Activated::start(&sshd, https, ssh, "ssh", &listen).await;
    assert_eq!(greeting(passed).await.unwrap(), b"SSH-2.0-");
    assert!(TcpStream::connect(("127.0.0.1", ssh)).await.is_err(), "{}", gateway.log());
    TcpStream::connect(("127.0.0.1", https)).await.unwrap();
    drop(gateway);
    // Without names, by the addresses.
    let (https, ssh) = (free_port(), free_port());
    let listen = [format!("127.0.0.1:{https}"), format!("127.0.0.1:{ssh}")];
    let gateway = Activated::start(&sshd, https, ssh, "", &listen).await;
    assert_eq!(greeting(ssh).await.unwrap(), b"SSH-2.0-", "{}", gateway.log());
}

#[tokio::test]
async fn a_socket_that_the_configuration_does_not_name_is_an_error() {
    let sshd = Sshd::start().await;
    let (https, ssh, odd) = (free_port(), free_port(), free_port());
    let listen = [format!("127.0.0.1:{ssh}"), format!("127.0.0.1:{odd}")];
    let mut gateway = Activated::start(&sshd, https, ssh, "", &listen).await;
    assert!(greeting(ssh).await.is_err());
    let ended = eventually("it refuses to start", SOON, async || gateway.child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(1));
    let log = gateway.log();
    assert!(log.contains(&format!("passed a socket at 127.0.0.1:{odd}")), "{log}");
}

#[test]
fn the_example_units_are_what_systemd_understands() {
    let dir = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd");
    let units: Vec<PathBuf> = ["gatescribe.service", "gatescribe.socket"]
        .iter()
        .map(|name| {
            let text = std::fs::read_to_string(examples.join(name)).unwrap();
            let text = text.replace("/usr/local/bin/gatescribe", env!("CARGO_BIN_EXE_gatescribe"));
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    let told = Command::new("systemd-analyze").arg("verify").arg("--man=no").args(&units).output().unwrap();
    let words = String::from_utf8_lossy(&told.stderr);
    let about_us: Vec<_> = words.lines().filter(|line| line.contains("gatescribe")).collect();
    assert!(told.status.success() && about_us.is_empty(), "{words}");
    let told = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=25", "--no-pager"])
        .arg(&units[0])
        .output()
        .unwrap();
    let words = format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{words}");
}
