//! With the real `scp`, and with sides that cheat.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::wire::real_tests::{From, Run, Seen, Transcript, cut, replay, run};
use crate::wire::transfer::{Kind, recognise};

fn command(command: &[u8]) -> Scp {
    match recognise(command).map(|transfer| transfer.kind) {
        Some(Kind::Scp(scp)) => scp,
        other => panic!("{other:?}"),
    }
}

fn scp(dir: &Path, keep: Keep, words: &[&str]) -> Run {
    let words: Vec<&OsStr> = ["scp", "-O", "-q"].iter().chain(words).map(OsStr::new).collect();
    run(&words, "-S", &dir.join("wires"), |text| Box::new(Files::new(&command(text), keep)))
}

fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("t/deep/er")).unwrap();
    fs::write(dir.join("t/a b"), "spaces\n").unwrap();
    fs::write(dir.join("t/\u{f6}\u{df}"), vec![7; 300_000]).unwrap();
    fs::write(dir.join("t/deep/er/empty"), "").unwrap();
    fs::write(dir.join("t/deep/..x"), "dots").unwrap();
}

fn sha256(path: &Path) -> String {
    told::hex(digest::digest(&digest::SHA256, &fs::read(path).unwrap()).as_ref())
}

/// `name: (bytes, sha256)` of the files in facts, in order of names.
fn files(read: &Seen, operation: &str) -> Vec<(String, u64, String)> {
    let mut files: Vec<_> = read
        .files()
        .into_iter()
        .filter(|about| about["operation"] == operation && about["complete"] == true)
        .map(|about| {
            let text = |key: &str| about[key].as_str().unwrap().to_owned();
            (text("path"), about["bytes"].as_u64().unwrap(), text("sha256"))
        })
        .collect();
    files.sort();
    files
}

fn expected(root: &Path, prefix: &str) -> Vec<(String, u64, String)> {
    let mut all: Vec<_> = ["t/a b", "t/\u{f6}\u{df}", "t/deep/er/empty", "t/deep/..x"]
        .iter()
        .map(|name| {
            let path = root.join(name);
            (format!("{prefix}{name}"), fs::metadata(&path).unwrap().len(), sha256(&path))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_tree_goes_up_and_comes_down() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    tree(dir.path());
    fs::create_dir(at("to")).unwrap();
    let up = scp(dir.path(), Keep::Metadata, &["-rp", &at("t"), &format!("host:{}/", at("to"))]);
    assert!(up.ok && up.read.stop.is_none(), "{:?}", up.read.stop);
    assert!(fs::read(at("to/t/\u{f6}\u{df}")).unwrap() == vec![7; 300_000]);
    assert_eq!(files(&up.read, "write"), expected(dir.path(), &format!("{}/", at("to"))));
    let made: Vec<_> = up.read.files().into_iter().filter(|about| about["operation"] == "mkdir").cloned().collect();
    assert_eq!(made.len(), 3);
    assert_eq!(up.read.summary()["files_written"], 4);
    assert_eq!(up.read.summary()["changes"], 3);
    assert_eq!(up.read.summary()["bytes_written"], 300_011);
    assert!(up.read.passed[0].len() > 300_000 && up.read.kept[0].len() < 2000);

    fs::create_dir(at("back")).unwrap();
    let down = scp(dir.path(), Keep::Contents, &["-r", &format!("host:{}", at("to/t")), &at("back")]);
    assert!(down.ok && down.read.stop.is_none());
    assert_eq!(files(&down.read, "read"), expected(dir.path(), &format!("{}/", at("to"))));
    assert_eq!(down.read.kept, down.read.passed);
    assert_eq!(down.read.summary()["files_read"], 4);
}

#[test]
fn a_target_that_may_be_either_is_told_with_the_name_beside() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("a"), "x").unwrap();
    let up = scp(dir.path(), Keep::Metadata, &[&at("a"), &format!("host:{}", at("b"))]);
    assert!(up.ok);
    assert_eq!(up.read.files()[0]["path"], at("b"));
    assert_eq!(up.read.files()[0]["name"], "a");
    let down = scp(dir.path(), Keep::Metadata, &[&format!("host:{}*", at("b")), &at("c")]);
    assert!(down.ok);
    assert_eq!(down.read.files()[0]["path"], at("b"));
}

