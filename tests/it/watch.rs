//! Live watch: who joins sees the screen as it is and what comes, whoever stands still slows nobody, and nobody watches
//! who may not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use gatescribe::store::SessionRow;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderMap, StatusCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::{Api, Gateway, SOON, Setup, Ssh, Sshd, Terminal, eventually, gate, process, within};

const ASCIICAST: (&str, &str) = ("sec-websocket-protocol", "v3.asciicast");

/// A watcher that speaks asciicast v3.
struct Watcher {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    answer: HeaderMap,
    terminal: avt::Terminal,
    events: Vec<Value>,
    close: Option<(u16, String)>,
}

/// Why a watcher was not let in.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    words: String,
}

impl Watcher {
    /// Opens the newest live recording of a session.
    async fn open(gateway: &Gateway, row: &SessionRow, token: &str) -> Self {
        let opened = Self::try_open(gateway, &path(row), &[ASCIICAST, ("x-access-token", token)]).await;
        opened.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    async fn try_open(gateway: &Gateway, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, Refused> {
        let mut request = format!("wss://localhost:{}{path}", gateway.https).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match tokio_tungstenite::client_async(request, tls(gateway).await).await {
            Ok((socket, answer)) => {
                let terminal = avt::Terminal::new(80, 24).unwrap();
                Ok(Self { socket, answer: answer.headers().clone(), terminal, events: Vec::new(), close: None })
            }
            Err(Error::Http(answer)) => {
                let words = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
                Err(Refused { status: answer.status(), words })
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Takes the next message; false after the last one.
    async fn next(&mut self) -> bool {
        let message = match within(SOON, "something to watch", self.socket.next()).await {
            None | Some(Err(_)) => return false,
            Some(Ok(message)) => message,
        };
        match message {
            Message::Text(line) => self.take(serde_json::from_str(&line).unwrap()),
            Message::Close(frame) => self.close = frame.map(|frame| (frame.code.into(), frame.reason.to_string())),
            _ => {}
        }
        true
    }

    fn take(&mut self, value: Value) {
        if value.is_object() {
            assert_eq!(value["version"], 3);
            let side = |name: &str| value["term"][name].as_u64().unwrap() as usize;
            self.terminal = avt::Terminal::new(side("cols"), side("rows")).unwrap();
            return;
        }
        let data = value[2].as_str().unwrap();
        match value[1].as_str().unwrap() {
            "o" => self.terminal.feed(data),
            "r" => {
                let (cols, rows) = data.split_once('x').unwrap();
                self.terminal.resize(cols.parse().unwrap(), rows.parse().unwrap());
            }
            _ => {}
        }
        self.events.push(value);
    }

    fn screen(&self) -> Vec<String> {
        self.terminal.screen().text().iter().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Watches until the screen says this.
    async fn until(&mut self, words: &str) {
        self.until_line(words, |line| line.contains(words)).await;
    }

    /// Watches until the screen has such a line.
    async fn until_line(&mut self, words: &str, is_it: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + 3 * SOON;
        while !self.screen().iter().any(|line| is_it(line)) {
            assert!(Instant::now() < deadline, "no {words:?}, but {:?}", self.screen());
            assert!(self.next().await, "closed with {:?} before {words:?}; shown: {:?}", self.close, self.screen());
        }
    }

    /// Watches to the end, and gives the close code and its reason.
    async fn until_closed(&mut self) -> (u16, String) {
        while self.next().await {}
        self.close.clone().expect("closed in order")
    }

    fn kinds(&self) -> String {
        self.events.iter().map(|event| event[1].as_str().unwrap()).collect()
    }
}

async fn tls(gateway: &Gateway) -> TlsStream<TcpStream> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(gateway.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", gateway.https)).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

fn path(row: &SessionRow) -> String {
    format!("/api/v1/session/{}/{}/watch", row.socket_id, row.session_id)
}

/// What a terminal of the usual size shows after these bytes.
fn shown(terminal: &Terminal) -> Vec<String> {
    let mut emulator = avt::Terminal::new(80, 24).unwrap();
    emulator.feed(terminal.text().as_str());
    emulator.screen().text().iter().map(|line| line.trim_end().to_owned()).collect()
}

/// The live session, once its recording has begun.
async fn recorded(api: &Api, socket: &str) -> SessionRow {
    let row = api.live(socket).await;
    eventually("a recording", SOON, async || Some(api.details(&row).await).filter(|row| !row.recordings.is_empty()))
        .await
}

/// A terminal with a shell in it that is ready, and its session.
async fn shell(gateway: &Gateway, ssh: &Ssh) -> (Terminal, Api, String, SessionRow) {
    let mut terminal = ssh.terminal(&["-t", "web@gate", "sh"]);
    terminal.send("PS1='>'; echo rea''dy\n");
    terminal.expect("ready").await;
    let token = gateway.token_of("admin").await;
    let api = gateway.api(Some(token.clone()));
    let row = recorded(&api, "web").await;
    (terminal, api, token, row)
}

#[tokio::test]
async fn who_joins_late_sees_the_screen_as_it_is() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut terminal, _api, token, row) = shell(&gateway, &ssh).await;
    terminal.send("vim -u NONE -N\n");
    terminal.expect("VIM - Vi").await;
    terminal.send("ione\rtwo gr\u{fc}n\u{1b}");
    let vim = eventually("vim shows what was typed", SOON, async || {
        Some(shown(&terminal)).filter(|lines| lines.iter().any(|line| line == "two grün"))
    })
    .await;
    let mut watcher = Watcher::open(&gateway, &row, &token).await;
    watcher.until("two grün").await;
    assert_eq!(watcher.kinds(), "o", "one event paints the screen");
    let screen = watcher.screen();
    // The last line has vim's messages, which may come a moment later.
    assert_eq!(screen[..23], vim[..23]);
    assert!(!screen.iter().any(|line| line.contains("ready")), "{screen:?}");
    terminal.send("othree\u{1b}");
    watcher.until("three").await;
    terminal.resize(100, 30);
    terminal.send(":q!\r");
    // What is typed before vim has gone is vim's.
    watcher.until_line("the shell's prompt", |line| line == ">").await;
    terminal.send("echo la''st\n");
    watcher.until("last").await;
    assert!(watcher.screen().iter().any(|line| line.contains("ready")), "the shell's screen is back");
    assert!(watcher.events.iter().any(|event| event[1] == "r" && event[2] == "100x30"));
    terminal.send("exit 5\n");
    let (code, reason) = watcher.until_closed().await;
    assert_eq!((code, reason.is_empty()), (1000, false));
    assert!(watcher.events.iter().any(|event| event[1] == "x" && event[2] == "5"), "{:?}", watcher.events);
}

#[tokio::test]
async fn asciinemas_player_plays_it_live() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut terminal, _api, token, row) = shell(&gateway, &ssh).await;
    let player = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/player/watch.mjs");
    let mut node = Command::new("node")
        .args(["--no-warnings", "--experimental-websocket"])
        .arg(player)
        .arg(format!("wss://localhost:{}{}", gateway.https, path(&row)))
        .env("NODE_EXTRA_CA_CERTS", gateway.ca())
        .env("TOKEN", token)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let lines = lines(node.stdout.take().unwrap());
    let said = async |words: &str| {
        eventually(words, SOON, async || lines.borrow().iter().find(|line| line.contains(words)).cloned()).await
    };
    let reset = said("\"reset\"").await;
    let reset: Value = serde_json::from_str(&reset).unwrap();
    assert_eq!(reset["reset"]["size"], json!({"cols": 80, "rows": 24}));
    assert!(reset["reset"]["init"].as_str().unwrap().contains("ready"), "{reset}");
    terminal.send("printf 'gr\\303\\274n \\033[1mbo''ld\\033[0m\\n'\n");
    said("bold").await;
    terminal.send("exit\n");
    assert!(said("\"ended\"").await.contains("ended"));
    assert!(node.wait().unwrap().success());
}

/// Collects lines.
fn lines(pipe: impl std::io::Read + Send + 'static) -> tokio::sync::watch::Receiver<Vec<String>> {
    use std::io::BufRead as _;
    let (sender, receiver) = tokio::sync::watch::channel(Vec::new());
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(pipe).lines().map_while(Result::ok) {
            sender.send_modify(|all| all.push(line));
        }
    });
    receiver
}

#[tokio::test]
async fn a_watcher_who_stands_still_slows_nobody() {
    let (_sshd, gateway, ssh) = gate().await;
    let flood =
        ssh.start(&["web@gate", "yes 0123456789012345678901234567890123456789 | head -c 100000000; echo do''ne"]);
    let token = gateway.token_of("admin").await;
    let api = gateway.api(Some(token.clone()));
    let row = recorded(&api, "web").await;
    let stopped = Watcher::open(&gateway, &row, &token).await;
    let mut reading = Watcher::open(&gateway, &row, &token).await;
    let before = process::resident(gateway.pid());
    let (flooded, ()) = tokio::join!(flood.finish(Duration::from_secs(120)), reading.until("done"));
    assert!(flooded.stdout.ends_with(b"done\n"));
    assert_eq!(flooded.stdout.len(), 100_000_005);
    let more = process::resident(gateway.pid()).saturating_sub(before);
    assert!(more < 100 << 20, "{more} bytes more in memory");
    let told =
        reading.events.iter().filter(|event| event[1] == "m").any(|event| event[2].to_string().contains("too fast"));
    assert!(told, "what was left out is told");
    drop(stopped);
}

#[tokio::test]
async fn two_hundred_watchers_see_what_one_sees() {
    let sshd = Sshd::start().await;
    let more = "[limits]\nconnections_per_address = 1000\n";
    let gateway = Setup::new().ssh("web", &sshd).more(more).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let (mut terminal, api, token, row) = shell(&gateway, &ssh).await;
    let mut watchers = Vec::new();
    for _ in 0..200 {
        watchers.push(Watcher::open(&gateway, &row, &token).await);
    }
    let descriptors = process::descriptors(gateway.pid());
    terminal.send("echo mar''ker\n");
    for watcher in &mut watchers {
        watcher.until("marker").await;
    }
    drop(watchers);
    eventually("every watcher's end is in the session", SOON, async || {
        let row = api.details(&row).await;
        (row.events.iter().filter(|event| event.kind == "watch_end").count() == 200).then_some(())
    })
    .await;
    assert!(process::descriptors(gateway.pid()) <= descriptors - 200, "their connections are closed");
}

#[tokio::test]
async fn who_may_not_watch_is_refused() {
    let (_sshd, gateway, ssh) = gate().await;
    let (_terminal, api, token, row) = shell(&gateway, &ssh).await;
    let (own, other) = (gateway.url(""), "https://evil.example");
    let token = ("x-access-token", token.as_str());
    let table = [
        (vec![ASCIICAST], "", 401),
        (vec![ASCIICAST, ("x-access-token", "gsa_wrong")], "", 401),
        (vec![("sec-websocket-protocol", "v3.asciicast, gatescribe.token.gsa_wrong")], "", 401),
        (vec![ASCIICAST, token, ("origin", other)], "", 403),
        (vec![ASCIICAST, token, ("origin", "null")], "", 403),
        (vec![token], "", 400),
        (vec![("sec-websocket-protocol", "raw, v2.asciicast"), token], "", 400),
        (vec![ASCIICAST, token], "?recording_id=00000000-0000-0000-0000-000000000000", 404),
        (vec![ASCIICAST, token], "?follow=true", 400),
    ];
    for (headers, query, status) in table {
        let refused = Watcher::try_open(&gateway, &format!("{}{query}", path(&row)), &headers).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{headers:?} {query} was let in"));
        assert_eq!(refused.status.as_u16(), status, "{headers:?} {query}: {}", refused.words);
        let told: Value = serde_json::from_str(&refused.words).unwrap();
        assert_eq!(told["status_code"], status);
    }
    assert!(!api.details(&row).await.events.iter().any(|event| event.kind == "watch"));
    let from_here = [ASCIICAST, token, ("origin", own.trim_end_matches('/'))];
    assert!(Watcher::try_open(&gateway, &path(&row), &from_here).await.is_ok());
}

#[tokio::test]
async fn a_token_among_the_sub_protocols_counts_and_comes_back_nowhere() {
    let (_sshd, gateway, ssh) = gate().await;
    let (_terminal, _api, token, row) = shell(&gateway, &ssh).await;
    let offered = format!("gatescribe.token.{token}, v3.asciicast");
    let opened = Watcher::try_open(&gateway, &path(&row), &[("sec-websocket-protocol", &offered)]).await;
    let mut watcher = opened.unwrap_or_else(|refused| panic!("{refused:?}"));
    assert_eq!(watcher.answer["sec-websocket-protocol"], "v3.asciicast");
    assert!(!format!("{:?}", watcher.answer).contains(&token));
    watcher.until("ready").await;
    assert!(!gateway.log().contains(&token));
    // On a request that opens no WebSocket it is no token.
    let plain = reqwest::Client::builder();
    let pem = std::fs::read(gateway.ca()).unwrap();
    let plain = plain.tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]).no_proxy().build().unwrap();
    let answer =
        plain.get(gateway.url("/api/v1/whoami")).header("sec-websocket-protocol", &offered).send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn a_kill_ends_watching_with_its_reason() {
    let (_sshd, gateway, ssh) = gate().await;
    let (_terminal, api, token, row) = shell(&gateway, &ssh).await;
    let mut watcher = Watcher::open(&gateway, &row, &token).await;
    watcher.until("ready").await;
    api.kill(&row, "lunch is ready", SOON).await;
    let (code, reason) = watcher.until_closed().await;
    assert_eq!(code, 1000);
    assert!(reason.contains("lunch is ready"), "{reason}");
    assert!(
        watcher.screen().iter().any(|line| line.contains("lunch")),
        "the user's terminal was told: {:?}",
        watcher.screen()
    );
    let events = eventually("the watcher's end is in the session", SOON, async || {
        Some(api.details(&row).await.events).filter(|events| events.iter().any(|event| event.kind == "watch_end"))
    })
    .await;
    let about = |kind: &str| events.iter().find(|event| event.kind == kind).unwrap().metadata.clone();
    let id = api.details(&row).await.recordings[0].recording_id;
    let expected = json!({"by": "admin@example.com", "from": "127.0.0.1", "recording_id": id, "input": false});
    assert_eq!(about("watch"), expected);
    assert!(about("watch_end")["reason"].as_str().unwrap().contains("lunch is ready"));
    let refused = Watcher::try_open(&gateway, &path(&row), &[ASCIICAST, ("x-access-token", &token)]).await.err();
    assert_eq!(refused.unwrap().status.as_u16(), 409);
}

