//! Why an answer is what it is: an account of every rule, for people who write rules.
//!
//! The answer is that of [`decide()`] and [`Permit::check`](super::Permit::check), asked as the gate asks them. What is
//! said of one rule is what the same two answer to that rule alone, so that an account cannot say other than the gate
//! does. To find everything that a rule lacks, what it lacked first is taken out of a copy, and the copy is asked again.

use std::sync::Arc;
use std::time::Duration;

use super::decide::{Cause, Context, Denied, decide};
use super::policies::Policies;
use super::rules::{Country, Effect, Limits, PlaceMatch, Require, Rule, SocketMatch};
use super::{Action, DatabaseRights, HttpRights, KubernetesRights, Locks, Question, Rights, SshRights, When, words};

/// Parts that a rule can lack, and one more.
const MOST_PARTS: usize = 10;

/// Changes that are looked at on the way to another answer. Hours make two a day, so this sees some weeks.
const MOST_CHANGES: usize = 128;

/// An answer and where it comes from.
#[derive(Clone, Debug)]
pub struct Account {
    /// The gate's answer.
    pub answer: Result<Allowed, Denied>,
    /// Every rule, in the order of the file.
    pub rules: Vec<RuleAccount>,
}

/// What allowed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The rule.
    pub rule: String,
    /// Whether a pattern of it allowed a command: then it gets no terminal and few variables.
    pub patterned: bool,
}

/// What one rule has to do with the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleAccount {
    /// Its name.
    pub name: String,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// Whether it is about this person on this socket.
    pub about: bool,
    /// Whether it says yes (of a rule that denies: no) to this action, here and now.
    pub holds: bool,
    /// What it says, or everything that is missing.
    pub why: String,
}

impl Question<'_> {
    /// May it be done now, by which rule, and what of every rule.
    pub fn explain(&self, action: &Action, context: &Context) -> Account {
        let answer = decide(self.policies, self.locks, self.who, self.to, context)
            .and_then(|permit| permit.check(self.login, action))
            .map(|grant| Allowed { rule: grant.rule().to_owned(), patterned: grant.patterned() });
        let about: Vec<_> = self.policies.about(self.who, self.to).collect();
        let rules = self.policies.rules().iter().map(|rule| {
            let is_about = about.iter().any(|other| Arc::ptr_eq(other, rule));
            let (holds, why) = match is_about {
                true => self.account(rule, action, context),
                false => (false, self.not_about(rule)),
            };
            RuleAccount { name: rule.name.clone(), effect: rule.effect, about: is_about, holds, why }
        });
        Account { answer, rules: rules.collect() }
    }

    /// How long it is until the answer to this is another one, if nothing happens and that is within `horizon`: yes
    /// instead of no, no instead of yes, or yes by another rule.
    pub fn next_answer(&self, action: &Action, context: &Context, horizon: Duration) -> Option<Duration> {
        let answer = |context: &Context| {
            let permit = decide(self.policies, self.locks, self.who, self.to, context).ok()?;
            permit.check(self.login, action).ok().map(|grant| grant.rule().to_owned())
        };
        let now = answer(context);
        let mut after = Duration::ZERO;
        for _ in 0..MOST_CHANGES {
            let then = context.later(after);
            let changes = [self.holds_for(&then), self.lock_holds_for(&then)];
            after = after.checked_add(changes.into_iter().flatten().min()?)?;
            if after > horizon {
                return None;
            }
            if answer(&context.later(after)) != now {
                return Some(after);
            }
        }
        None
    }

    fn lock_holds_for(&self, context: &Context) -> Option<Duration> {
        let lock = self.locks.on(self.who, &self.to.name, context.client_ip, context.now)?;
        Duration::try_from(lock.until?.duration_since(context.now)).ok()
    }

    fn account(&self, rule: &Rule, action: &Action, context: &Context) -> (bool, String) {
        if rule.effect == Effect::Deny {
            let denies = self.alone(rule, action, context).is_err_and(|denied| denied.cause() == Cause::DenyRule);
            return match denies {
                true => (true, "denies everything".to_owned()),
                // As an allow rule with the same parts it says what it lacks.
                false => {
                    (false, self.lacks(opened(rule, context), &Action::Connect { login: None }, context, "denies"))
                }
            };
        }
        match self.alone(rule, action, context) {
            Ok(()) => (true, format!("allows {action}")),
            Err(_) => (false, self.lacks(rule.clone(), action, context, "allows")),
        }
    }

    /// What the gate would say if this were the only rule.
    fn alone(&self, rule: &Rule, action: &Action, context: &Context) -> Result<(), Denied> {
        let (policies, locks) = (Policies::new(vec![rule.clone()]), Locks::default());
        Question { policies: &policies, locks: &locks, ..*self }.ask(action, context)
    }

    /// Everything that is missing, in words.
    fn lacks(&self, mut rule: Rule, action: &Action, context: &Context, verb: &str) -> String {
        let mut lacks = Vec::new();
        for _ in 0..MOST_PARTS {
            let Err(denied) = self.alone(&rule, action, context) else { break };
            // What an opened deny rule says of actions and logins means nothing.
            if verb == "denies" && denied.cause() == Cause::Action {
                break;
            }
            lacks.push(own_words(denied.reason(), &rule.name, verb));
            if !take_out(&mut rule, denied.cause(), context) {
                break;
            }
        }
        lacks.join("; ")
    }

    fn not_about(&self, rule: &Rule) -> String {
        let anywhere = Rule { sockets: SocketMatch::default(), ..rule.clone() };
        let is_about_them = Policies::new(vec![anywhere]).about(self.who, self.to).next().is_some();
        match (is_about_them, rule.sockets.holds(self.to)) {
            (false, true) => "is about other people".to_owned(),
            (true, _) => "is about other sockets".to_owned(),
            (false, false) => "is about other people and sockets".to_owned(),
        }
    }
}