#[test]
fn what_the_other_side_refuses_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("a"), "x").unwrap();
    let up = scp(dir.path(), Keep::Metadata, &[&at("a"), &format!("host:{}", at("not/there"))]);
    assert!(!up.ok && up.read.stop.is_none());
    assert_eq!(up.read.facts[0].outcome, Outcome::Failed);
    assert!(up.read.files()[0]["message"].as_str().unwrap().contains("No such file"));
    assert_eq!(up.read.summary()["failed"], 1);
    let down = scp(dir.path(), Keep::Metadata, &[&format!("host:{}", at("missing")), &at("c")]);
    assert!(!down.ok);
    assert_eq!(down.read.files()[0]["path"], dir.path().to_str().unwrap());
    assert_eq!(down.read.summary()["failed"], 1);
}

fn client(data: &'static [u8]) -> (From, Bytes) {
    (From::Client, Bytes::from_static(data))
}

fn upstream(data: &'static [u8]) -> (From, Bytes) {
    (From::Upstream, Bytes::from_static(data))
}

fn read(text: &[u8], transcript: &[(From, Bytes)]) -> Seen {
    replay(Files::new(&command(text), Keep::Metadata), transcript)
}

#[test]
fn who_sends_ahead_is_followed_until_a_refusal() {
    let ahead = [upstream(b"\0"), client(b"C0644 3 a\nabc\0"), upstream(b"\0\0")];
    let got = read(b"scp -t /srv/", &ahead);
    assert_eq!(got.stop, None);
    assert_eq!(got.files()[0]["complete"], true);
    // Before the answer it may be anything: written down.
    assert_eq!(got.kept[0], b"C0644 3 a\nabc\0");
    // What looks like contents was read as a record.
    let evil = [upstream(b"\0"), client(b"C0644 13 a\nC0644 0 evil\n"), upstream(b"\x01scp: a: denied\n")];
    let got = read(b"scp -t /srv/", &evil);
    assert!(got.stop.is_some_and(|stop| stop.words.contains("not known")));
    assert_eq!(got.facts[0].outcome, Outcome::Failed);
    assert!(got.kept[0].ends_with(b"evil\n"));
}

#[test]
fn an_upstream_that_cheats_is_stopped() {
    for (text, steps) in [
        ("no answer awaited", vec![client(b"\0"), upstream(b"C0644 3 a\nabc\0")]),
        ("before the client is there", vec![upstream(b"C0644 3 a\n")]),
        ("a path", vec![client(b"\0"), upstream(b"C0644 3 ../a\n")]),
        ("up", vec![client(b"\0"), upstream(b"D0755 0 ..\n")]),
        ("end of nothing", vec![client(b"\0"), upstream(b"E\n")]),
        ("no record", vec![client(b"\0"), upstream(b"Hello\n")]),
        ("after giving up", vec![client(b"\0"), upstream(b"\x02no\nC0644 3 a\n")]),
        ("too long", vec![client(b"\0"), (From::Upstream, Bytes::from(vec![b'C'; 9000]))]),
    ] {
        let got = read(b"scp -f x", &steps);
        assert!(got.stop.is_some(), "{text}");
        let names = got.passed[1].windows(2).any(|two| two == b"..");
        assert!(!names, "{text}");
    }
    let got = read(b"scp -f x", &[client(b"\0"), upstream(b"C0644 3 a\n"), client(b"\0"), upstream(b"ab")]);
    assert_eq!(got.stop, None);
    assert_eq!(got.files()[0]["complete"], false);
    assert_eq!(got.files()[0]["bytes"], 2);
    assert_eq!(got.summary()["incomplete"], 1);
}

