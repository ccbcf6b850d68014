//! `sessions watch` and `sessions play` in a real terminal: what people see, what a hostile recording cannot do to them,
//! and that the terminal is as before afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatescribe::store::SessionRow;
use rustix::process::Signal;

use crate::harness::{Api, Gateway, SOON, Ssh, Terminal, eventually, gate, process};

/// A command of this gateway's administrator.
async fn command(gateway: &Gateway, args: &[&str]) -> Command {
    let home = gateway.data().join("home");
    fs::create_dir_all(&home).unwrap();
    let token = home.join("admin.token");
    if !token.exists() {
        fs::write(&token, gateway.token_of("admin").await).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatescribe"));
    command.arg("sessions").args(args).env("GATESCRIBE_HOME", &home).env("GATESCRIBE_TOKEN_FILE", &token);
    command.env("GATESCRIBE_GATEWAY", gateway.url("")).env("GATESCRIBE_CA", gateway.ca());
    command
}

/// A terminal with a shell in it, its session, and the API.
async fn shell(gateway: &Gateway, ssh: &Ssh) -> (Terminal, Api, SessionRow) {
    let mut terminal = ssh.terminal(&["-t", "web@gate", "sh"]);
    terminal.send("PS1='>'; echo rea''dy\n");
    terminal.expect("ready").await;
    let api = gateway.admin().await;
    let row = api.live("web").await;
    let row = eventually("a recording", SOON, async || {
        Some(api.details(&row).await).filter(|row| !row.recordings.is_empty())
    })
    .await;
    (terminal, api, row)
}

/// Whether the terminal is as a person needs it: the main screen, a cursor, no style.
#[track_caller]
fn assert_put_back(terminal: &Terminal) {
    let mut emulator = avt::Terminal::new(80, 24).unwrap();
    emulator.feed(terminal.text().as_str());
    assert_eq!(emulator.active_screen_kind(), avt::ScreenKind::Primary);
    assert!(emulator.cursor().position().is_some(), "the cursor is hidden");
    let text = terminal.text();
    assert!(!text.contains("\x1b]") && !text.contains("\x1bP") && !text.contains("\x1b[?1000"), "{text:?}");
}

#[tokio::test]
async fn a_session_is_watched_in_a_terminal_until_it_ends() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut terminal, _api, row) = shell(&gateway, &ssh).await;
    let id = row.session_id.to_string();
    let mut watching = Terminal::start(&command(&gateway, &["watch", &id]).await, 80, 24);
    watching.expect("ready").await;
    // A title, the clipboard, mouse reports, a device query: all in the recording, none on the watcher's terminal.
    terminal.send("printf '\\033]0;own''ed\\007\\033]52;c;eA==\\007\\033[?1000h\\033[c\\033[31mr''ed\\033[0m\\n'\n");
    watching.expect("\x1b[31mred").await;
    terminal.send("printf '\\033[?1049h\\033[?25lall''over'; exit\n");
    watching.expect("allover").await;
    assert!(watching.wait(SOON).await.success());
    assert_put_back(&watching);
    assert!(watching.text().contains("Connection") || !watching.text().trim().is_empty());
}

#[tokio::test]
async fn leaving_leaves_the_session_alone() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut terminal, api, row) = shell(&gateway, &ssh).await;
    terminal.send("printf '\\033[?1049h\\033[31mal''ternate'\n");
    terminal.expect("alternate").await;
    let id = row.session_id.to_string();
    let leave: [fn(&mut Terminal); 3] = [
        |terminal| terminal.send("\x03"),
        |terminal| terminal.send("q"),
        |terminal| process::signal(terminal.pid(), Signal::TERM),
    ];
    for leave in leave {
        let mut watching = Terminal::start(&command(&gateway, &["watch", &id]).await, 80, 24);
        watching.expect("alternate").await;
        leave(&mut watching);
        assert!(watching.wait(SOON).await.success());
        assert_put_back(&watching);
    }
    eventually("all ends are in the session", SOON, async || {
        let events = api.details(&row).await.events;
        (events.iter().filter(|event| event.kind == "watch_end").count() == 3).then_some(())
    })
    .await;
    assert!(api.details(&row).await.outcome.is_none());
    terminal.send("printf '\\033[?1049l'; echo still he''re\n");
    terminal.expect("here").await;
}

