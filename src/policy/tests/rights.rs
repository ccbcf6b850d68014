//! What a rule allows, protocol by protocol.

use super::*;

/// Whether a rule with these rights allows this on a socket that fixes the login.
fn allows(rights: &Rights, action: &Action) -> bool {
    // Only SSH sockets exist: the right to some SSH opens the door.
    let ssh = rights.ssh.clone().unwrap_or(SshRights::Some(Box::new(SomeSsh { agent: true, ..SomeSsh::default() })));
    let rights = Rights { ssh: Some(ssh), ..rights.clone() };
    let rules = vec![Rule { rights, ..allow("r") }];
    let permit = ask(rules, &person("b@x", &[]), &socket("web-1", Some("deploy"))).unwrap();
    let got = permit.check(None, action);
    if let Ok(grant) = &got {
        assert_eq!((grant.action(), grant.rule()), (action, "r"));
    }
    got.is_ok()
}

#[test]
fn an_absent_protocol_is_refused() {
    let nothing = SomeSsh { logins: strings(&["root"]), forward_opaque: true, ..SomeSsh::default() };
    for rights in [Rights::default(), some(nothing), Rights { tcp: true, ..Rights::default() }] {
        assert!(!rights.reach(Protocol::Ssh));
        let denied = ask(vec![Rule { rights, ..allow("r") }], &person("b@x", &[]), &socket("web-1", None)).unwrap_err();
        assert_eq!(denied.to_string(), "web-1 refused: r allows nothing over ssh");
        assert_eq!((denied.rule(), denied.cause()), (Some("r"), Cause::Protocol));
    }
}

fn tcp(host: &str, port: u16) -> Destination {
    Destination::Tcp { host: host.into(), port }
}

fn to(host: &str, port: u16) -> Action {
    Action::SshForwardTo { to: tcp(host, port), opaque: false }
}

fn from(host: &str, port: u16) -> Action {
    Action::SshForwardFrom { at: tcp(host, port), opaque: false }
}

fn hosts(hosts: &[&str]) -> Vec<DestinationPattern> {
    hosts.iter().map(|host| DestinationPattern::parse(host).unwrap()).collect()
}

const READ: Action = Action::SshFiles { write: false };
const WRITE: Action = Action::SshFiles { write: true };

#[test]
fn an_empty_table_allows_all_and_one_with_keys_only_those() {
    let every = [
        Action::SshShell,
        exec("rm -rf /; id"),
        READ,
        WRITE,
        to("10.0.0.7", 443),
        from("localhost", 80),
        Action::SshAgent,
        Action::SshX11,
    ];
    let all = Rights { ssh: Some(SshRights::All), ..Rights::default() };
    assert!(every.iter().all(|action| allows(&all, action)));
    let opaque = SomeSsh { forward_opaque: true, ..SomeSsh::default() };
    for (ssh, allowed) in [
        (SomeSsh { shell: true, ..opaque.clone() }, vec![0]),
        (SomeSsh { exec: ExecRight::Any, ..opaque.clone() }, vec![1]),
        (SomeSsh { exec: patterns(&["rm **"]), agent: true, ..opaque.clone() }, vec![6]),
        (SomeSsh { sftp: FilesRight::Read, ..opaque.clone() }, vec![2]),
        (SomeSsh { sftp: FilesRight::Write, ..opaque.clone() }, vec![2, 3]),
        (SomeSsh { forward_to: hosts(&["10.0.0.7:443"]), ..opaque.clone() }, vec![4]),
        (SomeSsh { forward_from: hosts(&["*:80"]), ..opaque.clone() }, vec![5]),
        (SomeSsh { x11: true, ..opaque }, vec![7]),
    ] {
        let rights = some(ssh);
        let got: Vec<_> = (0..every.len()).filter(|at| allows(&rights, &every[*at])).collect();
        assert_eq!(got, allowed, "{rights:?}");
    }
}

