//! Tests of the whole way from text to configuration.

mod doubts;
mod example;
mod lenient;
mod mistakes;
mod policies;

use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;

use super::*;
use crate::socket::{HostKeyCheck, SshCredential, UpstreamSpec};

const FINGERPRINT: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

const AUTHORITY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

/// What must be there.
const HEAD: &str = r#"[gateway]
domain = "access.example.com"
[oidc]
issuer = "https://idp.example.com"
client_id = "gatescribe"
client_secret = "env:SECRET"
[roles]
admin = ["security"]
"#;

const SOCKET: &str = r#"[[socket]]
name = "web-1"
type = "ssh"
[socket.upstream]
address = "10.0.0.5"
username = "deploy"
password = "env:SECRET"
host_key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"#;

fn env(name: &str) -> Option<String> {
    let known = ["SECRET", "GATESCRIBE_OIDC_SECRET", "LEGACY_PASSWORD", "WEB_1_PASSPHRASE"];
    known.contains(&name).then(|| "s3cret-value".to_owned())
}

fn load_text(text: &str) -> Result<Config, ConfigErrors> {
    parse(text, Path::new("dir/gatescribe.toml"), &env).map(|(config, _)| config)
}

/// Every error as `line:column words | help`.
fn errors(text: &str) -> Vec<String> {
    let errors = load_text(text).expect_err(text);
    let place = |at: Option<Position>| at.map_or("-".to_owned(), |at| format!("{}:{}", at.line, at.column));
    errors.iter().map(|error| format!("{} {} | {}", place(error.position()), error.words(), error.help())).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let place = |at: Option<Position>| at.map_or("-".to_owned(), |at| format!("{}:{}", at.line, at.column));
    let warnings = load_text(text).unwrap_or_else(|errors| panic!("{errors}")).warnings;
    warnings.iter().map(|warning| format!("{} {}", place(warning.position()), warning.words())).collect()
}

fn lines(text: &str) -> usize {
    text.lines().count()
}

#[test]
fn what_is_shown_has_the_defaults_of_telemetry_where_there_is_any() {
    let shown = |text: &str| -> toml::Table {
        show_text(text, Path::new("dir/gatescribe.toml"), &env).unwrap().parse().unwrap()
    };
    let table = shown(&format!("{HEAD}[telemetry]\notlp = \"http://127.0.0.1:4318\"\n"));
    let telemetry = &table["telemetry"];
    assert_eq!((telemetry["service_name"].as_str(), telemetry["sample"].as_float()), (Some("gatescribe"), Some(1.0)));
    assert!(!shown(HEAD).contains_key("telemetry"));
}

#[test]
fn a_small_file_gets_the_defaults() {
    let config = load_text(&[HEAD, SOCKET].concat()).unwrap();
    assert_eq!(config.gateway.public_url.to_string(), "https://access.example.com:8443");
    assert_eq!(config.gateway.data_dir, Path::new("/var/lib/gatescribe"));
    assert_eq!(config.listen.ssh.to_string(), "0.0.0.0:2222");
    assert_eq!(config.oidc.client_secret.expose_secret(), "s3cret-value");
    assert_eq!(config.oidc.session_lifetime, Duration::from_secs(12 * 3600));
    assert_eq!(config.roles.admin, ["security"]);
    assert_eq!(config.sign_in.other_address, OtherAddress::Confirm);
    assert!(config.sign_in.device_groups.is_empty());
    assert!(config.tls.is_none());
    // The typed defaults and the ones in the file are the same.
    assert_eq!(format!("{:?}", config.recording), format!("{:?}", Recording::default()));
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", Limits::default()));
    assert_eq!(format!("{:?}", config.log), format!("{:?}", Log::default()));
    let socket = &config.sockets[0];
    assert!(
        socket.links
            && socket.certificates
            && socket.record
            && socket.on_failure == OnFailure::EndSession
            && socket.listen.is_none()
    );
    let UpstreamSpec::Ssh(upstream) = &socket.upstream else { panic!() };
    assert_eq!(upstream.address.to_string(), "10.0.0.5:22");
    assert!(
        matches!(&upstream.credential, SshCredential::Password(secret) if secret.expose_secret() == "s3cret-value")
    );
    assert!(matches!(&upstream.host_key, HostKeyCheck::Fingerprints(keys) if *keys == [FINGERPRINT]));
}

