//! Random rules and visits, near enough to each other that many are allowed and many are not.

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

fn few(items: &'static [&'static str]) -> impl Strategy<Value = Texts> {
    let some = subsequence(items.to_vec(), 1..=2.min(items.len()));
    prop_oneof![3 => Just(vec![]), 2 => some]
}

/// A Thursday before Amsterdam's clock goes forward on the Sunday; times are whole minutes of four days from then on.
fn any_time() -> impl Strategy<Value = Timestamp> {
    (0..4 * 24 * 60_i64).prop_map(|minute| at("2026-03-26T12:00:00Z") + SignedDuration::from_mins(minute))
}

fn any_keys() -> impl Strategy<Value = Keys> {
    let hosts = || few(&["db:5432", "*:443", "10.0.0.*:*"]);
    let flag = || proptest::bool::weighted(0.5);
    let logins = prop_oneof![1 => few(&["root", "app-*"]), 2 => Just(vec!["*"])];
    (flag(), flag(), few(&["uptime", "ls *", "git **"]), 0..3_u8, hosts(), hosts(), flag(), flag(), logins).prop_map(
        |(shell, any_exec, exec, sftp, forward_to, forward_from, agent, x11, logins)| Keys {
            shell,
            any_exec: any_exec && exec.is_empty(),
            exec,
            sftp,
            forward_to,
            forward_from,
            agent,
            x11,
            logins,
        },
    )
}

