//! `gatescribe sessions`, with the real binary on a real gateway.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use gatescribe::cli::escape::is_dangerous;
use gatescribe::store::SessionRow;
use serde_json::Value;

use crate::harness::ssh::{Done, Running};
use crate::harness::{Cli, Gateway, SOON, Ssh, Sshd, gate};

/// A gateway with one session that has ended, and an administrator's command line.
async fn gate_with_a_session(command: &str) -> (Sshd, Gateway, Ssh, Cli, SessionRow) {
    let (sshd, gateway, ssh) = gate().await;
    ssh.run("web", command).await;
    let row = gateway.admin().await.ended("web").await;
    let cli = auditor(&gateway).await;
    (sshd, gateway, ssh, cli, row)
}

/// A machine whose environment names the gateway and an administrator's token.
async fn auditor(gateway: &Gateway) -> Cli {
    let cli = Cli::new();
    let token = cli.dir().join("admin.token");
    fs::write(&token, format!("{}\n", gateway.token_of("admin").await)).unwrap();
    cli.environment("GATESCRIBE_GATEWAY", &gateway.url(""))
        .environment("GATESCRIBE_CA", &gateway.ca().display().to_string())
        .environment("GATESCRIBE_TOKEN_FILE", &token.display().to_string())
}

/// Nothing that acts on a terminal.
#[track_caller]
fn safe(done: Done) -> String {
    let text = done.ok();
    assert!(!text.chars().any(|c| !matches!(c, '\n' | '\t') && is_dangerous(c)), "{text:?}");
    text
}

#[tokio::test]
async fn sessions_are_listed_and_shown_without_what_they_contain_acting() {
    // A title, a clear screen, a bidirectional override and a broken character, in the command and in its output.
    let evil = "printf 'a\u{1b}]0;t\u{7}\u{1b}[2J\u{202e}\u{9b}z\\377 end\\n'";
    let (_sshd, _gateway, _ssh, cli, row) = gate_with_a_session(evil).await;
    let list = safe(cli.run(&["sessions", "list"]).await);
    let id = row.session_id.to_string();
    // Two sessions: the sign-in's own and this one.
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains("alice@example.com") && list.contains(&id[..13]) && list.contains("closed"), "{list}");

    let shown = safe(cli.run(&["sessions", "show", &id[..18]]).await);
    assert!(shown.contains(&id) && shown.contains("\\x1b]0;t\\x07\\x1b[2J\\u{202e}\\u{9b}z"), "{shown}");
    assert!(shown.contains("sign_in success") && shown.contains("exit status 0"), "{shown}");
    let text = safe(cli.run(&["sessions", "text", &id, "--view", "all"]).await);
    assert!(text.contains("end") && !text.contains('\u{202e}'), "{text}");

    let json = safe(cli.run(&["sessions", "show", &id, "--json"]).await);
    let value: Value = serde_json::from_str(&json).unwrap();
    assert!(value["recordings"][0]["command"].as_str().unwrap().contains('\u{202e}'), "the same value: {json}");
    let json = safe(cli.run(&["sessions", "list", "--json"]).await);
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["session_logs"][0]["session_id"], id);
}

#[tokio::test]
async fn filters_choose() {
    let (_sshd, _gateway, _ssh, cli, row) = gate_with_a_session("exit 3").await;
    let table = [
        (vec!["--user", "alice@example.com"], 2),
        (vec!["--user", "bob@example.com"], 0),
        (vec!["--socket", "web", "--type", "ssh", "--ip", "127.0.0.1"], 2),
        (vec!["--socket", "other"], 0),
        (vec!["--live"], 0),
        (vec!["--live=false", "--killed=false", "--result", "success"], 2),
        (vec!["--since", "1h"], 2),
        (vec!["--until", "2020-01-01"], 0),
        (vec!["--limit", "1"], 1),
    ];
    for (filter, count) in table {
        let args: Vec<&str> = ["sessions", "list", "--json"].into_iter().chain(filter.iter().copied()).collect();
        let value: Value = serde_json::from_str(&cli.run(&args).await.ok()).unwrap();
        assert_eq!(value["session_logs"].as_array().unwrap().len(), count, "{filter:?}");
    }
    let nothing = cli.run(&["sessions", "list", "--live"]).await;
    assert_eq!((nothing.stderr.as_str(), nothing.stdout.len()), ("no session matches\n", 0));
    let refused = cli.run(&["sessions", "list", "--type", "telnet"]).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("`session_type`"), "the API's words: {refused:?}");
    // A page that is not the last says so.
    let page = cli.run(&["sessions", "list", "--limit", "1"]).await;
    assert!(page.stderr.contains("2 in all; more with --page 2"), "{page:?}");
    // Two sessions within a minute have this much in common.
    let short = row.session_id.to_string()[..8].to_owned();
    let several = cli.run(&["sessions", "show", &short]).await;
    let told = several.stderr.contains("more than one session begins with") || several.status == Some(0);
    assert!(told, "{several:?}");
    let none = cli.run(&["sessions", "show", "0123456789ab"]).await;
    assert_eq!(none.status, Some(1));
    assert!(none.stderr.contains("there is no such session"), "{none:?}");
}

