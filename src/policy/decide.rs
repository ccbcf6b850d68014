//! The decision: [`decide()`] at the door and again whenever something changes, [`Permit::check`] for every action.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::action::{Action, shown};
use super::rights::How;
use super::rules::{Country, Effect, Rule};
use super::{Locks, Policies, Stage, words};
use crate::identity::Identity;
use crate::socket::{Socket, UpstreamSpec};

/// What is known about a session beside who and where to.
#[derive(Clone, Debug)]
pub struct Context {
    /// The client's address.
    pub client_ip: IpAddr,
    /// The country that it is in.
    pub country: Country,
    /// What the clock shows.
    pub now: Timestamp,
    /// What the clock showed as the session began.
    pub started: Timestamp,
    /// How long ago that was, whatever the clock shows now.
    pub elapsed: Duration,
    /// For how long nothing has happened in it.
    pub idle: Duration,
}

/// Proof that a person may be on a socket now. Not `Clone`: the session owns it.
#[derive(Debug)]
pub struct Permit {
    socket: String,
    /// Whether the socket decides who the user is at the upstream; then a rule's logins do not matter.
    login_fixed: bool,
    /// The allow rules that hold for this person and socket, in the order of the file. Never empty.
    allowed: Vec<Arc<Rule>>,
}

/// Proof that one action is allowed now. Consumed by what does it.
#[derive(Debug)]
#[must_use]
pub struct Grant {
    action: Action,
    rule: Arc<Rule>,
    patterned: bool,
}

/// Why not, in words fit to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{socket} refused: {reason}")]
pub struct Denied {
    socket: String,
    reason: String,
    /// How much of that is not about the present.
    told: usize,
    rule: Option<String>,
    cause: Cause,
    /// Boxed, because most have none and errors travel far.
    step_up: Option<Box<StepUp>>,
}

/// What stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The sign-in has ended.
    SignInOver,
    /// A lock.
    Lock,
    /// A rule that denies.
    DenyRule,
    /// No rule is about this person on this socket.
    NoRule,
    /// The nearest rule allows nothing over the socket's protocol.
    Protocol,
    /// The nearest rule is for other places.
    Place,
    /// The nearest rule is for other times.
    Time,
    /// The session has lasted as long as the nearest rule allows.
    Length,
    /// The session has been idle for as long as the nearest rule allows.
    Idle,
    /// The nearest rule wants a newer sign-in.
    SignInAge,
    /// The nearest rule wants another kind of sign-in.
    SignInKind,
    /// The rules that hold do not allow the action.
    Action,
    /// The session is ending.
    Ending,
    /// There is no such socket.
    NoSocket,
    /// There are too many sessions already.
    TooMany,
}

/// The sign-in that would be enough for a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// Not longer ago than this (`max_age`, OpenID Connect Core section 3.1.2.1).
    pub max_age: Option<Duration>,
    /// Of one of these classes (`acr_values`). Empty: of any.
    pub acr: Vec<String>,
}

impl Context {
    /// At the door, where nothing has begun.
    pub fn at_door(client_ip: IpAddr, country: Country, now: Timestamp) -> Self {
        Self { client_ip, country, now, started: now, elapsed: Duration::ZERO, idle: Duration::ZERO }
    }

    /// The same session later, if nothing happens in it until then.
    pub fn later(&self, by: Duration) -> Self {
        let after = |time: Timestamp| time.saturating_add(by).unwrap_or(Timestamp::MAX);
        let (elapsed, idle) = (self.elapsed.saturating_add(by), self.idle.saturating_add(by));
        Self { now: after(self.now), elapsed, idle, ..self.clone() }
    }

    /// The time for what grows old. A clock that is turned back makes nothing younger while the session lives.
    pub(super) fn latest(&self) -> Timestamp {
        self.now.max(self.started.saturating_add(self.elapsed).unwrap_or(Timestamp::MAX))
    }