#[tokio::test]
async fn a_small_terminal_is_told_so() {
    let (_sshd, gateway, ssh) = gate().await;
    let (_terminal, _api, row) = shell(&gateway, &ssh).await;
    let mut watching = Terminal::start(&command(&gateway, &["watch", &row.session_id.to_string()]).await, 60, 20);
    watching.expect("80x24, this one 60x20").await;
    watching.expect("ready").await;
}

async fn with_key(gateway: &Gateway, what: &str) -> Command {
    let key = gateway.data().join("recording.key").display().to_string();
    command(gateway, &["play", what, "--speed", "1000", "--key", &key]).await
}

#[tokio::test]
async fn a_recording_is_played_from_the_gateway_and_from_files() {
    let (_sshd, gateway, ssh) = gate().await;
    let (mut terminal, api, row) = shell(&gateway, &ssh).await;
    terminal.send("printf '\\033]0;own''ed\\007\\033[1mbo''ld\\033[0m\\n'; exit\n");
    terminal.wait(SOON).await;
    let row = api.end_of(&row).await;
    let id = row.session_id.to_string();
    let gsr = gateway.data().join("copy.gsr");
    fs::write(&gsr, api.log(&row, None, "raw").await.ok()).unwrap();
    let cast = gateway.data().join("copy.cast");
    fs::write(&cast, api.log(&row, None, "cast").await.ok()).unwrap();
    for what in [id.as_str(), gsr.to_str().unwrap(), cast.to_str().unwrap()] {
        let mut playing = Terminal::start(&with_key(&gateway, what).await, 80, 24);
        playing.expect("ready").await;
        playing.expect("\x1b[1mbold").await;
        assert!(playing.wait(SOON).await.success(), "{what}");
        assert_put_back(&playing);
    }
    let whole = fs::read(&gsr).unwrap();
    fs::write(&gsr, &whole[..whole.len() - 20]).unwrap();
    let mut playing = Terminal::start(&with_key(&gateway, gsr.to_str().unwrap()).await, 80, 24);
    playing.expect("is cut after").await;
    assert_eq!(playing.wait(SOON).await.code(), Some(1));
    let mut playing = Terminal::start(&command(&gateway, &["play", gsr.to_str().unwrap()]).await, 80, 24);
    playing.expect("it is encrypted").await;
    assert_eq!(playing.wait(SOON).await.code(), Some(1));
}

#[tokio::test]
async fn keys_pause_step_and_end() {
    let (_sshd, gateway, _ssh) = gate().await;
    let cast = gateway.data().join("keys.cast");
    let events = "{\"version\":3,\"term\":{\"cols\":80,\"rows\":24}}\n[0,\"o\",\"first\"]\n[3600,\"o\",\"second\"]\n\
                  [3600,\"o\",\"third\"]\n[3600,\"o\",\"fourth\"]\n";
    fs::write(&cast, events).unwrap();
    let mut playing = play(&gateway, &cast, &[]).await;
    playing.expect("first").await;
    playing.send(" .");
    playing.expect("second").await;
    playing.send(".");
    playing.expect("third").await;
    playing.send("x q");
    assert!(playing.wait(SOON).await.success());
    assert!(!playing.text().contains("fourth"));
    assert_put_back(&playing);

    let mut playing = play(&gateway, &cast, &["--idle-limit", "0.1"]).await;
    playing.expect("fourth").await;
    assert!(playing.wait(SOON).await.success());
    let mut playing = play(&gateway, &cast, &["--start", "7200", "--max", "8000"]).await;
    playing.expect("third").await;
    assert!(playing.wait(SOON).await.success());
    let mut playing = play(&gateway, &gateway.data().join("none.cast"), &[]).await;
    playing.expect("there is no file").await;
    assert_eq!(playing.wait(SOON).await.code(), Some(1));
    let mut playing = play(&gateway, &cast, &["--speed", "0"]).await;
    assert_eq!(playing.wait(SOON).await.code(), Some(2));
}

async fn play(gateway: &Gateway, file: &Path, more: &[&str]) -> Terminal {
    let file: PathBuf = file.to_owned();
    let args = [&["play", file.to_str().unwrap()], more].concat();
    Terminal::start(&command(gateway, &args).await, 80, 24)
}
