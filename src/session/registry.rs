//! The registry of live sessions: opens them, finds them, ends them, closes their rows.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::guests::{Guests, Leave};
use super::live::{Live, Person};
use super::minder::mind;
use super::revocations::{REVOKED, Revocations};
use super::{End, Kill, Rules, Session, Stranger, Visit, lock};
use crate::geo::{Geo, PRIVATE_NETWORK, Place};
use crate::identity::Identity;
use crate::identity::people::People;
use crate::pace::Pace;
use crate::policy::{self, Context, Country, Denied, Grant};
use crate::record::{Budget, Recordings};
use crate::socket::{Socket, UpstreamSpec};
use crate::store::{AuthResult, Event, EventStatus, KillOrder, NewSession, Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::DenialClass;

/// How often `last_seen` of live sessions moves.
const TOUCH_EVERY: Duration = Duration::from_secs(10);

/// How often the book is looked into for orders that another process wrote.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a kill's caller waits for the connection to be down. More than all that a stalled connection may take in its
/// front: half a second for the goodbye, then its deadlines after the cut.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a row's end waits for its recordings to be sealed.
const SEALING: Duration = Duration::from_secs(1);

/// Pauses between attempts to close a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What sessions need to know of the configuration.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The gateway's domain: `server_name` is `<socket>.<domain>`.
    pub domain: String,
    /// When something counts as written, for the row: `process` or `disk`.
    pub durability: &'static str,
    /// Most bytes that one session's recordings may take.
    pub max_recording: u64,
    /// What is in force.
    pub rules: Rules,
    /// What is known of people since their last sign-in.
    pub people: People,
    /// Sessions that one person may have at a time.
    pub sessions_per_user: u32,
    /// Sessions that one person may open in a minute.
    pub sessions_per_minute: u32,
    /// The gateway's own origin, without a slash at its end.
    pub public_url: String,
    /// Where addresses are.
    pub geo: Geo,
    /// What is counted.
    pub metrics: Metrics,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Shared>);

pub(super) struct Shared {
    settings: SessionSettings,
    store: Store,
    recordings: Recordings,
    pub(super) live: Mutex<HashMap<Uuid, Arc<Live>>>,
    /// What was revoked lately.
    pub(super) revocations: Revocations,
    /// Who is inside without a session.
    pub(super) guests: Guests,
    pace: Pace<Person>,
    /// Set under the lock of `live`: from then on nobody is enrolled.
    stopping: AtomicBool,
    closing: TaskTracker,
}

/// Why a session did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Policy refused it; the row is written.
    #[error("{denied}")]
    Denied {
        /// Why.
        denied: Denied,
        /// The row's id.
        id: Uuid,
    },
    /// A rule would let them in with a better sign-in. No row is written yet: ask for one, then open again.
    #[error("{denied}")]
    StepUp {
        /// What is missing; its [`Denied::step_up`] says how the provider is to be asked.
        denied: Denied,
        /// Who would be let in: the better sign-in must be this person's.
        identity: Box<Identity>,
    },
    /// The gateway is being stopped.
    #[error("the gateway is being stopped; connect again in a moment")]
    Stopping,
    /// The book cannot be written, so nobody gets in.
    #[error("the session log cannot be written; try again later")]
    Store(#[from] StoreError),
}

/// Why a kill did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KillError {
    /// It is not live here, or no longer.
    #[error("this gateway does not hold it")]
    NotLive,
    /// It was not down in time.
    #[error("it did not come down in time")]
    TimedOut,
}

impl Sessions {
    /// An empty registry over an open book.
    pub fn new(settings: SessionSettings, store: Store, recordings: Recordings) -> Self {
        let shared = Shared {
            pace: Pace::new(settings.sessions_per_minute),
            revocations: Revocations::default(),
            guests: Guests::default(),
            settings,
            store,
            recordings,
            live: Mutex::default(),
            stopping: AtomicBool::new(false),
            closing: TaskTracker::new(),
        };
        Self(Arc::new(shared))
    }

