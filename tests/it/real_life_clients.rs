//! Programs that speak SSH for people: Ansible, an editor's remote mode, and clients that are not OpenSSH's.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gatescribe::store::{Event, EventStatus, Outcome};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::harness::ssh::Running;
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, free_port, gate, noise, within};
use crate::real_life::{assert_complete, files, sha256};

/// For a client that takes its time to start, on a busy machine.
const LONG: Duration = Duration::from_secs(200);
/// Machines that Ansible looks after, each a socket of its own.
const NODES: usize = 10;
/// Connections that an editor opens at once, by TCP and by path.
const BY_TCP: u64 = 20;
const BY_PATH: u64 = 10;

#[tokio::test]
async fn ansible_pings_and_copies_with_ten_forks() {
    let sshd = Sshd::start().await;
    let names: Vec<_> = (0..NODES).map(|n| format!("node-{n}")).collect();
    let gateway = names.iter().fold(Setup::new(), |setup, name| setup.ssh(name, &sshd)).start().await;
    let ssh = Ssh::new(gateway.ssh);
    gateway.certify(&gateway.login("alice").await, &ssh).await;
    // Learns the gateway's key, so that ten do not write it down at once.
    assert_eq!(ssh.run("node-0", "true").await.status, Some(0));
    write_inventory(&ssh, &sshd, &names);
    let data = ssh.path("data");
    let sent = noise(1, 3 << 20);
    fs::write(&data, &sent).unwrap();

    let pinged = ansible(&ssh, "-m ping").await;
    assert_eq!(pinged.matches("| SUCCESS =>").count(), NODES, "{pinged}");
    assert_eq!(pinged.matches("\"pong\"").count(), NODES, "{pinged}");
    let to = sshd.path("copy-of-{{inventory_hostname}}");
    let copy = format!("-m copy -a 'src={} dest={}'", data.display(), to.display());
    let copied = ansible(&ssh, &copy).await;
    assert_eq!(copied.matches("| CHANGED =>").count(), NODES, "{copied}");
    for name in &names {
        assert!(fs::read(sshd.path(&format!("copy-of-{name}"))).unwrap() == sent, "{name}");
    }

    // Both runs went over one connection to each node, which stays for more.
    let api = gateway.admin().await;
    for master in fs::read_dir(ssh.path("masters")).unwrap().flatten() {
        let control = master.path().display().to_string();
        assert_eq!(ssh.start(&["-S", &control, "-O", "exit", "gate"]).finish(SOON).await.status, Some(0));
    }
    for name in &names {
        let row = api.ended(name).await;
        assert_complete(&row);
        assert_eq!(row.outcome, Some(Outcome::Closed), "{row:?}");
        let rows = api.rows(&format!("socket_name={name}")).await;
        assert_eq!(rows.len(), if name == "node-0" { 2 } else { 1 }, "{rows:?}");
        let sum = sha256(&sent);
        assert!(files(&row, "write").iter().any(|file| file.metadata["sha256"] == *sum), "{:#?}", row.events);
    }
}

fn write_inventory(ssh: &Ssh, sshd: &Sshd, names: &[String]) {
    let nodes: String = names.iter().map(|name| format!("{name} ansible_user={name}\n")).collect();
    let (config, remote) = (ssh.path("config"), sshd.path("ansible"));
    let inventory = format!(
        "[all]\n{nodes}[all:vars]\n\
         ansible_host=gate\n\
         ansible_ssh_common_args=-F {}\n\
         ansible_python_interpreter=/usr/bin/python3\n\
         ansible_remote_tmp={}\n",
        config.display(),
        remote.display()
    );
    fs::write(ssh.path("inventory"), inventory).unwrap();
    fs::write(ssh.path("ansible.cfg"), "").unwrap();
    fs::create_dir(ssh.path("masters")).unwrap();
}