fn any_plain() -> impl Strategy<Value = Plain> {
    let maybe = |range: std::ops::Range<u64>| proptest::option::weighted(0.2, range.prop_map(|minutes| minutes * 60));
    let sockets = (few(&["web-*", "db-1", "*"]), few(&["env=prod", "team=web"]));
    let who = (few(&["g", "h"]), few(&["a@x.com", "b@y.com"]), few(&["x.com", "com"]), few(&["web", "db"]));
    let networks = few(&["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "0.0.0.0/0"]);
    let place = (networks, few(&["NL", "DE"]), few(&["DE", "XK"]));
    let minute = || (0..48_u16).prop_map(|half| half * 30);
    let hours = (minute(), prop_oneof![4 => minute(), 1 => Just(1440)]);
    let hours = proptest::option::weighted(0.4, hours.prop_filter("empty", |(from, to)| from != to));
    let days = prop_oneof![2 => Just(vec![]), 1 => subsequence((0..7_i8).collect::<Vec<_>>(), 1..=6)];
    let zone = select(vec!["Europe/Amsterdam", "UTC", "Australia/Lord_Howe"]);
    let end = || proptest::option::weighted(0.15, any_time());
    let when = (days, hours, zone, end(), end());
    let require = (maybe(1..2000), few(&["gold", "silver"]), few(&["otp", "hwk"]));
    let limits = (maybe(1..600), maybe(1..60));
    let ssh = proptest::option::weighted(0.9, proptest::option::weighted(0.6, any_keys()));
    let class = select(StatementClass::NAMED.map(|(_, class)| class).to_vec());
    let database = proptest::option::of((few(&["orders", "app_*"]), proptest::collection::vec(class, 0..3)));
    let http = proptest::collection::vec((few(&["GET", "POST"]), few(&["/app/*", "/"])), 0..3);
    let kubernetes = (few(&["web", "db-*"]), few(&["pods", "pods/*"]), few(&["get", "list"]));
    let kubernetes = proptest::collection::vec(kubernetes, 0..3);
    let rights = (ssh, database, http, kubernetes, any::<bool>());
    (proptest::bool::weighted(0.1), sockets, who, place, when, require, limits, rights).prop_map(
        |(deny, (names, tags), who, place, when, require, limits, rights)| Plain {
            deny,
            names,
            tags,
            groups: who.0,
            emails: who.1,
            domains: who.2,
            dept: who.3,
            networks: place.0,
            countries: place.1,
            not_countries: place.2,
            days: when.0,
            hours: when.1,
            zone: when.2,
            after: when.3,
            before: when.4,
            max_age: require.0,
            acr: require.1,
            amr: require.2,
            max_session: limits.0,
            idle_timeout: limits.1,
            ssh: rights.0,
            database: rights.1,
            http: rights.2,
            kubernetes: rights.3,
            tcp: rights.4,
        },
    )
}

fn tcp(host: &str, port: u16) -> Destination {
    Destination::Tcp { host: host.into(), port }
}

fn any_action() -> impl Strategy<Value = Action> {
    let command = select(vec!["uptime", "ls x", "ls x y", "git log -p", "uptime; id", "git log | sh"]);
    let host = || (select(vec!["db", "DB", "10.0.0.7", "x"]), select(vec![22, 443, 5432]));
    let class = select(StatementClass::NAMED.map(|(_, class)| class).to_vec());
    let namespace = proptest::option::of(select(vec!["web", "db-1", "x"]).prop_map(str::to_owned));
    prop_oneof![
        Just(Action::Connect { login: None }),
        Just(Action::SshShell),
        command.prop_map(exec),
        any::<bool>().prop_map(|write| Action::SshFiles { write }),
        host().prop_map(|(host, port)| Action::SshForwardTo { to: tcp(host, port), opaque: false }),
        host().prop_map(|(host, port)| Action::SshForwardFrom { at: tcp(host, port), opaque: false }),
        Just(Action::SshAgent),
        Just(Action::SshX11),
        (select(vec!["orders", "app_1", "x"]), class)
            .prop_map(|(database, class)| Action::Database { database: database.into(), class }),
        (select(vec!["GET", "POST", "PUT"]), select(vec!["/", "/app/x", "/app"]))
            .prop_map(|(method, path)| Action::Http { method: method.into(), path: path.into() }),
        (select(vec!["get", "list", "watch"]), select(vec!["pods", "pods/log", "nodes"]), namespace).prop_map(
            |(verb, resource, namespace)| Action::Kubernetes {
                verb: verb.into(),
                resource: resource.into(),
                namespace
            }
        ),
        Just(Action::Tcp),
    ]
}

fn any_context() -> impl Strategy<Value = Context> {
    let ip = select(vec!["10.0.0.5", "::ffff:10.0.0.5", "192.0.2.1", "192.0.2.2", "2001:db8::5", "2001:db9::5"]);
    let known = select(vec!["NL", "DE", "XK"]).prop_map(|code| Country::Known(code.into()));
    let country = prop_oneof![3 => known, 1 => Just(Country::Private), 1 => Just(Country::Unknown)];
    // The clock may have been set since the session began.
    let set = prop_oneof![3 => Just(0), 1 => -90..90_i64];
    (ip, country, any_time(), 0..600_u64, 0..60_u64, set).prop_map(|(ip, country, now, elapsed, idle, set)| Context {
        client_ip: ip.parse().unwrap(),
        country,
        now,
        started: now - SignedDuration::from_mins(elapsed as i64 + set),
        elapsed: MINUTE * elapsed as u32,
        idle: MINUTE * idle.min(elapsed) as u32,
    })
}

pub(in crate::policy::tests) fn any_visit() -> impl Strategy<Value = Visit> {
    let email = select(vec!["a@x.com", "A@X.com", "b@y.com", "c@z.com", "c@sub.x.com"]);
    let groups = subsequence(vec!["g", "h", "i"], 0..=3);
    let dept = subsequence(vec!["web", "db", "it"], 0..=2);
    let acr = select(vec![None, Some("gold"), Some("silver"), Some("bronze")]);
    let amr = subsequence(vec!["pwd", "otp", "hwk"], 0..=3);
    let name = select(vec!["web-1", "db-1", "other"]);
    let tags = subsequence(vec!["env=prod", "team=web", "env=test"], 0..=2);
    let fixed = proptest::option::of(Just("deploy"));
    let login = select(vec!["root", "app-1", "bob"]);
    let right_login = proptest::bool::weighted(0.9);
    let ages = (0..1500_i64, prop_oneof![9 => 600..4000_i64, 1 => 0..600_i64]);
    let person = (email, groups, dept, acr, amr, ages);
    (person, name, tags, fixed, login, right_login, any_context(), any_action()).prop_map(
        |((email, groups, dept, acr, amr, (age, left)), name, tags, fixed, login, right, context, action)| {
            let signed_in = context.now - SignedDuration::from_mins(age);
            let expires = context.now + SignedDuration::from_mins(left);
            let more = json!({
                "acr": acr, "amr": amr, "claims": {"dept": dept}, "signed_in": signed_in, "expires": expires,
            });
            // Where the socket fixes the login, the right one is none.
            let login = (fixed.is_some() != right).then_some(login);
            let action = match action {
                Action::Connect { .. } => Action::Connect { login: login.map(Into::into) },
                other => other,
            };
            let tags = tags.iter().map(|tag| tag.split_once('=').unwrap()).map(|(n, v)| (n.into(), v.into())).collect();
            let to = Socket { tags, ..socket(name, fixed) };
            let who = identity(email, &groups, more);
            Visit { who, groups, email, dept, acr, amr, signed_in, expires, to, login, context, action }
        },
    )
}

pub(in crate::policy::tests) fn any_rules() -> impl Strategy<Value = Vec<Plain>> {
    proptest::collection::vec(any_plain(), 0..8)
}
