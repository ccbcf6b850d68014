//! What is wrong is told: at its place, all at once, without secrets.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// What `text` behind the head gives, which is one error at this place.
#[test]
fn every_mistake_is_told_at_its_place() {
    let up = "[[socket]]\nname = \"a\"\ntype = \"ssh\"\n[socket.upstream]\n";
    let shell = format!("{up}kind = \"shell\"\n");
    let rest = format!("username = \"u\"\npassword = \"env:SECRET\"\nhost_key = \"{FINGERPRINT}\"\n");
    let good = format!("{up}address = \"x\"\n{rest}");
    let without =
        |key: &str| good.lines().filter(|line| !line.starts_with(key)).map(|l| format!("{l}\n")).collect::<String>();
    let with = |key: &str, line: &str| without(key) + line + "\n";
    let policy = "[[policy]]\nname = \"p\"\neffect = \"allow\"\n";
    let cases: Vec<(String, &str)> = vec![
        // Keys.
        (
            format!("{up}adress = \"x\"\n{rest}"),
            "5:1 unknown key `adress` in [socket.upstream] | did you mean `address`?",
        ),
        ("[recordings]\n".into(), "1:2 unknown key `recordings` in the file | did you mean `recording`?"),
        ("[log]\nclient_id = 1\n".into(), "2:1 unknown key `client_id` in [log] | `client_id` belongs to [oidc]"),
        ("[log]\nabcdefgh = 1\n".into(), "2:1 unknown key `abcdefgh` in [log] | there are: format, level"),
        (
            "[geo]\ncountry = \"x\"\n".into(),
            "2:1 unknown key `country` in [geo] | there are: country_database, city_database",
        ),
        (
            "[geo]\ncountry_database = \"no/such.mmdb\"\n".into(),
            "2:20 dir/no/such.mmdb: No such file or directory (os error 2) | name files in MaxMind's format (.mmdb)",
        ),
        // Syntax and types.
        ("[log]\nlevel = \"info\n".into(), "2:14 this is not TOML: "),
        ("[log]\nlevel = 3\n".into(), "2:9 `level` has the wrong type | write a string"),
        ("[log]\nlevel = [\"a\"]\n".into(), "2:9 `level` has the wrong type | write a string"),
        (
            "[limits]\nconnections_per_address = -1\n".into(),
            "2:27 `connections_per_address` has the wrong type | write a whole number, 0 or more",
        ),
        ("[socket]\nname = \"a\"\n".into(), "1:1 [socket] can stand more than once | write [[socket]]"),
        ("log = 3\n".into(), "1:7 `log` has the wrong type | write a table"),
        (with("host_key", "host_key = 3"), "8:12 `host_key` has the wrong type | write a string or a list of strings"),
        (
            format!("{policy}[policy.allow.ssh]\nexec = \"ls\"\n"),
            "5:8 `exec` has the wrong type | write true, false or a list of command patterns",
        ),
        (format!("{policy}who = {{ groups = [\"a\", 3] }}\n"), "4:24 `groups` has the wrong type | write a string"),
        // Values.
        ("[listen]\nssh = \"2222\"\n".into(), "2:7 this is no address to listen on | write an IP address and a port"),
        (
            "[listen]\nssh = \"0.0.0.0:8443\"\n".into(),
            "2:7 0.0.0.0:8443 is where [listen] https listens | choose another port",
        ),
        (
            "[listen]\nall = \"0.0.0.0:2222\"\n".into(),
            "2:7 0.0.0.0:2222 is where [listen] ssh listens | choose another port",
        ),
        (
            good.replace("type", "listen = \"127.0.0.1:2222\"\ntype"),
            "3:10 127.0.0.1:2222 is where [listen] ssh listens | choose another port",
        ),
        ("[sign_in]\nother_address = \"dney\"\n".into(), "2:17 unknown word \"dney\" | did you mean \"deny\"?"),
        ("[sign_in]\nother_address = \"x\"\n".into(), "2:17 unknown word \"x\" | write \"confirm\" or \"deny\""),
        (
            "[store]\nurl = \"postgres://u:pw@h/d\"\n".into(),
            "2:7 a store other than sqlite is not built yet | write \"sqlite\"",
        ),
        (
            "[recording]\nlocation = \"s3://b\"\n".into(),
            "2:12 a location other than \"file\" is not built yet | write \"file\"",
        ),
        ("[recording]\nmax_recording = \"10\"\n".into(), "2:17 this is no size; write a whole number and a unit"),
        ("[recording]\nmax_recording = \"1B\"\n".into(), "2:17 this is out of range | write 1KiB or more"),
        ("[limits]\nhandshake = \"soon\"\n".into(), "2:13 this is no duration"),
        ("[limits]\nhandshake = \"0s\"\n".into(), "2:13 this is out of range | write between 1s and 10m"),
        ("[limits]\nchannels_per_connection = 0\n".into(), "2:27 this is out of range | write 1 or more"),
        ("[log]\nlevel = \"a=b=c\"\n".into(), "2:9 this is no log level"),
        ("[recording]\nretention = \"0s\"\n".into(), "2:13 this is out of range | write between 1s and 36500d"),
        ("[recording]\nkey = \"AAAA\"\n".into(), "2:7 a secret does not stand here itself"),
        ("[recording]\nkey = \"env:SECRET\"\n".into(), "2:7 this is no recording key: 32 random bytes"),
        ("[recording]\nold_keys = [\"env:SECRET\"]\n".into(), "2:13 this is no recording key: 32 random bytes"),
        // Sockets.
        (good.replace("name = \"a\"\n", ""), "1:1 `name` is missing in [[socket]] | write name = \"web-1\""),
        (good.replace("\"a\"", "\"Web\""), "2:8 this is no DNS label"),
        (good.replace("\"a\"", "\"api\""), "2:8 the name \"api\" is taken by the gateway itself | choose another name"),
        (good.replace("\"ssh\"", "\"mysql\""), "3:8 \"mysql\" is not built yet | there is \"ssh\""),
        (good.replace("\"ssh\"", "\"shh\""), "3:8 unknown word \"shh\" | did you mean \"ssh\"?"),
        (format!("{good}{good}"), "10:8 there is another socket called \"a\" | give every socket its own name"),
        ("[[socket]]\nname = \"a\"\ntype = \"ssh\"\n".into(), "1:1 `upstream` is missing in [[socket]]"),
        (good.replace("type", "sign_in = []\ntype"), "3:11 an empty `sign_in` lets nobody in"),
        (format!("{up}kind = \"shell\"\n"), "4:1 `username` is missing in [socket.upstream] | write username = "),
        (format!("{shell}username = \"root\"\n"), "6:12 \"root\" is root, who can read everything | name a user"),
        (format!("{shell}username = \"no-such-user\"\n"), "6:12 this host has no user \"no-such-user\" | name a user"),
        (
            format!("{shell}username = \"nobody\"\nshell = \"sh\"\n"),
            "7:9 this is no program of this host | write the whole path",
        ),
        (good.clone() + "shell = \"/bin/sh\"\n", "9:9 `shell` is for `kind = \"shell\"` | leave it out"),
        (format!("{up}kind = \"docker\"\n"), "5:8 \"docker\" is not built yet | there is \"ssh\" or \"shell\""),
        (without("address"), "4:1 `address` is missing in [socket.upstream] | write address = \"10.0.0.5:22\""),
        (with("address", "address = \"::1\""), "8:11 an IPv6 address stands in brackets"),
        (with("username", "username = \"\""), "8:12 this is empty"),
        (
            with("password", "pasword = \"x\""),
            "8:1 unknown key `pasword` in [socket.upstream] | did you mean `password`?",
        ),
        (
            with("host_key", "host_keys = \"x\""),
            "8:1 unknown key `host_keys` in [socket.upstream] | did you mean `host_key`?",
        ),
        (without("password"), "4:1 `private_key` is missing in [socket.upstream] | write private_key = "),
        (
            good.clone() + "private_key = \"env:SECRET\"\n",
            "7:12 `private_key` and `password` exclude each other | keep one",
        ),
        (with("password", "private_key = \"env:SECRET\""), "8:15 this is no private key in OpenSSH or PEM form"),
        (with("password", "password = \"env:NONE\""), "8:12 the environment variable NONE is not set"),
        (with("password", "password = \"file:/none\""), "8:12 cannot read /none: No such file"),
        (with("password", "password = \"hunter2\""), "8:12 a secret does not stand here itself | write \"env:NAME\""),
        (without("host_key"), "4:1 `host_key` is missing in [socket.upstream] | write host_key = "),
        (good.clone() + "known_hosts = \"/none\"\n", "9:15 `host_key` and `known_hosts` exclude each other | keep one"),
        (with("host_key", "known_hosts = \"/none\""), "8:15 cannot read /none: No such file"),
        (with("host_key", "host_key = \"MD5:aa:bb\""), "8:12 this is no SHA256 fingerprint"),
        (with("host_key", "host_key = []"), "8:12 no host key is listed"),
        (with("host_key", "host_key = [\"insecure-accept-any\"]"), "8:13 this is no SHA256 fingerprint"),
        (good.clone() + "host_ca = \"x\"\n", "9:11 `host_key` and `host_ca` exclude each other | keep one of them"),
        (with("host_key", "host_ca = \"no/such.pub\""), "8:11 cannot read dir/no/such.pub: No such file"),
        (
            with("host_key", "host_ca = \"ssh-ed25519 AAAA\""),
            "8:11 this is no public key of an authority: Ed25519, ECDSA, or RSA from 2048 bits on | write the line",
        ),
        (with("host_key", "host_ca = []"), "8:11 no authority is listed | write the line"),
        (
            with("host_key", &format!("host_ca = [\"{AUTHORITY}\", \"ssh-dss AAAA\"]")),
            "8:96 this is no public key of an authority",
        ),
        (
            good.clone() + "certificate = true\n",
            "9:15 `password` and `certificate` exclude each other | keep one of them",
        ),
        (with("password", "certificate = false"), "4:1 `private_key` is missing in [socket.upstream]"),
        (with("password", "certificate = \"yes\""), "8:15 `certificate` has the wrong type | write true or false"),
        (
            good.clone() + "private_key_passphrase = \"env:SECRET\"\n",
            "9:26 `private_key_passphrase` is for a `private_key`, and there is none | leave it out",
        ),
        // Jump hosts.
        (good.clone() + "via = \"b\"\n", "9:7 there is no socket called \"b\" | name a [[socket]] that leads"),
        (
            format!("{good}{}via = \"aa\"\n", good.replace("\"a\"", "\"b\"")),
            "17:7 there is no socket called \"aa\" | did you mean \"a\"?",
        ),
        (good.clone() + "via = \"a\"\n", "9:7 this way leads back to where it began | leave `via` out"),
        (good.clone() + "via = 3\n", "9:7 `via` has the wrong type | write a string"),
        (
            format!("{}{}via = \"a\"\n", without("username"), good.replace("\"a\"", "\"b\"")),
            "16:7 socket \"a\" fixes no login to pass through it with | give it a `username`",
        ),
        // Policies.
        ("[[policy]]\neffect = \"allow\"\n".into(), "1:1 `name` is missing in [[policy]]"),
        ("[[policy]]\nname = \"p\"\n".into(), "1:1 `effect` is missing in [[policy]]"),
        (policy.replace("allow", "alow"), "3:10 unknown word \"alow\" | did you mean \"allow\"?"),
        (format!("{policy}{policy}"), "5:8 there is another policy called \"p\" | give every policy its own name"),
        (policy.replace("allow", "deny") + "[policy.allow.ssh]\n", "4:9 a rule that denies cannot allow something"),
        (format!("{policy}who = {{ emails = [\"*@x.com\"] }}\n"), "4:19 this is no e-mail address"),
        (
            format!("{policy}[policy.allow.ssh]\nexec = [\"ls\", \"ls | wc\"]\n"),
            "5:15 no command can match: '|' outside quotes",
        ),
        (format!("{policy}[policy.allow.ssh]\nlogins = [\"\"]\n"), "5:11 this is empty"),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let text = format!("{text}{HEAD}");
        let got = errors(&text);
        if got.len() != 1 || !got[0].starts_with(expected) {
            wrong.push(format!("{text}\n{got:#?}\n{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}

#[test]
fn what_belongs_to_servers_means_nothing_to_a_shell() {
    let shell =
        "[[socket]]\nname = \"a\"\ntype = \"ssh\"\n[socket.upstream]\nkind = \"shell\"\nusername = \"nobody\"\n";
    let is_shells = |key: &&str| ["kind", "username", "shell"].contains(key);
    let upstream = schema::tables().iter().find(|table| table.path == "socket.upstream").unwrap();
    for key in upstream.keys.iter().copied().filter(|key| !is_shells(key)) {
        let value = match key {
            "certificate" => "false",
            "private_key" | "private_key_passphrase" | "password" => "\"env:NONE\"",
            _ => "\"none\"",
        };
        let got = errors(&format!("{shell}{key} = {value}\n{HEAD}"));
        assert_eq!(got, [format!("7:{} `{key}` is for `kind = \"ssh\"` | leave it out", key.len() + 4)]);
    }
}

#[test]
fn ways_through_jump_hosts_end_and_lead_through_servers() {
    let socket = |name: &str, via: &str| {
        let via = if via.is_empty() { String::new() } else { format!("via = \"{via}\"\n") };
        format!("{}{via}", SOCKET.replace("\"web-1\"", &format!("{name:?}")))
    };
    let head = lines(HEAD);
    // Two that lead to each other, and one into the loop.
    let text = [HEAD, &socket("a", "b"), &socket("b", "a"), &socket("c", "a")].concat();
    let back = "this way leads back to where it began | leave `via` out of one of them";
    let long = "there are more than 8 jump hosts on this way | shorten it";
    assert_eq!(
        errors(&text),
        [format!("{}:7 {back}", head + 9), format!("{}:7 {back}", head + 18), format!("{}:7 {long}", head + 27)]
    );
    // Eight are enough for anybody.
    let chain = |length: usize| {
        let link = |at: usize| socket(&format!("s{at}"), &if at == 0 { String::new() } else { format!("s{}", at - 1) });
        // The last one first: what is named may come later.
        format!("{HEAD}{}", (0..=length).rev().map(link).collect::<String>())
    };
    assert!(load_text(&chain(8)).is_ok());
    assert_eq!(errors(&chain(9)), [format!("{}:7 {long}", head + 9)]);
    // What does not lead to an SSH server is told where it stands, and where it is named.
    let shell = "[[socket]]\nname = \"a\"\ntype = \"ssh\"\nupstream = { kind = \"shell\" }\n";
    let got = errors(&[HEAD, shell, &socket("b", "a")].concat());
    assert!(got.len() == 2 && got[1].starts_with(&format!("{}:7 socket \"a\" does not lead to", head + 13)), "{got:?}");
    // A jump host with a mistake of its own is told once.
    let got = errors(&[HEAD, &socket("a", "").replace("10.0.0.5", "::1"), &socket("b", "a")].concat());
    assert!(got.len() == 1 && got[0].contains("IPv6"), "{got:?}");
}

#[test]
fn what_the_head_needs() {
    let without = |line: &str| HEAD.replace(line, "");
    for (text, expected) in [
        (
            without("domain = \"access.example.com\"\n"),
            "1:1 `domain` is missing in [gateway] | write domain = \"access.example.com\"",
        ),
        (
            without("[gateway]\ndomain = \"access.example.com\"\n"),
            "- `domain` is missing in [gateway] | write domain = \"access.example.com\"",
        ),
        (
            without("client_id = \"gatescribe\"\n"),
            "3:1 `client_id` is missing in [oidc] | write client_id = \"gatescribe\"",
        ),
        (HEAD.replace("access.example.com", "10.0.0.1"), "2:10 this is no domain name"),
        (HEAD.replace("https://idp", "http://idp"), "4:10 this is no issuer"),
        (HEAD.replace("[oidc]", "public_url = \"http://x\"\n[oidc]"), "3:14 this is no https URL of a host alone"),
        (
            HEAD.replace("[oidc]", "[oidc]\nsession_lifetime = \"1s\""),
            "4:20 this is out of range | write between 1m and 365d",
        ),
    ] {
        let got = errors(&text);
        assert_eq!(got.len(), 1, "{text}\n{got:#?}");
        assert!(got[0].starts_with(expected), "{text}\n{}\n{expected}", got[0]);
    }
}

#[test]
fn all_mistakes_are_told_at_once_and_in_order() {
    let text = r#"
[gateway]
domian = "access.example.com"
[listen]
ssh = 2222
https = "here"
[oidc]
issuer = "https://idp.example.com"
client_secret = "hunter2"
[[socket]]
name = "a"
type = "shh"
[[policy]]
name = "p"
whn = {}
"#;
    let got = errors(text);
    let places: Vec<_> = got.iter().map(|error| error.split(' ').next().unwrap()).collect();
    assert_eq!(places, ["3:1", "5:7", "6:9", "7:1", "9:17", "10:1", "12:8", "13:1", "15:1"], "{got:#?}");
}

#[test]
fn an_error_shows_the_line_and_a_caret() {
    let text = format!("{HEAD}{}", SOCKET.replace("address", "adress"));
    let line = lines(HEAD) + 5;
    let expected = format!(
        "dir/gatescribe.toml:{line}:1: unknown key `adress` in [socket.upstream]\n  \
           {line} | adress = ...\n     | ^^^^^^\n     = did you mean `address`?\n"
    );
    assert_eq!(load_text(&text).unwrap_err().to_string(), expected);
    let text = HEAD.replace("[oidc]", "data_dir = \"\\u0007\"\n[oidc]\n\tsession_lifetime = \"1w\"");
    let expected = "dir/gatescribe.toml:3:12: there are control characters in this\n  \
         3 | data_dir = \"\\u0007\"\n    |            ^^^^^^^^\n    = write something, or leave the key out\n\n\
         dir/gatescribe.toml:5:21: this is no duration; write whole numbers and units: ms, s, m, h, d, as in `90s` or \
         `1h30m`\n  5 | \tsession_lifetime = \"1w\"\n    | \t                   ^^^^\n";
    assert_eq!(load_text(&text).unwrap_err().to_string(), expected);
}

/// Damaged at random, the file still gives an answer, and one that keeps the secrets' literals to itself.
#[test]
fn a_damaged_file_is_told_without_panic_or_secret() {
    let text = [HEAD, SOCKET, SOCKET].concat().replace("env:SECRET", "hunter2");
    let noise = "[\\[\\]{}=\"'#., \n\ta漢\\\\]{0,3}";
    let any = (any::<prop::sample::Index>(), 0..6_usize, noise);
    let config =
        ProptestConfig { cases: 512, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..Default::default() };
    proptest!(config, |(damage in prop::collection::vec(any, 1..4))| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, taken, put) in damage {
            let at = at.index(chars.len());
            let end = (at + taken).min(chars.len());
            chars.splice(at..end, put.chars());
        }
        let damaged: String = chars.into_iter().collect();
        if let Err(errors) = load_text(&damaged) {
            prop_assert!(!errors.to_string().contains("hunter2"), "{damaged}\n{errors}");
        }
    });
}

/// However a secret gets into the file, no error, no `Debug` and no `show` repeats it.
#[test]
fn secrets_are_never_repeated() {
    let hunter = [
        "password = \"hunter2\"",
        "password = hunter2",
        "password = \"hunter2",
        "password \"hunter2\"",
        "pasword = \"hunter2\"",
        "Password = \"hunter2\"",
        "password = 'hunter2' # x",
        "password = \"env:hunter2-x\"",
        "password = [\"hunter2\"]",
        "password = { value = \"hunter2\" }",
        "password.hunter2",
        "password = \"\"\"\nhunter2\nhunter2\"\"\"",
        "password = \"\"\"\nhunter2\nhunter2",
        "password = \"\nhunter2=\nhunter2\n\"",
        "private_key = \"-----BEGIN\nhunter2hunter2==\n-----END\"",
        "auth = { kind = \"x\", password = \"hunter2\" }",
        "kind = { password = \"hunter2\" }",
        "host_key = 3, password = \"hunter2\"",
    ];
    for line in hunter {
        let text = format!("{HEAD}{}", SOCKET.replace("password = \"env:SECRET\"", line));
        let errors = load_text(&text).expect_err(line);
        assert!(!errors.to_string().contains("hunter2"), "{line}\n{errors}");
        assert!(!format!("{errors:?}").contains("hunter2"), "{line}\n{errors:?}");
    }
    let inline = "upstream = { adress = \"x\", password = \"hunter2\", kind = 3 }";
    let errors = load_text(&format!("{HEAD}[[socket]]\nname = \"a\"\ntype = \"ssh\"\n{inline}\n")).unwrap_err();
    assert!(errors.iter().count() >= 3 && !format!("{errors} {errors:?}").contains("hunter2"), "{errors}");
    let store = load_text(&format!("{HEAD}[store]\nurl = \"postgres://u:hunter2@h/d\"\n")).unwrap_err();
    assert!(!store.words_all().contains("hunter2"));

    let text = [HEAD, SOCKET].concat();
    let (config, raw) = parse(&text, Path::new("x"), &env).unwrap();
    assert!(!format!("{config:?}{raw:?}").contains("s3cret-value"));
    assert!(!show_text(&text, Path::new("x"), &env).unwrap().contains("s3cret-value"));
}

/// A file cannot be made to cost much: nested deep, or many times wrong.
#[test]
fn hostile_files_end() {
    for text in ["[".repeat(100_000), "a=[".repeat(50_000), "a.".repeat(50_000), "[[socket]]\nx=1\n".repeat(300)] {
        assert!(load_text(&text).is_err());
    }
}