#[test]
fn a_socket_inherits_and_overrides() {
    let recording = "[recording]\non_failure = \"continue\"\nspool = \"spool\"\n";
    let config = load_text(&[HEAD, recording, SOCKET].concat()).unwrap();
    assert_eq!(config.sockets[0].on_failure, OnFailure::Continue);
    assert_eq!(config.recording.spool.as_deref(), Some(Path::new("dir/spool")));
    let own = "type = \"ssh\"\non_failure = \"end-session\"\nrecord = false\nlisten = \"[::1]:7\"\nsign_in = [\"certificate\"]\n";
    let socket = SOCKET.replace("type = \"ssh\"\n", own);
    let config = load_text(&[HEAD, recording, &socket].concat()).unwrap();
    let socket = &config.sockets[0];
    assert!(!socket.record && !socket.links && socket.on_failure == OnFailure::EndSession);
    assert_eq!(socket.listen.unwrap().to_string(), "[::1]:7");
}

#[test]
fn a_built_in_shell_is_another_users() {
    let shell =
        SOCKET.lines().take(4).chain(["kind = \"shell\"", "username = \"nobody\""]).collect::<Vec<_>>().join("\n");
    let open = "\n[[policy]]\nname = \"p\"\neffect = \"allow\"\nallow.ssh = {}\n";
    let config = load_text(&format!("{HEAD}{shell}\nshell = \"/bin/sh\"{open}")).unwrap();
    let UpstreamSpec::ShellAs { username, shell: Some(path) } = &config.sockets[0].upstream else { panic!() };
    assert_eq!((username.as_str(), path.as_path()), ("nobody", Path::new("/bin/sh")));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let told = warnings(&format!("{HEAD}{shell}{open}"));
    assert!(told.len() == 1 && told[0].ends_with("nologin lets nobody in: name another `shell`"), "{told:?}");
}

#[test]
fn the_files_of_secrets_are_known() {
    let text = format!(
        "{HEAD}[tls]\ncertificate = \"file:none\"\nkey = \"file:a\"\n[recording]\nkey = \"env:X\"\n\
         old_keys = [\"file:b\", \"env:Y\", \"file:/c\"]\n{}notice = \"file:not\"\n",
        SOCKET
            .replace("[socket.upstream]", "notice = \"file:not\"\n[socket.upstream]")
            .replace("\"env:SECRET\"", "\"file:d\"\nprivate_key_passphrase = \"file:e\"")
    );
    let written = |text: &str| {
        let mut report = Report::new(Path::new("x"), text);
        Written::of(&read::read(text, &mut report).unwrap())
    };
    let text = text.replace("}notice", "}");
    let mut files = written(&text).secret_files();
    files.sort();
    assert_eq!(files, ["/c", "a", "b", "d", "e"].map(PathBuf::from));
    assert_eq!(written(&text).believed_files(), [PathBuf::from("file:none")]);
    let text = format!(
        "{HEAD}[geo]\ncountry_database = [\"c.mmdb\", \"/d.mmdb\"]\ncity_database = \"e.mmdb\"\n{}{}",
        SOCKET.replace(&format!("host_key = \"{FINGERPRINT}\""), "known_hosts = \"known\"\ncertificate = true"),
        SOCKET
            .replace(&format!("host_key = \"{FINGERPRINT}\""), &format!("host_ca = [\"{AUTHORITY}\", \"ca.pub\"]"))
            .replace("web-1", "web-2")
    );
    let mut files = written(&text).believed_files();
    files.sort();
    assert_eq!(files, ["/d.mmdb", "c.mmdb", "ca.pub", "e.mmdb", "known"].map(PathBuf::from));
}

