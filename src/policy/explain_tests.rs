//! Tests of accounts: what is said of each rule, and that the answer is the gate's.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::identity::Identity;
use crate::policy::{Days, ExecPattern, ExecRight, Hours, Lock, LockTarget, SocketMatch, SomeSsh, Who};
use crate::socket::Socket;

/// A Thursday in winter.
const NOON: &str = "2026-01-01T12:00:00Z";
const DAY: Duration = Duration::from_secs(86_400);

fn alice() -> Identity {
    serde_json::from_value(serde_json::json!({
        "issuer": "https://idp.example.com", "subject": "a", "email": "alice@example.com", "groups": ["engineering"],
        "signed_in": "2026-01-01T10:00:00Z", "expires": "2026-03-01T00:00:00Z",
    }))
    .unwrap()
}

fn web() -> Socket {
    Socket::into_shell("web-1", "me")
}

fn rule(name: &str, effect: Effect) -> Rule {
    let rights = Rights { ssh: (effect == Effect::Allow).then_some(SshRights::All), ..Rights::default() };
    Rule { rights, ..Rule::new(name, effect) }
}

fn hours(text: &str) -> When {
    When::new(Days::ALL, Some(Hours::parse(text).unwrap()), TimeZone::UTC, None, None)
}

fn networks(network: &str) -> PlaceMatch {
    PlaceMatch { networks: vec![network.parse::<IpNet>().unwrap()], ..PlaceMatch::default() }
}

fn door(country: Country) -> Context {
    Context::at_door("192.0.2.7".parse().unwrap(), country, NOON.parse().unwrap())
}

/// Asks alice's question about `web-1`.
fn explain(rules: Vec<Rule>, locks: &Locks, action: &Action, context: &Context) -> Account {
    let (policies, who, to) = (Policies::new(rules), alice(), web());
    Question { policies: &policies, locks, who: &who, to: &to, login: None }.explain(action, context)
}

