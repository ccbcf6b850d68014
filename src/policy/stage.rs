//! How near a rule comes to holding, and what is said of the one that comes nearest.

use std::sync::Arc;

use super::decide::{Cause, Context, Denied, StepUp};
use super::rules::{Require, Rule};
use super::words;
use crate::identity::Identity;
use crate::socket::Socket;

/// The first part of a rule that does not hold, in the order in which they are looked at: what a person can change the least
/// comes first, so that the greatest is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Protocol,
    Place,
    Time,
    Length,
    Idle,
    SignInKind,
    SignInAge,
}

impl Rule {
    /// What is missing of this rule about this person and socket; `None`: it holds.
    pub(super) fn missing(&self, who: &Identity, to: &Socket, context: &Context) -> Option<Stage> {
        let denies = self.effect == super::Effect::Deny;
        if !denies && !self.rights.reach(to.protocol) {
            return Some(Stage::Protocol);
        }
        if !self.place.holds(context.client_ip, &context.country, self.effect) {
            return Some(Stage::Place);
        }
        if !self.when.holds(context.now) {
            return Some(Stage::Time);
        }
        if denies {
            return None;
        }
        if self.limits.max_session.is_some_and(|most| context.elapsed >= most) {
            return Some(Stage::Length);
        }
        if self.limits.idle_timeout.is_some_and(|most| context.idle >= most) {
            return Some(Stage::Idle);
        }
        self.require.missing(who, context)
    }

    /// The denial by this rule, of which `stage` does not hold.
    pub(super) fn denial(self: &Arc<Self>, stage: Stage, who: &Identity, to: &Socket, context: &Context) -> Denied {
        let mut detail = String::new();
        let (cause, what) = match stage {
            Stage::Protocol => (Cause::Protocol, format!("allows nothing over {}", to.protocol.session_type())),
            Stage::Place => (Cause::Place, words::place(&self.place, context)),
            Stage::Time => {
                let (window, clock) = self.when.window_and_clock(context.now);
                detail = clock;
                (Cause::Time, format!("allows {window}"))
            }
            Stage::Length => {
                let most = self.limits.max_session.map(words::duration).unwrap_or_default();
                (Cause::Length, format!("allows {most} at a time"))
            }
            Stage::Idle => {
                let most = self.limits.idle_timeout.map(words::duration).unwrap_or_default();
                (Cause::Idle, format!("ends what is idle for {most}"))
            }
            Stage::SignInKind => (Cause::SignInKind, words::kind(&self.require, who)),
            Stage::SignInAge => {
                detail = words::too_old(context.age_of(who));
                (Cause::SignInAge, words::age(&self.require))
            }
        };
        let denied = Denied::new(to, cause, Some(self), format!("{} {what}", self.name)).with_the_present(&detail);
        match stage {
            Stage::SignInKind | Stage::SignInAge => denied.curable_by(self.require.step_up()),
            _ => denied,
        }
    }
}

impl Require {
    fn missing(&self, who: &Identity, context: &Context) -> Option<Stage> {
        let acr = self.acr.is_empty() || who.acr().is_some_and(|acr| self.acr.iter().any(|wanted| wanted == acr));
        let amr = self.amr.is_empty() || who.amr().iter().any(|used| self.amr.contains(used));
        if !acr || !amr {
            return Some(Stage::SignInKind);
        }
        // How old a sign-in is of which the provider does not say, nobody knows.
        let old = self.max_sign_in_age.is_some_and(|most| !who.is_dated() || context.age_of(who) >= most);
        old.then_some(Stage::SignInAge)
    }

    fn step_up(&self) -> StepUp {
        StepUp { max_age: self.max_sign_in_age, acr: self.acr.clone() }
    }
}