#[test]
fn a_name_in_pieces_is_judged_before_anybody_sees_it() {
    let got = read(b"scp -f x", &[client(b"\0"), upstream(b"C0644 3 ."), upstream(b"./a\n")]);
    assert!(got.stop.is_some());
    assert_eq!(got.passed[1], b"");
}

#[test]
fn words_of_start_up_files_are_told_apart() {
    for text in [b"scp -t x", b"scp -f x"] {
        let got = read(text, &[upstream(b"Welcome\n")]);
        assert!(got.stop.unwrap().words.contains("start-up files"));
    }
}

#[test]
fn a_right_that_is_lost_ends_an_upload() {
    let mut files = Files::new(&command(b"scp -t x"), Keep::Metadata);
    let mut steps = Vec::new();
    assert!(files.input(Bytes::from_static(b"C"), false, &mut steps).is_err());
    let mut files = Files::new(&command(b"scp -f x"), Keep::Metadata);
    assert!(files.input(Bytes::from_static(b"\0"), false, &mut steps).is_ok());
}

#[test]
fn what_was_held_back_passes_when_the_server_has_given_up() {
    let steps = [upstream(b"\0"), client(b"C0644 1"), upstream(b"\x02scp: no\n"), client(b" a\n"), client(b"x")];
    let got = read(b"scp -t /srv/", &steps);
    assert_eq!(got.stop, None);
    assert_eq!(got.passed[0], b"C0644 1 a\nx");
}

#[test]
fn a_complaint_behind_a_file_fails_it() {
    let steps = [client(b"\0"), upstream(b"C0644 1 a\n"), client(b"\0"), upstream(b"x\x01scp: a: I/O error\n")];
    let mut steps = steps.to_vec();
    steps.push(client(b"\0"));
    let got = read(b"scp -f a", &steps);
    assert_eq!(got.stop, None);
    assert_eq!(got.facts[0].outcome, Outcome::Failed);
    assert_eq!(got.files()[0]["message"], "scp: a: I/O error");
    assert_eq!(got.files()[0]["sha256"], Value::Null);
}

fn session() -> Transcript {
    vec![
        client(b"\0"),
        upstream(b"T1700000000 0 1700000000 0\n"),
        client(b"\0"),
        upstream(b"D0755 0 d\n"),
        client(b"\0"),
        upstream(b"C0644 5 \xff\n"),
        client(b"\0"),
        upstream(b"C\n\x01E\0\0"),
        client(b"\0"),
        upstream(b"\x01scp: no\n"),
        upstream(b"C0600 2 b\n"),
        client(b"\x01scp: I will not\n"),
        upstream(b"E\n"),
        client(b"\0"),
    ]
}

#[test]
fn bytes_that_are_no_text_are_told_in_hex() {
    let got = read(b"scp -rpf /srv/d", &session());
    assert_eq!(got.stop, None);
    assert_eq!(got.files()[0]["path_hex"], told::hex(b"/srv/d/\xff"));
    assert_eq!(got.summary()["failed"], 2);
}

proptest! {
    #[test]
    fn any_cut_is_read_alike(lengths in proptest::collection::vec(1_usize..12, 1..8)) {
        let whole = read(b"scp -rpf /srv/d", &session());
        prop_assert_eq!(read(b"scp -rpf /srv/d", &cut(&session(), &lengths)), whole);
    }

    #[test]
    fn any_bytes_are_survived(
        upload: bool,
        pieces in proptest::collection::vec((any::<bool>(), "[\\x00-\\x02CDET0-9a./ \n]{0,24}"), 0..24),
    ) {
        let text: &[u8] = if upload { b"scp -rt x" } else { b"scp -rf x" };
        let transcript: Vec<_> = pieces
            .into_iter()
            .map(|(ours, data)| (if ours { From::Client } else { From::Upstream }, Bytes::from(data)))
            .collect();
        let got = read(text, &transcript);
        let sent: usize = transcript.iter().map(|(_, data)| data.len()).sum();
        prop_assert!(got.passed.concat().len() <= sent);
    }
}
