//! What has been kept for long enough goes, and nothing else does.

use std::fs;
use std::path::{Path, PathBuf};

use gatescribe::store::Store;

use crate::harness::{SOON, Setup, Sshd, eventually};

fn recordings(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![data.join("recordings")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { found.push(path) }
        }
    }
    found
}

#[tokio::test]
async fn sessions_that_are_over_go_with_their_recordings_and_live_ones_stay() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    ssh.run("web", "true").await;
    let api = gateway.admin().await;
    let ended = api.end_of(&api.newest("web").await).await;
    let before = recordings(&gateway.data()).len();
    assert!(before >= 2, "the sign-in's and this one's");

    // The same gateway, which now keeps nothing for longer than a second.
    gateway.stop().await;
    let config = fs::read_to_string(gateway.config_file()).unwrap();
    fs::write(gateway.config_file(), config.replace("[recording]\n", "[recording]\nretention = \"1s\"\n")).unwrap();
    // A recording whose session the book never had.
    let orphan = gateway.data().join("recordings/2020-01-01/018cc251-f400-7000-8000-000000000001");
    fs::create_dir_all(&orphan).unwrap();
    fs::write(orphan.join("018cc251-f400-7000-8000-000000000002.gsr"), "left by a crash").unwrap();
    fs::write(gateway.data().join("recordings/2020-01-01/notes.txt"), "somebody's own").unwrap();
    gateway.start_again().await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;

    let api = gateway.admin().await;
    let live = eventually("only the live session is left", SOON, async || {
        let rows = api.rows("").await;
        (rows.len() == 1 && rows[0].end_time.is_none()).then(|| rows[0].clone())
    })
    .await;
    eventually("only its recording is left", SOON, async || {
        let names = recordings(&gateway.data());
        let kept = |path: &PathBuf| path.to_string_lossy().contains(&live.session_id.to_string());
        (names.iter().filter(|path| !path.ends_with("notes.txt")).all(kept) && names.len() == 2).then_some(())
    })
    .await;
    assert!(gateway.data().join("recordings/2020-01-01/notes.txt").exists(), "what is not ours stays");
    assert!(!orphan.exists());
    cat.send(b"b").await;
    cat.receive(1).await;

    let store = Store::open(&gateway.data().join("sessions.db")).unwrap();
    let lines = store.audit_entries(None, 100).await.unwrap();
    let subjects = |action: &str| -> Vec<_> {
        lines.iter().filter(|line| line.action == action).map(|line| line.subject.clone()).collect()
    };
    let removed = subjects("session.removed");
    assert!(removed.contains(&ended.session_id.to_string()) && !removed.contains(&live.session_id.to_string()));
    assert_eq!(subjects("recording.removed"), ["018cc251-f400-7000-8000-000000000002"]);
    let line = lines.iter().find(|line| line.subject == ended.session_id.to_string()).unwrap();
    assert_eq!(line.details["user_email"], ended.user_email.as_str());
}

#[tokio::test]
async fn by_default_nothing_recent_goes() {
    let sshd = Sshd::start().await;
    let mut gateway = Setup::new().ssh("web", &sshd).start().await;
    let ssh = gateway.signed_in("alice", "web").await;
    ssh.run("web", "true").await;
    let api = gateway.admin().await;
    let ended = api.end_of(&api.newest("web").await).await;
    // A start begins with a round of housekeeping.
    gateway.stop().await;
    gateway.start_again().await;
    let api = gateway.admin().await;
    assert!(api.rows("").await.iter().any(|row| row.session_id == ended.session_id));
    assert!(!api.log(&ended, Some(ended.recordings[0].recording_id), "cast").await.ok().is_empty());
    let store = Store::open(&gateway.data().join("sessions.db")).unwrap();
    assert!(store.audit_entries(None, 10).await.unwrap().is_empty());
}
