//! The parts of a rule, one at a time: sockets, who, where, when, require, limits.

use jiff::tz::TimeZone;

use super::*;

#[test]
fn which_sockets_a_rule_is_about() {
    let bob = person("bob@example.com", &[]);
    let tagged = |tags: &[(&str, &str)]| Socket {
        tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..socket("web-1", None)
    };
    let to = tagged(&[("env", "prod"), ("team", "web")]);
    for (names, tags, expected) in [
        (&[][..], &[][..], true),
        (&["web-1"], &[], true),
        (&["db-*", "web-1"], &[], true),
        (&["*"], &[], true),
        (&["web-"], &[], false),
        (&["Web-1"], &[], false),
        (&["db-*"], &[], false),
        // A name matches, or all tags do.
        (&["db-*"], &[("env", "prod")], true),
        (&["web-*"], &[("env", "test")], true),
        (&["db-*"], &[("env", "test")], false),
        (&[], &[("env", "prod"), ("team", "web")], true),
        (&[], &[("env", "prod"), ("team", "db")], false),
        (&[], &[("env", "prod"), ("zone", "a")], false),
        (&[], &[("env", "pro*")], false),
        (&[], &[("env", "")], false),
    ] {
        let tags: Vec<(&str, &str)> = tags.to_vec();
        let sockets = SocketMatch { names: strings(names), tags: tagged(&tags).tags };
        let policies = Policies::new(vec![Rule { sockets, ..allow("r") }]);
        let ask = |policies: &Policies| decide(policies, &Locks::default(), &bob, &to, &noon()).is_ok();
        assert_eq!(ask(&policies), expected, "{names:?} {tags:?}");
        // The same where the socket was there when the rules were sorted, also with other tags.
        for known in [&to, &tagged(&[("env", "prod")])] {
            assert_eq!(ask(&policies.clone().with_sockets([known])), expected, "{names:?} {tags:?}");
        }
    }
}

#[test]
fn whom_a_rule_is_about() {
    let more = json!({"claims": {"dept": "web", "sites": ["ams", "rtm"], "level": 3, "on": true, "odd": {"a": 1}}});
    let alice = identity("Alice@Example.com", &["engineering", "oncall"], more);
    let nothing = Who::default;
    let emails = |list: &[&str]| Who { emails: strings(list), ..nothing() };
    let groups = |list: &[&str]| Who { groups: strings(list), ..nothing() };
    let domains = |list: &[&str]| Who { domains: strings(list), ..nothing() };
    let claim = |name: &str, list: &[&str]| Who { claims: [(name.to_owned(), strings(list))].into(), ..nothing() };
    for (who, expected) in [
        (nothing(), true),
        (groups(&["other", "oncall"]), true),
        (groups(&["Engineering"]), false),
        (groups(&["engineer*"]), false),
        (groups(&["other"]), false),
        (emails(&["alice@example.com"]), true),
        (emails(&["bob@example.com"]), false),
        (emails(&["*@example.com"]), false),
        (domains(&["example.com"]), true),
        (domains(&["ample.com"]), false),
        (domains(&["com"]), false),
        (Who { service_accounts: strings(&["alice"]), ..nothing() }, false),
        (claim("dept", &["web"]), true),
        (claim("dept", &["db", "web"]), true),
        (claim("dept", &["Web"]), false),
        (claim("dept", &["we*"]), false),
        (claim("sites", &["rtm"]), true),
        (claim("sites", &["ams,rtm"]), false),
        (claim("level", &["3"]), true),
        (claim("on", &["true"]), true),
        (claim("odd", &["1"]), false),
        (claim("none", &["x"]), false),
        (claim("groups", &["oncall"]), false),
        // Any of them is enough.
        (Who { emails: strings(&["bob@example.com"]), ..groups(&["oncall"]) }, true),
        (Who { emails: strings(&["bob@example.com"]), ..claim("dept", &["web"]) }, true),
        (Who { domains: strings(&["x.com"]), ..emails(&["bob@example.com"]) }, false),
    ] {
        let got = ask(vec![Rule { who: who.clone(), ..allow("r") }], &alice, &socket("web-1", None));
        assert_eq!(got.is_ok(), expected, "{who:?}");
    }
}

