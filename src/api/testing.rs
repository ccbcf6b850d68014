//! The API over a real book, with stand-ins for what lies in the layers above: a killer and an exporter that do as told.
//!
//! Every answer that passes through here is checked for what all answers must have.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use super::health::Readiness;
use super::policy::{PolicyDesk, Written};
use super::watch::Watches;
use super::{ApiState, Format, Hears, KillError, Killer, Locker, Reachable, ReplayError, Replays, router};
use crate::config::{Config, policies_as_written};
use crate::geo::Geo;
use crate::identity::Identity;
use crate::identity::sign_ins::SignIns;
use crate::identity::sign_ins::testing::ISSUER;
use crate::identity::tokens::{RoleGroups, Scope, Tokens};
use crate::policy::{Lock, Policies};
use crate::record::keys::{Keys, RecordingKey};
use crate::record::{Durability, Recordings, Settings};
use crate::session::Rules;
use crate::socket::Socket;
use crate::store::testing::{Book, time};
use crate::store::{NewSession, Outcome, RecordingRow, RecordingState, Store, StoreError};
use crate::telemetry::{LogLevel, Metrics};

/// Always ready.
struct Ready;

impl Readiness for Ready {
    fn troubles(&self) -> BoxFuture<'static, Vec<&'static str>> {
        std::future::ready(Vec::new()).boxed()
    }
}

/// Where requests come from.
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40000);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) struct Api {
    pub(super) book: Book,
    pub(super) tokens: Tokens,
    /// A token of an administrator.
    pub(super) admin: String,
    pub(super) sign_ins: SignIns,
    pub(super) exporter: Arc<Exporter>,
    pub(super) state: ApiState,
    router: Router,
    stage: watch::Sender<u8>,
}

impl Api {
    pub(super) async fn new() -> Self {
        Self::with(Ends::Killed, Exports::Facts).await
    }

    pub(super) async fn with(ends: Ends, exports: Exports) -> Self {
        let book = Book::new();
        let roles =
            RoleGroups { admin: vec!["admin".into()], operator: vec!["oscar".into()], auditor: vec!["audrey".into()] };
        let tokens = Tokens::new(book.clone(), roles, ISSUER);
        let exporter = Arc::new(Exporter { exports, written: AtomicUsize::new(0) });
        let stage = watch::Sender::new(0);
        let kill = Arc::new(Ender { ends, store: book.clone(), stage: stage.clone() });
        let sign_ins = crate::identity::sign_ins::testing::sign_ins(book.dir(), &book, &tokens);
        let is_alice = |who: &Identity| who.nickname() == Some("alice") || who.email() == "alice@example.com";
        let reachable: Reachable =
            Arc::new(move |who, _| if is_alice(who) { vec![Arc::new(shell())] } else { Vec::new() });
        let state = ApiState {
            store: book.clone(),
            tokens: tokens.clone(),
            kill,
            changes: Arc::new(Deaf),
            lock: Arc::new(InBook(book.clone())),
            rules: Rules::new(Policies::default(), vec![Arc::new(shell())]),
            recordings: Arc::clone(&exporter) as _,
            sign_ins: sign_ins.clone(),
            reachable,
            policy: policy_desk(),
            watches: Watches::new(recordings(book.dir())),
            origin: "https://access.example.com:8443".into(),
            stop: CancellationToken::new(),
            readiness: Arc::new(Ready),
            metrics: Metrics::new(),
            log: LogLevel::none(),
        };
        let router = router(state.clone());
        let mut api = Self { book, tokens, admin: String::new(), sign_ins, exporter, state, router, stage };
        api.admin = api.person("admin").await;
        api
    }

    /// A token of this person, who is in the group of their own name.
    pub(super) async fn person(&self, name: &str) -> String {
        let issued = self.tokens.issue_in_browser(&person(name), HERE.ip(), "tests", HOUR).await.unwrap();
        issued.secret.expose_secret().to_owned()
    }

    /// A token that belongs to nobody.
    pub(super) async fn scoped(&self, scope: Scope) -> String {
        let issued = self.tokens.issue(vec![scope], Vec::new(), "scoped", HOUR, None).await.unwrap();
        issued.secret.expose_secret().to_owned()
    }

