//! One live session, as all see it that outlive its connection's task: whose it is, what it may do and does, and why it
//! ends. The questions to the policy are asked here, at every action and whenever something has changed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::channels::Channels;
use super::warning::{Foresight, Warning};
use super::{End, InForce, Visit, lock};
use crate::identity::Identity;
use crate::identity::people::People;
use crate::policy::{Action, Cause, Context, Country, Denied, Grant, Permit, Question, decide};
use crate::socket::Socket;

/// What outlives the connection's own task: what a kill needs, and whoever asks again.
pub(super) struct Live {
    pub(super) id: Uuid,
    pub(super) session_type: &'static str,
    /// Whose it is.
    pub(super) person: Person,
    /// The sign-in that it came in by, if that has a row of its own.
    pub(super) sign_in: Option<Uuid>,
    pub(super) ending: CancellationToken,
    pub(super) closed: CancellationToken,
    /// The session's recordings while they are being sealed.
    pub(super) sealing: TaskTracker,
    socket: String,
    login: Option<String>,
    client_ip: IpAddr,
    country: Country,
    started: Timestamp,
    began: Instant,
    /// When something happened last, in milliseconds after it began.
    active: AtomicU64,
    reason: Mutex<Option<End>>,
    standing: Mutex<Standing>,
    /// Changes when whoever asks again has something to look at.
    pub(super) bell: watch::Sender<u64>,
    pub(super) warning: watch::Sender<Option<Warning>>,
    /// Its channels, by recording.
    pub(super) channels: Channels,
}

/// Issuer and subject: they stay the same whatever else a new sign-in says.
pub(super) type Person = (String, String);

/// What is allowed and what is done, under one lock: an action begins either before a change, and is asked about again, or
/// after it.
struct Standing {
    identity: Identity,
    /// Whether the person has signed in again since the last answer.
    renewed: bool,
    /// `None` until it is let in.
    permit: Option<Permit>,
    /// Of what was in force when that was decided.
    number: u64,
    /// What was known then.
    allowed: Option<Context>,
    /// How long that stays as it is, if nothing changes.
    until: Option<Instant>,
    doing: HashMap<u64, Doing>,
    next: u64,
    /// Its time is over; what is under way may still finish.
    finishing: Option<Finishing>,
    foresight: Foresight,
}

/// A session whose time is over.
struct Finishing {
    end: End,
    /// What was known when it was still allowed: apart from time, that must go on to be enough.
    context: Context,
}

/// How something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// By itself: until it ends, something happens.
    Alone,
    /// With somebody at a terminal, who may have gone.
    Interactive,
}

/// Something under way.
struct Doing {
    action: Action,
    manner: Manner,
    /// Until when it may finish, once the session's time is over.
    deadline: Option<Instant>,
    refused: watch::Sender<Option<Denied>>,
}

/// Why somebody asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// Rules, locks or sockets were replaced.
    Rules,
    /// The person signed in again.
    Identity,
    /// Time has passed.
    Time,
}

/// An action that was allowed and is under way; dropped when it is done.
pub struct Underway {
    live: Arc<Live>,
    number: u64,
    refused: watch::Receiver<Option<Denied>>,
}

impl Live {
    pub(super) fn new(id: Uuid, visit: &Visit, country: Country) -> Self {
        let standing = Standing {
            identity: visit.identity.clone(),
            renewed: false,
            permit: None,
            number: 0,
            allowed: None,
            until: None,
            doing: HashMap::new(),
            next: 0,
            finishing: None,
            foresight: Foresight::default(),
        };
        Self {
            id,
            session_type: visit.socket.protocol.session_type(),
            person: person(&visit.identity),
            sign_in: visit.sign_in,
            ending: CancellationToken::new(),
            closed: CancellationToken::new(),
            sealing: TaskTracker::new(),
            socket: visit.socket.name.clone(),
            login: visit.login.clone(),
            client_ip: visit.client.ip(),
            country,
            started: Timestamp::now(),
            began: Instant::now(),
            active: AtomicU64::new(0),
            reason: Mutex::default(),
            standing: Mutex::new(standing),
            bell: watch::Sender::new(0),
            warning: watch::Sender::new(None),
            channels: Channels::default(),
        }
    }