    /// Lets a visitor in, with the grant to reach the upstream; or writes the denial into the book.
    pub async fn open(&self, mut visit: Visit) -> Result<(Session, Grant), OpenError> {
        let place = self.0.settings.geo.locate(visit.client.ip());
        let live = Arc::new(Live::new(Uuid::now_v7(), &visit, country(&place)));
        // Enrolled before the decision: whoever takes a right away from now on finds this session.
        let enrolled = self.enrol(&live)?;
        // A key or certificate of an older sign-in says which groups they were in then. Looked at once it is enrolled: a
        // sign-in of this moment is found there, or finds the session.
        visit.identity = live.meet(&self.0.settings.people);
        let decision = tracing::info_span!("decision", socket = visit.socket.name).entered();
        let decided = self.check_room(&live, visit.since).and_then(|()| live.let_in(&self.0.settings.rules.now()));
        drop(decision);
        let grant = match decided {
            Ok(grant) => grant,
            Err(denied) if visit.may_step_up && denied.step_up().is_some() => {
                return Err(OpenError::StepUp { denied, identity: Box::new(visit.identity) });
            }
            Err(denied) => {
                self.write_denied(live.id, visit, &denied).await?;
                return Err(OpenError::Denied { denied, id: live.id });
            }
        };
        let about = json!({ "rule": grant.rule(), "login": visit.login });
        visit.events.push(Event::now("decision", EventStatus::Success, about));
        let started = Timestamp::now();
        self.0.settings.metrics.session_opened(live.session_type);
        let row = self.row(live.id, started, &visit, AuthResult::Success, Some(grant.rule().to_owned()), None);
        if let Err(error) = self.0.store.open_session(row).await {
            // The row may have been written all the same, if only the answer was late.
            live.end(End::RecordingLost("the session log could not be written in time".into()));
            enrolled.keep();
            self.close(live, None);
            return Err(error.into());
        }
        enrolled.keep();
        tracing::info!(
            session = %live.id,
            who = visit.identity.email(),
            socket = visit.socket.name,
            "session opened"
        );
        Ok((self.session(live, visit), grant))
    }

    /// Writes a row for a known person who asked for a socket that does not exist. Returns the row's id.
    pub async fn deny_unknown(&self, stranger: Stranger) -> Result<Uuid, StoreError> {
        let (id, session_type) = (Uuid::now_v7(), stranger.protocol.session_type());
        let row = NewSession {
            session_id: id,
            server_name: format!("{}.{}", stranger.socket_name, self.0.settings.domain),
            socket_name: stranger.socket_name,
            session_type,
            start_time: Timestamp::now(),
            identity: stranger.identity,
            sign_in_id: None,
            client_ip: stranger.client.ip(),
            client_port: stranger.client.port(),
            place: self.0.settings.geo.locate(stranger.client.ip()),
            server_port: stranger.reached.port(),
            upstream: String::new(),
            ssh_user: stranger.login,
            result: AuthResult::Denied,
            rule: None,
            end_reason: Some("there is no such socket".into()),
            durability: self.0.settings.durability,
            audit_log: false,
            events: stranger.events,
        };
        self.0.settings.metrics.denied(session_type, DenialClass::UnknownSocket);
        self.0.store.open_session(row).await?;
        Ok(id)
    }

    /// Ends a session that the book already says is killed: the order is a row first and a signal second, so that a
    /// crash in between forgets nothing. Returns once the connection is down and the row is closed.
    pub async fn kill(&self, id: Uuid, kill: Kill) -> Result<(), KillError> {
        let live = lock(&self.0.live).get(&id).cloned().ok_or(KillError::NotLive)?;
        live.end(End::Killed(kill));
        tokio::time::timeout(KILL_DEADLINE, live.closed.cancelled()).await.map_err(|_| KillError::TimedOut)
    }

    /// Ends one channel of a session, where the book already has the order, and nothing else of it. Returns once it is
    /// down, and its row closed unless the disk is slow.
    pub async fn kill_channel(&self, id: Uuid, recording: Uuid, kill: Kill) -> Result<(), KillError> {
        let gone = lock(&self.0.live).get(&id).and_then(|live| live.channels.kill(recording, kill));
        let gone = gone.ok_or(KillError::NotLive)?;
        tokio::time::timeout(KILL_DEADLINE, gone).await.map_err(|_| KillError::TimedOut)
    }

    /// Whether a channel of a session is open; `None`: the session is not held here.
    pub fn is_open(&self, id: Uuid, recording: Uuid) -> Option<bool> {
        lock(&self.0.live).get(&id).map(|live| live.channels.is_open(recording))
    }

    /// The sockets on which this person may be now, from that address.
    pub fn reachable(&self, who: &Identity, client_ip: IpAddr) -> Vec<Arc<Socket>> {
        let in_force = self.0.settings.rules.now();
        let country = country(&self.0.settings.geo.locate(client_ip));
        let context = Context::at_door(client_ip, country, Timestamp::now());
        let may =
            |socket: &&Arc<Socket>| policy::decide(&in_force.policies, &in_force.locks, who, socket, &context).is_ok();
        in_force.sockets.all().iter().filter(may).cloned().collect()
    }