#[tokio::test]
async fn a_table_fits_the_terminal_and_colour_is_for_terminals() {
    let (_sshd, _gateway, _ssh, cli, row) = gate_with_a_session("true").await;
    let id = row.session_id.to_string()[..13].to_owned();
    for (cols, user) in [(80, "alice@example.com"), (60, "alice")] {
        let mut terminal = cli.terminal(&["sessions", "list"], cols);
        let text = terminal.expect(&id).await;
        assert!(terminal.wait(SOON).await.success());
        assert!(text.lines().all(|line| line.chars().count() <= cols.into()) && text.contains(user), "{text}");
    }
    assert!(!safe(cli.run(&["sessions", "list"]).await).contains('\u{1b}'));
    for nothing in [["--user", "nobody@example.com"], ["--page", "7"]] {
        let told = cli.run(&[&["sessions", "list"][..], &nothing].concat()).await;
        assert_eq!((told.status, told.stderr.trim()), (Some(0), "no session matches"), "{nothing:?}");
    }
}

#[tokio::test]
async fn an_export_is_whole_or_not_there() {
    let (_sshd, gateway, _ssh, cli, row) = gate_with_a_session("echo exported").await;
    let id = row.session_id.to_string();
    let recording = row.recordings[0].recording_id;
    let expected = gateway.admin().await.log(&row, None, "cast").await.ok();
    let told = cli.run(&["sessions", "export", &id]).await;
    assert!(told.stderr.contains(&format!("{recording}.cast")), "{told:?}");
    let file = cli.dir().join(format!("{recording}.cast"));
    assert_eq!(fs::read(&file).unwrap(), expected);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(expected.windows(8).any(|bytes| bytes == b"exported"));

    fs::write(&file, "mine").unwrap();
    let again = cli.run(&["sessions", "export", &id]).await;
    assert!(again.status == Some(1) && again.stderr.contains("is there already"), "{again:?}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    cli.run(&["sessions", "export", &id, "--force"]).await.ok();
    assert_eq!(fs::read(&file).unwrap(), expected);

    assert_eq!(cli.run(&["sessions", "export", &id, "--output", "-"]).await.stdout, expected);
    let raw = cli.run(&["sessions", "export", &id, "--format", "raw", "--output", "whole.gsr"]).await;
    raw.ok();
    assert_eq!(fs::read(cli.dir().join("whole.gsr")).unwrap().len() as u64, row.recordings[0].size.unwrap());
    let text = cli.run(&["sessions", "export", &id, "--format", "text", "-o", "-"]).await.ok();
    assert!(text.contains("exported"), "{text}");

    let mut terminal = cli.terminal(&["sessions", "export", &id, "-o", "-"], 80);
    terminal.expect("may do anything to a terminal").await;
    assert_eq!(terminal.wait(SOON).await.code(), Some(2));
    let failed = cli.run(&["sessions", "export", &id, "-o", "no/such/directory/x"]).await;
    assert_eq!(failed.status, Some(1));
    let partial =
        fs::read_dir(cli.dir()).unwrap().flatten().any(|f| f.file_name().to_string_lossy().ends_with("partial"));
    assert!(!partial);
    let wrong = cli.run(&["sessions", "export", &id, "--recording", "0123"]).await;
    assert!(wrong.stderr.contains("the session has no recording 0123"), "{wrong:?}");
}

#[tokio::test]
async fn a_kill_waits_for_the_end_and_says_what_remains() {
    let (_sshd, gateway, ssh) = gate().await;
    let cli = auditor(&gateway).await;
    let mut open = ssh.start(&["web@gate", "echo here; sleep 1000"]);
    assert_eq!(open.receive_line().await, "here");
    let row = gateway.admin().await.live("web").await;
    let id = row.session_id.to_string();
    let list = safe(cli.run(&["sessions", "list", "--live"]).await);
    assert!(list.contains("LIVE") && list.lines().count() == 2, "{list}");
    let refused = cli.run(&["sessions", "kill", &id, "--reason", "a\u{1b}[2J"]).await;
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("control characters"), "{refused:?}");
    let killed = safe(cli.run(&["sessions", "kill", &id, "--reason", "wrong server"]).await);
    assert!(killed.contains(&format!("session {id} of alice@example.com on web is ended")), "{killed}");
    let gone = open.finish(SOON).await;
    assert!(gone.stderr.contains("wrong server"), "{gone:?}");
    let again = cli.run(&["sessions", "kill", &id, "--reason", "again"]).await;
    assert_eq!(again.status, Some(1));
    assert!(again.stderr.contains("the session has already ended"), "{again:?}");
}

