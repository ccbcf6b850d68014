//! Rules that are right and hardly meant.

use super::*;

const ALLOW: &str = "[[policy]]\nname = \"p\"\neffect = \"allow\"\n";
const DENY: &str = "[[policy]]\nname = \"d\"\neffect = \"deny\"\n";

#[test]
fn doubts_are_warned_of() {
    let allow = "[[policy]]\nname = \"p\"\neffect = \"allow\"\n";
    let all = "allow.ssh = {}\n";
    let n = lines(HEAD) + lines(SOCKET);
    let deny = "[[policy]]\nname = \"d\"\neffect = \"deny\"\n";
    for (policies, expected) in [
        (format!("{allow}{all}"), vec![]),
        (String::new(), vec!["- no policy lets anybody on web-1".to_owned()]),
        (
            format!("{allow}sockets.names = [\"web-1\", \"web-2\"]\n{all}"),
            vec![format!("{}:27 \"web-2\" is the name of no socket", n + 4)],
        ),
        (
            format!("{allow}sockets.names = [\"db-*\", \"web-1\"]\n{all}"),
            vec![format!("{}:18 \"db-*\" matches no socket", n + 4)],
        ),
        (
            format!("{allow}who.groups = [\"g\", \"g\"]\n{all}"),
            vec![format!("{}:20 \"g\" stands in this list twice", n + 4)],
        ),
        (
            format!("{allow}who.groups = []\n{all}"),
            vec![format!(
                "{}:8 `who` of p names nobody, which counts as absent: it means everybody who is signed in",
                n + 2
            )],
        ),
        (
            format!("{allow}sockets.names = []\n{all}"),
            vec![format!("{}:8 `sockets` of p names none, which counts as absent: it means every socket", n + 2)],
        ),
        (
            allow.to_owned(),
            vec![
                "- no policy lets anybody on web-1".to_owned(),
                format!("{}:8 p allows nothing: it has no [policy.allow.ssh]", n + 2),
            ],
        ),
        (
            format!("{allow}allow.ssh = {{ shell = false }}\n"),
            vec![
                "- no policy lets anybody on web-1".to_owned(),
                format!("{}:8 p allows nothing over ssh: all there is in it is refused", n + 2),
            ],
        ),
        (
            format!("{allow}allow.ssh = {{ shell = true, exec = [\"ls\"] }}\n"),
            vec![format!("{}:8 `shell = true` in p makes `exec` advisory: a shell runs anything", n + 2)],
        ),
        (
            format!("{allow}who.groups = [\"g\"]\n{all}{deny}"),
            vec![format!("{}:8 p never allows anything: d denies the same people there", n + 2)],
        ),
        (format!("{allow}who.groups = [\"g\"]\n{all}{deny}who.groups = [\"h\"]\n"), vec![]),
        (format!("{allow}{all}{deny}who.groups = [\"h\"]\n"), vec![]),
    ] {
        let mut got = warnings(&[HEAD, SOCKET, &policies].concat());
        got.sort();
        assert_eq!(got, expected, "{policies}");
    }
    let chosen = SOCKET.replace("username = \"deploy\"\n", "");
    let got = warnings(&[HEAD, &chosen, allow, "allow.ssh = { shell = true }\n"].concat());
    assert_eq!(
        got,
        [format!("{}:8 p has no `logins`, and web-1 has no `username`: nobody gets in there by it", n + 1)]
    );
}