/// Runs a module on all nodes at once; what it printed, a line for each.
async fn ansible(ssh: &Ssh, args: &str) -> String {
    let home = ssh.path("");
    let line = format!(
        "cd {home} && HOME={home} ANSIBLE_CONFIG={home}/ansible.cfg ANSIBLE_LOCAL_TEMP={home}/local ANSIBLE_NOCOLOR=1 \
         ANSIBLE_SSH_CONTROL_PATH_DIR={home}/masters ansible all -o -i inventory -f {NODES} {args} < /dev/null",
        home = home.display()
    );
    let done = ssh.bash(&line, LONG).await;
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status, Some(0), "{told}\n{}", done.stderr);
    told
}

#[tokio::test]
async fn an_editors_many_channels_share_one_connection() {
    let (sshd, gateway, ssh) = gate().await;
    let (echo, unix) = (echo_tcp().await, sshd.path("editor.sock"));
    echo_at(&unix);
    let (socks, local, control) = (free_port(), ssh.path("local.sock"), ssh.path("control"));
    let dynamic = format!("127.0.0.1:{socks}");
    let path = format!("{}:{}", local.display(), unix.display());
    let control_path = control.display().to_string();
    let args = ["-T", "-M", "-S", &control_path, "-D", &dynamic, "-L", &path, "web@gate", "sh"];
    let mut server = ssh.start(&args);
    // Its server is started by what is typed into a shell, and lives as long as that stays open.
    server.send(b"echo started\n").await;
    assert_eq!(server.receive_line().await, "started");
    eventually("both forwards listen", SOON, async || (control.exists() && local.exists()).then_some(())).await;

    let mut all = JoinSet::new();
    for n in 0..BY_TCP {
        all.spawn(async move {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, socks)).await.unwrap();
            socks_connect(&mut stream, echo).await;
            there_and_back(stream, n).await;
        });
    }
    for n in 0..BY_PATH {
        let local = local.clone();
        all.spawn(async move { there_and_back(UnixStream::connect(&local).await.unwrap(), BY_TCP + n).await });
    }
    // An extension is copied meanwhile.
    let (up, there) = (ssh.path("up"), sshd.path("there"));
    let sent = noise(99, 2 << 20);
    fs::write(&up, &sent).unwrap();
    let put = format!("echo put {} {}", up.display(), there.display());
    let sftp = format!("{put} | sftp -q -o ControlPath={} -b - web@gate", control.display());
    let copied = ssh.bash(&sftp, LONG).await;
    assert_eq!(copied.status, Some(0), "{copied:?}");
    assert!(fs::read(&there).unwrap() == sent);
    within(LONG, "every forwarded connection", all.join_all()).await;
    server.send(b"echo still here; exit 4\n").await;
    assert_eq!(server.receive_line().await, "still here");
    assert_eq!(server.finish(SOON).await.status, Some(4));

    let row = gateway.admin().await.ended("web").await;
    assert_complete(&row);
    assert_eq!(files(&row, "write").len(), 1, "{:#?}", row.events);
    let forwarded: Vec<_> = row.events.iter().filter(|event| event.kind == "ssh_forward").collect();
    assert_eq!(forwarded.len() as u64, BY_TCP + BY_PATH, "{forwarded:#?}");
    for event in forwarded {
        assert_eq!(event.status, EventStatus::Success, "{event:?}");
        let bytes = |name: &str| event.metadata[name].as_u64();
        assert_eq!((bytes("bytes_sent"), bytes("bytes_received")), (Some(LENGTH as u64), Some(LENGTH as u64)));
    }
}

/// How much goes over each forwarded connection, both ways.
const LENGTH: usize = 200_000;

/// Sends noise and reads it back.
async fn there_and_back(stream: impl AsyncRead + AsyncWrite, seed: u64) {
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = noise(seed, LENGTH);
    let mut back = Vec::new();
    let (wrote, got) = tokio::join!(
        async {
            write.write_all(&sent).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut back)
    );
    wrote.unwrap();
    got.unwrap();
    assert!(back == sent, "{seed}: {} bytes came back", back.len());
}

