//! One rule against another: deny, nearest, never combined; and the words.

use super::*;

#[test]
fn nobody_gets_in_without_a_rule() {
    let denied = ask(vec![], &person("bob@example.com", &[]), &socket("web-1", None)).unwrap_err();
    assert_eq!(denied.to_string(), "web-1 refused: no policy lets bob@example.com in");
    assert_eq!((denied.rule(), denied.cause(), denied.step_up()), (None, Cause::NoRule, None));
    assert_eq!(denied.reason(), "no policy lets bob@example.com in");
}

#[test]
fn nobody_gets_in_after_the_sign_in() {
    let (who, to) = (person("bob@example.com", &[]), socket("web-1", None));
    for (now, expected) in [("2026-01-01T20:59:59Z", None), ("2026-01-01T21:00:00Z", Some(Cause::SignInOver))] {
        let context = Context { now: at(now), ..noon() };
        let denied = ask_in(vec![allow("r")], &who, &to, &context).err();
        assert_eq!(denied.map(|denied| denied.cause()), expected, "{now}");
    }
    // A clock that is turned back does not help.
    let turned =
        Context { now: at("2026-01-01T10:00:00Z"), started: at("2026-01-01T12:00:00Z"), elapsed: HOUR * 9, ..noon() };
    let denied = ask_in(vec![allow("r")], &who, &to, &turned).unwrap_err();
    assert_eq!(denied.to_string(), "web-1 refused: your sign-in has expired; connect again to sign in");
}

#[test]
fn deny_wins_wherever_it_stands() {
    let staff = || Rule { who: Who { groups: strings(&["staff"]), ..Who::default() }, ..allow("staff") };
    let deny = || Rule {
        who: Who { groups: strings(&["contractor"]), ..Who::default() },
        sockets: SocketMatch { names: strings(&["web-*"]), ..SocketMatch::default() },
        ..rule("no-contractors", Effect::Deny)
    };
    let bob = person("bob@example.com", &["staff", "contractor"]);
    for rules in [vec![staff(), deny()], vec![deny(), staff()]] {
        let denied = ask(rules.clone(), &bob, &socket("web-1", None)).unwrap_err();
        assert_eq!(denied.to_string(), "web-1 refused: no-contractors denies bob@example.com");
        assert_eq!((denied.rule(), denied.cause()), (Some("no-contractors"), Cause::DenyRule));
        assert!(ask(rules.clone(), &bob, &socket("db-1", None)).is_ok());
        assert!(ask(rules, &person("al@example.com", &["staff"]), &socket("web-1", None)).is_ok());
    }
}

#[test]
fn a_deny_rule_that_does_not_hold_now_and_here_denies_nothing() {
    let (who, to) = (person("bob@example.com", &[]), socket("web-1", None));
    let night = When::new(Days::ALL, Hours::parse("22:00-06:00").ok(), jiff::tz::TimeZone::UTC, None, None);
    let elsewhere = PlaceMatch { networks: vec!["10.0.0.0/8".parse().unwrap()], ..PlaceMatch::default() };
    for (deny, expected) in [
        (rule("d", Effect::Deny), false),
        (Rule { when: night, ..rule("d", Effect::Deny) }, true),
        (Rule { place: elsewhere, ..rule("d", Effect::Deny) }, true),
    ] {
        assert_eq!(ask(vec![allow("r"), deny], &who, &to).is_ok(), expected);
    }
}

#[test]
fn two_rules_never_combine() {
    let deploys = SomeSsh { exec: patterns(&["uptime"]), logins: strings(&["deploy"]), ..SomeSsh::default() };
    let roots = SomeSsh { shell: true, logins: strings(&["root"]), ..SomeSsh::default() };
    let rules =
        vec![Rule { rights: some(deploys), ..allow("deploys") }, Rule { rights: some(roots), ..allow("roots") }];
    let permit = ask(rules, &person("bob@example.com", &[]), &socket("web-1", None)).unwrap();
    assert_eq!(permit.rule(), "deploys");
    assert_eq!(permit.check(Some("root"), &Action::SshShell).unwrap().rule(), "roots");
    assert_eq!(permit.check(Some("deploy"), &exec("uptime")).unwrap().rule(), "deploys");
    let denied = permit.check(Some("root"), &exec("uptime")).unwrap_err();
    assert_eq!(denied.to_string(), "web-1 refused: roots does not allow exec \"uptime\"");
    assert_eq!((denied.rule(), denied.cause()), (Some("roots"), Cause::Action));
    assert!(permit.check(Some("deploy"), &Action::SshShell).is_err());

    // One for the office by day, one for a fresh sign-in: half of each is not enough.
    let office = PlaceMatch { networks: vec!["10.0.0.0/8".parse().unwrap()], ..PlaceMatch::default() };
    let day = When::new(Days::ALL, Hours::parse("09:00-18:00").ok(), jiff::tz::TimeZone::UTC, None, None);
    let fresh = Require { max_sign_in_age: Some(HOUR), ..Require::default() };
    let rules = || {
        vec![
            Rule { place: office.clone(), when: day.clone(), ..allow("office") },
            Rule { require: fresh.clone(), ..allow("fresh") },
        ]
    };
    let (who, to) = (person("bob@example.com", &[]), socket("web-1", None));
    for (ip, now, expected) in [
        ([10, 0, 0, 1], "2026-01-01T12:00:00Z", Ok("office")),
        ([10, 0, 0, 1], "2026-01-01T19:00:00Z", Err(Some("fresh"))),
        ([192, 0, 2, 1], "2026-01-01T12:00:00Z", Err(Some("fresh"))),
        ([192, 0, 2, 1], "2026-01-01T09:30:00Z", Ok("fresh")),
    ] {
        let context = Context::at_door(ip.into(), Country::Unknown, at(now));
        let got = ask_in(rules(), &who, &to, &context);
        let got = got.as_ref().map(Permit::rule).map_err(Denied::rule);
        assert_eq!(got, expected, "{ip:?} {now}");
    }
}