    /// A GET with this token.
    pub(super) async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, Some(token)).body(Body::empty()).unwrap()).await
    }

    /// The paths of all routes. axum tells them to debuggers only.
    pub(super) fn routes(&self) -> Vec<String> {
        let text = format!("{:?}", self.router);
        let paths = text.split("RouteId(").skip(1).filter_map(|rest| rest.split_once("): \"")?.1.split('"').next());
        let mut paths: Vec<_> = paths.filter(|path| path.starts_with('/')).map(str::to_owned).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// A GET by the administrator.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.get_as(&self.admin, path).await
    }

    /// A PUT by the administrator.
    pub(super) async fn put(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(self.request(Method::PUT, path, Some(&self.admin)).body(body.into()).unwrap()).await
    }

    /// Returns once the killer was called ([`Ends::KilledLater`]).
    pub(super) async fn killer_called(&self) {
        self.stage.subscribe().wait_for(|stage| *stage >= 1).await.unwrap();
    }

    pub(super) fn let_kill_go(&self) {
        self.stage.send_replace(2);
    }

    pub(super) fn request(&self, method: Method, path: &str, token: Option<&str>) -> axum::http::request::Builder {
        let client = ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 40000)));
        let request = Request::builder().method(method).uri(path).extension(client);
        match token {
            Some(token) => request.header("x-access-token", token),
            None => request,
        }
    }

    /// The answer before its body is read.
    pub(super) async fn begin(&self, mut request: Request<Body>) -> axum::response::Response {
        if request.extensions().get::<ConnectInfo<SocketAddr>>().is_none() {
            request.extensions_mut().insert(ConnectInfo(HERE));
        }
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let head = request.method() == Method::HEAD;
        let response = self.begin(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        let answer = Answer { status, headers, body: body.map(Vec::from).map_err(|error| error.to_string()) };
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        if !status.is_success() && !head {
            let words = answer.json()["error_message"].as_str().unwrap().to_owned();
            assert!(!words.is_empty());
            assert_eq!(answer.json(), json!({"error_message": words, "status_code": status.as_u16()}));
            assert_eq!(answer.header("content-type"), "application/json");
        }
        answer
    }
}

/// Recordings in the book's directory.
pub(super) fn recordings(dir: &Path) -> Recordings {
    let (key, _) = RecordingKey::load_or_create(&dir.join("recording.key")).unwrap();
    let settings = Settings {
        dir: dir.join("recordings"),
        spool: dir.join("spool"),
        durability: Durability::Process,
        keep_free: 0,
        flush_after: Duration::from_secs(5),
        gateway: Uuid::nil(),
        keys: Keys::new(key, Vec::new()),
    };
    Recordings::open(settings).unwrap()
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// An error when the connection was broken off.
    pub(super) body: Result<Vec<u8>, String>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(self.body.as_ref().unwrap()).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(super) fn refused(&self, status: u16, words: &str) {
        let message = self.json()["error_message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(self.status.as_u16(), status, "{message}");
        assert!(message.contains(words), "`{message}` does not say `{words}`");
    }
}

/// Somebody in the group of their own name. `alice` is the one of [`crate::store::testing`].
pub(super) fn person(name: &str) -> Identity {
    let full = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
    let subject = if name == "alice" { "u-1" } else { name };
    serde_json::from_value(json!({
        "issuer": "https://idp.example.com", "subject": subject, "email": format!("{name}@example.com"), "name": full,
        "picture": null, "nickname": name, "groups": [name],
        "signed_in": Timestamp::now(), "expires": Timestamp::now() + HOUR,
    }))
    .unwrap()
}

/// Alice may read files on the only socket, and run a few commands.
fn policy_desk() -> PolicyDesk {
    let text = r#"
[gateway]
domain = "access.example.com"
[oidc]
issuer = "https://idp.example.com"
client_id = "g"
client_secret = "env:SECRET"
[[policy]]
name = "reading"
effect = "allow"
sockets = { names = ["shell"] }
who = { groups = ["alice"] }
[policy.allow.ssh]
exec = ["uptime"]
[[policy]]
name = "no-audit"
effect = "deny"
who = { groups = ["audrey"] }
"#;
    let config = Config::parse_leniently(text, Path::new("test.toml")).unwrap();
    let written = Written::default();
    // The other stands in no file.
    written.replace(policies_as_written(text).into_iter().take(1).collect());
    let rules = Rules::new(config.policies, vec![Arc::new(shell())]);
    PolicyDesk { rules, geo: Geo::default(), session_lifetime: HOUR, written }
}

/// The only socket that there is; alice alone may reach it.
fn shell() -> Socket {
    Socket {
        tags: [("env".to_owned(), "demo".to_owned())].into(),
        notice: Some("This session is recorded.".into()),
        listen: Some("0.0.0.0:2022".parse().unwrap()),
        ..Socket::into_shell("shell", "me")
    }
}

/// `/api/v1/session/{socket_id}/{session_id}`.
pub(super) fn path(new: &NewSession) -> String {
    format!("/api/v1/session/{}/{}", crate::store::testing::socket_id(new), new.session_id)
}

/// What a session does when it is told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    Killed,
    /// The same, once [`Api::let_kill_go`] is called.
    KilledLater,
    /// It had just come to its own end.
    Alone,
    /// No session here.
    NotLive,
    TimedOut,
    /// Says that it is down, but its row is not closed.
    Lies,
    /// It is there, and its channels have gone.
    Alive,
}