#[test]
fn the_ways_to_log_in_and_to_know_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gatescribe.toml");
    let other = AUTHORITY.replace("OIeZJ", "OIeZK");
    std::fs::write(dir.path().join("cas.pub"), format!("# ours\n\n{AUTHORITY} a comment\n  {other}\n")).unwrap();
    std::fs::write(dir.path().join("none.pub"), "# nothing\n").unwrap();
    std::fs::write(dir.path().join("bad.pub"), format!("{AUTHORITY}\nssh-ed25519 no\n")).unwrap();
    let with = |from: &str, to: &str| {
        let text = [HEAD, &SOCKET.replace(from, to)].concat();
        parse(&text, &file, &env).map(|(config, _)| match &config.sockets[0].upstream {
            UpstreamSpec::Ssh(server) => server.clone(),
            other => panic!("{other:?}"),
        })
    };
    let pinned = format!("host_key = \"{FINGERPRINT}\"");
    let cas = |value: &str| match &with(&pinned, &format!("host_ca = {value}")).unwrap().host_key {
        HostKeyCheck::Authorities(lines) => lines.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(cas(&format!("\"{AUTHORITY} comment\"")), [AUTHORITY]);
    assert_eq!(cas("\"cas.pub\""), [AUTHORITY, &other]);
    assert_eq!(cas(&format!("[\"{other}\", \"cas.pub\"]")), [&other, AUTHORITY, &other]);
    for (name, words) in [("none", "there is no public key in "), ("bad", "line 2 of ")] {
        let told = with(&pinned, &format!("host_ca = \"{name}.pub\"")).unwrap_err();
        assert!(told.words_all().starts_with(words), "{told}");
    }
    let login = |to: &str| with("password = \"env:SECRET\"", to);
    assert!(matches!(login("certificate = true").unwrap().credential, SshCredential::Certificate));
    let both = with("password", "certificate = false\npassword").unwrap();
    assert!(matches!(&both.credential, SshCredential::Password(_)));
    let key = dir.path().join("key");
    std::fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (line, expected) in [("", None), ("\nprivate_key_passphrase = \"env:SECRET\"", Some("s3cret-value"))] {
        let server = login(&format!("private_key = \"file:key\"{line}")).unwrap();
        let SshCredential::PrivateKey { passphrase, .. } = &server.credential else { panic!() };
        assert_eq!(passphrase.as_ref().map(|secret| secret.expose_secret()), expected);
    }
}

#[test]
fn a_private_key_that_its_passphrase_does_not_open_is_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    for (name, passphrase) in [("open", ""), ("locked", "s3cret-value"), ("other", "another")] {
        let mut make = std::process::Command::new("ssh-keygen");
        make.args(["-q", "-t", "ed25519", "-a", "1", "-N", passphrase, "-f"]).arg(dir.path().join(name));
        assert!(make.status().unwrap().success());
    }
    let check = |key: &str, more: &str| {
        let login = format!("private_key = \"file:{key}\"\n{more}");
        let text = [HEAD, &SOCKET.replace("password = \"env:SECRET\"", &login)].concat();
        parse(&text, &dir.path().join("gatescribe.toml"), &env).err().map(|errors| errors.words_all())
    };
    let with = "private_key_passphrase = \"env:SECRET\"";
    assert_eq!(check("open", ""), None);
    assert_eq!(check("open", with), None);
    assert_eq!(check("locked", with), None);
    assert!(check("locked", "").unwrap().contains("the private key is encrypted, and there is no passphrase"));
    let words = check("other", with).unwrap();
    assert!(words.contains("this passphrase does not open the private key"), "{words}");
    assert!(!words.contains("s3cret-value"), "{words}");
}

