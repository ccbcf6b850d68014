//! Many watchers of one session: whether it is slowed, and how far behind they are.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::{Setup, Sshd, process};
use crate::percentile;

/// How long each part runs.
const PART: Duration = Duration::from_secs(20);

/// A session that prints the time twenty times a second, alone and with everybody watching.
pub async fn watch(count: usize) {
    let sshd = Sshd::start().await;
    let gate = Setup::new().ssh("web", &sshd).more("[limits]\nconnections_per_address = 5000").start().await;
    let ssh = gate.signed_in("alice", "web").await;
    let token = gate.token_of("admin").await;
    let mut clock = ssh.start(&["web@gate", "while sleep 0.05; do date +%s%N; done"]);
    clock.receive_line().await;
    let row = gate.admin().await.live("web").await;
    println!("\n| {count} watchers of one session | lag p50 ms | lag p99 ms | gateway CPU % | MB |");
    println!("| --- | --- | --- | --- | --- |");
    let alone = follow(&mut clock, gate.pid()).await;
    println!("{}", alone.line("the terminal alone", process::resident(gate.pid())));
    let path = format!("/api/v1/session/{}/{}/watch", row.socket_id, row.session_id);
    let tls = connector(&gate.ca());
    let mut watching = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (tls, path, token, port) = (tls.clone(), path.clone(), token.clone(), gate.https);
        watching.spawn(async move { lags(tls, port, &path, &token).await });
    }
    let watched = follow(&mut clock, gate.pid()).await;
    println!("{}", watched.line("the terminal, watched", process::resident(gate.pid())));
    let mut all = Vec::new();
    while let Some(lags) = watching.join_next().await {
        let lags = lags.unwrap();
        assert!(lags.len() > 100, "a watcher saw {} lines only", lags.len());
        all.extend(lags);
    }
    println!("| the watchers | {:.2} | {:.2} | | |", percentile(&mut all, 0.5), percentile(&mut all, 0.99));
}

struct Followed {
    lags: Vec<f64>,
    cpu: f64,
}

impl Followed {
    fn line(mut self, name: &str, memory: u64) -> String {
        let (p50, p99) = (percentile(&mut self.lags, 0.5), percentile(&mut self.lags, 0.99));
        format!("| {name} | {p50:.2} | {p99:.2} | {:.1} | {} |", self.cpu, memory >> 20)
    }
}

/// Reads the clock's lines at its own terminal.
async fn follow(clock: &mut crate::harness::ssh::Running, pid: u32) -> Followed {
    let (begin, ticks) = (tokio::time::Instant::now(), process::cpu_ticks(pid));
    let mut lags = Vec::new();
    while begin.elapsed() < PART {
        let line = clock.receive_line().await;
        lags.extend(lag(&line));
    }
    Followed { lags, cpu: (process::cpu_ticks(pid) - ticks) as f64 / begin.elapsed().as_secs_f64() }
}

/// Watches for a while, and says how old each line was on arrival.
async fn lags(tls: TlsConnector, port: u16, path: &str, token: &str) -> Vec<f64> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let stream = tls.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let mut request = format!("wss://localhost:{port}{path}").into_client_request().unwrap();
    request.headers_mut().insert("x-access-token", token.parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", "v3.asciicast".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let begin = tokio::time::Instant::now();
    let (mut lags, mut shown, mut dump) = (Vec::new(), String::new(), true);
    while begin.elapsed() < PART / 2
        && let Some(Ok(message)) = socket.next().await
    {
        let Ok(text) = message.into_text() else { continue };
        let Ok(event) = serde_json::from_str::<(f64, String, String)>(&text) else { continue };
        if event.1 != "o" || std::mem::take(&mut dump) {
            continue;
        }
        shown.push_str(&event.2);
        while let Some(end) = shown.find('\n') {
            lags.extend(lag(shown[..end].trim()));
            shown.drain(..=end);
        }
    }
    lags
}

/// How long ago these nanoseconds were, in milliseconds.
fn lag(line: &str) -> Option<f64> {
    let then: u128 = line.trim().parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    Some(now.saturating_sub(then) as f64 / 1e6)
}

fn connector(ca: &Path) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&std::fs::read(ca).unwrap()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
