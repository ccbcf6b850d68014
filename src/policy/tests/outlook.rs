//! Asking ahead: how long an answer holds, and when a session ends.

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::lock::lock;
use super::naive::{Visit, any_rules, any_visit, policies};
use super::*;

/// What a decision is, without the words, which tell times.
fn outcome(
    policies: &Policies,
    locks: &Locks,
    visit: &Visit,
    context: &Context,
) -> Result<Vec<bool>, (Cause, Option<String>)> {
    let denied = |denied: Denied| (denied.cause(), denied.rule().map(str::to_owned));
    let permit = decide(policies, locks, &visit.who, &visit.to, context).map_err(denied)?;
    let actions = [Action::SshShell, exec("uptime"), Action::SshX11, Action::Tcp, visit.action.clone()];
    Ok(actions.iter().map(|action| permit.check(visit.login, action).is_ok()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_answer_holds_for_as_long_as_is_said(rules in any_rules(), visit in any_visit(), part in 0.0..1.0_f64, lock_for in 0..9_i64) {
        let policies = policies(&rules);
        let until = (visit.context.now + SignedDuration::from_mins(lock_for - 4)).to_string();
        let locks = if lock_for == 0 { vec![] } else { vec![lock(LockTarget::default(), Some(&until))] };
        let locks = Locks::new(locks);
        let question = Question { policies: &policies, locks: &locks, who: &visit.who, to: &visit.to, login: visit.login };
        let now = outcome(&policies, &locks, &visit, &visit.context);
        let wait = question.holds_for(&visit.context).unwrap_or(HOUR * 24 * 8);
        prop_assert!(!wait.is_zero());
        for later in [wait.mul_f64(part), wait.saturating_sub(Duration::from_millis(1))] {
            prop_assert_eq!(outcome(&policies, &locks, &visit, &visit.context.later(later)), now.clone(), "{:?}", later);
        }
    }

    #[test]
    fn the_end_is_the_first_that_a_scan_finds(rules in any_rules(), visit in any_visit()) {
        let (policies, locks) = (policies(&rules), Locks::default());
        let question = Question { policies: &policies, locks: &locks, who: &visit.who, to: &visit.to, login: visit.login };
        // Everything there changes on whole minutes.
        let horizon = HOUR * 6;
        let minutes = (0..=360).map(|minute| MINUTE * minute);
        let mut ends = minutes.filter(|after| question.ask(&visit.action, &visit.context.later(*after)).is_err());
        let expected = ends.next();
        let got = question.end_of(&visit.action, &visit.context, horizon);
        prop_assert_eq!(got.as_ref().map(|end| end.after), expected);
        if let Some(end) = got {
            let denied = question.ask(&visit.action, &visit.context.later(end.after)).unwrap_err();
            // Where it is a rule that lacks something, the one that held until then is named.
            let by_a_rule = denied.is_of_a_rule_that_lacks_something() && end.denied.rule().is_some();
            prop_assert!(end.denied == denied || by_a_rule, "{:?} {:?}", end.denied, denied);
        }
    }
}

fn window(name: &str, hours: &str) -> Rule {
    Rule { when: When::new(Days::ALL, Hours::parse(hours).ok(), TimeZone::UTC, None, None), ..allow(name) }
}

/// The end of a shell that is asked about at noon, within `horizon`.
fn end(rules: Vec<Rule>, context: &Context, horizon: Duration) -> Option<(Duration, String)> {
    let (policies, locks) = (Policies::new(rules), Locks::default());
    let (who, to) = (person("bob@example.com", &[]), socket("web-1", Some("deploy")));
    let question = Question { policies: &policies, locks: &locks, who: &who, to: &to, login: None };
    let end = question.end_of(&Action::SshShell, context, horizon)?;
    Some((end.after, end.denied.reason().to_owned()))
}

#[test]
fn the_first_end_is_told_with_its_reason() {
    let limits = |max_session, idle_timeout| Limits { max_session, idle_timeout, finish_grace: None };
    let max = |name| Rule { limits: limits(Some(HOUR), None), ..allow(name) };
    let idle = || Rule { limits: limits(Some(HOUR * 2), Some(MINUTE * 5)), ..allow("i") };
    let fresh = || Rule { require: Require { max_sign_in_age: Some(HOUR * 4), ..Require::default() }, ..allow("f") };
    let deny = Rule { when: window("", "13:00-14:00").when, ..rule("lunch", Effect::Deny) };
    let day = HOUR * 24;
    let over = "your sign-in has expired; connect again to sign in";
    for (rules, horizon, expected) in [
        (vec![allow("r")], day, Some((HOUR * 9, over))),
        (vec![allow("r")], HOUR, None),
        (vec![window("w", "09:00-18:00")], day, Some((HOUR * 6, "w allows 09:00-18:00 UTC, now 18:00"))),
        (vec![window("w", "09:00-18:00")], HOUR * 6, Some((HOUR * 6, "w allows 09:00-18:00 UTC, now 18:00"))),
        (vec![window("w", "09:00-18:00")], HOUR * 6 - MINUTE, None),
        (vec![max("m")], day, Some((HOUR, "m allows 1h at a time"))),
        (vec![idle()], day, Some((MINUTE * 5, "i ends what is idle for 5m"))),
        (vec![fresh()], day, Some((HOUR, "f needs a sign-in not older than 4h, yours is 4h old; sign in again"))),
        (vec![allow("r"), deny.clone()], day, Some((HOUR, "lunch denies bob@example.com"))),
        // What one rule no longer allows another still does. The one that held to the end is named, not the nearest.
        (vec![max("m"), window("w", "09:00-18:00")], day, Some((HOUR * 6, "w allows 09:00-18:00 UTC, now 18:00"))),
        // It is over already.
        (vec![window("w", "09:00-12:00")], day, Some((Duration::ZERO, "w allows 09:00-12:00 UTC, now 12:00"))),
    ] {
        let expected = expected.map(|(after, words)| (after, words.to_owned()));
        assert_eq!(end(rules.clone(), &noon(), horizon), expected, "{rules:?} {horizon:?}");
    }
}

#[test]
fn windows_that_adjoin_hand_over_without_an_end() {
    let day = || vec![window("a", "09:00-15:00"), window("b", "15:00-18:00"), window("c", "18:00-09:00")];
    assert_eq!(end(day(), &noon(), HOUR * 8), None);
    assert_eq!(end(day(), &noon(), HOUR * 24).unwrap().0, HOUR * 9);
    let gap = vec![window("a", "09:00-15:00"), window("b", "15:01-18:00")];
    assert_eq!(end(gap, &noon(), HOUR * 8).unwrap(), (HOUR * 3, "a allows 09:00-15:00 UTC, now 15:00".into()));
}

#[test]
fn an_answer_holds_until_the_next_of_everything() {
    let limits = Limits { max_session: Some(HOUR * 3), idle_timeout: Some(HOUR * 2), finish_grace: None };
    let require = Require { max_sign_in_age: Some(HOUR * 4), ..Require::default() };
    let (who, to) = (person("bob@example.com", &[]), socket("web-1", Some("deploy")));
    let group = |rule: Rule| Rule { who: Who { groups: strings(&["g"]), ..Who::default() }, ..rule };
    let half = LockTarget { user: Some("bob@example.com".into()), ..LockTarget::default() };
    let other = LockTarget { user: Some("alice@example.com".into()), ..LockTarget::default() };
    let until = Some("2026-01-01T12:30:00Z");
    for (rules, locks, context, expected) in [
        (vec![], vec![], noon(), Some(HOUR * 9)),
        (vec![Rule { limits: limits.clone(), ..allow("r") }], vec![], noon(), Some(HOUR * 2)),
        (vec![Rule { limits, ..allow("r") }], vec![], Context { elapsed: HOUR * 2, ..noon() }, Some(HOUR)),
        (vec![Rule { require, ..allow("r") }], vec![], noon(), Some(HOUR)),
        (vec![window("w", "11:00-12:10"), allow("r")], vec![], noon(), Some(MINUTE * 10)),
        (vec![window("w", "12:20-13:00"), allow("r")], vec![], noon(), Some(MINUTE * 20)),
        // A rule about somebody else changes nothing, and nor does a lock.
        (vec![group(window("w", "11:00-12:10"))], vec![lock(other, until)], noon(), Some(HOUR * 9)),
        (vec![allow("r")], vec![lock(half, until)], noon(), Some(MINUTE * 30)),
        // The sign-in is over, and nothing follows.
        (vec![allow("r")], vec![], Context { now: at("2026-01-01T21:00:00Z"), ..noon() }, None),
    ] {
        let (policies, locks) = (Policies::new(rules), Locks::new(locks));
        let question = Question { policies: &policies, locks: &locks, who: &who, to: &to, login: None };
        assert_eq!(question.holds_for(&context), expected);
    }
}