#[tokio::test]
async fn a_kill_of_one_channel_leaves_its_session() {
    let (_sshd, gateway, ssh) = gate().await;
    let cli = auditor(&gateway).await;
    let control = ssh.path("control").display().to_string();
    let mut master = ssh.start(&["-M", "-S", &control, "web@gate", "echo master; exec cat"]);
    master.receive_line().await;
    let mut two = ssh.start(&["-S", &control, "web@gate", "echo two; exec cat"]);
    two.receive_line().await;
    let row = gateway.admin().await.live("web").await;
    let session = row.session_id.to_string();
    let meant = row.recordings.iter().find(|one| one.command.as_ref().unwrap().contains("two")).unwrap();
    let id = meant.recording_id.to_string();
    let kill = async |channel: &str, more: &[&str]| {
        let args = ["sessions", "kill", &session, "--channel", channel, "--reason", "wrong file"];
        cli.run(&[&args[..], more].concat()).await
    };
    // Both began within a minute; none begins with this.
    let several = kill(&id[..8], &[]).await;
    assert!(several.stderr.contains("more than one recording begins with") && several.stderr.contains(&id));
    let none = kill("0123", &[]).await;
    assert!(none.stderr.contains("has no recording 0123; these are open:") && none.stderr.contains(&id), "{none:?}");
    assert_eq!(kill(&id, &["--lock", "15m"]).await.status, Some(2));
    let most = (9..id.len()).find(|length| {
        row.recordings.iter().all(|one| {
            one.recording_id == meant.recording_id || !one.recording_id.to_string().starts_with(&id[..*length])
        })
    });
    let told = safe(kill(&id[..most.unwrap()], &[]).await);
    let expected =
        format!("channel {id} (exec echo two; exec cat) of alice@example.com on web is ended; its session goes on");
    assert!(told.contains(&expected), "{told}");
    assert!(two.finish(SOON).await.stderr.contains("wrong file"));
    master.send(b"b").await;
    assert_eq!(master.receive(1).await, b"b");
    let shown = safe(cli.run(&["sessions", "show", &session]).await);
    let line = shown.lines().find(|line| line.contains("  kill ")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains("reason=\"wrong file\"") && line.contains(&format!("recording_id={id}")), "{line}");
    assert!(kill(&id, &[]).await.stderr.contains("the channel has already ended"));
    let other = row.recordings.iter().find(|one| one.recording_id != meant.recording_id).unwrap().recording_id;
    let json = kill(&other.to_string(), &["--json"]).await.ok();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["session_id"], session);
}

#[tokio::test]
async fn whoever_stops_reading_is_no_failure() {
    let (_sshd, _gateway, _ssh, cli, row) = gate_with_a_session("seq 1 200000").await;
    let program = cli.command(&[]);
    let line =
        format!("{:?} sessions text {} | head -n 1; echo ${{PIPESTATUS[0]}}", program.get_program(), row.session_id);
    let mut bash = Command::new("bash");
    bash.args(["-c", &line]);
    for (name, value) in program.get_envs() {
        value.map(|value| bash.env(name, value));
    }
    let done = Running::start(bash).finish(Duration::from_secs(60)).await;
    assert_eq!((done.status, done.stderr.as_str()), (Some(0), ""));
    assert_eq!(String::from_utf8(done.stdout).unwrap().lines().last(), Some("0"));
}
