//! A server behind the gateway that answers late, or opens what nobody asked it to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatescribe::store::{EventStatus, SessionRow};
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::harness::{Api, Gateway, SOON, Setup, Ssh, Sshd, eventually, fingerprint, free_port, make_key, within};
use crate::upstream_ssh::socket;

/// Far less than what an answer is waited for.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Channels that one connection may have.
const PLACES: usize = 6;

/// What happens at the server.
struct Seen {
    /// Answers go out from here on.
    answers: watch::Sender<bool>,
    asked: AtomicUsize,
    closed: AtomicUsize,
    cancelled: AtomicUsize,
    /// What came of the channels that it opened itself.
    opened: AtomicUsize,
    refused: AtomicUsize,
}

/// What it does with what it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// It answers once it is told to.
    Late,
    /// It answers at once, and opens as many channels at the client.
    Eager(usize),
}

#[derive(Clone)]
struct Odd {
    mood: Mood,
    seen: Arc<Seen>,
}

impl Odd {
    async fn answers(&self) {
        self.seen.asked.fetch_add(1, Ordering::SeqCst);
        if self.mood == Mood::Late {
            self.seen.answers.subscribe().wait_for(|go| *go).await.unwrap();
        }
    }

    /// Answers beside its own loop.
    fn accept(&self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let odd = self.clone();
        tokio::spawn(async move {
            odd.answers().await;
            reply.accept().await;
            drop(channel);
        });
    }