    fn ring(&self) {
        self.bell.send_modify(|rung| *rung += 1);
    }

    /// Orders it to end. The first reason stands.
    pub(super) fn end(&self, end: End) {
        lock(&self.reason).get_or_insert(end);
        self.ending.cancel();
    }

    pub(super) fn reason(&self) -> Option<End> {
        lock(&self.reason).clone()
    }

    pub(super) fn identity(&self) -> Identity {
        lock(&self.standing).identity.clone()
    }

    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    /// Something happens in it.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active.store(now, Ordering::Relaxed);
    }

    /// The decision at the door: may they be there, with this login?
    pub(super) fn let_in(&self, in_force: &InForce) -> Result<Grant, Denied> {
        let mut standing = lock(&self.standing);
        let (permit, grant) = self.decide(&standing, in_force, &self.context(&standing))?;
        standing.permit = Some(permit);
        self.settle(&mut standing, in_force);
        Ok(grant)
    }

    /// May this be done now? What has changed since the last answer is looked at first.
    pub(super) fn begin(
        self: &Arc<Self>,
        action: Action,
        manner: Manner,
        in_force: &InForce,
    ) -> Result<(Grant, Underway), Denied> {
        let mut standing = lock(&self.standing);
        self.catch_up(&mut standing, in_force);
        let ending = || Denied::ending(&self.socket);
        if self.ending.is_cancelled() || standing.finishing.is_some() {
            return Err(ending());
        }
        let grant = standing.permit.as_ref().ok_or_else(ending)?.check(self.login.as_deref(), &action)?;
        let number = standing.next;
        standing.next += 1;
        let (refused, hears) = watch::channel(None);
        standing.doing.insert(number, Doing { action, manner, deadline: None, refused });
        drop(standing);
        self.touch();
        self.ring();
        Ok((grant, Underway { live: self.clone(), number, refused: hears }))
    }

    /// Would this be allowed now? What has changed since the last answer is looked at first.
    pub(super) fn allows(&self, action: &Action, in_force: &InForce) -> Result<(), Denied> {
        let mut standing = lock(&self.standing);
        self.catch_up(&mut standing, in_force);
        let ending = || Denied::ending(&self.socket);
        if self.ending.is_cancelled() {
            return Err(ending());
        }
        standing.permit.as_ref().ok_or_else(ending)?.check(self.login.as_deref(), action).map(drop)
    }

    /// Asks again, and does what follows from the answer.
    pub(super) fn ask_again(&self, in_force: &InForce, trigger: Trigger) {
        let mut standing = lock(&self.standing);
        self.reconsider(&mut standing, in_force, trigger);
        self.refuse_overdue(&mut standing);
    }

    /// Looks ahead, and warns if it is time to.
    pub(super) fn look_ahead(&self, in_force: &InForce) {
        let mut standing = lock(&self.standing);
        if let Some(warning) = self.foresee(&mut standing, in_force) {
            self.warning.send_replace(Some(warning));
        }
    }

    /// Whether what is in force now was asked already.
    pub(super) fn has_heard(&self, in_force: &InForce) -> bool {
        lock(&self.standing).number >= in_force.number
    }

    /// When to ask again, if nothing changes before.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let standing = lock(&self.standing);
        let deadlines = standing.doing.values().filter_map(|doing| doing.deadline);
        deadlines.chain(standing.until).chain(standing.foresight.next_look()).min()
    }

    /// What is known of the person since their last sign-in.
    pub(super) fn meet(&self, people: &People) -> Identity {
        let mut standing = lock(&self.standing);
        standing.identity = people.update(standing.identity.clone());
        standing.identity.clone()
    }

    /// The person signed in again: from now on that sign-in counts, if it is the newer one.
    pub(super) fn renew(&self, who: &Identity) -> bool {
        let mut standing = lock(&self.standing);
        let renewed = standing.identity.renewed_by(who);
        let newer = renewed.is_some();
        if let Some(renewed) = renewed {
            standing.identity = renewed;
            standing.renewed = true;
            // Not waited for: whoever acts now is asked about as the new one.
            standing.until = Some(Instant::now());
            drop(standing);
            self.ring();
        }
        newer
    }

    /// What the sign-in would have to be like for the session to go on, where its time is foreseen to end.
    pub(super) fn wants(&self) -> Option<crate::policy::StepUp> {
        lock(&self.standing).foresight.step_up()
    }

    fn decide(&self, standing: &Standing, in_force: &InForce, then: &Context) -> Result<(Permit, Grant), Denied> {
        let socket = in_force.sockets.get(&self.socket).ok_or_else(|| Denied::no_socket(&self.socket))?;
        let permit = decide(&in_force.policies, &in_force.locks, &standing.identity, socket, then)?;
        let grant = permit.check(self.login.as_deref(), &self.connect())?;
        Ok((permit, grant))
    }

    fn catch_up(&self, standing: &mut Standing, in_force: &InForce) {
        // Never back to what was in force before: whoever minds the session may have been quicker.
        let changed = standing.number < in_force.number;
        if changed || standing.until.is_some_and(|until| until <= Instant::now()) {
            let trigger = if changed { Trigger::Rules } else { Trigger::Time };
            self.reconsider(standing, in_force, trigger);
        }
    }

    fn reconsider(&self, standing: &mut Standing, in_force: &InForce, trigger: Trigger) {
        if self.ending.is_cancelled() {
            return;
        }
        if in_force.number < standing.number {
            return;
        }
        let trigger = if std::mem::take(&mut standing.renewed) { Trigger::Identity } else { trigger };
        standing.number = in_force.number;
        match self.decide(standing, in_force, &self.context(standing)) {
            Ok((permit, _)) => {
                standing.finishing = None;
                standing.doing.values_mut().for_each(|doing| doing.deadline = None);
                standing.refuse_what_is_not_in(&permit, self.login.as_deref());
                standing.permit = Some(permit);
                self.settle(standing, in_force);
            }
            Err(denied) if standing.finishing.is_some() => self.still_finishing(standing, in_force, trigger, &denied),
            Err(denied) => {
                let denied = match (trigger, in_force.sockets.get(&self.socket)) {
                    (Trigger::Time, Some(to)) => {
                        let question = self.question(standing, in_force, to);
                        question.why(standing.permit.as_ref(), denied, &self.context(standing))
                    }
                    _ => denied,
                };
                self.no_longer(standing, denied, trigger);
            }
        }
    }

    /// Its time is over. What changes besides must leave it as it would have been allowed at the time.
    fn still_finishing(&self, standing: &mut Standing, in_force: &InForce, trigger: Trigger, now: &Denied) {
        let Some(finishing) = &standing.finishing else { return };
        match self.decide(standing, in_force, &finishing.context) {
            Ok((permit, _)) => standing.refuse_what_is_not_in(&permit, self.login.as_deref()),
            Err(_) if trigger == Trigger::Time => self.end(finishing.end.clone()),
            Err(_) => self.end(end_for(now, trigger)),
        }
    }

    /// What was decided holds until then.
    fn settle(&self, standing: &mut Standing, in_force: &InForce) {
        standing.number = in_force.number;
        let context = self.context(standing);
        standing.allowed = Some(context.clone());
        let holds_for =
            in_force.sockets.get(&self.socket).and_then(|to| self.question(standing, in_force, to).holds_for(&context));
        standing.until = holds_for.map(|wait| Instant::now() + wait);
    }

    /// The session is not allowed any more. It ends; where only its time is over, what is under way may get time to finish.
    fn no_longer(&self, standing: &mut Standing, denied: Denied, trigger: Trigger) {
        standing.until = None;
        let end = end_for(&denied, trigger);
        let graceful = matches!(end, End::Expired(_) | End::Idle(_));
        match standing.allowed.clone().filter(|_| graceful && self.give_grace(standing, &denied)) {
            Some(context) => standing.finishing = Some(Finishing { end, context }),
            None => self.end(end),
        }
    }

    /// Gives what is under way the time that rules grant it, and ends the rest; whether anything got some.
    fn give_grace(&self, standing: &mut Standing, denied: &Denied) -> bool {
        let (now, login) = (Instant::now(), self.login.as_deref());
        for doing in standing.doing.values_mut().filter(|doing| doing.keeps_busy()) {
            let grace = standing.permit.as_ref().and_then(|permit| permit.finish_grace(login, &doing.action));
            doing.deadline = grace.and_then(|grace| now.checked_add(grace));
        }
        let any = standing.doing.values().any(|doing| doing.deadline.is_some());
        if any {
            standing
                .doing
                .values()
                .filter(|doing| doing.deadline.is_none())
                .for_each(|doing| doing.refuse(denied.clone()));
        }
        any
    }

    /// Ends what had time to finish and has not, and the session with the last of it.
    fn refuse_overdue(&self, standing: &mut Standing) {
        let Some(Finishing { end, .. }) = &standing.finishing else { return };
        let now = Instant::now();
        for doing in standing.doing.values_mut().filter(|doing| doing.deadline.is_some_and(|until| until <= now)) {
            doing.deadline = None;
            doing.refuse(Denied::ending(&self.socket));
        }
        if standing.doing.values().all(|doing| doing.deadline.is_none()) {
            self.end(end.clone());
        }
    }

    fn foresee(&self, standing: &mut Standing, in_force: &InForce) -> Option<Warning> {
        let socket = in_force.sockets.get(&self.socket)?;
        let context = self.context(standing);
        let shell = standing.doing.values().any(|doing| doing.action == Action::SshShell).then_some(Action::SshShell);
        let question = self.question(standing, in_force, socket);
        let asked = [Some(self.connect()), shell].into_iter().flatten();
        let ends = asked.filter_map(|action| question.end_of(&action, &context, super::warning::HORIZON));
        let end = ends.min_by_key(|foreseen| foreseen.after);
        standing.foresight.look(end, &context)
    }

    fn question<'a>(&'a self, standing: &'a Standing, in_force: &'a InForce, to: &'a Socket) -> Question<'a> {
        let InForce { policies, locks, .. } = in_force;
        Question { policies, locks, who: &standing.identity, to, login: self.login.as_deref() }
    }

    fn context(&self, standing: &Standing) -> Context {
        let elapsed = self.began.elapsed();
        let busy = standing.doing.values().any(Doing::keeps_busy);
        let active = Duration::from_millis(self.active.load(Ordering::Relaxed));
        let idle = if busy { Duration::ZERO } else { elapsed.saturating_sub(active) };
        let (client_ip, country) = (self.client_ip, self.country.clone());
        Context { client_ip, country, now: Timestamp::now(), started: self.started, elapsed, idle }
    }

    fn connect(&self) -> Action {
        Action::Connect { login: self.login.clone() }
    }
}