/// Warnings of the lines of one rule, and of others behind it.
#[test]
fn rules_that_cannot_do_what_they_seem_to_are_warned_of() {
    let socket = SOCKET.replace("type =", "tags = { env = \"prod\", team = \"web\" }\ntype =");
    let n = lines(HEAD) + lines(&socket) + 4;
    let all = "allow.ssh = {}";
    let mut wrong = Vec::new();
    for (allow, line, others, expected) in [
        (all, "sockets.tags = { env = \"prod\", team = \"web\" }", "", vec![]),
        (all, "sockets = { names = [\"web-1\"], tags = { env = \"prod\" } }", "", vec![]),
        (
            all,
            "sockets = { names = [\"web-1\"], tags = { env = \"test\" } }",
            "",
            vec![format!("{n}:47 no socket has the tag env = \"test\"")],
        ),
        (
            all,
            "who.claims = { groups = \"g\", dept = \"web\" }",
            "",
            vec![format!("{n}:25 nobody fits the claim \"groups\": it has a place of its own, `groups`")],
        ),
        (all, "where.networks = [\"10.0.0.0/8\"]", "", vec![]),
        (
            all,
            "where.networks = []",
            "",
            vec![format!("{}:8 `where` of p names nothing, which counts as absent: it means everywhere", n - 2)],
        ),
        (
            all,
            "where = { countries = [\"NL\"] }",
            "",
            vec![format!("{n}:9 p never holds: without a database in [geo] nobody's country is known")],
        ),
        (
            all,
            "where = { not_countries = [\"UK\"] }",
            "",
            vec![
                format!("{n}:28 no country has the code \"UK\""),
                format!("{n}:9 p never allows anything: without a database in [geo] nobody's country is known"),
            ],
        ),
        (all, "when.before = 2020-01-01T00:00:00Z", "", vec![format!("{n}:15 p has ended: it never holds again")]),
        (
            all,
            "when.timezone = \"UTC\"",
            "",
            vec![format!("{n}:17 `timezone` of p does nothing without `days` or `hours`")],
        ),
        (all, "when = { timezone = \"UTC\", hours = \"22:00-06:00\" }", "", vec![]),
        (
            all,
            "require.max_sign_in_age = \"12h\"",
            "",
            vec![format!("{n}:27 this never matters: sign-ins end no later than that by [oidc] session_lifetime")],
        ),
        (all, "require.max_sign_in_age = \"11h\"", "", vec![]),
        (
            all,
            "max_session = \"1h\"\nidle_timeout = \"1h\"",
            "",
            vec![format!("{}:16 this never matters: `max_session` ends sessions no later than that", n + 1)],
        ),
        (
            "allow.ssh.shell = true\nallow.ssh.sftp = \"read\"\nallow.ssh.forward_to = [\"a:1\"]",
            "allow.ssh.exec = false",
            "",
            vec![format!(
                "{}:8 `shell = true` in p makes `exec`, `sftp` and `forward_to` advisory: a shell runs anything",
                n - 2
            )],
        ),
        ("allow.ssh = { shell = true, exec = true, sftp = \"write\", forward_to = [\"*:*\"] }", "", "", vec![]),
        (
            "allow.ssh = { forward_opaque = true, logins = [\"x\"] }",
            "",
            "",
            vec![
                "- no policy lets anybody on web-1".to_owned(),
                format!("{}:8 p allows nothing over ssh: all there is in it is refused", n - 2),
            ],
        ),
        ("allow.ssh = { agent = true }", "", "", vec![]),
        (
            "allow = { ssh = {}, database = {}, tcp = {} }",
            "",
            "",
            vec![
                format!("{}:32 [policy.allow.database] of p does nothing: there is no socket of that type", n + 1),
                format!("{}:42 [policy.allow.tcp] of p does nothing: there is no socket of that type", n + 1),
            ],
        ),
        // Denied the same: only where that is certain.
        (all, "who.emails = [\"a@x.com\"]", "who.domains = [\"x.com\"]", vec![shadowed(n)]),
        (all, "who.claims = { a = \"1\" }", "who.claims = { a = [\"1\", \"2\"] }", vec![shadowed(n)]),
        (all, "who.claims = { a = [\"1\", \"3\"] }", "who.claims = { a = [\"1\", \"2\"] }", vec![]),
        (all, "who.groups = [\"g\"]", "sockets.tags = { env = \"prod\" }", vec![shadowed(n)]),
        (all, "who.groups = [\"g\"]", "where.networks = [\"10.0.0.0/8\"]", vec![]),
        (all, "who.groups = [\"g\"]", "when.hours = \"09:00-18:00\"", vec![]),
        (all, "who.domains = [\"x.com\"]", "who.emails = [\"a@x.com\"]", vec![]),
    ] {
        let deny = if others.is_empty() { String::new() } else { format!("{DENY}{others}\n") };
        let mut got = warnings(&format!("{HEAD}{socket}{ALLOW}{line}\n{allow}\n{deny}"));
        got.sort();
        if got != expected {
            wrong.push(format!("{line}\n{allow}\n{others}\n{got:#?}\n{expected:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
    let denies = format!("{DENY}where = {{ not_countries = [\"NL\"] }}\n{ALLOW}allow.ssh = {{}}\n");
    let expected = "d denies everybody: without a database in [geo] nobody's country is known";
    assert_eq!(warnings(&[HEAD, SOCKET, &denies].concat()), [format!("{}:9 {expected}", n - 1)]);
}

fn shadowed(line: usize) -> String {
    format!("{}:8 p never allows anything: d denies the same people there", line - 2)
}

#[test]
fn with_a_database_countries_are_believed_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.mmdb"), crate::geo::testing::empty_database()).unwrap();
    let place = "where = { countries = [\"NL\", \"BE\"], not_countries = [\"nl\"] }\nallow.ssh = {}\n";
    let text = format!("{HEAD}[geo]\ncountry_database = \"c.mmdb\"\n{SOCKET}{ALLOW}{place}");
    let (config, _) = parse(&text, &dir.path().join("x.toml"), &env).unwrap_or_else(|errors| panic!("{errors}"));
    let words: Vec<_> = config.warnings.iter().map(Warning::words).collect();
    assert_eq!(words, ["\"NL\" is in `not_countries` too, which wins"]);
}