struct Ender {
    ends: Ends,
    store: Store,
    /// 0: not called; 1: called; 2: may go on.
    stage: watch::Sender<u8>,
}

impl Killer for Ender {
    fn kill(&self, session: Uuid, by: &str, reason: &str) -> BoxFuture<'static, Result<(), KillError>> {
        let (store, ends, by, reason) = (self.store.clone(), self.ends, by.to_owned(), reason.to_owned());
        let stage = self.stage.clone();
        async move {
            if ends == Ends::KilledLater {
                stage.send_replace(1);
                stage.subscribe().wait_for(|stage| *stage == 2).await.unwrap();
            }
            let end = time("2026-03-01T11:00:00Z");
            match ends {
                Ends::Killed | Ends::KilledLater => {
                    let reason = format!("{reason} (by {by})");
                    store.close_session(session, end, Outcome::Killed, reason, Some("none".into())).await.unwrap();
                    Ok(())
                }
                Ends::Alone => {
                    store.close_session(session, end, Outcome::ClientGone, "gone".into(), None).await.unwrap();
                    Err(KillError::NotLive)
                }
                Ends::NotLive => Err(KillError::NotLive),
                Ends::TimedOut => Err(KillError::TimedOut),
                Ends::Lies | Ends::Alive => Ok(()),
            }
        }
        .boxed()
    }

    fn kill_channel(
        &self,
        _session: Uuid,
        recording: Uuid,
        _by: &str,
        _reason: &str,
    ) -> BoxFuture<'static, Result<(), KillError>> {
        let (store, ends, end) = (self.store.clone(), self.ends, time("2026-03-01T11:00:00Z"));
        async move {
            match ends {
                Ends::NotLive => Err(KillError::NotLive),
                Ends::TimedOut => Err(KillError::TimedOut),
                _ => {
                    store.finish_recording(recording, end, RecordingState::Complete, 1, None).await.unwrap();
                    Ok(())
                }
            }
        }
        .boxed()
    }

    fn is_open(&self, _session: Uuid, _recording: Uuid) -> Option<bool> {
        (self.ends == Ends::Alive).then_some(false)
    }
}

/// Locks in the book alone. Says that each ended one session.
struct InBook(Store);

/// Nothing lives that could hear.
struct Deaf;

impl Hears for Deaf {
    fn hear(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Locker for InBook {
    fn lock<'a>(&'a self, lock: Lock) -> BoxFuture<'a, Result<usize, StoreError>> {
        async { self.0.add_lock(lock).await.map(|()| 1) }.boxed()
    }

    fn unlock<'a>(&'a self, id: Uuid, by: &'a str) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        self.0.remove_lock(id, by, Timestamp::now()).boxed()
    }

    fn apply(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// What an export gives.
pub(super) enum Exports {
    /// What was asked for, in words.
    Facts,
    Nothing,
    Missing,
    /// This many bytes.
    Bytes(usize),
    /// A failure after this many bytes.
    FailsAfter(usize),
    PanicsAfter(usize),
}

pub(super) struct Exporter {
    exports: Exports,
    written: AtomicUsize,
}

impl Exporter {
    pub(super) fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }

    fn fill(&self, bytes: usize, out: &mut dyn io::Write) -> io::Result<()> {
        for _ in 0..bytes / 1024 {
            out.write_all(&[b'x'; 1024])?;
            self.written.fetch_add(1024, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Replays for Exporter {
    fn export(
        &self,
        session: Uuid,
        recording: &RecordingRow,
        format: Format,
        with_input: bool,
        out: &mut dyn io::Write,
    ) -> Result<(), ReplayError> {
        match self.exports {
            Exports::Facts => write!(out, "{session} {} {format:?} {with_input}", recording.recording_id)?,
            Exports::Nothing => {}
            Exports::Missing => return Err(ReplayError::Missing),
            Exports::Bytes(bytes) => self.fill(bytes, out)?,
            Exports::FailsAfter(bytes) => {
                self.fill(bytes, out)?;
                return Err(io::Error::other("the disk is gone").into());
            }
            Exports::PanicsAfter(bytes) => {
                self.fill(bytes, out)?;
                panic!("on purpose");
            }
        }
        Ok(())
    }
}
