//! Clients that are no good SSH clients: a deadline or a limit ends them, and nobody else notices.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, process, within};

async fn gate(more: &str) -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).more(more).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

/// Reads until the gateway closes.
async fn until_closed(stream: &mut TcpStream, limit: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, stream.read(&mut chunk)).await {
            Ok(Ok(length @ 1..)) => bytes.extend_from_slice(&chunk[..length]),
            Ok(_) => return bytes,
            Err(_) => panic!("still open after {limit:?}"),
        }
    }
}

#[tokio::test]
async fn garbage_instead_of_a_banner_is_hung_up_on() {
    let (_sshd, gateway, ssh) = gate("").await;
    let kinds: [Vec<u8>; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        crate::harness::noise(1, 100_000),
        [b"SSH-2.0-x\r\n".to_vec(), crate::harness::noise(2, 100_000)].concat(),
        [b"SSH-2.0-x\r\n".to_vec(), vec![0x7f, 0xff, 0xff, 0xff, 0, 20]].concat(),
    ];
    for garbage in kinds {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.ssh)).await.unwrap();
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        until_closed(&mut stream, SOON).await;
    }
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
    assert!(process::is_alive(gateway.pid()));
    // Nobody was known yet, so there is no row for it.
    assert_eq!(gateway.admin().await.rows("").await.len(), 2);
}

#[tokio::test]
async fn a_client_that_trickles_runs_into_the_deadline_of_the_handshake() {
    let (_sshd, gateway, ssh) = gate("[limits]\nhandshake = \"5s\"").await;
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.ssh)).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let begin = Instant::now();
    let trickle = async {
        for byte in b"SSH-2.0-slow-slow-slow-slow-slow-slow-slow-slow\r\n".iter().cycle() {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let closed = async {
        let mut sink = Vec::new();
        let _ = reader.read_to_end(&mut sink).await;
    };
    let both = async {
        tokio::select! { () = trickle => {}, () = closed => {} }
    };
    within(Duration::from_secs(25), "the trickling client is hung up on", both).await;
    assert!(begin.elapsed() > Duration::from_secs(3));
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
}

#[tokio::test]
async fn a_silent_client_runs_into_the_deadline_too() {
    let (_sshd, gateway, _ssh) = gate("[limits]\nhandshake = \"2s\"").await;
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.ssh)).await.unwrap();
    until_closed(&mut stream, SOON).await;
}

#[tokio::test]
async fn an_address_has_only_so_many_connections() {
    let (_sshd, gateway, ssh) = gate("[limits]\nconnections_per_address = 20").await;
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.ssh)).await.unwrap();
        let mut banner = [0; 4];
        match tokio::time::timeout(SOON, stream.read_exact(&mut banner)).await {
            Ok(Ok(_)) if banner == *b"SSH-" => held.push(stream),
            Ok(_) => refused += 1,
            Err(_) => panic!("neither a banner nor an end"),
        }
    }
    // The one that signed in may just be going away.
    assert!((19..=20).contains(&held.len()), "{} were let in, {refused} refused", held.len());
    drop(held);
    let again = async || (ssh.run("web", "true").await.status == Some(0)).then_some(());
    eventually("there is room again", SOON, again).await;
}

#[tokio::test]
async fn a_thousand_channels_are_limited_and_disturb_nobody() {
    let (_sshd, gateway, ssh) = gate("[limits]\nchannels_per_connection = 50").await;
    let mut other = ssh.start(&["web@gate", "cat"]);
    other.send(b"a").await;
    other.receive(1).await;
    let mut greedy = Greedy::connect(&ssh, gateway.ssh).await;
    let (opened, refused) = greedy.open(1000).await;
    assert_eq!(opened + refused, 1000);
    assert!(opened <= 50, "{opened} channels were opened");
    other.send(b"b").await;
    assert_eq!(other.receive(1).await, b"b");
    greedy.close().await;
    assert_eq!(ssh.run("web", "true").await.status, Some(0));
}

/// A client made of russh, because no stock client opens a thousand channels.
struct Greedy {
    handle: russh::client::Handle<Anybody>,
    channels: Vec<russh::Channel<russh::client::Msg>>,
}

struct Anybody;

impl russh::client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

impl Greedy {
    /// Signs in with the key that `ssh` has and the gateway remembers.
    async fn connect(ssh: &Ssh, port: u16) -> Self {
        let config = std::sync::Arc::new(russh::client::Config::default());
        let mut handle = russh::client::connect(config, ("127.0.0.1", port), Anybody).await.unwrap();
        let key = russh::keys::load_secret_key(ssh.path("id"), None).unwrap();
        let key = russh::keys::PrivateKeyWithHashAlg::new(std::sync::Arc::new(key), None);
        assert!(handle.authenticate_publickey("web", key).await.unwrap().success());
        Self { handle, channels: Vec::new() }
    }

    async fn open(&mut self, count: usize) -> (usize, usize) {
        let mut refused = 0;
        for _ in 0..count {
            match within(SOON, "an answer to a channel", self.handle.channel_open_session()).await {
                Ok(channel) => self.channels.push(channel),
                Err(_) => refused += 1,
            }
        }
        (self.channels.len(), refused)
    }

    async fn close(self) {
        let _ = self.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
    }
}
