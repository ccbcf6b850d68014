//! What policy says is what happens, told in the user's terminal and written down.

use gatescribe::store::{AuthResult, EventStatus, Outcome};

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd};

const NARROW: &str = r#"
[[policy]]
name = "status-only"
effect = "allow"
sockets = { names = ["web"] }
who = { groups = ["engineering"] }
[policy.allow.ssh]
exec = ["echo *", "systemctl status **", "env"]
logins = ["LOGIN"]
"#;

async fn gate(policies: &str) -> (Sshd, Gateway, Ssh) {
    let sshd = Sshd::start().await;
    let login = crate::harness::gateway::whoami();
    let free = format!(
        "[[socket]]\nname = \"free\"\ntype = \"ssh\"\n[socket.upstream]\nkind = \"ssh\"\naddress = \"{}\"\n\
         private_key = \"file:{}\"\nhost_key = \"{}\"\n",
        sshd.address(),
        sshd.login_key().display(),
        sshd.host_fingerprint()
    );
    let setup = Setup::new().ssh("web", &sshd).socket(&free).policies(&policies.replace("LOGIN", &login));
    let gateway = setup.start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    (sshd, gateway, ssh)
}

#[tokio::test]
async fn commands_are_matched_word_by_word() {
    let (sshd, gateway, ssh) = gate(NARROW).await;
    assert_eq!(ssh.run("web", "echo hello").await.ok(), "hello\n");
    assert_eq!(ssh.run("web", "echo 'two words'").await.ok(), "two words\n");
    for command in [
        "id",
        "echo",
        "echo a b",
        "echo a; id",
        "echo $(id)",
        "echo `id`",
        "echo a > /tmp/x",
        "X=1 echo a",
        "echo a\nid",
        "echo *",
    ] {
        let done = ssh.run("web", command).await;
        assert!(done.refusal().contains("status-only") || !done.refusal().is_empty(), "{command}: {done:?}");
        assert!(done.stdout.is_empty(), "{command}: {done:?}");
    }
    assert!(!sshd.log().contains("uid="));
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    let event = row.events.iter().find(|e| e.status == EventStatus::Denied).unwrap_or_else(|| panic!("{row:?}"));
    assert_eq!(event.kind, "ssh_exec");
    assert_eq!(row.result, AuthResult::Success, "the session was authorized, one action in it was not");
}

#[tokio::test]
async fn without_the_right_there_is_no_shell() {
    let (_sshd, _gateway, ssh) = gate(NARROW).await;
    let done = ssh.start(&["web@gate"]).finish(SOON).await;
    assert!(!done.refusal().is_empty());
    let mut terminal = ssh.terminal(&["-o", "LogLevel=ERROR", "web@gate"]);
    terminal.expect("gatescribe: ").await;
    assert!(!terminal.wait(SOON).await.success());
}

#[tokio::test]
async fn a_patterned_command_gets_no_terminal_and_few_variables() {
    let (_sshd, _gateway, ssh) = gate(NARROW).await;
    let variables = ["-o", "SetEnv GREETING=smuggled LC_TEST=fine", "web@gate", "env"];
    let shown = ssh.start(&variables).finish(SOON).await.ok();
    assert!(!shown.contains("smuggled") && shown.contains("LC_TEST=fine"), "{shown}");
    assert!(!shown.contains("SSH_TTY"), "{shown}");
    let mut terminal = ssh.terminal(&["-t", "web@gate", "env"]);
    terminal.wait(SOON).await;
    assert!(!terminal.text().contains("SSH_TTY"), "{}", terminal.text());
}

#[tokio::test]
async fn a_login_is_used_only_where_a_rule_names_it() {
    let rules = NARROW.replace("names = [\"web\"]", "names = [\"web\", \"free\"]");
    let (_sshd, gateway, ssh) = gate(&rules).await;
    let login = crate::harness::gateway::whoami();
    assert_eq!(ssh.run(&format!("{login}@free"), "echo in").await.ok(), "in\n");
    for asked in ["nobody@free", "free", "@free"] {
        let done = ssh.run(asked, "echo in").await;
        assert!(done.stderr.contains("gatescribe: ") && done.status == Some(255), "{asked}: {done:?}");
    }
    let row = gateway.admin().await.newest("free").await;
    assert_eq!((row.result, row.outcome), (AuthResult::Denied, Some(Outcome::Refused)));
    // Where the socket fixes the login, nobody is somebody else there.
    let done = ssh.run("nobody@web", "echo in").await;
    assert!(done.stdout.is_empty() && !done.refusal().is_empty(), "{done:?}");
}

#[tokio::test]
async fn a_deny_rule_wins() {
    let rules = format!(
        "{}\n[[policy]]\nname = \"not-alice\"\neffect = \"deny\"\nsockets = {{ names = [\"w*\"] }}\nwho = {{ emails = [\"ALICE@example.com\"] }}\n",
        crate::harness::gateway::POLICIES
    );
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).ssh("other", &sshd).policies(&rules).start().await;
    let ssh = gateway.signed_in("alice", "other").await;
    let done = ssh.run("web", "true").await;
    assert!(done.stderr.contains("not-alice"), "{done:?}");
    assert_eq!(gateway.admin().await.newest("web").await.rule.as_deref(), Some("not-alice"));
}

#[tokio::test]
async fn rights_of_two_rules_never_combine() {
    let two = r#"
[[policy]]
name = "shell-as-nobody"
effect = "allow"
[policy.allow.ssh]
shell = true
exec = true
logins = ["nobody"]
[[policy]]
name = "echo-as-me"
effect = "allow"
[policy.allow.ssh]
exec = ["echo *"]
logins = ["LOGIN"]
"#;
    let (_sshd, _gateway, ssh) = gate(two).await;
    let login = crate::harness::gateway::whoami();
    assert_eq!(ssh.run(&format!("{login}@free"), "echo in").await.ok(), "in\n");
    assert!(!ssh.run(&format!("{login}@free"), "id").await.refusal().is_empty());
}
