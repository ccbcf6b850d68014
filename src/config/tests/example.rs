//! The commented example, and `config show`.

use super::*;

const EXAMPLE: &str = include_str!("../../../config/gatescribe.toml");

#[test]
fn the_example_is_good_as_it_is() {
    let config = load_text(EXAMPLE).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.sockets.is_empty());
    // And the settings it shows are the defaults.
    let file = uncommented();
    let head = toml::to_string(&raw::Raw::default().with_defaults()).unwrap().parse::<toml::Table>().unwrap();
    // Nobody has a role by default.
    for (section, keys) in head.into_iter().filter(|(section, _)| section != "roles") {
        for (key, default) in keys.as_table().unwrap() {
            assert_eq!(file[&section][key], *default, "[{section}] {key}");
        }
    }
}

#[test]
fn the_example_is_good_with_every_setting_on() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    std::fs::create_dir_all(&certs).unwrap();
    write_certificate(&certs, "gateway");
    std::fs::copy(certs.join("gateway.key"), certs.join("web-1.key")).unwrap();
    std::fs::write(dir.path().join("known_hosts"), "").unwrap();
    let known_hosts = dir.path().join("known_hosts").display().to_string();
    for name in ["recording.key", "recording-2025.key"] {
        std::fs::write(dir.path().join(name), "0123456789abcdef".repeat(4)).unwrap();
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = uncomment(EXAMPLE)
        .replace("/etc/ssh/ssh_known_hosts", &known_hosts)
        .replace("\"support\"", "\"nobody\"")
        .replace("/etc/gatescribe/recording", &dir.path().join("recording").display().to_string());
    std::fs::create_dir(dir.path().join("config")).unwrap();
    std::fs::create_dir(dir.path().join("geo")).unwrap();
    for name in ["country", "city-ipv4", "city-ipv6"] {
        let file = dir.path().join("geo").join(name).with_extension("mmdb");
        std::fs::write(file, crate::geo::testing::empty_database()).unwrap();
    }
    let (config, _) = parse(&text, &dir.path().join("config/gatescribe.toml"), &env).unwrap_or_else(|e| panic!("{e}"));
    // What the example shows of protocols that come later is told.
    let warnings: Vec<_> =
        config.warnings.iter().map(|warning| warning.words().split(" of ").next().unwrap()).collect();
    let later =
        ["[policy.allow.database]", "[[policy.allow.http]]", "[[policy.allow.kubernetes]]", "[policy.allow.tcp]"];
    assert_eq!(warnings, later, "{:#?}", config.warnings);
    assert_eq!((config.sockets.len(), config.policies.rules().len()), (4, 2));
}

/// Settings are the lines with `#` and no space after it.
fn uncomment(text: &str) -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(on).collect()
}

fn uncommented() -> toml::Table {
    uncomment(EXAMPLE).parse().unwrap()
}

#[test]
fn the_example_names_every_key() {
    let file = toml::Value::Table(uncommented());
    for table in schema::tables() {
        let mut places = vec![&file];
        for step in table.path.split('.').filter(|step| !step.is_empty()) {
            let below = places.into_iter().filter_map(|place| place.get(step));
            places =
                below.flat_map(|value| value.as_array().map_or(vec![value], |list| list.iter().collect())).collect();
        }
        for key in table.keys {
            assert!(places.iter().any(|place| place.get(key).is_some()), "{} {key}", table.path);
        }
        for key in table.later {
            assert!(places.iter().all(|place| place.get(key).is_none()), "{} {key}", table.path);
        }
    }
}

#[test]
fn show_prints_what_is_in_effect() {
    let policy = "[[policy]]\nname = \"p\"\neffect = \"allow\"\nwho = { groups = [\"g\"] }\n[policy.allow.ssh]\nexec = [\"ls *\"]\n";
    let text = [HEAD, SOCKET, policy].concat();
    let shown = show_text(&text, Path::new("x"), &env).unwrap();
    assert_eq!(shown, GOLDEN);
    // What is shown is a configuration again, and the same.
    assert_eq!(show_text(&shown, Path::new("x"), &env).unwrap(), GOLDEN);
}

const GOLDEN: &str = r#"[gateway]
domain = "access.example.com"
public_url = "https://access.example.com:8443"
data_dir = "/var/lib/gatescribe"
proxy_protocol_from = []

[listen]
https = "0.0.0.0:8443"
ssh = "0.0.0.0:2222"

[oidc]
issuer = "https://idp.example.com"
client_id = "gatescribe"
client_secret = "env:SECRET"
groups_claim = "groups"
session_lifetime = "12h"

[roles]
admin = ["security"]
operator = []
auditor = []

[sign_in]
other_address = "confirm"
device_groups = []

[store]
url = "sqlite"

[recording]
location = "file"
on_failure = "end-session"
durability = "process"
max_recording = "10GiB"
keep_free = "64MiB"
retention = "365d"

[limits]
connections_per_address = 100
handshake = "60s"
channels_per_connection = 1000
drain = "10s"
sessions_per_user = 1000
connections_per_minute = 6000
sign_ins_per_minute = 120

[log]
format = "text"
level = "info"

[[socket]]
name = "web-1"
type = "ssh"
record = true
on_failure = "end-session"
record_files = "metadata"
sign_in = ["link", "certificate"]

[socket.upstream]
kind = "ssh"
address = "10.0.0.5"
username = "deploy"
password = "env:SECRET"
host_key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

[[policy]]
name = "p"
effect = "allow"

[policy.who]
groups = ["g"]

[policy.allow.ssh]
exec = ["ls *"]
"#;
