//! What the parts of one SSH connection share: who is at the other end, the session once there is one, the dial, the
//! channels.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use russh::ChannelId;
use russh::server::Handle;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::Front;
use super::lent::Lent;
use super::lobby::{self, Lobby};
use super::sign_in::Known;
use crate::policy::Grant;
use crate::session::{Flow, Held, KillLine, Leave, Session};
use crate::socket::{Protocol, Socket, UpstreamSpec};
use crate::store::{Event, EventStatus};
use crate::upstream::{self, OnBehalf, Upstream, UpstreamError};

/// Refusals of one connection that have an event each.
const REFUSALS_NOTED: usize = 50;

/// One dial, awaited by every channel.
type Dial = Shared<BoxFuture<'static, Result<Arc<Upstream>, UpstreamError>>>;

/// What a connection inside of another one has from it.
pub(super) struct Inner {
    /// The socket that it leads to.
    pub(super) socket: String,
    /// Where it leads on from: whose lobby that is.
    pub(super) lobby: Arc<Lobby>,
}

/// One client connection.
pub(super) struct Connection {
    pub(super) front: Arc<Front>,
    pub(super) client: SocketAddr,
    pub(super) reached: SocketAddr,
    pub(super) fixed: Option<Arc<Socket>>,
    pub(super) software: String,
    pub(super) line: KillLine,
    /// Set where it came through another one.
    pub(super) inner: Option<Inner>,
    /// The accept loop's span: russh runs its loop in a task of its own, outside of it.
    pub(super) span: tracing::Span,
    session: watch::Sender<Option<Arc<Session>>>,
    lobby: watch::Sender<Option<Arc<Lobby>>>,
    deadline: watch::Sender<Instant>,
    dial: OnceLock<Dial>,
    flows: Mutex<HashMap<ChannelId, Arc<Flow>>>,
    /// As many as channels may be open.
    places: Arc<Semaphore>,
    held: Arc<Held>,
    tasks: TaskTracker,
    refusals: AtomicUsize,
    had_channels: AtomicBool,
    may_remain: AtomicBool,
    terminals_forbidden: AtomicBool,
    /// What the client has lent to the upstream.
    pub(super) lent: Lent,
    handle: OnceLock<Handle>,
    /// The client's software, as it names itself.
    version: OnceLock<String>,
}

impl Connection {
    pub(super) fn new(
        front: Arc<Front>,
        client: SocketAddr,
        reached: SocketAddr,
        fixed: Option<Arc<Socket>>,
        software: String,
        line: KillLine,
    ) -> Self {
        let deadline = watch::Sender::new(Instant::now() + front.handshake);
        let places = Arc::new(Semaphore::new(front.channels));
        Self {
            front,
            client,
            reached,
            fixed,
            software,
            line,
            inner: None,
            span: tracing::Span::current(),
            session: watch::Sender::new(None),
            lobby: watch::Sender::new(None),
            deadline,
            dial: OnceLock::new(),
            flows: Mutex::default(),
            places,
            held: Arc::default(),
            tasks: TaskTracker::new(),
            refusals: AtomicUsize::new(0),
            had_channels: AtomicBool::new(false),
            may_remain: AtomicBool::new(false),
            terminals_forbidden: AtomicBool::new(false),
            lent: Lent::default(),
            handle: OnceLock::new(),
            version: OnceLock::new(),
        }
    }

    /// One inside of `outer`: cut with it, and as limited as it is.
    pub(super) fn inside(outer: &Self, inner: Inner) -> Self {
        let (front, software) = (outer.front.clone(), outer.software.clone());
        let new = Self::new(front, outer.client, outer.reached, None, software, outer.line.child());
        new.terminals_forbidden.store(!outer.permits_terminals(), Ordering::Release);
        Self { inner: Some(inner), ..new }
    }

    /// The SSH socket of this name that is in force.
    pub(super) fn socket(&self, name: &str) -> Option<Arc<Socket>> {
        let in_force = self.front.rules.now();
        in_force.sockets.get(name).filter(|socket| socket.protocol == Protocol::Ssh).cloned()
    }

    /// Somebody has signed in who asked for `name`, which is no socket. `None` if the sign-in was revoked meanwhile.
    pub(super) fn enter_lobby(&self, known: Known, name: String) -> Option<()> {
        let guest = self.front.sessions.welcome(&known.identity, known.sign_in, known.since)?;
        tracing::info!(parent: &self.span, who = known.identity.email(), "signed in without a socket");
        self.lobby.send_replace(Some(Arc::new(Lobby::new(known, name, guest))));
        self.allow(lobby::IDLE);
        Some(())
    }

    /// Where somebody is who has signed in and has no session yet.
    pub(super) fn lobby(&self) -> Option<Arc<Lobby>> {
        let lobby = self.lobby.borrow().clone();
        lobby.filter(|_| self.session.borrow().is_none())
    }