    /// Opens what it was not asked for, and what it was.
    fn open(&self, handle: &Handle, port: Option<u32>) {
        let Mood::Eager(channels) = self.mood else { return };
        for _ in 0..channels {
            let (seen, handle) = (self.seen.clone(), handle.clone());
            tokio::spawn(async move {
                let opened = match port {
                    Some(port) => handle.channel_open_forwarded_tcpip("127.0.0.1", port, "192.0.2.1", 1).await,
                    None => handle.channel_open_agent().await,
                };
                let count = if opened.is_ok() { &seen.opened } else { &seen.refused };
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
    }
}

impl Handler for Odd {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.accept(channel, reply);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.accept(channel, reply);
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.open(&session.handle(), None);
        session.channel_success(id)
    }

    async fn tcpip_forward(&mut self, _: &str, port: &mut u32, session: &mut Session) -> Result<bool, Self::Error> {
        self.answers().await;
        self.open(&session.handle(), Some(*port));
        Ok(true)
    }

    async fn cancel_tcpip_forward(&mut self, _: &str, _: u32, _: &mut Session) -> Result<bool, Self::Error> {
        self.seen.cancelled.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.seen.closed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct Scene {
    seen: Arc<Seen>,
    ssh: Ssh,
    api: Api,
    _gateway: Gateway,
    _plain: Sshd,
}

impl Scene {
    async fn new(mood: Mood) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = make_key(&dir.path().join("key"), "host");
        let config = Arc::new(russh::server::Config {
            keys: vec![russh::keys::load_secret_key(&key, None).unwrap()],
            methods: MethodSet::from(&[MethodKind::Password][..]),
            ..Default::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let count = AtomicUsize::default;
        let (answers, asked, closed, cancelled) = (watch::Sender::new(false), count(), count(), count());
        let seen = Arc::new(Seen { answers, asked, closed, cancelled, opened: count(), refused: count() });
        let odd = Odd { mood, seen: seen.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, odd) = (config.clone(), odd.clone());
                tokio::spawn(async move {
                    if let Ok(running) = russh::server::run_stream(config, stream, odd).await {
                        let _ = running.await;
                    }
                });
            }
        });
        let plain = Sshd::start().await;
        let print = fingerprint(&key.with_extension("pub"));
        let lines = format!("username = \"x\"\npassword = \"env:GOOD\"\nhost_key = {print:?}");
        let gateway = Setup::new()
            .environment("GOOD", "any")
            .ssh("plain", &plain)
            .socket(&socket("odd", &address.to_string(), &lines))
            .more(&format!("[limits]\nchannels_per_connection = {PLACES}\n"))
            .start()
            .await;
        let ssh = gateway.signed_in("alice", "plain").await;
        let api = gateway.admin().await;
        Self { seen, ssh, api, _gateway: gateway, _plain: plain }
    }

    /// Waits until the server was asked for something that it does not answer.
    async fn until_asked(&self) {
        let asked = async || (self.seen.asked.load(Ordering::SeqCst) > 0).then_some(());
        eventually("the server is asked", SOON, asked).await;
    }

    /// Ends the one channel that waits for the server.
    async fn kill_what_waits(&self) -> SessionRow {
        self.until_asked().await;
        let row = self.api.details(&self.api.live("odd").await).await;
        let [waiting] = row.recordings.as_slice() else { panic!("{row:#?}") };
        let killed = self.api.try_kill_channel(&row, waiting.recording_id, "too slow");
        tokio::time::timeout(AT_ONCE, killed).await.expect("the kill is answered at once").ok_json();
        row
    }

    async fn closes_what_it_opens_now(&self) {
        assert_eq!(self.seen.closed.load(Ordering::SeqCst), 0);
        self.seen.answers.send_replace(true);
        let closed = async || (self.seen.closed.load(Ordering::SeqCst) == 1).then_some(());
        eventually("what was opened late is closed", SOON, closed).await;
    }

    async fn all_answered(&self, channels: usize) -> (usize, usize) {
        let told = async || {
            let (opened, refused) = (&self.seen.opened, &self.seen.refused);
            let told = (opened.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
            (told.0 + told.1 == channels).then_some(told)
        };
        eventually("every channel is answered", SOON, told).await
    }
}

#[tokio::test]
async fn a_kill_does_not_wait_for_a_program_to_be_started_and_what_starts_late_is_closed() {
    let scene = Scene::new(Mood::Late).await;
    let control = scene.ssh.path("control").display().to_string();
    let _master = scene.ssh.start(&["-N", "-M", "-S", &control, "odd@gate"]);
    eventually("the connection is up", SOON, async || scene.ssh.path("control").exists().then_some(())).await;
    let program = scene.ssh.start(&["-S", &control, "odd@gate", "true"]);
    scene.kill_what_waits().await;
    let done = program.finish(SOON).await;
    assert!(done.stderr.contains("too slow (by admin@example.com)"), "{done:?}");
    scene.closes_what_it_opens_now().await;
}

#[tokio::test]
async fn nor_for_a_forward_to_be_opened() {
    let scene = Scene::new(Mood::Late).await;
    let local = free_port();
    let forwarding = scene.ssh.start(&["-N", "-L", &format!("127.0.0.1:{local}:example.com:80"), "odd@gate"]);
    let near = async || TcpStream::connect(("127.0.0.1", local)).await.ok();
    let mut near = eventually("it listens", SOON, near).await;
    let row = scene.kill_what_waits().await;
    let mut rest = Vec::new();
    let _reset_or_end = within(SOON, "the end of it", near.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{rest:?}");
    let failed = async || {
        let events = scene.api.details(&row).await.events;
        events.into_iter().find(|event| event.kind == "ssh_forward" && event.status == EventStatus::Error)
    };
    let failed = eventually("its event", SOON, failed).await;
    assert!(failed.metadata["reason"].as_str().unwrap().contains("too slow"), "{failed:?}");
    scene.closes_what_it_opens_now().await;
    drop(forwarding);
}

#[tokio::test]
async fn a_server_that_listens_too_late_listens_no_longer() {
    let scene = Scene::new(Mood::Late).await;
    let remote = format!("127.0.0.1:{}:127.0.0.1:1", free_port());
    let mut forwarding = scene.ssh.start(&["-N", "-o", "LogLevel=INFO", "-R", &remote, "odd@gate"]);
    scene.until_asked().await;
    forwarding.told("remote port forwarding failed").await;
    let row = scene.api.live("odd").await;
    scene.seen.answers.send_replace(true);
    let cancelled = async || (scene.seen.cancelled.load(Ordering::SeqCst) == 1).then_some(());
    eventually("it is told to stop", SOON, cancelled).await;
    let events = scene.api.details(&row).await.events;
    let denied = events.iter().find(|event| event.kind == "ssh_forward").unwrap();
    assert_eq!(
        (denied.status, &denied.metadata["reason"]),
        (EventStatus::Denied, &"the server does not answer".into())
    );
}

#[tokio::test]
async fn a_server_opens_no_more_than_there_is_room_for_and_each_is_answered() {
    const MANY: usize = 200;
    let scene = Scene::new(Mood::Eager(MANY)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    let remote = format!("127.0.0.1:{}:127.0.0.1:{to}", free_port());
    let mut forwarding = scene.ssh.start(&["-N", "-R", &remote, "odd@gate"]);
    assert_eq!(scene.all_answered(MANY).await, (PLACES, MANY - PLACES));
    let row = scene.api.live("odd").await;
    forwarding.child.kill().await.unwrap();
    let row = scene.api.end_of(&row).await;
    let row = scene.api.details(&row).await;
    let refused = row.events.iter().filter(|event| event.kind == "ssh_channel");
    let (refused, opened) = (refused.count(), row.recordings.len());
    assert!((1..=50).contains(&refused), "{refused}");
    assert_eq!(opened, PLACES);
}

#[tokio::test]
async fn what_nothing_was_lent_for_is_answered_too() {
    let scene = Scene::new(Mood::Eager(40)).await;
    let running = scene.ssh.start(&["odd@gate", "anything"]);
    assert_eq!(scene.all_answered(40).await, (0, 40));
    drop(running);
}
