//! What administrators ask of policies, with the real gateway, sessions and command line.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use gatescribe::store::SessionRow;
use serde_json::{Value, json};

use crate::harness::gateway::POLICIES;
use crate::harness::ssh::Running;
use crate::harness::{Cli, Gateway, Ssh, Sshd, gate};

/// Everybody of the usual group, but neither a shell nor any command.
const NARROW: &str = r#"
[[policy]]
name = "echo-only"
effect = "allow"
who = { groups = ["engineering"] }
[policy.allow.ssh]
exec = ["echo **", "true"]
"#;

/// An administrator's machine, which is also the gateway's host.
async fn administrator(gateway: &Gateway) -> Cli {
    let cli = Cli::new();
    let token = cli.dir().join("admin.token");
    fs::write(&token, gateway.token_of("admin").await).unwrap();
    cli.environment("GATESCRIBE_GATEWAY", &gateway.url(""))
        .environment("GATESCRIBE_CA", &gateway.ca().display().to_string())
        .environment("GATESCRIBE_TOKEN_FILE", &token.display().to_string())
}

/// The gateway's configuration with other policies, and secrets that cannot be read here.
fn with_policies(gateway: &Gateway, cli: &Cli, policies: &str) -> PathBuf {
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    let text = text.replace(POLICIES, policies);
    let secrets = text.lines().filter(|line| line.contains("\"file:")).count();
    assert!(secrets >= 2 && text.contains(policies.trim()), "{text}");
    let file = cli.dir().join("other.toml");
    fs::write(&file, text.replace("\"file:", "\"file:/nowhere")).unwrap();
    file
}