#[test]
fn where_somebody_must_be() {
    let known = |code: &str| Country::Known(code.to_owned());
    let place = |networks: &[&str], countries: &[&str], not_countries: &[&str]| PlaceMatch {
        networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
        countries: strings(countries),
        not_countries: strings(not_countries),
    };
    // An address, a country, and whether a rule of each effect holds there.
    for (place, ip, country, allows, denies) in [
        (place(&[], &[], &[]), "192.0.2.1", Country::Unknown, true, true),
        (place(&["10.0.0.0/8"], &[], &[]), "10.9.8.7", Country::Private, true, true),
        (place(&["10.0.0.0/8"], &[], &[]), "11.0.0.1", Country::Private, false, false),
        (place(&["192.0.2.0/24", "10.0.0.0/8"], &[], &[]), "10.0.0.1", Country::Private, true, true),
        // An IPv4 address in IPv6's clothes is that IPv4 address, and in no IPv6 network.
        (place(&["10.0.0.0/8"], &[], &[]), "::ffff:10.0.0.1", Country::Private, true, true),
        (place(&["::/0"], &[], &[]), "::ffff:10.0.0.1", Country::Private, false, false),
        (place(&["2001:db8::/32"], &[], &[]), "2001:db8::1", Country::Unknown, true, true),
        (place(&["0.0.0.0/0"], &[], &[]), "2001:db8::1", Country::Unknown, false, false),
        (place(&[], &["NL", "BE"], &[]), "192.0.2.1", known("BE"), true, true),
        (place(&[], &["NL", "BE"], &[]), "192.0.2.1", known("DE"), false, false),
        (place(&[], &["NL"], &[]), "10.0.0.1", Country::Private, false, false),
        (place(&[], &["NL"], &[]), "192.0.2.1", Country::Unknown, false, false),
        (place(&[], &[], &["NL"]), "192.0.2.1", known("NL"), false, false),
        (place(&[], &[], &["NL"]), "192.0.2.1", known("DE"), true, true),
        (place(&[], &[], &["NL"]), "10.0.0.1", Country::Private, true, true),
        // What is not certain neither allows nor spares.
        (place(&[], &[], &["NL"]), "192.0.2.1", Country::Unknown, false, true),
        // All of them.
        (place(&["192.0.2.0/24"], &["NL"], &["DE"]), "192.0.2.1", known("NL"), true, true),
        (place(&["192.0.2.0/24"], &["NL"], &["DE"]), "198.51.100.1", known("NL"), false, false),
        (place(&["192.0.2.0/24"], &["NL"], &["NL"]), "192.0.2.1", known("NL"), false, false),
    ] {
        let context = Context::at_door(ip.parse().unwrap(), country, noon().now);
        let (who, to) = (person("b@x", &[]), socket("web-1", None));
        let allow_rule = Rule { place: place.clone(), ..allow("r") };
        let got = ask_in(vec![allow_rule], &who, &to, &context);
        assert_eq!(got.is_ok(), allows, "{place:?} {context:?}");
        assert!(got.is_ok_and(|permit| permit.rule() == "r") || !allows);
        let deny = Rule { place: place.clone(), ..rule("d", Effect::Deny) };
        assert_eq!(ask_in(vec![allow("r"), deny], &who, &to, &context).is_err(), denies, "{place:?} {context:?}");
    }
}

/// A rule, what is the matter, and what is said of it.
#[test]
fn what_is_missing_is_said() {
    let week = Days::of(["mon", "tue", "wed", "thu", "fri"].map(|day| weekday(day).unwrap())).unwrap();
    let office =
        When::new(week, Hours::parse("09:00-18:00").ok(), TimeZone::get("Europe/Amsterdam").unwrap(), None, None);
    let until = When::new(Days::ALL, None, TimeZone::UTC, None, Some(at("2026-01-01T12:00:00Z")));
    let nets = |nets: &[&str]| PlaceMatch {
        networks: nets.iter().map(|net| net.parse().unwrap()).collect(),
        ..PlaceMatch::default()
    };
    let many = ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"];
    let countries = |countries: &[&str]| PlaceMatch { countries: strings(countries), ..PlaceMatch::default() };
    let not = |countries: &[&str]| PlaceMatch { not_countries: strings(countries), ..PlaceMatch::default() };
    let here = |ip: &str, country: Country| Context::at_door(ip.parse().unwrap(), country, noon().now);
    let known = |code: &str| Country::Known(code.to_owned());
    let limits = Limits { max_session: Some(HOUR * 8), idle_timeout: Some(MINUTE * 30), finish_grace: None };
    let require = |max: Option<Duration>, acr: &[&str], amr: &[&str]| Require {
        max_sign_in_age: max,
        acr: strings(acr),
        amr: strings(amr),
    };
    let name = "engineers-prod";
    for (rule, context, cause, words) in [
        (
            Rule { when: office.clone(), ..allow(name) },
            Context { now: at("2026-01-01T17:04:10Z"), ..noon() },
            Cause::Time,
            "allows Mon-Fri 09:00-18:00 Europe/Amsterdam, now 18:04",
        ),
        (Rule { when: until, ..allow(name) }, noon(), Cause::Time, "allows nothing after 2026-01-01 12:00 UTC"),
        (
            Rule { place: nets(&["10.0.0.0/8"]), ..allow(name) },
            here("::ffff:192.0.2.1", known("NL")),
            Cause::Place,
            "allows 10.0.0.0/8, you are at 192.0.2.1",
        ),
        (
            Rule { place: nets(&many), ..allow(name) },
            here("192.0.2.1", known("NL")),
            Cause::Place,
            "allows 10.0.0.0/8, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16 and 2 more, you are at 192.0.2.1",
        ),
        (
            Rule { place: countries(&["NL", "BE"]), ..allow(name) },
            here("192.0.2.1", known("DE")),
            Cause::Place,
            "allows NL, BE, 192.0.2.1 is in DE",
        ),
        (
            Rule { place: countries(&["NL"]), ..allow(name) },
            here("10.0.0.1", Country::Private),
            Cause::Place,
            "allows NL, 10.0.0.1 is in a private network",
        ),
        (
            Rule { place: not(&["NL"]), ..allow(name) },
            here("192.0.2.1", Country::Unknown),
            Cause::Place,
            "allows everywhere but NL, where 192.0.2.1 is, is not known",
        ),
        (
            Rule { limits: limits.clone(), ..allow(name) },
            Context { elapsed: HOUR * 8, ..noon() },
            Cause::Length,
            "allows 8h at a time",
        ),
        (
            Rule { limits, ..allow(name) },
            Context { idle: MINUTE * 30, ..noon() },
            Cause::Idle,
            "ends what is idle for 30m",
        ),
        (
            Rule { require: require(Some(MINUTE * 90), &[], &[]), ..allow(name) },
            noon(),
            Cause::SignInAge,
            "needs a sign-in not older than 1h 30m, yours is 3h old; sign in again",
        ),
        (
            Rule { require: require(None, &["gold", "platinum"], &["hwk"]), ..allow(name) },
            noon(),
            Cause::SignInKind,
            "needs a sign-in with acr gold or platinum (yours: silver) and amr hwk (yours: pwd, otp)",
        ),
        (
            Rule { rights: Rights { tcp: true, ..Rights::default() }, ..allow(name) },
            noon(),
            Cause::Protocol,
            "allows nothing over ssh",
        ),
    ] {
        let who = identity("b@x", &[], json!({"acr": "silver", "amr": ["pwd", "otp"]}));
        let denied = ask_in(vec![rule], &who, &socket("web-1", None), &context).unwrap_err();
        assert_eq!(denied.to_string(), format!("web-1 refused: {name} {words}"));
        assert_eq!((denied.rule(), denied.cause()), (Some(name), cause));
    }
}

