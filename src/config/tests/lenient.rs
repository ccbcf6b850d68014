//! Reading without secrets, and what is kept of a configuration in force.

use super::*;

/// Names a file or variable wherever one can be named, and none of them is there.
const OUTSIDE: &str = r#"
[tls]
certificate = "no.crt"
key = "file:no.key"
[geo]
country_database = "no.mmdb"
[recording]
key = "env:NO_KEY"
old_keys = ["file:no.old"]
[[socket]]
name = "web-2"
type = "ssh"
[socket.upstream]
address = "10.0.0.6"
private_key = "file:no/key"
known_hosts = "no/hosts"
[[socket]]
name = "web-3"
type = "ssh"
[socket.upstream]
address = "10.0.0.7"
private_key = "file:no/key"
private_key_passphrase = "file:no/passphrase"
host_ca = ["no/ca.pub"]
[[socket]]
name = "web-4"
type = "ssh"
[socket.upstream]
kind = "shell"
username = "no-such-user"
shell = "/no/shell"
[[policy]]
name = "all"
effect = "allow"
[policy.allow.ssh]
"#;

#[test]
fn what_is_outside_of_the_file_is_not_needed_to_know_who_may_do_what() {
    let text = [HEAD, SOCKET, OUTSIDE].concat().replace("env:SECRET", "env:NOT_SET_ANYWHERE");
    let file = Path::new("/nowhere/gatescribe.toml");
    assert!(parse(&text, file, &|_| None).unwrap_err().iter().count() >= 11, "the gateway does not start on it");
    let config = Config::parse_leniently(&text, file).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<_> = config.sockets.iter().map(|socket| (socket.name.as_str(), socket.fixes_login())).collect();
    assert_eq!(names, [("web-1", true), ("web-2", false), ("web-3", false), ("web-4", true)]);
    assert_eq!(config.policies.rules().len(), 1);
    assert!(config.tls.is_none() && config.recording.key.is_none());
}

#[test]
fn what_is_wrong_in_the_file_itself_is_as_wrong_as_ever() {
    let file = Path::new("gatescribe.toml");
    let table = [
        (HEAD.replace("env:SECRET", "hunter2"), "a secret does not stand here itself"),
        ([HEAD, &SOCKET.replace("env:SECRET", "hunter2")].concat(), "a secret does not stand here itself"),
        ([HEAD, &SOCKET.replace("address", "adress")].concat(), "did you mean `address`?"),
        ([HEAD, &SOCKET.replace("SHA256:", "SHA1:")].concat(), "this is no SHA256 fingerprint"),
        ([HEAD, "[[policy]]\nname = \"x\"\n"].concat(), "`effect` is missing"),
        ([HEAD, &SOCKET.replace("host_key", "#")].concat(), "`host_key` is missing"),
        ([HEAD, &SOCKET.replace("host_key", "known_hosts = \"x\"\nhost_ca")].concat(), "exclude each other"),
        ([HEAD, &SOCKET.replace("SHA256:", "ssh-ed25519 ").replace("host_key", "host_ca")].concat(), "no public key"),
        (
            [HEAD, &SOCKET.replace("host_key", "kind = \"shell\"\nhost_ca")].concat(),
            "`host_ca` is for `kind = \"ssh\"`",
        ),
    ];
    for (text, words) in table {
        let told = Config::parse_leniently(&text, file).unwrap_err().to_string();
        assert!(told.contains(words) && !told.contains("hunter2"), "{words}: {told}");
    }
}

#[test]
fn what_is_in_force_is_kept_with_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let text = [HEAD, SOCKET, "# the end\n"]
        .concat()
        .replace("[gateway]\n", &format!("[gateway]\ndata_dir = {:?}\n", dir.path().display().to_string()));
    let file = dir.path().join("a \"quoted\" place/gatescribe.toml");
    let (config, _) = parse(&text, &file, &env).unwrap();
    in_force::save(&config).unwrap();
    let kept = dir.path().join("config-in-force.toml");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let found = in_force::load(dir.path()).unwrap();
    assert_eq!((&found.text, &found.file), (&text, &file));
    assert_eq!(found.config().unwrap().sockets.len(), 1);
    // The next one takes its place.
    let (other, _) = parse(&text.replace("# the end", "# the other end"), &file, &env).unwrap();
    in_force::save(&other).unwrap();
    assert!(in_force::load(dir.path()).unwrap().text.ends_with("# the other end\n"));
    for broken in ["", "# in force: {}\n", "[gateway]\n"] {
        std::fs::write(&kept, broken).unwrap();
        assert!(in_force::load(dir.path()).is_err(), "{broken:?}");
    }
}