#[test]
fn forwards_are_compared_as_host_and_port() {
    for (pattern, host, port, expected) in [
        ("10.0.0.7:443", "10.0.0.7", 443, true),
        ("10.0.0.7:443", "10.0.0.7", 80, false),
        ("10.0.0.7:443", "10.0.0.70", 443, false),
        ("DB.example.com:5432", "db.EXAMPLE.com", 5432, true),
        ("*.example.com:*", "db.example.com", 1, true),
        ("*.example.com:*", "example.com", 1, false),
        ("*.example.com:*", "db.example.com.evil.org", 1, false),
        ("*:443", "anything", 443, true),
        ("*:443", "anything", 444, false),
        ("*:*", "::1", 65535, true),
        ("[2001:db8::1]:443", "2001:db8::1", 443, true),
        ("[2001:db8::1]:443", "2001:db8::2", 443, false),
    ] {
        let rights = some(SomeSsh { forward_to: hosts(&[pattern]), ..SomeSsh::default() });
        assert_eq!(allows(&rights, &to(host, port)), expected, "{pattern} {host} {port}");
        assert!(!allows(&rights, &from(host, port)), "{pattern} {host} {port}");
    }
    for text in
        ["", "db", "db:", ":443", "db:0", "db:65536", "db:x", "2001:db8::1:443", "a b:1", "[::1]", "db:4*", "db:+1"]
    {
        assert_eq!(DestinationPattern::parse(text), Err(NoDestination), "{text}");
    }
}

#[test]
fn forwards_to_sockets_are_compared_as_paths() {
    for (pattern, path, expected) in [
        ("/run/app.sock", "/run/app.sock", true),
        ("/run/app.sock", "/run/APP.sock", false),
        ("/run/user/*", "/run/user/1000/x", true),
        ("/run/user/*", "/run/user/../docker.sock", false),
        ("/run/user/*", "/run/user/./x", false),
        ("*:*", "/run/app.sock", false),
    ] {
        let rights = some(SomeSsh { forward_to: hosts(&[pattern]), ..SomeSsh::default() });
        let to = Action::SshForwardTo { to: Destination::Path(path.into()), opaque: false };
        assert_eq!(allows(&rights, &to), expected, "{pattern} {path}");
    }
    for text in ["/run/../x", "/a/./b", "run/x"] {
        assert_eq!(DestinationPattern::parse(text), Err(NoDestination), "{text}");
    }
}

#[test]
fn what_cannot_be_read_in_a_forward_needs_a_right_of_its_own_from_the_same_rule() {
    let opaque = |host: &str| Action::SshForwardTo { to: tcp(host, 443), opaque: true };
    let open = SomeSsh { forward_to: hosts(&["open:443"]), forward_opaque: true, ..SomeSsh::default() };
    let plain = SomeSsh { forward_to: hosts(&["plain:443"]), ..SomeSsh::default() };
    assert!(allows(&some(open.clone()), &opaque("open")) && !allows(&some(plain.clone()), &opaque("plain")));
    assert!(!allows(&some(open), &opaque("plain")) && allows(&some(plain), &to("plain", 443)));
    assert!(allows(&Rights { ssh: Some(SshRights::All), ..Rights::default() }, &opaque("any")));
}