    /// Waits for as long as a channel of a lobby may prepare something. Never returns where there is a session, or comes
    /// one meanwhile. Cancel safe.
    pub(super) async fn until_lobby_closes(&self) {
        if let Some(lobby) = self.lobby() {
            tokio::select! {
                () = tokio::time::sleep(lobby::IDLE) => {}
                // Who is on the way as the process retires may come in, and be told.
                _ = lobby.until_graver(Leave::Upgraded) => {}
            }
        }
        if self.lobby().is_none() {
            std::future::pending().await
        }
    }

    /// Waits until there is a session. Cancel safe.
    pub(super) async fn until_session(&self) -> Arc<Session> {
        match until_some(&mut self.session.subscribe()).await {
            Some(session) => session,
            None => std::future::pending().await,
        }
    }

    /// Whether anybody has signed in.
    pub(super) fn is_somebodys(&self) -> bool {
        self.session.borrow().is_some() || self.lobby.borrow().is_some()
    }

    /// Waits until whoever is in the lobby is to be shown out: at once where their sign-in is revoked, else when nothing of
    /// theirs is open. Never returns once there is a session, which has an end of its own. Cancel safe.
    pub(super) async fn until_sent_away(&self) -> Leave {
        // What ends in a lobby moves the deadline.
        let mut moved = self.deadline.subscribe();
        let Some(lobby) = until_some(&mut self.lobby.subscribe()).await else { return std::future::pending().await };
        let mut leave = lobby.until_asked().await;
        loop {
            // Who came as the process retired is on the way to a socket: an upgrade drops nothing.
            let comes = leave == Leave::Upgraded && !self.had_channels();
            if leave == Leave::Revoked || (self.flows().is_empty() && !comes) {
                break;
            }
            tokio::select! {
                graver = lobby.until_graver(leave) => leave = graver,
                _ = moved.changed() => {}
            }
        }
        match self.session() {
            None => leave,
            Some(_) => std::future::pending().await,
        }
    }