/// RFC 1928 without authentication, to this port of the other side's loopback.
async fn socks_connect(stream: &mut TcpStream, port: u16) {
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut method = [0; 2];
    stream.read_exact(&mut method).await.unwrap();
    assert_eq!(method, [5, 0]);
    let [high, low] = port.to_be_bytes();
    stream.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).await.unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[1], 0, "the proxy refused: {answer:?}");
}

/// A server that says what it is told, for as long as the test runs.
async fn echo_tcp() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    port
}

fn echo_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
}

async fn echo(stream: impl AsyncRead + AsyncWrite) {
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

#[tokio::test]
async fn paramiko_runs_copies_and_forwards_with_a_remembered_key() {
    let (sshd, gateway, ssh) = gate().await;
    client(&sshd, &gateway, &ssh, python("paramiko_client.py")).await;
}

#[tokio::test]
async fn asyncssh_runs_copies_and_forwards_with_a_certificate() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = Ssh::new(gateway.ssh);
    gateway.certify(&gateway.login("alice").await, &ssh).await;
    client(&sshd, &gateway, &ssh, python("asyncssh_client.py")).await;
}

#[tokio::test]
async fn ssh2_of_npm_runs_copies_and_forwards_with_a_remembered_key() {
    let (sshd, gateway, ssh) = gate().await;
    let dir = source("tests/it/ssh2");
    assert!(dir.join("node_modules").is_dir(), "tests/run installs the client (npm ci in {})", dir.display());
    let mut node = Command::new("node");
    node.arg(dir.join("client.mjs"));
    client(&sshd, &gateway, &ssh, node).await;
}

/// Has one of the clients do what all of them do, and compares what it says with what there is.
async fn client(sshd: &Sshd, gateway: &Gateway, ssh: &Ssh, mut command: Command) {
    let (local, there) = (ssh.path("local"), sshd.path("there"));
    let sent = noise(7, 10 << 20);
    fs::write(&local, &sent).unwrap();
    let echo = echo_tcp().await;
    command.arg(gateway.ssh.to_string()).arg("web").arg(ssh.path("id")).args([&local, &there]).arg(echo.to_string());
    let told = Running::start(command).finish(LONG).await.ok();
    let told: Map<String, Value> =
        told.lines().flat_map(|line| serde_json::from_str::<Map<_, _>>(line).unwrap()).collect();
    let expected = json!({
        "stdout": "by stdin", "stderr": "done", "status": 7, "size": sent.len(), "forward": "through the forward",
    });
    assert_eq!(Value::Object(told), expected);
    assert!(fs::read(&there).unwrap() == sent, "what was copied there is something else");
    assert!(fs::read(local.with_extension("back")).unwrap() == sent, "what came back is something else");

    let row = gateway.admin().await.ended("web").await;
    assert_complete(&row);
    for (operation, count) in [("write", "bytes_written"), ("read", "bytes_read")] {
        let told = files(&row, operation);
        let sum = sha256(&sent);
        assert!(told.iter().any(|file| file.metadata["sha256"] == *sum), "{:#?}", row.events);
        assert!(told.iter().all(|file| file.metadata[count] == sent.len()), "{:#?}", row.events);
    }
    let forwarded = |event: &&Event| event.kind == "ssh_forward" && event.status == EventStatus::Success;
    assert_eq!(row.events.iter().filter(forwarded).count(), 1, "{:#?}", row.events);
}

/// A script of tests/it/python, with the packages that it needs.
fn python(script: &str) -> Command {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let python = cache.join("gatescribe/python/bin/python");
    assert!(python.exists(), "tests/run installs what the Python clients need ({})", python.display());
    let mut command = Command::new(python);
    command.arg(source("tests/it/python").join(script));
    command
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