#[test]
fn narrowings_that_are_absent_do_not_narrow() {
    use StatementClass::{Admin, Read, Schema, Write};
    let database = |databases: &[&str], statements: &[StatementClass]| Rights {
        database: Some(DatabaseRights { databases: strings(databases), statements: statements.to_vec() }),
        ..Rights::default()
    };
    let statement = |database: &str, class| Action::Database { database: database.into(), class };
    let http = |list: &[HttpRights]| Rights { http: list.to_vec(), ..Rights::default() };
    let one = |methods: &[&str], paths: &[&str]| HttpRights { methods: strings(methods), paths: strings(paths) };
    let request = |method: &str, path: &str| Action::Http { method: method.into(), path: path.into() };
    let two = [one(&["GET"], &["/app/*"]), one(&["POST"], &["/api"])];
    for (rights, action, expected) in [
        (Rights::default(), statement("orders", Read), false),
        (database(&[], &[]), statement("orders", Admin), true),
        (database(&["orders", "app_*"], &[]), statement("app_1", Schema), true),
        (database(&["orders"], &[]), statement("Orders", Read), false),
        (database(&[], &[Read, Write]), statement("x", Write), true),
        // Each class for itself: what may write need not be allowed to read.
        (database(&[], &[Write]), statement("x", Read), false),
        (database(&["orders"], &[Read]), statement("x", Read), false),
        (http(&[]), request("GET", "/"), false),
        (http(&[HttpRights::default()]), request("DELETE", "/x"), true),
        (http(&two), request("GET", "/app/a/b"), true),
        (http(&two), request("POST", "/api"), true),
        // Two tables do not combine either.
        (http(&two), request("POST", "/app/a"), false),
        (http(&two), request("GET", "/api"), false),
        (http(&[one(&["GET"], &[])]), request("get", "/"), false),
        (http(&[one(&[], &["/app/*"])]), request("GET", "/app"), false),
        (Rights::default(), Action::Tcp, false),
        (Rights { tcp: true, ..Rights::default() }, Action::Tcp, true),
        (Rights { tcp: true, ..Rights::default() }, request("GET", "/"), false),
    ] {
        assert_eq!(allows(&rights, &action), expected, "{rights:?} {action}");
    }
}

#[test]
fn kubernetes_is_namespace_resource_and_verb() {
    let rights = |namespaces: &[&str], resources: &[&str], verbs: &[&str]| KubernetesRights {
        namespaces: strings(namespaces),
        resources: strings(resources),
        verbs: strings(verbs),
    };
    let ask = |verb: &str, resource: &str, namespace: Option<&str>| Action::Kubernetes {
        verb: verb.into(),
        resource: resource.into(),
        namespace: namespace.map(Into::into),
    };
    let two = vec![rights(&["web-*"], &["pods", "pods/log"], &["get", "list"]), rights(&["db"], &["pods/*"], &[])];
    for (kubernetes, action, expected) in [
        (vec![], ask("get", "pods", Some("web")), false),
        (vec![rights(&[], &[], &[])], ask("delete", "nodes", None), true),
        (two.clone(), ask("get", "pods/log", Some("web-1")), true),
        (two.clone(), ask("get", "pods/exec", Some("web-1")), false),
        (two.clone(), ask("create", "pods", Some("web-1")), false),
        (two.clone(), ask("create", "pods/exec", Some("db")), true),
        (two.clone(), ask("get", "pods", Some("db")), false),
        // What belongs to no namespace is in none.
        (two.clone(), ask("get", "pods", None), false),
        (two, ask("get", "pods", Some("web")), false),
    ] {
        let rights = Rights { kubernetes, ..Rights::default() };
        assert_eq!(allows(&rights, &action), expected, "{rights:?} {action}");
    }
}

