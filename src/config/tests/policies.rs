//! `[[policy]]`: what becomes of it, and what is wrong with it.

use jiff::tz::TimeZone;

use super::*;
use crate::policy::{
    DatabaseRights, Days, DestinationPattern, Effect, ExecPattern, ExecRight, FilesRight, Hours, HttpRights,
    KubernetesRights, Limits, PlaceMatch, Require, Rights, Rule, SocketMatch, SomeSsh, SshRights, StatementClass, When,
    Who, weekday,
};

const ALLOW: &str = "[[policy]]\nname = \"p\"\neffect = \"allow\"\n";

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn rules(policies: &str) -> Vec<Rule> {
    let config = load_text(&[HEAD, SOCKET, policies].concat()).unwrap_or_else(|errors| panic!("{errors}"));
    config.policies.rules().iter().map(|rule| Rule::clone(rule)).collect()
}

/// Every key, as the contract shows them.
const EVERYTHING: &str = r#"
[[policy]]
name = "engineers-prod"
effect = "allow"
sockets = { names = ["web-*"], tags = { env = "prod" } }
who = { groups = ["G"], emails = ["A@X.com"], domains = ["X.com"], service_accounts = ["ci"], claims = { a = "1", b = ["2", "3"], c = [] } }
where = { networks = ["10.0.0.0/8", "::1"], countries = ["nl"], not_countries = ["XK"] }
when = { days = ["Mon", "fri"], hours = "09:00-18:00", timezone = "Europe/Amsterdam", after = "2026-01-01T00:00:00Z", before = 2099-01-01T01:00:00+01:00 }
require = { max_sign_in_age = "1h", acr = ["gold"], amr = ["hwk"], approval = false, watcher = false }
max_session = "8h"
idle_timeout = "30m"
finish_grace = "10m"
[policy.allow.ssh]
shell = true
exec = ["uptime"]
sftp = "read"
forward_to = ["10.0.0.7:443"]
forward_from = ["localhost:*"]
forward_opaque = true
agent = true
x11 = true
logins = ["deploy"]
[policy.allow.database]
databases = ["orders"]
statements = ["read", "admin"]
[[policy.allow.http]]
methods = ["get", "M-SEARCH"]
paths = ["/app/*"]
[[policy.allow.http]]
[[policy.allow.kubernetes]]
namespaces = ["web"]
resources = ["pods/exec"]
verbs = ["get"]
[policy.allow.tcp]
"#;

