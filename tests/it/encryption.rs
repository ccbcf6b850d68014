//! Recordings are encrypted from their first byte, in the spool as on the disk, and only the key opens them.

use std::fs;
use std::path::{Path, PathBuf};

use gatescribe::record::default_spool;

use crate::harness::{Gateway, SOON, Setup, Sshd, eventually, gate, recordings};

const SECRET: &str = "correct-horse-battery-staple";

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn contains(file: &Path, text: &str) -> bool {
    fs::read(file).unwrap_or_default().windows(text.len()).any(|piece| piece == text.as_bytes())
}

/// Spools and recordings of a gateway.
fn kept(gateway: &Gateway) -> Vec<PathBuf> {
    [files(&default_spool(&gateway.data())), files(&gateway.data().join("recordings"))].concat()
}

#[tokio::test]
async fn what_is_typed_and_shown_is_nowhere_in_the_clear() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(SECRET.as_bytes()).await;
    cat.receive(SECRET.len()).await;
    let live = kept(&gateway);
    assert!(live.iter().any(|file| file.extension().is_some_and(|end| end == "spool")), "{live:?}");
    assert!(!live.iter().any(|file| contains(file, SECRET)));
    drop(cat);
    let api = gateway.admin().await;
    let row = api.end_of(&api.newest("web").await).await;
    assert!(!kept(&gateway).iter().any(|file| contains(file, SECRET)));
    let cast = api.log(&row, Some(row.recordings[0].recording_id), "cast").await.ok();
    assert!(String::from_utf8(cast).unwrap().contains(SECRET), "who has the key reads it");
    let raw = api.log(&row, Some(row.recordings[0].recording_id), "raw").await.ok();
    assert!(!raw.windows(SECRET.len()).any(|piece| piece == SECRET.as_bytes()));
}

#[tokio::test]
async fn a_new_key_writes_and_the_old_one_still_reads() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    let said = |n: usize| format!("echo round-{n}");
    ssh.run("web", &said(1)).await;
    gateway.stop().await;
    let old = fs::read_to_string(gateway.data().join("recording.key")).unwrap();
    let (key, old_key) = (gateway.data().join("new.key"), gateway.data().join("old.key"));
    fs::write(&key, "5a".repeat(32)).unwrap();
    fs::write(&old_key, old).unwrap();
    fs::remove_file(gateway.data().join("recording.key")).unwrap();
    let config = fs::read_to_string(gateway.config_file()).unwrap();
    let only_new = config.replace("[recording]\n", &format!("[recording]\nkey = \"file:{}\"\n", key.display()));
    fs::write(gateway.config_file(), &only_new).unwrap();
    gateway.start_again().await;
    ssh.run("web", &said(2)).await;
    let read = async |gateway: &Gateway, n: usize| {
        let api = gateway.admin().await;
        let rows = api.rows("socket_name=web").await;
        let row = rows.iter().find(|row| command_of(row) == Some(said(n))).unwrap_or_else(|| panic!("round {n}"));
        let row = api.end_of(row).await;
        let answer = api.log(&row, Some(row.recordings[0].recording_id), "cast").await;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status.as_u16(), body.contains(&format!("round-{n}")), body)
    };
    let is_read = async |gateway: &Gateway, n: usize| {
        let (status, said, body) = read(gateway, n).await;
        assert_eq!((status, said), (200, true), "round {n}: {body}");
    };
    is_read(&gateway, 2).await;
    gateway.expect_errors();
    let (status, said, body) = read(&gateway, 1).await;
    assert_eq!((status, said), (503, false), "its key is not here: {body}");
    assert!(body.contains("name it in [recording] old_keys"), "{body}");
    gateway.stop().await;
    let both =
        only_new.replace("[recording]\n", &format!("[recording]\nold_keys = [\"file:{}\"]\n", old_key.display()));
    fs::write(gateway.config_file(), both).unwrap();
    gateway.start_again().await;
    is_read(&gateway, 1).await;
    is_read(&gateway, 2).await;
}

fn command_of(row: &gatescribe::store::SessionRow) -> Option<String> {
    row.recordings.first().and_then(|recording| recording.command.clone())
}

#[tokio::test]
async fn after_a_crash_the_spool_is_opened_with_the_gateways_key() {
    let (_sshd, mut gateway, ssh) = gate().await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(SECRET.as_bytes()).await;
    cat.receive(SECRET.len()).await;
    gateway.crash();
    assert!(!kept(&gateway).iter().any(|file| contains(file, SECRET)), "a crash leaves nothing in the clear");
    gateway.start_again().await;
    let api = gateway.admin().await;
    let row = api.end_of(&api.newest("web").await).await;
    let seen = eventually("the recording is closed", SOON, async || {
        let recorded = recordings::read(&gateway.data(), row.session_id, &row.recordings[0]).await;
        Some(recordings::bytes(&recorded.observations, gatescribe::record::observation::Direction::Output, 0))
    });
    assert_eq!(seen.await, SECRET.as_bytes());
}
