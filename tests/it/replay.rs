//! Recordings as people get them: a cast that asciinema's player plays, live and later, typed input only when asked for.

use std::path::Path;
use std::process::Command;

use gatescribe::record::observation::{Direction, What};
use gatescribe::store::RecordingState;
use serde_json::Value;

use crate::harness::{self, SOON, Setup, Sshd, eventually, gate, recordings};

#[tokio::test]
async fn a_cast_plays_in_asciinemas_player() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut terminal = ssh.terminal(&["-t", "web@gate", "sh"]);
    terminal.send("PS1='>'; printf 'gr\\303\\274n \\033[1mbo''ld\\033[0m\\n'\n");
    terminal.expect("bold").await;
    terminal.resize(100, 30);
    terminal.send("sleep 0.3; echo la''st; exit 4\n");
    terminal.expect("last").await;
    terminal.wait(SOON).await;
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    assert_eq!(row.recordings[0].exit_status, Some(4));
    let cast = api.log(&row, Some(row.recordings[0].recording_id), "cast").await.ok();
    let played = play(&gateway.data().join("play.cast"), &cast);
    let output = played["output"].as_str().unwrap();
    assert!(output.contains("grün \u{1b}[1mbold") && output.contains("last"), "{output:?}");
    assert_eq!(played["size"], serde_json::json!({"cols": 80, "rows": 24}));
    assert!(played["resizes"].as_array().unwrap().iter().any(|r| r["cols"] == 100 && r["rows"] == 30), "{played}");
    assert!(played["duration"].as_f64().unwrap() > 0.3);
    // Without a terminal there is no carriage return; the cast has one all the same, or the lines would be stairs.
    assert_eq!(ssh.run("web", "printf 'a\\nb\\n'").await.status, Some(0));
    let row = api.ended("web").await;
    let played = play(&gateway.data().join("play.cast"), &api.log(&row, None, "cast").await.ok());
    assert!(played["output"].as_str().unwrap().contains("a\r\nb"), "{played}");
}

#[tokio::test]
async fn what_was_typed_is_recorded_and_told_only_when_asked_for() {
    let (_sshd, gateway, ssh) = gate().await;
    harness::type_in_secret(&ssh, "S3cretTyped").await;
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    let cast = String::from_utf8(api.log(&row, None, "cast").await.ok()).unwrap();
    assert!(!cast.contains("S3cretTyped") && !cast.contains(r#""i","#), "{cast}");
    let with_input = String::from_utf8(api.log(&row, None, "cast&input=true").await.ok()).unwrap();
    let typed: String = with_input.lines().skip(1).filter_map(typed).collect();
    assert!(typed.contains("S3cretTyped"), "{with_input}");
    let recorded = recordings::read(&gateway.data(), row.session_id, &row.recordings[0]).await;
    let input = recordings::bytes(&recorded.observations, Direction::Input, 0);
    assert!(input.starts_with(b"S3cretTyped"));
    // Reading it leaves a trace.
    assert!(api.details(&row).await.events.iter().any(|e| e.kind == "typed_input_read"));
}

fn typed(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event[1] == "i").then(|| event[2].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn both_streams_the_exit_and_every_fact_are_in_the_recording() {
    let (_sshd, gateway, ssh) = gate().await;
    let variables = "SetEnv LC_TIME=C LC_TOKEN=hunter2 GREETING=hunter2";
    let mut done = ssh.start(&["-o", variables, "web@gate", "cat; echo err >&2; exit 9"]);
    done.send(b"in\xff\x00\n").await;
    done.receive(5).await;
    assert_eq!(done.finish(SOON).await.status, Some(9));
    let row = gateway.admin().await.ended("web").await;
    let recording = &row.recordings[0];
    assert_eq!((recording.state, recording.exit_status), (RecordingState::Complete, Some(9)));
    assert_eq!(recording.command.as_deref(), Some("cat; echo err >&2; exit 9"));
    assert!(recording.size.is_some_and(|size| size > 0));
    let read = recordings::read(&gateway.data(), row.session_id, recording).await;
    assert_eq!(read.verdict, gatescribe::record::Verdict::Complete);
    assert_eq!(recordings::bytes(&read.observations, Direction::Input, 0), b"in\xff\x00\n");
    assert_eq!(recordings::bytes(&read.observations, Direction::Output, 0), b"in\xff\x00\n");
    assert_eq!(recordings::bytes(&read.observations, Direction::Output, 1), b"err\n");
    let has = |check: fn(&What) -> bool| read.observations.iter().any(|o| check(&o.what));
    assert!(has(|what| matches!(what, What::Exec { command } if command.starts_with(b"cat;"))));
    // Of a variable that may be a secret, its name alone.
    assert!(has(|what| matches!(what, What::Env { name, value } if name == "LC_TIME" && value == "C")));
    for secret in ["LC_TOKEN", "GREETING"] {
        let told = What::Env { name: secret.into(), value: "(7 bytes)".into() };
        assert!(read.observations.iter().any(|o| o.what == told), "{secret}");
    }
    assert!(!format!("{row:?} {:?} {}", read.observations, gateway.log()).contains("hunter2"));
    assert!(has(|what| matches!(what, What::Eof { direction: Direction::Input })));
    assert!(has(|what| matches!(what, What::ExitStatus { status: 9 })));
    assert!(read.observations.is_sorted_by_key(|o| o.at));
}

#[tokio::test]
async fn a_live_session_can_be_replayed_up_to_now() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut terminal = ssh.terminal(&["-t", "web@gate", "sh"]);
    terminal.send("echo so''far\n");
    terminal.expect("sofar").await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let live = api.details(&row).await;
    assert_eq!(live.recordings[0].state, RecordingState::Live);
    eventually("the cast has what was shown", SOON, async || {
        let cast = api.log(&row, None, "cast").await.ok();
        String::from_utf8_lossy(&cast).contains("sofar").then_some(())
    })
    .await;
    assert!(!api.log(&row, None, "raw").await.ok().is_empty());
    terminal.send("exit\n");
    terminal.wait(SOON).await;
}

#[tokio::test]
async fn a_socket_that_is_not_recorded_says_so() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh_with("web", &sshd, "record = false").start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    assert_eq!(ssh.run("web", "echo x").await.ok(), "x\n");
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    assert!(!row.audit_log && row.recordings.is_empty(), "{row:?}");
    api.log(&row, None, "cast").await.error(404);
}

#[tokio::test]
async fn formats_that_are_not_built_are_refused() {
    let (_sshd, gateway, ssh) = gate().await;
    ssh.run("web", "true").await;
    let api = gateway.admin().await;
    let row = api.ended("web").await;
    for format in ["jsonl", "har", "mp4", ""] {
        api.log(&row, None, format).await.error(400);
    }
    api.log(&row, Some(uuid::Uuid::nil()), "cast").await.error(404);
}

/// Plays a cast with the player's own engine; see tests/it/player.
fn play(file: &Path, cast: &[u8]) -> Value {
    std::fs::write(file, cast).unwrap();
    let player = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/player/play.mjs");
    let played = Command::new("node").arg(player).arg(file).output().expect("node is installed");
    assert!(played.status.success(), "run tests/run once: {}", String::from_utf8_lossy(&played.stderr));
    serde_json::from_slice(&played.stdout).unwrap()
}