    /// How many sessions are live.
    pub fn count(&self) -> usize {
        lock(&self.0.live).len()
    }

    /// Moves `last_seen` of all live sessions, for as long as the gateway runs.
    pub async fn keep_touched(&self) {
        let mut tick = tokio::time::interval(TOUCH_EVERY);
        loop {
            tick.tick().await;
            let ids: Vec<Uuid> = lock(&self.0.live).keys().copied().collect();
            if !ids.is_empty()
                && let Err(error) = self.0.store.touch(ids, Timestamp::now()).await
            {
                tracing::error!(%error, "last_seen could not be written");
            }
        }
    }

    /// Carries out the orders that stand in the book, for as long as the gateway runs: whoever wrote one may have died
    /// before it was told here. Orders are levels, so one that is being carried out already is nothing new.
    pub async fn keep_obeying(&self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            if self.count() == 0 {
                continue;
            }
            match self.0.store.kill_orders().await {
                Ok(orders) => orders.into_iter().for_each(|order| self.obey(order)),
                Err(error) => tracing::error!(%error, "orders to end sessions could not be read"),
            }
        }
    }

    fn obey(&self, order: KillOrder) {
        let live = lock(&self.0.live).get(&order.session).cloned();
        let Some(live) = live.filter(|live| live.reason().is_none()) else { return };
        let kill = Kill { by: order.by, reason: order.reason };
        match order.recording {
            // Nobody waits for it here.
            Some(recording) => drop(live.channels.kill(recording, kill)),
            None => live.end(End::Killed(kill)),
        }
    }

    /// Lets nobody in any more and asks guests to leave, waits up to `patience` for live sessions to end by themselves, then
    /// ends the rest and waits for their rows.
    pub async fn drain(&self, patience: Duration) {
        {
            let _enrolling = lock(&self.0.live);
            self.0.stopping.store(true, Ordering::Release);
        }
        self.0.guests.ask_all(Leave::Stopping);
        let _ = tokio::time::timeout(patience, self.until_empty()).await;
        for live in lock(&self.0.live).values() {
            live.end(End::Shutdown);
        }
        let _ = tokio::time::timeout(KILL_DEADLINE, async {
            self.until_empty().await;
            self.0.closing.close();
            self.0.closing.wait().await;
        })
        .await;
        self.0.guests.until_gone().await;
    }

    async fn until_empty(&self) {
        loop {
            let next = lock(&self.0.live).values().next().cloned();
            match next {
                Some(live) => live.closed.cancelled().await,
                None => return,
            }
        }
    }

    fn enrol<'a>(&'a self, live: &Arc<Live>) -> Result<Enrolled<'a>, OpenError> {
        let mut all = lock(&self.0.live);
        if self.0.stopping.load(Ordering::Acquire) {
            return Err(OpenError::Stopping);
        }
        all.insert(live.id, live.clone());
        Ok(Enrolled { sessions: self, live: Some(live.clone()) })
    }

    /// Looked at after it is enrolled, so that two at once do not both find the last place, and what is revoked meanwhile
    /// finds it here or there.
    fn check_room(&self, live: &Live, since: Instant) -> Result<(), Denied> {
        if self.0.revocations.hit(live.sign_in, live.identity().email(), since) {
            return Err(Denied::too_many(live.socket(), REVOKED.into()));
        }
        let most = self.0.settings.sessions_per_user as usize;
        if lock(&self.0.live).values().filter(|other| other.person == live.person).count() > most {
            return Err(Denied::too_many(live.socket(), format!("you have {most} sessions open; close one")));
        }
        self.0.pace.once(live.person.clone()).map_err(|wait| {
            let wait = wait.as_secs() + 1;
            Denied::too_many(live.socket(), format!("you open sessions too fast; wait {wait} seconds"))
        })
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.0.settings.rules
    }

    pub(super) fn people(&self) -> &People {
        &self.0.settings.people
    }

    pub(super) fn public_url(&self) -> &str {
        &self.0.settings.public_url
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.settings.metrics
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn recordings(&self) -> &Recordings {
        &self.0.recordings
    }

    /// Runs something on the gateway's time. Also called from drops, which may happen as the runtime ends: then there is
    /// nothing to run it, and the next start closes what is open.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.0.closing.spawn_on(task, &runtime);
        }
    }

    /// Closes the row and lets go of the session. Runs on the gateway's time, and tries until the book takes it: until
    /// then the session counts as live.
    pub(super) fn close(&self, live: Arc<Live>, remaining: Option<String>) {
        let sessions = self.clone();
        self.spawn(async move {
            let end = live.reason().unwrap_or(End::Closed);
            let ended = Timestamp::now();
            // So that whoever sees the end sees whole recordings; a slow disk does not hold the row back for long.
            live.sealing.close();
            let _ = tokio::time::timeout(SEALING, live.sealing.wait()).await;
            until_written("session", live.id, || {
                sessions.0.store.close_session(live.id, ended, end.outcome(), end.words(), remaining.clone())
            })
            .await;
            tracing::info!(session = %live.id, outcome = ?end.outcome(), "session ended");
            sessions.0.settings.metrics.session_ended(live.session_type, end.outcome().as_str());
            sessions.let_go(&live);
        });
    }

    fn let_go(&self, live: &Live) {
        lock(&self.0.live).remove(&live.id);
        live.closed.cancel();
    }

    fn session(&self, live: Arc<Live>, visit: Visit) -> Session {
        let budget = Budget::new(self.0.settings.max_recording);
        tokio::spawn(mind(live.clone(), self.0.settings.rules.clone()));
        Session { live, sessions: self.clone(), budget, visit, finished: AtomicBool::new(false) }
    }

    pub(super) fn denied_row(&self, id: Uuid, visit: &Visit, denied: &Denied) -> NewSession {
        let rule = denied.rule().map(str::to_owned);
        self.row(id, Timestamp::now(), visit, AuthResult::Denied, rule, Some(denied.to_string()))
    }

    fn row(
        &self,
        session_id: Uuid,
        start_time: Timestamp,
        visit: &Visit,
        result: AuthResult,
        rule: Option<String>,
        end_reason: Option<String>,
    ) -> NewSession {
        NewSession {
            session_id,
            socket_name: visit.socket.name.clone(),
            session_type: visit.socket.protocol.session_type(),
            start_time,
            identity: visit.identity.clone(),
            sign_in_id: visit.sign_in,
            client_ip: visit.client.ip(),
            client_port: visit.client.port(),
            place: self.0.settings.geo.locate(visit.client.ip()),
            server_name: format!("{}.{}", visit.socket.name, self.0.settings.domain),
            server_port: visit.reached.port(),
            upstream: upstream(&visit.socket),
            ssh_user: ssh_user(visit),
            result,
            rule,
            end_reason,
            durability: self.0.settings.durability,
            audit_log: visit.socket.record && result == AuthResult::Success,
            events: visit.events.clone(),
        }
    }
}

