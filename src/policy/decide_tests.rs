//! Tests of the decision: tables, and a second evaluator written from the contract that must agree.

use proptest::prelude::*;

use super::*;
use crate::policy::{ExecPattern, SocketMatch, Who};
use crate::socket::{HostKeyCheck, HostPort, OnFailure, SshCredential, SshUpstream};

fn person(email: &str, groups: &[&str]) -> Identity {
    serde_json::from_value(serde_json::json!({
        "issuer": "https://idp.example.com", "subject": email, "email": email, "groups": groups,
        "signed_in": "2026-01-01T00:00:00Z", "expires": "2026-01-01T12:00:00Z",
    }))
    .unwrap()
}

fn socket(name: &str, username: Option<&str>) -> Socket {
    let upstream = UpstreamSpec::Ssh(SshUpstream {
        address: HostPort { host: "10.0.0.5".into(), port: 22 },
        username: username.map(Into::into),
        credential: SshCredential::Password("x".into()),
        host_key: HostKeyCheck::Unverified,
    });
    shell_socket(name, upstream)
}

fn shell_socket(name: &str, upstream: UpstreamSpec) -> Socket {
    Socket {
        name: name.into(),
        protocol: Protocol::Ssh,
        tags: Default::default(),
        record: true,
        on_failure: OnFailure::EndSession,
        notice: None,
        listen: None,
        links: true,
        certificates: true,
        upstream,
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn rule(name: &str, effect: Effect, sockets: &[&str], groups: &[&str], ssh: Option<SshRights>) -> Rule {
    let who = Who { emails: vec![], groups: strings(groups) };
    Rule { name: name.into(), effect, sockets: SocketMatch { names: strings(sockets) }, who, ssh }
}

fn some(shell: bool, exec: ExecRight, logins: &[&str]) -> Option<SshRights> {
    Some(SshRights::Some { shell, exec, logins: strings(logins) })
}

fn patterns(items: &[&str]) -> ExecRight {
    ExecRight::Patterns(items.iter().map(|item| ExecPattern::parse(item).unwrap()).collect())
}

fn exec(command: &str) -> Action {
    Action::SshExec { command: command.as_bytes().to_vec() }
}

fn ask(rules: Vec<Rule>, who: &Identity, to: &Socket) -> Result<Permit, Denied> {
    decide(&Policies { rules }, who, to, &Context { client_ip: [127, 0, 0, 1].into() })
}

#[test]
fn nobody_gets_in_without_a_rule() {
    let denied = ask(vec![], &person("bob@example.com", &[]), &socket("web-1", None)).unwrap_err();
    assert_eq!(denied.to_string(), "no policy lets bob@example.com on web-1");
    assert_eq!(denied.rule(), None);
}

#[test]
fn whom_and_which_socket_a_rule_is_about() {
    let all = || Some(SshRights::All);
    let alice = person("Alice@Example.com", &["engineering", "oncall"]);
    let to = socket("web-1", None);
    for (sockets, emails, groups, expected) in [
        (&["web-1"][..], &[][..], &[][..], true),
        (&[], &[], &[], true),
        (&["web-*"], &[], &["engineering"], true),
        (&["web-*"], &[], &["other", "oncall"], true),
        (&["db-*", "web-1"], &[], &["oncall"], true),
        (&["db-*"], &[], &["engineering"], false),
        (&["web-"], &[], &["engineering"], false),
        (&["web-*"], &[], &["Engineering"], false),
        (&["web-*"], &[], &["engineer*"], false),
        (&["web-*"], &["alice@example.COM"], &[], true),
        (&["web-*"], &["alice@example.com"], &["other"], true),
        (&["web-*"], &["bob@example.com"], &["oncall"], true),
        (&["web-*"], &["bob@example.com"], &[], false),
        (&["web-*"], &["*@example.com"], &[], false),
    ] {
        let mut rule = rule("r", Effect::Allow, sockets, groups, all());
        rule.who.emails = strings(emails);
        assert_eq!(ask(vec![rule], &alice, &to).is_ok(), expected, "{sockets:?} {emails:?} {groups:?}");
    }
}

#[test]
fn deny_wins_wherever_it_stands() {
    let allow = || rule("staff", Effect::Allow, &["*"], &["staff"], Some(SshRights::All));
    let deny = || rule("no-contractors", Effect::Deny, &["web-*"], &["contractor"], None);
    let bob = person("bob@example.com", &["staff", "contractor"]);
    for rules in [vec![allow(), deny()], vec![deny(), allow()]] {
        let denied = ask(rules.clone(), &bob, &socket("web-1", None)).unwrap_err();
        assert_eq!(denied.to_string(), "web-1 refused: no-contractors denies bob@example.com");
        assert_eq!(denied.rule(), Some("no-contractors"));
        assert!(ask(rules.clone(), &bob, &socket("db-1", None)).is_ok());
        assert!(ask(rules, &person("al@example.com", &["staff"]), &socket("web-1", None)).is_ok());
    }
}

#[test]
fn an_absent_protocol_is_refused() {
    let bob = person("bob@example.com", &[]);
    for ssh in [None, some(false, ExecRight::None, &["root"])] {
        let denied = ask(vec![rule("r", Effect::Allow, &[], &[], ssh)], &bob, &socket("web-1", None)).unwrap_err();
        assert_eq!(denied.to_string(), "web-1 refused: r allows nothing over ssh");
        assert_eq!(denied.rule(), Some("r"));
    }
}

#[test]
fn what_is_absent_in_a_table_with_keys_is_refused() {
    let bob = person("bob@example.com", &[]);
    let to = socket("web-1", Some("deploy"));
    for (rights, action, expected) in [
        (Some(SshRights::All), Action::SshShell, None),
        (Some(SshRights::All), exec("rm -rf /"), None),
        (some(true, ExecRight::None, &[]), Action::SshShell, None),
        (some(true, ExecRight::None, &[]), exec("id"), Some("r does not allow exec \"id\"")),
        (some(false, ExecRight::Any, &[]), exec("a; b"), None),
        (some(false, ExecRight::Any, &[]), Action::SshShell, Some("r does not allow shell")),
        (some(false, patterns(&["uptime", "ls *"]), &[]), exec("ls x"), None),
        (some(false, patterns(&["uptime"]), &[]), exec("rm -rf /"), Some("r does not allow exec \"rm -rf /\"")),
        (
            some(false, patterns(&["uptime"]), &[]),
            exec("\x1b[2J\u{202e}"),
            Some("r does not allow exec \"\\u{1b}[2J\\u{202e}\""),
        ),
    ] {
        let permit = ask(vec![rule("r", Effect::Allow, &[], &[], rights.clone())], &bob, &to).unwrap();
        let got = permit.check(None, action.clone()).map(|grant| assert_eq!(*grant.action(), action));
        let expected = expected.map_or(Ok(()), |words| Err(format!("web-1 refused: {words}")));
        assert_eq!(got.map_err(|denied| denied.to_string()), expected, "{rights:?} {action:?}");
    }
}

#[test]
fn long_words_are_cut() {
    let permit = ask(
        vec![rule("r", Effect::Allow, &[], &[], some(true, ExecRight::None, &["*"]))],
        &person("b@c", &[]),
        &socket("s", None),
    )
    .unwrap();
    let denied = permit.check(Some("x"), exec(&"é".repeat(100_000))).unwrap_err();
    assert!(denied.to_string().len() < 400 && denied.to_string().ends_with("...\""), "{denied}");
}

#[test]
fn a_login_counts_where_the_user_chooses_it() {
    let bob = person("bob@example.com", &[]);
    let rights = some(true, ExecRight::None, &["deploy", "app-*"]);
    let permit = |to: &Socket, rights: &Option<SshRights>| {
        ask(vec![rule("r", Effect::Allow, &[], &[], rights.clone())], &bob, to).unwrap()
    };
    let chosen = socket("web-1", None);
    for (rights, login, expected) in [
        (&rights, Some("deploy"), None),
        (&rights, Some("app-1"), None),
        (&rights, Some("root"), Some("web-1 refused: r does not allow login \"root\"")),
        (&rights, Some(""), Some("web-1 refused: r does not allow login \"\"")),
        (&rights, None, Some("web-1 refused: r needs a login: use login@socket")),
        (&some(true, ExecRight::None, &[]), Some("deploy"), Some("web-1 refused: r does not allow login \"deploy\"")),
        (&Some(SshRights::All), Some("root"), None),
        (&Some(SshRights::All), None, Some("web-1 refused: r needs a login: use login@socket")),
    ] {
        for action in [Action::SshShell, Action::Connect { login: login.map(Into::into) }] {
            let denied = permit(&chosen, rights).check(login, action).err().map(|denied| denied.to_string());
            assert_eq!(denied.as_deref(), expected, "{rights:?} {login:?}");
        }
    }
    // What counts for a connection is the login that it is made with.
    assert!(permit(&chosen, &rights).check(Some("deploy"), Action::Connect { login: Some("root".into()) }).is_err());
    for fixed in [socket("web-1", Some("root")), shell_socket("web-1", UpstreamSpec::Shell { username: "me".into() })] {
        assert!(permit(&fixed, &rights).check(None, Action::SshShell).is_ok());
        let asked = permit(&fixed, &rights).check(Some("deploy"), Action::SshShell).unwrap_err();
        assert_eq!(asked.to_string(), "web-1 refused: the login there is fixed; connect as web-1 alone");
    }
}

#[test]
fn two_rules_never_combine() {
    let rules = vec![
        rule("deploys", Effect::Allow, &[], &[], some(false, patterns(&["uptime"]), &["deploy"])),
        rule("roots", Effect::Allow, &[], &[], some(true, ExecRight::None, &["root"])),
    ];
    let permit = ask(rules, &person("bob@example.com", &[]), &socket("web-1", None)).unwrap();
    assert_eq!(permit.rule(), "deploys");
    assert_eq!(permit.check(Some("root"), Action::SshShell).unwrap().rule(), "roots");
    assert_eq!(permit.check(Some("deploy"), exec("uptime")).unwrap().rule(), "deploys");
    let denied = permit.check(Some("root"), exec("uptime")).unwrap_err();
    assert_eq!(denied.to_string(), "web-1 refused: roots does not allow exec \"uptime\"");
    assert_eq!(denied.rule(), Some("roots"));
    assert!(permit.check(Some("deploy"), Action::SshShell).is_err());
}

#[test]
fn a_patterned_exec_is_marked() {
    let grant = |rights| {
        let permit =
            ask(vec![rule("r", Effect::Allow, &[], &[], rights)], &person("b@c", &[]), &socket("s", Some("u")));
        permit.unwrap().check(None, exec("uptime")).unwrap()
    };
    let env = [
        "LANG",
        "TERM",
        "LC_ALL",
        "LC_CTYPE",
        "LANGUAGE",
        "PATH",
        "LD_PRELOAD",
        "TERMINFO",
        "BASH_ENV",
        "XLC_ALL",
        "lang",
    ];
    let patterned = grant(some(true, patterns(&["uptime"]), &[]));
    assert!(patterned.patterned());
    assert_eq!(env.map(|name| patterned.keeps_env(name)), std::array::from_fn(|at| at < 4));
    for rights in [some(true, ExecRight::Any, &[]), Some(SshRights::All)] {
        let grant = grant(rights);
        assert!(!grant.patterned());
        assert!(env.iter().all(|name| grant.keeps_env(name)));
        assert_eq!(grant.action(), &exec("uptime"));
    }
}

/// The contract's sentences, one after another, with no regard for words or order.
fn naive(rules: &[Rule], who: &Identity, to: &Socket, login: Option<&str>, action: &Action) -> bool {
    let about = |rule: &&Rule| {
        let mut socket = rule.sockets.names.is_empty();
        for name in &rule.sockets.names {
            socket |= name == "*" || *name == to.name || (name == "web-*" && to.name.starts_with("web-"));
        }
        let mut person = rule.who.emails.is_empty() && rule.who.groups.is_empty();
        person |= rule.who.emails.iter().any(|email| email.eq_ignore_ascii_case(who.email()));
        person |= who.groups().iter().any(|group| rule.who.groups.contains(group));
        socket && person
    };
    if rules.iter().filter(about).any(|rule| rule.effect == Effect::Deny) {
        return false;
    }
    let fixed = matches!(&to.upstream, UpstreamSpec::Ssh(SshUpstream { username: Some(_), .. }));
    rules.iter().filter(about).any(|rule| match &rule.ssh {
        None => false,
        Some(SshRights::All) => fixed != login.is_some(),
        Some(SshRights::Some { shell, exec, logins }) => {
            let named = |login| logins.iter().any(|l| l == login || l == "*");
            let login = if fixed { login.is_none() } else { login.is_some_and(named) };
            login
                && match action {
                    Action::SshShell => *shell,
                    Action::SshExec { command } => match exec {
                        ExecRight::Any => true,
                        ExecRight::None => false,
                        ExecRight::Patterns(_) => command == b"uptime",
                    },
                    Action::Connect { .. } => *shell || *exec != ExecRight::None,
                }
        }
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let list = |items: &'static [&'static str]| proptest::sample::subsequence(items.to_vec(), 0..=2);
    let exec = prop_oneof![Just(ExecRight::None), Just(ExecRight::Any), Just(patterns(&["uptime"]))];
    let some = (any::<bool>(), exec, list(&["root", "deploy", "*"]));
    let some = some.prop_map(|(shell, exec, logins)| SshRights::Some { shell, exec, logins: strings(&logins) });
    let rights = proptest::option::of(prop_oneof![1 => Just(SshRights::All), 4 => some]);
    let effect = prop_oneof![4 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    let who = (list(&["a@x", "B@x"]), list(&["g", "h"]));
    (effect, list(&["web-*", "db-1", "*"]), who, rights).prop_map(|(effect, sockets, (emails, groups), ssh)| {
        let mut rule = rule("r", effect, &sockets, &groups, ssh);
        rule.who.emails = strings(&emails);
        rule
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn agrees_with_the_naive_evaluator(
        rules in proptest::collection::vec(any_rule(), 0..5),
        email in proptest::sample::select(vec!["a@x", "A@X", "b@x", "c@x"]),
        groups in proptest::sample::subsequence(vec!["g", "h", "i"], 0..=2),
        name in proptest::sample::select(vec!["web-1", "db-1", "other"]),
        username in proptest::option::of(Just("deploy")),
        login in proptest::sample::select(vec![None, Some("root"), Some("deploy"), Some("bob")]),
        action in 0..4,
    ) {
        let action = match action {
            0 => Action::SshShell,
            1 => exec("uptime"),
            2 => exec("reboot"),
            _ => Action::Connect { login: login.map(Into::into) },
        };
        let (who, to) = (person(email, &groups), socket(name, username));
        let expected = naive(&rules, &who, &to, login, &action);
        let got = ask(rules, &who, &to).and_then(|permit| permit.check(login, action));
        prop_assert_eq!(got.is_ok(), expected, "{:?}", got);
    }
}