    pub(super) fn age_of(&self, who: &Identity) -> Duration {
        self.latest().duration_since(who.signed_in()).max(SignedDuration::ZERO).unsigned_abs()
    }
}

/// May `who` be on `to` now? `Err` says what was missing: of the rule that came nearest, where one is about them.
pub fn decide(
    policies: &Policies,
    locks: &Locks,
    who: &Identity,
    to: &Socket,
    context: &Context,
) -> Result<Permit, Denied> {
    if let Some(lock) = locks.on(who, &to.name, context.client_ip, context.now) {
        return Err(Denied::new(to, Cause::Lock, None, words::locked(lock)));
    }
    let mut allowed = Vec::new();
    let mut nearest: Option<(Stage, &Arc<Rule>)> = None;
    for rule in policies.about(who, to) {
        match (rule.effect, rule.missing(who, to, context)) {
            (Effect::Deny, None) => {
                let reason = format!("{} denies {}", rule.name, shown(who.email()));
                return Err(Denied::new(to, Cause::DenyRule, Some(rule), reason));
            }
            (Effect::Deny, Some(_)) => {}
            (Effect::Allow, None) => allowed.push(rule.clone()),
            (Effect::Allow, Some(stage)) => {
                if nearest.is_none_or(|(reached, _)| stage > reached) {
                    nearest = Some((stage, rule));
                }
            }
        }
    }
    let is_over = who.expires() <= context.latest();
    match nearest {
        // Last: whom a lock or a rule keeps out is told so, sign-in or not.
        _ if is_over && (!allowed.is_empty() || nearest.is_some()) => {
            Err(Denied::new(to, Cause::SignInOver, None, words::SIGN_IN_OVER))
        }
        _ if !allowed.is_empty() => Ok(Permit { socket: to.name.clone(), login_fixed: to.fixes_login(), allowed }),
        Some((stage, rule)) => Err(rule.denial(stage, who, to, context)),
        None => {
            let reason = format!("no policy lets {} in", shown(who.email()));
            Err(Denied::new(to, Cause::NoRule, None, reason))
        }
    }
}

impl Permit {
    /// The rule that opened the door: the first that holds.
    pub fn rule(&self) -> &str {
        self.allowed.first().map_or("", |rule| &rule.name)
    }

    /// May this be done now, by one rule alone that also allows the session's login?
    ///
    /// `login` is the one the user chose, `None` where the socket fixes it; the socket decides which of the two counts.
    pub fn check(&self, login: Option<&str>, action: &Action) -> Result<Grant, Denied> {
        let login = match action {
            Action::Connect { login: asked } => asked.as_deref(),
            _ => login,
        };
        if self.login_fixed && login.is_some() {
            return Err(self.denied(None, format!("the login there is fixed; connect as {} alone", self.socket)));
        }
        let mut nearest = None;
        for rule in &self.allowed {
            if !self.login_fixed && !rule.rights.allow_login(login) {
                continue;
            }
            if let Some(how) = rule.rights.allow(action) {
                return Ok(Grant { action: action.clone(), rule: rule.clone(), patterned: how == How::ByPattern });
            }
            nearest.get_or_insert(rule);
        }
        let name = self.rule();
        Err(match (nearest, login) {
            (Some(rule), _) => self.denied(Some(&rule.name), format!("{} does not allow {action}", rule.name)),
            (None, Some(login)) => self.denied(Some(name), format!("{name} does not allow login \"{}\"", shown(login))),
            (None, None) => self.denied(Some(name), format!("{name} needs a login: use login@socket")),
        })
    }

    /// Why it does not hold any more, by the first rule that it came from: what another rule lacks is not what ended it.
    /// `None`: a rule still holds, or what changed is no part of one.
    pub(super) fn lost(&self, who: &Identity, to: &Socket, context: &Context) -> Option<Denied> {
        let stages: Option<Vec<_>> = self.allowed.iter().map(|rule| rule.missing(who, to, context)).collect();
        self.allowed.first().zip(stages?.first().copied()).map(|(rule, stage)| rule.denial(stage, who, to, context))
    }