/// Takes a session that did not open off the registry again.
struct Enrolled<'a> {
    sessions: &'a Sessions,
    live: Option<Arc<Live>>,
}

impl Enrolled<'_> {
    fn keep(mut self) {
        self.live = None;
    }
}

impl Drop for Enrolled<'_> {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            self.sessions.let_go(live);
        }
    }
}

/// Has the book close a row, and tries until it has, or until there is no row or no book: nobody else would do it while
/// this process lives.
pub(super) async fn until_written<W>(what: &'static str, id: Uuid, mut write: impl FnMut() -> W)
where
    W: Future<Output = Result<(), StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match write().await {
            Ok(()) | Err(StoreError::UnknownSession | StoreError::UnknownRecording | StoreError::Closed) => return,
            Err(error) => tracing::error!(what, %id, %error, "a row cannot be closed; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The country of a place, as policies know it.
pub fn country(place: &Place) -> Country {
    match (&place.country_code, place.country.as_deref()) {
        (Some(code), _) => Country::Known(code.clone()),
        (None, Some(PRIVATE_NETWORK)) => Country::Private,
        (None, _) => Country::Unknown,
    }
}

/// The login at the upstream: the one the socket fixes, else the one asked for.
fn ssh_user(visit: &Visit) -> Option<String> {
    let fixed = match &visit.socket.upstream {
        UpstreamSpec::Ssh(ssh) => ssh.username.clone(),
        UpstreamSpec::Shell { username } | UpstreamSpec::ShellAs { username, .. } => Some(username.clone()),
    };
    fixed.or_else(|| visit.login.clone())
}

/// Where it leads, with the jump hosts on the way.
fn upstream(socket: &Socket) -> String {
    match &socket.upstream {
        UpstreamSpec::Ssh(ssh) => {
            let way = std::iter::successors(Some(ssh), |server| server.via.as_ref().map(|hop| &hop.server));
            let mut way: Vec<String> = way.map(|server| server.address.to_string()).collect();
            way.reverse();
            way.join(" -> ")
        }
        UpstreamSpec::Shell { .. } | UpstreamSpec::ShellAs { .. } => "shell".into(),
    }
}