#[test]
fn a_login_counts_where_the_user_chooses_it() {
    let bob = person("bob@example.com", &[]);
    let rights = some(SomeSsh { shell: true, logins: strings(&["deploy", "app-*"]), ..SomeSsh::default() });
    let none = some(SomeSsh { shell: true, ..SomeSsh::default() });
    let all = Rights { ssh: Some(SshRights::All), ..Rights::default() };
    let permit =
        |to: &Socket, rights: &Rights| ask(vec![Rule { rights: rights.clone(), ..allow("r") }], &bob, to).unwrap();
    let chosen = socket("web-1", None);
    for (rights, login, expected) in [
        (&rights, Some("deploy"), None),
        (&rights, Some("app-1"), None),
        (&rights, Some("root"), Some("web-1 refused: r does not allow login \"root\"")),
        (&rights, Some(""), Some("web-1 refused: r does not allow login \"\"")),
        (&rights, None, Some("web-1 refused: r needs a login: use login@socket")),
        (&none, Some("deploy"), Some("web-1 refused: r does not allow login \"deploy\"")),
        (&all, Some("root"), None),
        (&all, None, Some("web-1 refused: r needs a login: use login@socket")),
    ] {
        for action in [Action::SshShell, Action::Connect { login: login.map(Into::into) }] {
            let denied = permit(&chosen, rights).check(login, &action).err().map(|denied| denied.to_string());
            assert_eq!(denied.as_deref(), expected, "{rights:?} {login:?}");
        }
    }
    // What counts for a connection is the login that it is made with.
    assert!(permit(&chosen, &rights).check(Some("deploy"), &Action::Connect { login: Some("root".into()) }).is_err());
    let shell = Socket { upstream: UpstreamSpec::Shell { username: "me".into() }, ..socket("web-1", None) };
    for fixed in [socket("web-1", Some("root")), shell] {
        assert!(permit(&fixed, &rights).check(None, &Action::SshShell).is_ok());
        let asked = permit(&fixed, &rights).check(Some("deploy"), &Action::SshShell).unwrap_err();
        assert_eq!(asked.to_string(), "web-1 refused: the login there is fixed; connect as web-1 alone");
    }
}

#[test]
fn a_patterned_exec_is_marked() {
    let grant = |rights| {
        let permit = ask(vec![Rule { rights, ..allow("r") }], &person("b@c", &[]), &socket("s", Some("u")));
        permit.unwrap().check(None, &exec("uptime")).unwrap()
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
    let patterned = grant(some(SomeSsh { shell: true, exec: patterns(&["uptime"]), ..SomeSsh::default() }));
    assert!(patterned.patterned());
    assert_eq!(env.map(|name| patterned.keeps_env(name)), std::array::from_fn(|at| at < 4));
    let any = some(SomeSsh { exec: ExecRight::Any, ..SomeSsh::default() });
    for rights in [any, Rights { ssh: Some(SshRights::All), ..Rights::default() }] {
        let grant = grant(rights);
        assert!(!grant.patterned());
        assert!(env.iter().all(|name| grant.keeps_env(name)));
        assert_eq!(grant.action(), &exec("uptime"));
    }
}

#[test]
fn an_action_is_named_in_words() {
    let kubernetes = |namespace: Option<&str>| Action::Kubernetes {
        verb: "get".into(),
        resource: "pods".into(),
        namespace: namespace.map(Into::into),
    };
    let read = Action::Database { database: "o".into(), class: StatementClass::Read };
    let http = Action::Http { method: "GET".into(), path: "/\n".into() };
    for (action, words, kind, finishes) in [
        (Action::Connect { login: None }, "to connect", "decision", false),
        (Action::SshShell, "shell", "ssh_shell", false),
        (exec("ls"), "exec \"ls\"", "ssh_exec", true),
        (READ, "reading files", "ssh_transfer", true),
        (WRITE, "writing files", "ssh_transfer", true),
        (to("db", 1), "a forward to db:1", "ssh_forward", false),
        (from("db", 1), "a forward from db:1", "ssh_forward", false),
        (Action::SshAgent, "agent forwarding", "ssh_agent", false),
        (Action::SshX11, "X11 forwarding", "ssh_x11", false),
        (read, "read statements in \"o\"", "statement", true),
        (http, "GET /\\n", "http_request", true),
        (kubernetes(None), "get pods", "kubernetes_request", false),
        (kubernetes(Some("web")), "get pods in web", "kubernetes_request", false),
        (Action::Tcp, "connections", "tcp", false),
    ] {
        assert_eq!((action.to_string().as_str(), action.event_kind(), action.finishes()), (words, kind, finishes));
    }
}