    /// How much longer what is under way may take when the session's time is over: the most that a rule grants which
    /// allows the action.
    pub fn finish_grace(&self, login: Option<&str>, action: &Action) -> Option<Duration> {
        let allows = |rule: &&Arc<Rule>| {
            (self.login_fixed || rule.rights.allow_login(login)) && rule.rights.allow(action).is_some()
        };
        self.allowed.iter().filter(allows).filter_map(|rule| rule.limits.finish_grace).max()
    }

    fn denied(&self, rule: Option<&str>, reason: String) -> Denied {
        let (socket, rule) = (self.socket.clone(), rule.map(str::to_owned));
        let told = reason.len();
        Denied { socket, reason, told, rule, cause: Cause::Action, step_up: None }
    }
}

impl Grant {
    /// What was allowed.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// By which rule.
    pub fn rule(&self) -> &str {
        &self.rule.name
    }

    /// Whether a pattern allowed it: then it gets no terminal, and the environment only as [`Grant::keeps_env`] says.
    pub fn patterned(&self) -> bool {
        self.patterned
    }

    /// Whether the environment variable of this name may go along.
    pub fn keeps_env(&self, name: &str) -> bool {
        !self.patterned || matches!(name, "LANG" | "TERM") || name.starts_with("LC_")
    }
}

impl Denied {
    pub(super) fn new(to: &Socket, cause: Cause, rule: Option<&Arc<Rule>>, reason: impl Into<String>) -> Self {
        Self { rule: rule.map(|rule| rule.name.clone()), ..Self::plain(&to.name, cause, reason) }
    }

    /// With what is so now and not what was asked for: it says nothing of a denial to come.
    pub(super) fn with_the_present(mut self, detail: &str) -> Self {
        self.reason.push_str(detail);
        self
    }

    pub(super) fn curable_by(mut self, step_up: StepUp) -> Self {
        self.step_up = Some(Box::new(step_up));
        self
    }

    /// Whatever was asked comes too late.
    pub fn ending(socket: &str) -> Self {
        Self::plain(socket, Cause::Ending, "the session is ending")
    }

    /// There is no such socket, or no longer.
    pub fn no_socket(socket: &str) -> Self {
        Self::plain(socket, Cause::NoSocket, format!("there is no socket {} any more", shown(socket)))
    }

    /// The socket does not take the way in which they signed in.
    pub fn way_in(socket: &str, reason: String) -> Self {
        Self::plain(socket, Cause::SignInKind, reason)
    }

    /// There are too many sessions already.
    pub fn too_many(socket: &str, reason: String) -> Self {
        Self::plain(socket, Cause::TooMany, reason)
    }

    fn plain(socket: &str, cause: Cause, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { socket: socket.to_owned(), told: reason.len(), reason, rule: None, cause, step_up: None }
    }

    /// The deny rule, or the nearest allow rule that did not hold.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// What stood in the way.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether it is the nearest rule's, and not a lock's, a denying rule's or the sign-in's.
    pub(super) fn is_of_a_rule_that_lacks_something(&self) -> bool {
        use Cause::{Idle, Length, Place, SignInAge, SignInKind, Time};
        matches!(self.cause, Idle | Length | Place | SignInAge | SignInKind | Time)
    }

    /// The words without the socket's name.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The words of a denial to come: without what is so at the time.
    pub fn foretold(&self) -> &str {
        self.reason.get(..self.told).unwrap_or(&self.reason)
    }

    /// The sign-in that would have been enough, where nothing else is missing.
    pub fn step_up(&self) -> Option<&StepUp> {
        self.step_up.as_deref()
    }
}

impl Socket {
    /// Whether the user has no say in who he is at the upstream.
    pub fn fixes_login(&self) -> bool {
        match &self.upstream {
            UpstreamSpec::Ssh(upstream) => upstream.username.is_some(),
            UpstreamSpec::Shell { .. } | UpstreamSpec::ShellAs { .. } => true,
        }
    }
}