#[test]
fn the_nearest_rule_is_named() {
    let far = || Rule { rights: Rights { tcp: true, ..Rights::default() }, ..allow("far") };
    let place = || Rule {
        place: PlaceMatch { networks: vec!["10.0.0.0/8".parse().unwrap()], ..PlaceMatch::default() },
        ..allow("place")
    };
    let old = || Rule { require: Require { max_sign_in_age: Some(HOUR), ..Require::default() }, ..allow("old") };
    let (who, to) = (person("bob@example.com", &[]), socket("web-1", None));
    for (rules, expected) in [
        (vec![far()], "far"),
        (vec![far(), place()], "place"),
        (vec![place(), far()], "place"),
        (vec![old(), place(), far()], "old"),
        // The first of those that are as near.
        (vec![far(), Rule { name: "far-2".into(), ..far() }], "far"),
    ] {
        assert_eq!(ask(rules, &who, &to).unwrap_err().rule(), Some(expected));
    }
}

#[test]
fn a_step_up_is_offered_where_nothing_else_is_missing() {
    let require = Require { max_sign_in_age: Some(HOUR), acr: strings(&["gold"]), amr: vec![] };
    let needy = || Rule { require: require.clone(), ..allow("needy") };
    let elsewhere = PlaceMatch { networks: vec!["10.0.0.0/8".parse().unwrap()], ..PlaceMatch::default() };
    let to = socket("web-1", None);
    let offered = Some(StepUp { max_age: Some(HOUR), acr: strings(&["gold"]) });
    let (plain, gold) = (person("b@x", &[]), identity("b@x", &[], json!({"acr": "gold"})));
    let far = Rule { place: elsewhere, ..needy() };
    let over = Rule { limits: Limits { max_session: Some(HOUR), ..Limits::default() }, ..needy() };
    for (rules, who, cause, expected) in [
        (vec![needy()], &plain, Cause::SignInKind, &offered),
        (vec![needy()], &gold, Cause::SignInAge, &offered),
        (vec![far.clone()], &plain, Cause::Place, &None),
        (vec![far, needy()], &plain, Cause::SignInKind, &offered),
        (vec![over], &plain, Cause::Length, &None),
        (vec![needy(), rule("d", Effect::Deny)], &plain, Cause::DenyRule, &None),
    ] {
        let context = Context { elapsed: HOUR, ..noon() };
        let denied = ask_in(rules, who, &to, &context).unwrap_err();
        assert_eq!((denied.cause(), denied.step_up()), (cause, expected.as_ref()), "{denied}");
    }
}

#[test]
fn long_and_strange_words_are_made_fit_for_a_terminal() {
    let shell = SomeSsh { shell: true, logins: strings(&["*"]), ..SomeSsh::default() };
    let rules = vec![Rule { rights: some(shell), ..allow("r") }];
    let permit = ask(rules, &person("b@c", &[]), &socket("s", None)).unwrap();
    let denied = permit.check(Some("x"), &exec(&"é".repeat(100_000))).unwrap_err();
    assert!(denied.to_string().len() < 400 && denied.to_string().ends_with("...\""), "{denied}");
    let denied = permit.check(Some("x"), &exec("\x1b[2J\u{202e}")).unwrap_err();
    assert_eq!(denied.to_string(), "s refused: r does not allow exec \"\\u{1b}[2J\\u{202e}\"");
    assert_eq!(Denied::ending("s").to_string(), "s refused: the session is ending");
}