#[tokio::test]
async fn people_watch_as_their_role_says_and_for_as_long_as_their_token_counts() {
    let (_sshd, gateway, ssh) = gate().await;
    let (_terminal, api, _token, row) = shell(&gateway, &ssh).await;
    for (person, status) in [("bob", 404), ("alice", 101), ("audrey", 101)] {
        let token = gateway.token_of(person).await;
        let headers = [ASCIICAST, ("x-access-token", token.as_str())];
        let opened = Watcher::try_open(&gateway, &path(&row), &headers).await;
        assert_eq!(opened.as_ref().err().map_or(101, |refused| refused.status.as_u16()), status, "{person}");
        if let Ok(mut watcher) = opened {
            watcher.until("ready").await;
        }
        // Typed input is for administrators, also one's own.
        let with_input = Watcher::try_open(&gateway, &format!("{}?input=true", path(&row)), &headers).await;
        assert_eq!(with_input.err().unwrap().status.as_u16(), 403, "{person}");
    }
    let wanted = json!({"label": "watcher", "scopes": ["recordings:read"], "lifetime": "1h"});
    let made = api.call(reqwest::Method::POST, "/api/v1/tokens", Some(wanted)).await.ok_json();
    let mut watcher = Watcher::open(&gateway, &row, made["token"].as_str().unwrap()).await;
    watcher.until("ready").await;
    let id = made["token_id"].as_str().unwrap();
    api.call(reqwest::Method::DELETE, &format!("/api/v1/token/{id}"), None).await.ok();
    let (code, reason) = watcher.until_closed().await;
    assert_eq!(code, 4003);
    assert!(reason.contains("token"), "{reason}");
}