#[test]
fn what_a_sign_in_must_be_like() {
    let require = |max: Option<Duration>, acr: &[&str], amr: &[&str]| Require {
        max_sign_in_age: max,
        acr: strings(acr),
        amr: strings(amr),
    };
    let plain = json!({});
    let gold = json!({"acr": "gold", "amr": ["pwd", "hwk"]});
    for (require, more, expected) in [
        (require(None, &[], &[]), &plain, true),
        (require(None, &["gold"], &[]), &plain, false),
        (require(None, &["silver", "gold"], &[]), &gold, true),
        (require(None, &["silver"], &[]), &gold, false),
        (require(None, &[], &["hwk", "otp"]), &gold, true),
        (require(None, &[], &["otp"]), &gold, false),
        (require(None, &[], &["otp"]), &plain, false),
        (require(None, &["gold"], &["otp"]), &gold, false),
        (require(Some(HOUR * 3), &[], &[]), &plain, false),
        (require(Some(HOUR * 3 + MINUTE), &[], &[]), &plain, true),
        (require(Some(HOUR * 2), &["gold"], &["hwk"]), &gold, false),
    ] {
        let who = identity("b@x", &[], more.clone());
        let got = ask(vec![Rule { require: require.clone(), ..allow("r") }], &who, &socket("web-1", None));
        assert_eq!(got.is_ok(), expected, "{require:?} {more}");
    }
}

#[test]
fn how_long_a_session_lasts() {
    let limits = Limits { max_session: Some(HOUR), idle_timeout: Some(MINUTE), finish_grace: None };
    let rule = Rule { limits, ..allow("r") };
    let second = Duration::from_secs(1);
    for (elapsed, idle, expected) in [
        (Duration::ZERO, Duration::ZERO, true),
        (HOUR - second, MINUTE - second, true),
        (HOUR, Duration::ZERO, false),
        (HOUR / 2, MINUTE, false),
        (HOUR * 2, MINUTE * 2, false),
    ] {
        let context = Context { elapsed, idle, ..noon() };
        let got = ask_in(vec![rule.clone()], &person("b@x", &[]), &socket("web-1", None), &context);
        assert_eq!(got.is_ok(), expected, "{elapsed:?} {idle:?}");
    }
}

#[test]
fn the_longest_grace_of_a_rule_that_allows_it_counts() {
    let grace = |name, grace, exec| {
        let ssh = SomeSsh { exec, logins: strings(&["root"]), ..SomeSsh::default() };
        Rule { limits: Limits { finish_grace: grace, ..Limits::default() }, rights: some(ssh), ..allow(name) }
    };
    let rules = vec![
        grace("none", None, ExecRight::Any),
        grace("short", Some(MINUTE), patterns(&["uptime"])),
        grace("long", Some(HOUR), patterns(&["make **"])),
    ];
    let permit = ask(rules, &person("b@x", &[]), &socket("web-1", None)).unwrap();
    for (login, action, expected) in [
        (Some("root"), exec("uptime"), Some(MINUTE)),
        (Some("root"), exec("make all"), Some(HOUR)),
        (Some("root"), exec("id"), None),
        (Some("bob"), exec("make all"), None),
        (None, exec("make all"), None),
    ] {
        assert_eq!(permit.finish_grace(login, &action), expected, "{login:?} {action}");
    }
}
