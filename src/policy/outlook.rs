//! What will become of a session if nobody does anything: when to ask again, and when it will end.

use std::time::Duration;

use jiff::Timestamp;

use super::decide::{Context, Denied, Permit, decide};
use super::{Action, Locks, Policies};
use crate::identity::Identity;
use crate::socket::Socket;

/// Changes that are looked at on the way to an end. More than a rule has in any quarter of an hour.
const MOST_CHANGES: usize = 64;

/// Everything that a decision is made of, so that it can be made again and ahead of time.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The rules.
    pub policies: &'a Policies,
    /// The locks.
    pub locks: &'a Locks,
    /// Who.
    pub who: &'a Identity,
    /// Where to.
    pub to: &'a Socket,
    /// The login at the upstream that they chose.
    pub login: Option<&'a str>,
}

/// An end that can be foreseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// How long it is until then.
    pub after: Duration,
    /// What will be said.
    pub denied: Denied,
}

impl Question<'_> {
    /// How long the answer stays what it is now, if nothing happens: until the next time that a lock, or a part of a
    /// rule, about this person and socket begins or ceases to hold. `None`: for as long as can be seen.
    pub fn holds_for(&self, context: &Context) -> Option<Duration> {
        let latest = context.latest();
        let until = |time: Timestamp, now: Timestamp| Duration::try_from(time.duration_since(now)).ok();
        let mut next = None;
        let mut consider = |wait: Option<Duration>| {
            if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
            }
        };
        consider(until(self.who.expires(), latest));
        for end in self.locks.ends(self.who, &self.to.name, context.client_ip) {
            consider(until(end, context.now));
        }
        for rule in self.policies.about(self.who, self.to) {
            consider(rule.when.next_change(context.now).and_then(|time| until(time, context.now)));
            consider(rule.limits.max_session.and_then(|most| most.checked_sub(context.elapsed)));
            consider(rule.limits.idle_timeout.and_then(|most| most.checked_sub(context.idle)));
            let oldest = rule.require.max_sign_in_age.map(|most| self.who.signed_in().saturating_add(most));
            consider(oldest.and_then(|oldest| until(oldest.unwrap_or(Timestamp::MAX), latest)));
        }
        next
    }

    /// When and why this session will no longer be allowed to do this, if nothing happens and that is within `horizon`.
    pub fn end_of(&self, action: &Action, context: &Context, horizon: Duration) -> Option<Foreseen> {
        let mut after = Duration::ZERO;
        let mut last = None;
        for _ in 0..MOST_CHANGES {
            let then = context.later(after);
            match self.permit(action, &then) {
                Ok(permit) => last = Some(permit),
                Err(denied) => return Some(Foreseen { after, denied: self.why(last.as_ref(), denied, &then) }),
            }
            after = after.checked_add(self.holds_for(&then)?)?;
            if after > horizon {
                return None;
            }
        }
        None
    }

    /// May it be done now?
    pub fn ask(&self, action: &Action, context: &Context) -> Result<(), Denied> {
        self.permit(action, context).map(drop)
    }

    /// Why not any more, where time alone has passed since the `last` permit.
    pub fn why(&self, last: Option<&Permit>, denied: Denied, now: &Context) -> Denied {
        match denied.is_of_a_rule_that_lacks_something() {
            true => last.and_then(|permit| permit.lost(self.who, self.to, now)).unwrap_or(denied),
            false => denied,
        }
    }

    fn permit(&self, action: &Action, context: &Context) -> Result<Permit, Denied> {
        let permit = decide(self.policies, self.locks, self.who, self.to, context)?;
        permit.check(self.login, action).map(|_| permit)
    }
}