#[tokio::test]
async fn a_stop_of_the_gateway_ends_watching() {
    let (_sshd, mut gateway, ssh) = gate().await;
    let (mut terminal, _api, token, row) = shell(&gateway, &ssh).await;
    let mut watcher = Watcher::open(&gateway, &row, &token).await;
    watcher.until("ready").await;
    let watching = async {
        let (code, _) = watcher.until_closed().await;
        assert_eq!(code, 1001, "a player connects again, to the next process");
        terminal.send("exit\n");
    };
    let (stopped, ()) = tokio::join!(gateway.stop(), watching);
    assert!(stopped.success());
}

#[tokio::test]
async fn what_is_typed_is_shown_only_when_asked_for() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut terminal, api, token, row) = shell(&gateway, &ssh).await;
    let headers = [ASCIICAST, ("x-access-token", token.as_str())];
    let mut watcher = Watcher::open(&gateway, &row, &token).await;
    let with_input = Watcher::try_open(&gateway, &format!("{}?input=true", path(&row)), &headers).await;
    let mut with_input = with_input.unwrap_or_else(|refused| panic!("{refused:?}"));
    watcher.until("ready").await;
    with_input.until("ready").await;
    terminal.send("stty -echo; echo si''lent\n");
    terminal.expect("silent").await;
    terminal.send("S3cretTyped\n");
    terminal.send("echo af''ter\n");
    watcher.until("after").await;
    with_input.until("after").await;
    let typed = |watcher: &Watcher| {
        let typed = watcher.events.iter().filter(|event| event[1] == "i");
        typed.map(|event| event[2].as_str().unwrap()).collect::<String>()
    };
    assert!(typed(&with_input).contains("S3cretTyped"), "{:?}", with_input.events);
    assert_eq!(typed(&watcher), "");
    let about = |input: bool| json!(input);
    let events = api.details(&row).await.events;
    let watches: Vec<_> =
        events.iter().filter(|event| event.kind == "watch").map(|event| &event.metadata["input"]).collect();
    assert_eq!(watches, [&about(false), &about(true)]);
}

#[tokio::test]
async fn a_command_without_a_terminal_can_be_watched() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut running = ssh.start(&["web@gate", "echo one; echo two >&2; read word; echo got $word; exit 3"]);
    running.receive_line().await;
    let token = gateway.token_of("admin").await;
    let row = recorded(&gateway.api(Some(token.clone())), "web").await;
    let mut watcher = Watcher::open(&gateway, &row, &token).await;
    watcher.until("two").await;
    running.send(b"it\n").await;
    watcher.until("got it").await;
    assert!(watcher.screen().iter().any(|line| line == "one"), "no stairs: {:?}", watcher.screen());
    watcher.until_closed().await;
    assert!(watcher.events.iter().any(|event| event[1] == "x" && event[2] == "3"));
}