/// A deny rule as an allow rule that holds where it does and asks for nothing else.
fn opened(rule: &Rule, context: &Context) -> Rule {
    let mut rule = rule.clone();
    // The two effects differ where nobody knows the country.
    if rule.place.holds(context.client_ip, &context.country, Effect::Deny) {
        rule.place = PlaceMatch::default();
    }
    let rights = Rights {
        ssh: Some(SshRights::All),
        database: Some(DatabaseRights::default()),
        http: vec![HttpRights::default()],
        kubernetes: vec![KubernetesRights::default()],
        tcp: true,
    };
    Rule { effect: Effect::Allow, require: Require::default(), limits: Limits::default(), rights, ..rule }
}

/// Takes out the part that is missing. `false`: nothing more can be said without it.
fn take_out(rule: &mut Rule, cause: Cause, context: &Context) -> bool {
    match cause {
        Cause::Place => {
            let networks = std::mem::take(&mut rule.place.networks);
            let networks = PlaceMatch { networks, ..PlaceMatch::default() };
            if networks.holds(context.client_ip, &Country::Unknown, rule.effect) {
                rule.place = PlaceMatch::default();
            }
        }
        Cause::Time => rule.when = When::default(),
        Cause::Length => rule.limits.max_session = None,
        Cause::Idle => rule.limits.idle_timeout = None,
        Cause::SignInKind => {
            rule.require.acr.clear();
            rule.require.amr.clear();
        }
        Cause::SignInAge => rule.require.max_sign_in_age = None,
        Cause::SignInOver
        | Cause::Lock
        | Cause::DenyRule
        | Cause::NoRule
        | Cause::Protocol
        | Cause::Action
        | Cause::Ending
        | Cause::NoSocket
        | Cause::TooMany => return false,
    }
    true
}

/// The words of a denial without the rule's name, which stands beside them.
fn own_words(reason: &str, name: &str, verb: &str) -> String {
    let rest = reason.strip_prefix(name).map_or(reason, str::trim_start);
    match rest.strip_prefix("allows ") {
        Some(rest) => format!("{verb} {rest}"),
        None if reason == words::SIGN_IN_OVER => "the sign-in has expired".to_owned(),
        None => rest.to_owned(),
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