impl Standing {
    fn refuse_what_is_not_in(&self, permit: &Permit, login: Option<&str>) {
        for doing in self.doing.values() {
            if let Err(denied) = permit.check(login, &doing.action) {
                doing.refuse(denied);
            }
        }
    }
}

impl Doing {
    /// Whether something happens for as long as it lasts, whatever is seen of it.
    fn keeps_busy(&self) -> bool {
        self.action.finishes() && self.manner == Manner::Alone
    }

    fn refuse(&self, denied: Denied) {
        self.refused.send_if_modified(|refused| {
            let first = refused.is_none();
            refused.get_or_insert(denied);
            first
        });
    }
}

impl Underway {
    /// Waits until it is no longer allowed, while its session goes on; says why. Cancel safe.
    pub async fn until_refused(&self) -> Denied {
        let mut refused = self.refused.clone();
        let denied = refused.wait_for(Option::is_some).await.ok().and_then(|denied| denied.clone());
        match denied {
            Some(denied) => denied,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.live.touch();
        let last = {
            let mut standing = lock(&self.live.standing);
            standing.doing.remove(&self.number);
            standing.finishing.is_some()
        };
        if last {
            self.live.ring();
        }
    }
}

pub(super) fn person(who: &Identity) -> Person {
    (who.issuer().to_owned(), who.subject().to_owned())
}

/// Why a session ends that is no longer allowed.
fn end_for(denied: &Denied, trigger: Trigger) -> End {
    let words = format!("session ended: {}", denied.reason());
    match (denied.cause(), trigger) {
        (Cause::SignInOver, _) => End::Expired(words),
        (Cause::Lock, _) | (_, Trigger::Rules) => End::PolicyChanged(words),
        (_, Trigger::Identity) => End::IdentityLost(words),
        (Cause::Idle, Trigger::Time) => End::Idle(words),
        (_, Trigger::Time) => End::Expired(words),
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