/// As JSON, with this exit code.
async fn json(cli: &Cli, args: &[&str], status: i32) -> Value {
    let done = cli.run(&[args, &["--json"]].concat()).await;
    assert_eq!(done.status, Some(status), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

async fn open_shell(ssh: &Ssh, gateway: &Gateway) -> (Running, SessionRow) {
    let mut open = ssh.start(&["web@gate", "echo here; sleep 1000"]);
    assert_eq!(open.receive_line().await, "here");
    let row = gateway.admin().await.live("web").await;
    (open, row)
}

#[tokio::test]
async fn a_policy_is_asked_at_the_gateway_and_in_a_file() {
    let (_sshd, gateway, _ssh): (Sshd, Gateway, Ssh) = gate().await;
    let cli = administrator(&gateway).await;
    gateway.token_of("alice").await;
    let alice = ["policy", "test", "--user", "alice@example.com", "--socket", "web"];

    let yes = cli.run(&alice).await;
    let text = String::from_utf8(yes.stdout.clone()).unwrap();
    assert_eq!(yes.status, Some(0), "{yes:?}");
    assert!(text.starts_with("alice@example.com on web: allowed by engineers\n"), "{text}");
    assert!(text.contains("RULE") && text.contains("ends "), "{text}");
    let answer = json(&cli, &[&alice[..], &["--action", "exec id"]].concat(), 0).await;
    assert_eq!((&answer["allowed"], &answer["rule"]), (&json!(true), &json!("engineers")));
    assert_eq!(answer["asked"]["groups"], json!(["engineering"]), "as she signed in: {answer}");

    let no = cli.run(&[&alice[..], &["--group", "sales"]].concat()).await;
    let text = String::from_utf8(no.stdout.clone()).unwrap();
    assert_eq!(no.status, Some(1), "{no:?}");
    assert!(text.starts_with("alice@example.com on web: refused: no policy lets alice@example.com in\n"), "{text}");
    assert!(text.contains("1 rule is about other people or sockets"), "{text}");
    let answer = json(&cli, &["policy", "test", "--user", "zoe@example.com", "--socket", "web"], 1).await;
    assert!(answer["notes"][0].as_str().unwrap().contains("never seen zoe@example.com"), "{answer}");

    // A file, without a gateway.
    let file = with_policies(&gateway, &cli, NARROW).display().to_string();
    let offline =
        [&alice[..], &["--config", &file, "--group", "engineering", "--gateway", "https://localhost:1"]].concat();
    let answer = json(&cli, &[&offline[..], &["--action", "exec echo hello"]].concat(), 0).await;
    assert_eq!(answer["rule"], "echo-only", "{answer}");
    let answer = json(&cli, &[&offline[..], &["--action", "shell"]].concat(), 1).await;
    assert_eq!(answer["reason"], "echo-only does not allow shell");

    for (wrong, status, words) in [
        (vec!["--action", "dance"], 2, "an action is connect, shell"),
        (vec!["--sign-in-age", "old"], 2, "--sign-in-age"),
        (vec!["--country", "Chile"], 1, "two-letter code"),
        (vec!["--config", "no/such/file"], 2, "no/such/file"),
    ] {
        let done = cli.run(&[&alice[..], &wrong].concat()).await;
        assert_eq!(done.status, Some(status), "{wrong:?}: {done:?}");
        assert!(done.stderr.contains(words), "{wrong:?}: {done:?}");
    }
    let nowhere = cli.run(&["policy", "test", "--user", "a@example.com", "--socket", "none"]).await;
    assert!(nowhere.status == Some(1) && nowhere.stderr.contains("there is no socket called"), "{nowhere:?}");

    let policies = gateway.admin().await.get("/api/v1/policies").await.ok_json();
    let engineers =
        json!({"name": "engineers", "effect": "allow", "who": {"groups": ["engineering"]}, "allow": {"ssh": {}}});
    assert_eq!(policies, json!({"policies": [engineers]}));
}

#[tokio::test]
async fn a_replay_says_which_sessions_other_rules_would_have_refused() {
    let (_sshd, gateway, ssh) = gate().await;
    for command in ["echo one", "id", "echo two; id"] {
        ssh.run("web", command).await.ok();
    }
    let done = ssh.run("none", "true").await;
    assert!(!done.stderr.is_empty(), "{done:?}");
    let admin = gateway.admin().await;
    admin.ended("web").await;
    let cli = administrator(&gateway).await;
    let file = with_policies(&gateway, &cli, NARROW).display().to_string();

    let found = json(&cli, &["policy", "replay", "--since", "1h", "--config", &file], 0).await;
    // The sign-in's own `true`, three on `web`, one on what is not there.
    let counts = ["sessions", "would_be_refused", "would_be_let_in"].map(|name| found[name].as_u64().unwrap());
    assert_eq!(counts, [5, 2, 0], "{found}");
    let refused = &found["refused"][0];
    assert_eq!((&refused["user"], &refused["socket"]), (&json!("alice@example.com"), &json!("web")));
    assert_eq!((&refused["count"], &refused["rule"]), (&json!(2), &json!("echo-only")));
    assert_eq!(refused["reason"], "echo-only does not allow exec \"echo two; id\"", "of the newest");

    let text = cli.run(&["policy", "replay", "--config", &file]).await.ok();
    assert!(text.starts_with("5 sessions since ") && text.contains("\n2 would have been refused\n"), "{text}");
    assert!(text.contains("alice@example.com") && text.contains("0 that were refused would now be let in"), "{text}");
    let same = gateway.config_file().display().to_string();
    let found = json(&cli, &["policy", "replay", "--config", &same], 0).await;
    assert_eq!((&found["would_be_refused"], &found["would_be_let_in"]), (&json!(0), &json!(0)), "{found}");

    // Elsewhere there is no log.
    let text = fs::read_to_string(&file).unwrap().replace("data_dir = \"", "data_dir = \"/nowhere");
    fs::write(&file, text).unwrap();
    let nowhere = cli.run(&["policy", "replay", "--config", &file]).await;
    assert!(nowhere.status == Some(1) && nowhere.stderr.contains("on the gateway's host"), "{nowhere:?}");
}

#[tokio::test]
async fn a_file_is_compared_with_what_is_in_force_and_what_lives() {
    let (_sshd, gateway, ssh) = gate().await;
    let cli = administrator(&gateway).await;
    let (open, row) = open_shell(&ssh, &gateway).await;
    let kept = gateway.data().join("config-in-force.toml");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let compare = |file: PathBuf| ["config", "check", "--against-live", &file.display().to_string()].map(str::to_owned);

    let nobody = format!(
        "{POLICIES}\n[[policy]]\nname = \"not-alice\"\neffect = \"deny\"\nwho = {{ emails = [\"alice@example.com\"] }}\n"
    );
    let args = compare(with_policies(&gateway, &cli, &nobody));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = json(&cli, &args, 0).await;
    assert_eq!(found["loses"], json!([{"user": "alice@example.com", "sockets": ["web"]}]), "{found}");
    assert_eq!(found["gains"], json!([]));
    let ending = &found["live_sessions_that_would_end"];
    assert_eq!(ending.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(ending[0]["session_id"], row.session_id.to_string());
    assert_eq!(ending[0]["reason"], "not-alice denies alice@example.com");
    let text = cli.run(&args).await.ok();
    let line = format!("{}  alice@example.com on web: not-alice denies alice@example.com", row.session_id);
    assert!(text.contains("loses:\n  alice@example.com  web\n") && text.contains(&line), "{text}");

    // She may still connect, but not do what she does.
    let args = compare(with_policies(&gateway, &cli, NARROW));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = json(&cli, &args, 0).await;
    assert_eq!(found["loses"], json!([]));
    assert_eq!(found["may_do_less"][0]["socket"], "web", "{found}");
    assert_eq!(found["live_sessions_that_would_end"][0]["session_id"], row.session_id.to_string(), "{found}");

    // The same as now; and the session has not noticed anything.
    let same = gateway.config_file().display().to_string();
    let text = cli.run(&["config", "check", &same, "--against-live"]).await.ok();
    assert!(text.ends_with("gains: none\nloses: none\nlive sessions that would end: none\n"), "{text}");
    assert_eq!(gateway.admin().await.details(&row).await.end_time, None);

    let broken = cli.dir().join("broken.toml");
    fs::write(&broken, "x = 1").unwrap();
    let told = cli.run(&["config", "check", "--against-live", &broken.display().to_string()]).await;
    assert_eq!(told.status, Some(2), "{told:?}");
    let plain = cli.run(&["config", "check", &same, "--json"]).await;
    assert_eq!(plain.status, Some(2), "only with --against-live: {plain:?}");
    drop(open);
}
