//! `gatescribe verify` on recordings of a real gateway, and on what somebody did to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::harness::{Gateway, gate};

fn verify(args: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_gatescribe")).arg("verify").args(args).output().unwrap()
}

fn told(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap())
}

/// A finished session's recording, as an auditor exports it.
async fn exported(gateway: &Gateway, dir: &Path) -> PathBuf {
    let api = gateway.admin().await;
    let row = api.end_of(&api.newest("web").await).await;
    let raw = api.log(&row, Some(row.recordings[0].recording_id), "raw").await.ok();
    let path = dir.join("exported.gsr");
    fs::write(&path, raw).unwrap();
    path
}

#[tokio::test]
async fn a_recording_is_checked_without_a_gateway_with_and_without_its_key() {
    let (_sshd, gateway, ssh) = gate().await;
    ssh.run("web", "echo hello").await;
    let dir = tempfile::tempdir().unwrap();
    let path = exported(&gateway, dir.path()).await;
    let file = path.to_str().unwrap();
    let key = gateway.data().join("recording.key");
    let key = key.to_str().unwrap();

    let (code, words) = told(&verify(&[file]));
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains(": complete: ") && words.contains("encrypted with the key "), "{words}");
    let (code, words) = told(&verify(&["--key", key, file]));
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains(": complete: ") && words.contains("decrypted and checked"), "{words}");
    assert!(!words.contains("hello"), "what is in it is not told");

    let whole = fs::read(&path).unwrap();
    let (cut, changed) = (dir.path().join("cut.gsr"), dir.path().join("changed.gsr"));
    fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() * 3 / 5;
    bytes[middle] ^= 1;
    fs::write(&changed, bytes).unwrap();
    let (cut, changed) = (cut.to_str().unwrap(), changed.to_str().unwrap());
    let (code, words) = told(&verify(&["--key", key, "--json", file, cut, changed, "/nonexistent"]));
    assert_eq!(code, Some(1), "one bad file is enough");
    let objects: Vec<Value> = words.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<_> = objects.iter().map(|object| object["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["complete", "truncated", "damaged", "unreadable"]);
    assert_eq!(objects[0]["good_bytes"], whole.len());
    assert!(objects[1]["good_bytes"].as_u64().unwrap() < whole.len() as u64);
    assert_eq!((&objects[0]["encrypted"], &objects[0]["decrypted"]), (&true.into(), &true.into()));
}

#[tokio::test]
async fn a_live_recording_is_not_complete_yet() {
    let (_sshd, gateway, ssh) = gate().await;
    let mut cat = ssh.start(&["web@gate", "cat"]);
    cat.send(b"a").await;
    cat.receive(1).await;
    let api = gateway.admin().await;
    let row = api.newest("web").await;
    let raw = api.log(&row, Some(row.recordings[0].recording_id), "raw").await.ok();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("live.gsr"), raw).unwrap();
    let (code, words) = told(&verify(&[dir.path().join("live.gsr").to_str().unwrap()]));
    assert_eq!(code, Some(1));
    assert!(words.contains("truncated at ") && words.contains("still being recorded"), "{words}");
}

#[test]
fn wrong_keys_and_files_are_told_and_never_escape() {
    let dir = tempfile::tempdir().unwrap();
    let golden = |name: &str| format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(verify(&[]).status.code(), Some(2), "wrong usage");
    let bad = dir.path().join("bad.key");
    fs::write(&bad, "no key").unwrap();
    assert_eq!(verify(&["--key", bad.to_str().unwrap(), &golden("v2.gsr")]).status.code(), Some(2));
    fs::write(&bad, "00".repeat(32)).unwrap();
    let (code, words) = told(&verify(&["--key", bad.to_str().unwrap(), &golden("v2.gsr")]));
    assert_eq!(code, Some(1));
    assert!(words.contains("which was not given with --key"), "{words}");
    for name in ["v1.gsr", "v2.gsr"] {
        let (code, words) = told(&verify(&["--key", &golden("v2.key"), &golden(name)]));
        assert_eq!((code, words.contains(": complete: 22 observations")), (Some(0), true), "{words}");
    }
    let nasty = dir.path().join("\x1b]0;pwned\x07.gsr");
    fs::write(&nasty, b"GSCRIBE\n\xff").unwrap();
    let (code, words) = told(&verify(&[nasty.to_str().unwrap()]));
    assert_eq!(code, Some(1));
    assert!(!words.chars().any(|c| c.is_control() && c != '\n'), "{words:?}");
}