#[test]
fn every_rule_says_what_it_has_to_do_with_it() {
    let exec = ExecRight::Patterns(vec![ExecPattern::parse("uptime").unwrap()]);
    let narrow = SshRights::Some(Box::new(SomeSsh { exec, ..SomeSsh::default() }));
    let nl = PlaceMatch { countries: vec!["NL".into()], ..networks("10.0.0.0/8") };
    let require = Require { max_sign_in_age: Some(Duration::from_secs(3600)), acr: vec!["high".into()], amr: vec![] };
    let others = Who { groups: vec!["audit".into()], ..Who::default() };
    let elsewhere = SocketMatch { names: vec!["db-*".into()], ..SocketMatch::default() };
    use Effect::{Allow, Deny};
    let rules = vec![
        Rule { who: others.clone(), ..rule("people", Allow) },
        Rule { sockets: elsewhere.clone(), ..rule("sockets", Allow) },
        Rule { who: others, sockets: elsewhere, ..rule("both", Deny) },
        Rule { rights: Rights { ssh: Some(narrow), ..Rights::default() }, ..rule("uptime", Allow) },
        Rule { place: nl, when: hours("13:00-14:00"), require, ..rule("much", Allow) },
        Rule { when: hours("20:00-06:00"), place: networks("10.0.0.0/8"), ..rule("night", Deny) },
        Rule { rights: Rights::default(), ..rule("nothing", Allow) },
        rule("all", Allow),
    ];
    let account = explain(rules, &Locks::default(), &Action::SshShell, &door(Country::Known("DE".into())));
    assert_eq!(account.answer, Ok(Allowed { rule: "all".into(), patterned: false }));
    let told: Vec<_> = account.rules.iter().map(|r| (r.name.as_str(), r.about, r.holds, r.why.as_str())).collect();
    let much = "allows 10.0.0.0/8, you are at 192.0.2.7; allows NL, 192.0.2.7 is in DE; allows 13:00-14:00 UTC, now \
                12:00; needs a sign-in with acr high (yours: none); needs a sign-in not older than 1h, yours is 2h old; \
                sign in again";
    let expected = [
        ("people", false, false, "is about other people"),
        ("sockets", false, false, "is about other sockets"),
        ("both", false, false, "is about other people and sockets"),
        ("uptime", true, false, "does not allow shell"),
        ("much", true, false, much),
        ("night", true, false, "denies 10.0.0.0/8, you are at 192.0.2.7; denies 20:00-06:00 UTC, now 12:00"),
        ("nothing", true, false, "allows nothing over ssh"),
        ("all", true, true, "allows shell"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_deny_rule_and_a_lock_decide() {
    let context = door(Country::Unknown);
    let place = PlaceMatch { not_countries: vec!["NL".into()], ..PlaceMatch::default() };
    // Where nobody knows the country, this denies; as an allow rule it would not allow.
    let rules = vec![rule("all", Effect::Allow), Rule { place, ..rule("abroad", Effect::Deny) }];
    let account = explain(rules.clone(), &Locks::default(), &Action::SshShell, &context);
    let denied = account.answer.unwrap_err();
    assert_eq!((denied.rule(), denied.cause()), (Some("abroad"), Cause::DenyRule));
    assert_eq!(account.rules.iter().map(|rule| rule.holds).collect::<Vec<_>>(), [true, true]);
    assert_eq!(account.rules[1].why, "denies everything");

    let lock = Lock {
        lock_id: Uuid::nil(),
        target: LockTarget::default(),
        reason: "incident 7".into(),
        by: "admin@example.com".into(),
        created: context.now,
        until: Some(context.now + SignedDuration::from_hours(1)),
    };
    let account = explain(rules, &Locks::new(vec![lock]), &Action::SshShell, &context);
    let denied = account.answer.unwrap_err();
    assert_eq!((denied.rule(), denied.cause()), (None, Cause::Lock));
    assert!(denied.reason().contains("incident 7"), "{denied}");
    assert!(account.rules[0].holds, "the rule holds all the same: {:?}", account.rules[0]);
}

#[test]
fn the_next_answer_is_foreseen() {
    let (who, to, context) = (alice(), web(), door(Country::Unknown));
    let lock = |hours| Lock {
        lock_id: Uuid::nil(),
        target: LockTarget { user: Some("alice@example.com".into()), ..LockTarget::default() },
        reason: "x".into(),
        by: "admin".into(),
        created: context.now,
        until: Some(context.now + SignedDuration::from_hours(hours)),
    };
    let office = || Rule { when: hours("09:00-18:00"), ..rule("office", Effect::Allow) };
    let later = || Rule { when: hours("15:00-16:00"), ..rule("later", Effect::Allow) };
    let first = || Rule { when: hours("14:00-15:00"), ..rule("first", Effect::Allow) };
    let table = [
        // Until what is allowed is no more, or by another rule; until what is refused is allowed.
        (vec![office()], vec![], Some(6)),
        (vec![first(), office()], vec![], Some(2)),
        (vec![office(), first()], vec![], Some(6)),
        (vec![later()], vec![], Some(3)),
        (vec![office()], vec![lock(1)], Some(1)),
        // Another lock, and the end of the day, come first.
        (vec![office()], vec![lock(1), lock(7)], Some(21)),
        (vec![], vec![], None),
    ];
    for (at, (rules, locks, expected)) in table.into_iter().enumerate() {
        let (policies, locks) = (Policies::new(rules), Locks::new(locks));
        let question = Question { policies: &policies, locks: &locks, who: &who, to: &to, login: None };
        let next = question.next_answer(&Action::SshShell, &context, DAY);
        assert_eq!(next, expected.map(|hours| Duration::from_secs(hours * 3600)), "{at}");
    }
    let (policies, locks) = (Policies::new(vec![rule("all", Effect::Allow)]), Locks::default());
    let question = Question { policies: &policies, locks: &locks, who: &who, to: &to, login: None };
    assert_eq!(question.next_answer(&Action::SshShell, &context, DAY), None, "beyond the horizon");
    let end = question.next_answer(&Action::SshShell, &context, DAY * 365).unwrap();
    assert_eq!(context.now + SignedDuration::try_from(end).unwrap(), who.expires(), "the end of the sign-in");
}

prop_compose! {
    /// A rule that lacks something here and now, or not.
    fn any_rule(at: usize)(
        (deny, alice, web, network, open) in any::<(bool, bool, bool, bool, bool)>(),
        (old, shell, reach) in any::<(bool, bool, bool)>(),
        country in prop::sample::select(vec!["", "NL", "!NL"]),
    ) -> Rule {
        let list = |name: &str| vec![name.to_owned()];
        let who = Who { groups: list(if alice { "engineering" } else { "audit" }), ..Who::default() };
        let sockets = SocketMatch { names: list(if web { "web-*" } else { "db" }), ..SocketMatch::default() };
        let mut place = if network { networks("10.0.0.0/8") } else { PlaceMatch::default() };
        match country {
            "" => {}
            "NL" => place.countries = list("NL"),
            _ => place.not_countries = list("NL"),
        }
        let when = if open { When::default() } else { hours("20:00-06:00") };
        let require = Require { max_sign_in_age: old.then_some(Duration::from_secs(3600)), ..Require::default() };
        let ssh = SshRights::Some(Box::new(SomeSsh { shell, agent: reach, ..SomeSsh::default() }));
        let effect = if deny { Effect::Deny } else { Effect::Allow };
        let rights = Rights { ssh: (!deny).then_some(ssh), ..Rights::default() };
        Rule { who, sockets, place, when, require, rights, ..rule(&format!("r{at}"), effect) }
    }
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    prop_oneof![Just(0usize), Just(1), Just(3)].prop_flat_map(|count| (0..count).map(any_rule).collect::<Vec<_>>())
}

fn any_country() -> impl Strategy<Value = Country> {
    prop::sample::select(vec![
        Country::Unknown,
        Country::Private,
        Country::Known("NL".into()),
        Country::Known("DE".into()),
    ])
}

proptest! {
    /// Yes exactly where an allow rule holds and no deny rule does, by the first of them.
    #[test]
    fn the_account_agrees_with_the_gate(rules in any_rules(), country in any_country(), at in 0i64..24, ten: bool) {
        let mut context = door(country);
        context.now = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(10 + at);
        context.client_ip = if ten { "10.1.2.3".parse::<IpAddr>().unwrap() } else { context.client_ip };
        let account = explain(rules, &Locks::default(), &Action::SshShell, &context);
        let holds = |effect| account.rules.iter().filter(move |rule| rule.effect == effect && rule.holds);
        let expected = match holds(Effect::Deny).next() {
            Some(_) => None,
            None => holds(Effect::Allow).next().map(|rule| rule.name.clone()),
        };
        prop_assert_eq!(account.answer.ok().map(|allowed| allowed.rule), expected);
        for rule in &account.rules {
            prop_assert!(rule.about || !rule.holds);
            prop_assert!(!rule.why.is_empty(), "{:?}", rule);
        }
    }
}