    /// The session, once somebody has signed in.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.borrow().clone()
    }

    /// Somebody has signed in: dials at once, so that the upstream is reached while the client opens its channel.
    pub(super) fn opened(&self, session: Session, grant: Grant) {
        let session = Arc::new(session);
        self.session.send_replace(Some(session.clone()));
        let line = self.line.clone();
        let span =
            tracing::info_span!(parent: &self.span, "dial", socket = session.socket().name, session = %session.id());
        let on_behalf = OnBehalf { email: session.identity().email().to_owned(), session: session.id() };
        let ca = self.front.upstream_ca.clone();
        let helper = self.front.helper.clone();
        let dial = async move {
            let dialled = upstream::dial(grant, session.socket(), &on_behalf, &ca, helper.as_ref(), &line).await;
            dialled.map(Arc::new)
        };
        let dial = tokio::spawn(dial.instrument(span));
        let dial = async move { dial.await.unwrap_or_else(|_| Err(UpstreamError::new("the dial was given up"))) };
        let _ = self.dial.set(dial.boxed().shared());
    }

    /// The upstream, once it is reached.
    pub(super) async fn upstream(&self) -> Result<Arc<Upstream>, UpstreamError> {
        match self.dial.get() {
            Some(dial) => dial.clone().await,
            None => Err(UpstreamError::new("nobody has signed in")),
        }
    }

    /// The upstream, if it is reached already.
    pub(super) fn upstream_now(&self) -> Option<Arc<Upstream>> {
        self.dial.get()?.peek()?.clone().ok()
    }

    /// Gives the client longer to sign in, because it waits for a person.
    pub(super) fn allow(&self, longer: Duration) {
        self.deadline.send_replace(Instant::now() + longer);
    }

    /// Waits until the client has not signed in in time. Never returns once it has. Cancel safe.
    pub(super) async fn until_overdue(&self) {
        let mut deadline = self.deadline.subscribe();
        let mut session = self.session.subscribe();
        loop {
            let until = *deadline.borrow_and_update();
            tokio::select! {
                opened = until_some(&mut session) => match opened {
                    Some(_) => std::future::pending().await,
                    None => return,
                },
                _ = deadline.changed() => {}
                () = tokio::time::sleep_until(until) => {
                    if self.lobby().is_none() || self.flows().is_empty() {
                        return;
                    }
                    // What is open in a lobby has a deadline of its own, and moves this one when it ends.
                    let _ = deadline.changed().await;
                }
            }
        }
    }

    /// Waits until the session is ordered to end. Cancel safe.
    pub(super) async fn until_ending(&self) {
        match until_some(&mut self.session.subscribe()).await {
            Some(session) => session.until_ending().await,
            None => std::future::pending().await,
        }
    }

    /// Whether one more channel may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// A place for one channel, for as long as it is kept. `None`: too many channels.
    pub(super) fn place(&self) -> Option<Place> {
        self.places.clone().try_acquire_owned().ok().map(Place)
    }

    /// Runs a channel's task and registers what it holds until the task ends. `None`: too many channels.
    pub(super) fn spawn_channel<F>(self: &Arc<Self>, id: ChannelId, run: impl FnOnce(Arc<Flow>) -> F) -> Option<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.place().map(|place| self.spawn_in(place, id, run))
    }

    /// The same in a place that was taken before.
    pub(super) fn spawn_in<F>(self: &Arc<Self>, place: Place, id: ChannelId, run: impl FnOnce(Arc<Flow>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let flow = Arc::new(Flow::new(&self.held));
        self.flows().insert(id, flow.clone());
        self.had_channels.store(true, Ordering::Release);
        let registered = Registered { connection: self.clone(), id, _place: place };
        let task = run(flow);
        let task = async move {
            let _registered = registered;
            task.await;
        };
        let span = tracing::info_span!(parent: &self.span, "channel", id = %id);
        self.tasks.spawn(task.instrument(span));
    }

    /// Runs something of this connection that is no channel; awaited with the channels at the end.
    pub(super) fn spawn_beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task.instrument(self.span.clone()));
    }

    /// Keeps the way to open channels to the client, and what the client calls itself.
    pub(super) fn keep_client(&self, handle: Handle, version: String) {
        let _ = self.handle.set(handle);
        let _ = self.version.set(version);
    }

    /// Writes into the session which client it is of.
    pub(super) fn tell_version(&self, session: Arc<Session>) {
        let event = Event::now("client", EventStatus::Success, json!({ "version": self.version.get() }));
        tokio::spawn(async move { session.note(event).await });
    }

    /// The way to open channels to the client, once somebody has signed in.
    pub(super) fn handle(&self) -> Option<Handle> {
        self.handle.get().cloned()
    }

    /// Whether anything can be lent to where the socket leads.
    pub(super) fn can_lend(&self) -> bool {
        self.session().is_some_and(|session| matches!(session.socket().upstream, UpstreamSpec::Ssh(_)))
    }

    /// Whether there was a channel, so that something may just have been told on it.
    pub(super) fn had_channels(&self) -> bool {
        self.had_channels.load(Ordering::Acquire)
    }

    /// Whether it is one inside of another, with channels that have all ended. `ssh -J` ends what carries its goodbye as
    /// soon as that is written, so it may never come: then the end of the stream stands for it.
    pub(super) fn is_done_inside(&self) -> bool {
        self.inner.is_some() && self.had_channels() && self.flows().is_empty()
    }

    /// What a channel holds, while its task runs.
    pub(super) fn flow(&self, id: ChannelId) -> Option<Arc<Flow>> {
        self.flows().get(&id).cloned()
    }

    /// Notes something that was refused. Only the first ones have an event of their own: a client may ask without end.
    pub(super) fn refused(&self, kind: &'static str, about: serde_json::Value) {
        let Some(session) = self.session() else { return };
        if self.refusals.fetch_add(1, Ordering::AcqRel) < REFUSALS_NOTED {
            let note = async move { session.note(Event::now(kind, EventStatus::Denied, about)).await };
            self.tasks.spawn(note);
        }
    }

    /// Notes how many more were refused.
    pub(super) async fn tell_refusals(&self, session: &Session) {
        let more = self.refusals.load(Ordering::Acquire).saturating_sub(REFUSALS_NOTED);
        if more > 0 {
            session.note(Event::now("ssh_refused", EventStatus::Denied, json!({ "more": more }))).await;
        }
    }

    /// Waits until every channel's task has ended. Cancel safe.
    pub(super) async fn until_channels_gone(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Something was ended from outside that may still run upstream.
    pub(super) fn leaves_something(&self) {
        self.may_remain.store(true, Ordering::Release);
    }

    /// The certificate that was shown does not permit a terminal.
    pub(super) fn forbid_terminals(&self) {
        self.terminals_forbidden.store(true, Ordering::Release);
    }

    /// Whether a channel may have a terminal.
    pub(super) fn permits_terminals(&self) -> bool {
        !self.terminals_forbidden.load(Ordering::Acquire)
    }

    /// What remains upstream after a kill.
    pub(super) fn remaining(&self, settled: bool) -> String {
        match settled && !self.may_remain.load(Ordering::Acquire) {
            true => "none".into(),
            false => "unknown".into(),
        }
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<Flow>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until it is there. Cancel safe. The guard that `wait_for` gives must not live across an await.
async fn until_some<T>(there: &mut watch::Receiver<Option<Arc<T>>>) -> Option<Arc<T>> {
    there.wait_for(Option::is_some).await.ok()?.clone()
}

/// Takes a channel off again, or the connection's loop would wait for a task that has gone.
struct Registered {
    connection: Arc<Connection>,
    id: ChannelId,
    _place: Place,
}

/// One of the channels that a connection may have open.
pub(super) struct Place(#[expect(dead_code, reason = "given back by dropping it")] OwnedSemaphorePermit);

impl Drop for Registered {
    fn drop(&mut self) {
        self.connection.flows().remove(&self.id);
        if self.connection.lobby().is_some() {
            self.connection.allow(lobby::IDLE);
        }
    }
}