#[test]
fn a_socket_holds_the_way_to_it_whatever_the_order() {
    let named = |name: &str, more: &str| SOCKET.replace("\"web-1\"", &format!("{name:?}")) + more;
    let sockets = [named("far", "via = \"near\"\n"), named("door", ""), named("near", "via = \"door\"\n")];
    let config = load_text(&format!("{HEAD}{}", sockets.concat())).unwrap();
    let names: Vec<_> = config.sockets.iter().map(|socket| socket.name.as_str()).collect();
    assert_eq!(names, ["far", "door", "near"]);
    let mut way = Vec::new();
    let UpstreamSpec::Ssh(mut at) = config.sockets.into_iter().next().unwrap().upstream else { panic!() };
    while let Some(hop) = at.via.clone() {
        way.push(hop.name);
        at = hop.server;
    }
    assert_eq!(way, ["near", "door"]);
}

#[test]
fn weak_settings_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pw");
    std::fs::write(&path, "s3cret-value").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = "[[policy]]\nname = \"p\"\neffect = \"allow\"\nallow.ssh = {}\n";
    let n = lines(HEAD);
    for (from, to, expected) in [
        ("https://idp", "http://localhost:1/", "4:10 the provider is reached without TLS".to_owned()),
        (
            "[\"security\"]",
            "[]",
            "7:1 no group is `admin` in [roles]: nobody can make tokens for others or revoke them".to_owned(),
        ),
        (
            "[oidc]",
            "public_url = \"https://b\"\n[oidc]",
            "3:14 the host of `public_url` is not `domain`, where the portal is".to_owned(),
        ),
        (
            FINGERPRINT,
            "insecure-accept-any",
            format!("{}:12 the host key is not checked: whoever answers at this address is believed", n + 8),
        ),
        (
            "password = \"env:SECRET\"",
            &format!("password = \"file:{}\"", path.display()),
            format!("{}:12 everybody on this host may read the secret in {}: chmod o-r", n + 7, path.display()),
        ),
    ] {
        assert_eq!(warnings(&[HEAD, SOCKET, open].concat().replace(from, to)), [expected]);
    }
    assert!(warnings(HEAD).contains(&"- there is no [[socket]]: nothing can be reached".to_owned()));
}

#[test]
fn a_configured_certificate_is_read_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gatescribe.toml");
    write_certificate(dir.path(), "a");
    write_certificate(dir.path(), "b");
    let with = |certificate: &str, key: &str| {
        let text = format!("{HEAD}[tls]\ncertificate = \"{certificate}.crt\"\nkey = \"file:{key}.key\"\n");
        parse(&text, &file, &env).map(|(config, _)| config.tls.unwrap().certificates.len())
    };
    assert_eq!(with("a", "a").unwrap(), 1);
    let told = with("a", "b").unwrap_err();
    assert!(told.words_all().starts_with("certificate and key do not belong together"), "{told}");
    assert!(with("none", "a").unwrap_err().words_all().starts_with("cannot read certificates from "));
    std::fs::write(dir.path().join("c.crt"), "nothing").unwrap();
    assert!(with("c", "a").unwrap_err().words_all().starts_with("there is no certificate in "));
    std::fs::copy(dir.path().join("a.crt"), dir.path().join("c.key")).unwrap();
    assert!(with("a", "c").unwrap_err().words_all().starts_with("there is no private key without passphrase in it"));
}

fn write_certificate(dir: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec!["access.example.com".to_owned()]).unwrap();
    std::fs::write(dir.join(name).with_extension("crt"), made.cert.pem()).unwrap();
    let key = dir.join(name).with_extension("key");
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn files_are_found_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gatescribe.toml");
    assert!(Config::load(&path).unwrap_err().to_string().contains("gatescribe.toml: cannot be read: No such file"));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("cannot be read: "));
    std::fs::write(&path, HEAD).unwrap();
    assert_eq!(load(&path, &env).unwrap().file, path);
    assert_eq!(find(Some(&path)).unwrap(), path);
}

impl ConfigErrors {
    fn words_all(&self) -> String {
        self.iter().map(|error| format!("{} {}", error.words(), error.help())).collect()
    }
}