#[test]
fn every_key_becomes_a_part_of_its_rule() {
    let ssh = SomeSsh {
        shell: true,
        exec: ExecRight::Patterns(vec![ExecPattern::parse("uptime").unwrap()]),
        sftp: FilesRight::Read,
        forward_to: vec![DestinationPattern::parse("10.0.0.7:443").unwrap()],
        forward_from: vec![DestinationPattern::parse("localhost:*").unwrap()],
        forward_opaque: true,
        agent: true,
        x11: true,
        logins: strings(&["deploy"]),
    };
    let hour = Duration::from_secs(3600);
    let expected = Rule {
        name: "engineers-prod".into(),
        effect: Effect::Allow,
        sockets: SocketMatch { names: strings(&["web-*"]), tags: [("env".into(), "prod".into())].into() },
        who: Who {
            emails: strings(&["a@x.com"]),
            domains: strings(&["x.com"]),
            groups: strings(&["G"]),
            service_accounts: strings(&["ci"]),
            claims: [("a".into(), strings(&["1"])), ("b".into(), strings(&["2", "3"]))].into(),
        },
        place: PlaceMatch {
            networks: ["10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap()).into(),
            countries: strings(&["NL"]),
            not_countries: strings(&["XK"]),
        },
        when: When::new(
            Days::of(["mon", "fri"].map(|day| weekday(day).unwrap())).unwrap(),
            Some(Hours::parse("09:00-18:00").unwrap()),
            TimeZone::get("Europe/Amsterdam").unwrap(),
            Some("2026-01-01T00:00:00Z".parse().unwrap()),
            Some("2099-01-01T00:00:00Z".parse().unwrap()),
        ),
        require: Require { max_sign_in_age: Some(hour), acr: strings(&["gold"]), amr: strings(&["hwk"]) },
        limits: Limits { max_session: Some(hour * 8), idle_timeout: Some(hour / 2), finish_grace: Some(hour / 6) },
        rights: Rights {
            ssh: Some(SshRights::Some(Box::new(ssh))),
            database: Some(DatabaseRights {
                databases: strings(&["orders"]),
                statements: vec![StatementClass::Read, StatementClass::Admin],
            }),
            http: vec![
                HttpRights { methods: strings(&["GET", "M-SEARCH"]), paths: strings(&["/app/*"]) },
                HttpRights::default(),
            ],
            kubernetes: vec![KubernetesRights {
                namespaces: strings(&["web"]),
                resources: strings(&["pods/exec"]),
                verbs: strings(&["get"]),
            }],
            tcp: true,
        },
    };
    assert_eq!(rules(EVERYTHING), [expected]);
    // What is shown is a configuration again, and the same.
    let text = [HEAD, SOCKET, EVERYTHING].concat();
    let shown = show_text(&text, Path::new("x"), &env).unwrap();
    assert_eq!(load_text(&shown).unwrap().policies.rules(), load_text(&text).unwrap().policies.rules(), "{shown}");
}

#[test]
fn an_empty_list_counts_as_absent() {
    let empty = "sockets = { names = [], tags = {} }\nwho = { groups = [], claims = { a = [] } }\n\
                 where = { networks = [], countries = [] }\nwhen = { days = [] }\nrequire = { acr = [] }\n";
    let with = |allow: &str| rules(&format!("{ALLOW}{empty}{allow}")).remove(0);
    let plain = rules(&format!("{ALLOW}allow.ssh = {{}}\n")).remove(0);
    assert_eq!(with("allow.ssh = {}\n"), plain);
    for (allow, expected) in [
        // A right that somebody emptied is refused, and its table has keys all the same.
        ("allow.ssh = { logins = [] }\n", Rights { ssh: some(SomeSsh::default()), ..Rights::default() }),
        ("allow.ssh = { forward_to = [] }\n", Rights { ssh: some(SomeSsh::default()), ..Rights::default() }),
        ("allow.ssh = { sftp = false }\n", Rights { ssh: some(SomeSsh::default()), ..Rights::default() }),
        (
            "allow.ssh = { sftp = \"write\" }\n",
            Rights { ssh: some(SomeSsh { sftp: FilesRight::Write, ..SomeSsh::default() }), ..Rights::default() },
        ),
        // A narrowing that somebody emptied does not narrow.
        (
            "allow.database = { statements = [] }\n",
            Rights { database: Some(DatabaseRights::default()), ..Rights::default() },
        ),
        ("allow.http = [{ paths = [] }]\n", Rights { http: vec![HttpRights::default()], ..Rights::default() }),
        ("allow.http = []\n", Rights::default()),
        ("allow.kubernetes = []\n", Rights::default()),
        ("allow.tcp = {}\n", Rights { tcp: true, ..Rights::default() }),
        ("allow = {}\n", Rights::default()),
    ] {
        assert_eq!(with(allow).rights, expected, "{allow}");
    }
}

fn some(ssh: SomeSsh) -> Option<SshRights> {
    Some(SshRights::Some(Box::new(ssh)))
}

/// What is wrong in a fourth line.
#[test]
fn every_mistake_in_a_rule_is_told_at_its_place() {
    let deny = ALLOW.replace("allow", "deny");
    let mut wrong = Vec::new();
    for (line, expected) in [
        ("who.domains = [\"@x.com\"]", "16 this is no domain of e-mail addresses | write what stands behind the `@`"),
        ("who.domains = [\"*.x.com\"]", "16 this is no domain of e-mail addresses"),
        ("who.claims = { a = 3 }", "20 `a` has the wrong type | write a string or a list of strings"),
        ("who.claims = { a = [\"\"] }", "21 this is empty"),
        ("who.claim = { a = \"b\" }", "5 unknown key `claim` in [policy.who] | did you mean `claims`?"),
        ("sockets.tags = { a = [\"b\"] }", "22 `a` has the wrong type | write a string"),
        ("where.networks = [\"10.0.0.0/33\"]", "19 this is no network | write \"10.0.0.0/8\""),
        (
            "where.networks = [\"::ffff:10.0.0.0/104\"]",
            "19 this is an IPv4 network written as an IPv6 one | write it as",
        ),
        ("where.countries = [\"NLD\"]", "20 this is no country's code | write two letters, such as \"NL\""),
        ("where.not_countries = [\"N1\"]", "24 this is no country's code"),
        ("when.days = [\"Montag\"]", "14 this is no day of the week | did you mean \"mon\"?"),
        ("when.days = [\"x\"]", "14 this is no day of the week | write mon, tue, wed, thu, fri, sat, sun"),
        ("when.hours = \"9-18\"", "14 this is no range of hours | write \"HH:MM-HH:MM\""),
        ("when.hours = \"09:00-09:00\"", "14 this range of hours is empty"),
        ("when.timezone = \"Europe/Amsterdm\"", "17 this host's time zone database has no such time zone"),
        ("when.timezone = \"\"", "17 this is empty"),
        ("when.after = \"2026-01-01\"", "14 this is no time with its offset from UTC | write \"2026-01-01T00:00:00Z\""),
        ("when.after = 2026-01-01T00:00:00", "14 this is no time with its offset from UTC"),
        ("when.after = 3", "14 `after` has the wrong type | write a time such as \"2026-01-01T00:00:00Z\""),
        ("when.after = { a = 1 }", "14 `after` has the wrong type | write a time such as"),
        (
            "when = { after = 2026-01-01T00:00:00Z, before = 2026-01-01T00:00:00Z }",
            "49 `before` is not later than `after`: this never holds | exchange them",
        ),
        ("require.approval = true", "20 `approval` is not built yet | leave it out"),
        ("require.watcher = true", "19 `watcher` is not built yet | leave it out"),
        ("require.max_sign_in_age = \"0s\"", "27 this is out of range | write between 1s and 365d"),
        ("max_session = \"366d\"", "15 this is out of range | write between 1s and 365d"),
        ("idle_timeout = \"0s\"", "16 this is out of range | write between 1s and 365d"),
        ("finish_grace = \"2d\"", "16 this is out of range | write between 1s and 1d"),
        ("allow.ssh.sftp = true", "18 `true` does not say what may be done with files | write \"read\" or \"write\""),
        ("allow.ssh.sftp = \"raed\"", "18 unknown word \"raed\" | did you mean \"read\"?"),
        ("allow.ssh.sftp = [\"read\"]", "18 `sftp` has the wrong type | write \"read\", \"write\" or false"),
        ("allow.ssh.forward_to = [\"db\"]", "25 this is no host:port | write \"10.0.0.7:443\""),
        ("allow.ssh.forward_from = [\"db:0\"]", "27 this is no host:port"),
        ("allow.database.statements = [\"select\"]", "30 unknown word \"select\" | write \"read\" or \"write\""),
        ("allow.http = [{ methods = [\"G T\"] }]", "28 this is no HTTP method | write \"GET\""),
        ("allow.http = [{ methods = [\"*\"] }]", "28 this is no HTTP method"),
        ("allow.http = [{ paths = [\"app\"] }]", "26 a path begins with `/` | write \"/app/*\""),
        ("allow.http = {}", "14 [policy.allow.http] can stand more than once | write [[policy.allow.http]]"),
        ("allow.kubernetes = [{ verbs = [\"*\"] }]", "32 this is no verb | write \"get\""),
        (
            "allow.tcp = { ports = [1] }",
            "15 unknown key `ports` in [policy.allow.tcp] | leave it out: the table has no keys",
        ),
        ("allow.udp = {}", "7 unknown key `udp` in [policy.allow] | there are: ssh, database, http, kubernetes, tcp"),
    ] {
        let text = format!("{ALLOW}{line}\n{HEAD}");
        let got = errors(&text);
        if got.len() != 1 || !got[0].starts_with(&format!("4:{expected}")) {
            wrong.push(format!("{line}\n{got:#?}\n4:{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
    for (line, key, column) in [
        ("require.acr = [\"a\"]", "require", 1),
        ("require = {}", "require", 11),
        ("max_session = \"8h\"", "max_session", 15),
        ("idle_timeout = \"8h\"", "idle_timeout", 16),
        ("finish_grace = \"8h\"", "finish_grace", 16),
    ] {
        let expected =
            format!("4:{column} `{key}` means nothing in a rule that denies: it lets no session in | leave it out");
        let got = errors(&format!("{deny}{line}\n{HEAD}"));
        assert!(got.len() == 1 && got[0].starts_with(&expected), "{line}\n{got:#?}");
    }
}

#[test]
fn policies_become_rules() {
    let policies = r#"
[[policy]]
name = "all"
effect = "allow"
allow.ssh = {}
[[policy]]
name = "some"
effect = "allow"
sockets = { names = ["web-*"] }
who = { groups = ["g"], emails = ["a@x"] }
[policy.allow.ssh]
exec = ["uptime", "ls *"]
logins = ["root"]
[[policy]]
name = "empty"
effect = "allow"
allow.ssh = { exec = [] }
[[policy]]
name = "any"
effect = "allow"
allow.ssh = { exec = true, shell = true }
[[policy]]
name = "no"
effect = "deny"
who.groups = ["h"]
"#;
    let config = load_text(&[HEAD, SOCKET, policies].concat()).unwrap();
    let rules = config.policies.rules();
    let rights: Vec<_> = rules.iter().map(|rule| rule.rights.ssh.clone()).collect();
    let patterns = ["uptime", "ls *"].map(|text| crate::policy::ExecPattern::parse(text).unwrap());
    let some = |shell, exec, logins: &[&str]| {
        let logins = logins.iter().map(|l| (*l).to_owned()).collect();
        Some(SshRights::Some(Box::new(SomeSsh { shell, exec, logins, ..SomeSsh::default() })))
    };
    assert_eq!(
        rights,
        [
            Some(SshRights::All),
            some(false, ExecRight::Patterns(patterns.into()), &["root"]),
            // Not an empty table: nothing is allowed by a list that somebody emptied.
            some(false, ExecRight::None, &[]),
            some(true, ExecRight::Any, &[]),
            None,
        ]
    );
    assert_eq!(rules[1].sockets.names, ["web-*"]);
    assert_eq!((&rules[1].who.groups[..], &rules[1].who.emails[..]), (&["g".to_owned()][..], &["a@x".to_owned()][..]));
    assert_eq!(
        rules.iter().map(|rule| rule.effect == Effect::Deny).collect::<Vec<_>>(),
        [false, false, false, false, true]
    );
}
